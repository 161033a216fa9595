"""The networks of MUNIT in PyTorch, without a library; the functions are those of ours."""

from __future__ import annotations

import itertools

import torch
from torch import nn
from torch.nn import functional

from benchmarks.munit_size import MunitSize


class MirroredConv(nn.Conv2d):
    """Continues images by their mirror image: height and width over the stride, rounded up.

    Where sizes are odd, one more row is added below than above; `padding_mode="reflect"` can't.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [batch, channel, height, width] to [batch, feature, out_height, out_width]."""
        padding = []
        for length, size, stride in zip(
            x.shape[:1:-1], self.kernel_size, self.stride, strict=True
        ):  # widths come first
            total = max((-(-length // stride) - 1) * stride + size - length, 0)
            padding += [total // 2, total - total // 2]
        return super().forward(functional.pad(x, padding, mode="reflect"))


def first_and_halving(channels: tuple[int, ...], images: int, bias: bool) -> list[nn.Module]:
    """A 7x7 convolution, then 4x4 ones of stride 2."""
    first = MirroredConv(images, channels[0], 7, bias=bias)
    return [first, *(MirroredConv(*pair, 4, 2, bias=bias) for pair in itertools.pairwise(channels))]


class NormalizedBlock(nn.Module):
    """x + norm(conv3x3(relu(norm(conv3x3(x))))), the norms modulated where a style says how."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = MirroredConv(channels, channels, 3, bias=False)
        self.second = MirroredConv(channels, channels, 3, bias=False)
        self.norm = nn.InstanceNorm2d(channels)

    def forward(self, x: torch.Tensor, modulation: torch.Tensor | None = None) -> torch.Tensor:
        """Keeps the shape; modulation is [batch, 4, channel]."""
        if modulation is None:
            return x + self.norm(self.second(functional.relu(self.norm(self.first(x)))))
        scale, shift, last_scale, last_shift = modulation[..., None, None].unbind(1)
        y = functional.relu((1 + scale) * self.norm(self.first(x)) + shift)
        return x + (1 + last_scale) * self.norm(self.second(y)) + last_shift


class ContentEncoder(nn.Sequential):
    """From images to maps of content."""

    def __init__(self, size: MunitSize, images: int):
        channels = size.content_channels
        layers = [
            layer
            for convolution in first_and_halving(channels, images, bias=False)
            for layer in (convolution, nn.InstanceNorm2d(convolution.out_channels), nn.ReLU())
        ]
        super().__init__(*layers, *(NormalizedBlock(channels[-1]) for _ in range(size.blocks)))


class StyleEncoder(nn.Sequential):
    """From images to styles."""

    def __init__(self, size: MunitSize, images: int):
        convolutions = first_and_halving(size.style_channels, images, bias=True)
        super().__init__(
            *(layer for convolution in convolutions for layer in (convolution, nn.ReLU())),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(size.style_channels[-1], size.style_size),
        )


class Decoder(nn.Module):
    """From content and style to images."""

    def __init__(self, size: MunitSize, images: int):
        super().__init__()
        channels = size.content_channels[::-1]
        self.modulation = nn.Sequential(
            nn.Linear(size.style_size, size.hidden),
            nn.ReLU(),
            nn.Linear(size.hidden, size.hidden),
            nn.ReLU(),
            nn.Linear(size.hidden, size.blocks * 4 * channels[0]),
            nn.Unflatten(1, (size.blocks, 4, channels[0])),
        )
        self.blocks = nn.ModuleList(NormalizedBlock(channels[0]) for _ in range(size.blocks))
        # The outermost pixel of a doubled image, repeated, is also that of its mirror image, edge
        # included, and of the image continued before it is doubled, which is what ours does.
        self.doubling = nn.Sequential(
            *(
                layer
                for pair in itertools.pairwise(channels)
                for layer in (
                    nn.Upsample(scale_factor=2),
                    nn.Conv2d(*pair, 5, padding=2, padding_mode="replicate"),
                    nn.GroupNorm(1, pair[1]),
                    nn.ReLU(),
                )
            ),
            MirroredConv(channels[-1], images, 7),
            nn.Tanh(),
        )

    def forward(self, content: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        """Maps [batch, channel, height, width] and [batch, style] to images."""
        for block, own in zip(self.blocks, self.modulation(style).unbind(1), strict=True):
            content = block(content, own)
        return self.doubling(content)


class Coder(nn.Module):
    """The auto-encoder of one domain."""

    def __init__(self, size: MunitSize, images: int):
        super().__init__()
        self.content = ContentEncoder(size, images)
        self.style = StyleEncoder(size, images)
        self.decoder = Decoder(size, images)


class Discriminator(nn.Module):
    """Judges the patches of an image at several scales."""

    def __init__(self, size: MunitSize, images: int):
        super().__init__()
        channels = (images, *size.discriminator_channels)
        self.scales = nn.ModuleList(
            nn.Sequential(
                *(
                    layer
                    for pair in itertools.pairwise(channels)
                    for layer in (MirroredConv(*pair, 4, 2), nn.LeakyReLU(0.2))
                ),
                nn.Conv2d(channels[-1], 1, 1),
            )
            for _ in range(size.scales)
        )
        self.halve = nn.AvgPool2d(3, 2, 1, count_include_pad=False)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Maps images to [batch, 1, map_height, map_width] of each scale."""
        judgements = []
        for scale, judge in enumerate(self.scales):
            x = self.halve(x) if scale else x
            judgements.append(judge(x))
        return judgements
