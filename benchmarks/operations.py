"""The floating-point operations of a Glow, counted from its shapes."""

from __future__ import annotations

from typing import NamedTuple

TRAINING_PASSES = 3
"""A gradient costs as much as two more evaluations: one for the inputs, one for the kernels."""


class Product(NamedTuple):
    """A convolution as a product of matrices.

    Attributes:
      pixels: Number of positions in one image.
      taps: Entries of the kernel: 9 for 3x3, 1 for 1x1.
      inputs: Input channels.
      outputs: Output channels.
      count: How many such convolutions there are.
    """

    pixels: int
    taps: int
    inputs: int
    outputs: int
    count: int = 1

    @property
    def operations(self) -> int:
        """Multiplications and additions for one image."""
        return 2 * self.count * self.pixels * self.taps * self.inputs * self.outputs

    @property
    def entries(self) -> int:
        """Entries of one image's input and output."""
        return self.count * self.pixels * (self.inputs + self.outputs)


def glow_products(
    shape: tuple[int, int, int], levels: int, steps: int, width: int
) -> list[Product]:
    """Lists the convolutions of a `vaeflow.flows.Glow`, the learned priors included."""
    height, breadth, channels = shape
    products = []
    for level in range(levels):
        height, breadth, channels = height // 2, breadth // 2, 4 * channels
        pixels, read = height * breadth, channels // 2
        products += [
            Product(pixels, 1, channels, channels, steps),
            Product(pixels, 9, read, width, steps),
            Product(pixels, 1, width, width, steps),
            Product(pixels, 9, width, 2 * (channels - read), steps),
        ]
        if level < levels - 1:
            products.append(Product(pixels, 9, read, 2 * (channels - read)))
            channels = read
    return products


def forward_operations(products: list[Product]) -> int:
    """Operations of the density of one image."""
    return sum(product.operations for product in products)


def training_operations(products: list[Product]) -> int:
    """Operations of the density of one image and its gradient, nothing computed twice."""
    return TRAINING_PASSES * forward_operations(products)
