"""The quantizers of vector-quantize-pytorch."""

from __future__ import annotations

import os
import time
from typing import Any

import torch
from vector_quantize_pytorch import FSQ, LFQ, ResidualVQ, VectorQuantize

from benchmarks.vq_size import (
    COMMITMENT,
    DECAY,
    ENTROPY,
    LEVELS,
    RESTART_BELOW,
    STAGES,
    QuantizerSize,
)


def make(**size: Any) -> Peer:
    """Makes the side; nothing is computed yet."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    return Peer(QuantizerSize(**size))


def build(size: QuantizerSize) -> torch.nn.Module:
    """Builds the quantizer."""
    averaged = averages(size.codes, size.channels, size.vectors)
    commitment = averaged["commitment_weight"]
    match size.kind:
        case "average":
            return VectorQuantize(**averaged)
        case "gradient":
            return VectorQuantize(
                size.channels,
                size.codes,
                commitment_weight=commitment,
                learnable_codebook=True,
                ema_update=False,
                rotation_trick=False,
            )
        case "rotation":
            return VectorQuantize(**{**averaged, "rotation_trick": True})
        case "cosine":
            return VectorQuantize(**averaged, use_cosine_sim=True)
        case "residual":
            return ResidualVQ(num_quantizers=STAGES, **averaged)
        case "finite-scalar":
            return FSQ(list(LEVELS))
        case "lookup-free":
            return LFQ(
                codebook_size=size.codes,
                commitment_loss_weight=commitment,
                entropy_loss_weight=ENTROPY,
            )
    raise ValueError(f"kind {size.kind!r} has no peer")


def averages(codes: int, channels: int, vectors: int) -> dict[str, Any]:
    """Options of codes that are moving averages, for batches of so many vectors.

    Squares are averaged over channels, so that weights are larger by their number; the use below
    which a code restarts is a number of vectors.
    """
    return {
        "dim": channels,
        "codebook_size": codes,
        "decay": DECAY,
        "commitment_weight": COMMITMENT * channels,
        "threshold_ema_dead_code": RESTART_BELOW * vectors / codes,
        "rotation_trick": False,
    }


def restart_at_even_use(layer: VectorQuantize, vectors: int) -> None:
    """Otherwise a code would restart with the use below which it is dead, and die again."""
    layer._codebook.reset_cluster_size = vectors / layer.codebook_size


class Peer:
    """A quantizer in training mode."""

    def __init__(self, size: QuantizerSize):
        self.size = size
        self.made = 0
        self.losses: list[torch.Tensor] = []

    def initialize(self) -> None:
        """Takes the vectors, and the codes to start from."""
        torch.manual_seed(self.size.seed)
        shape = (self.size.maps, -1, self.size.channels)
        self.features = [
            torch.from_numpy(batch).reshape(shape).requires_grad_()
            for batch in self.size.features()
        ]
        self.readout = torch.from_numpy(self.size.readout())
        self.quantizer = build(self.size).train()
        if self.size.kind not in ("finite-scalar", "lookup-free"):
            self._take_first_codes()

    def run(self, calls: int = 1) -> float:
        """Quantises some batches, forward and backward; returns the seconds that each took."""
        start = time.perf_counter()
        for _ in range(calls):
            features = self.features[self.made % self.size.batches]
            self.quantizer.zero_grad()
            features.grad = None
            values, _, *losses = self.quantizer(features)
            loss = (values @ self.readout).mean() + sum(term.sum() for term in losses)
            loss.backward()
            self.made += 1
        seconds = (time.perf_counter() - start) / calls
        self.losses = [*self.losses[:1], loss.detach()]
        return seconds

    def first_and_last_loss(self) -> tuple[float, float]:
        """Of the first call and of the last."""
        return float(self.losses[0]), float(self.losses[-1])

    def _take_first_codes(self) -> None:
        layers = getattr(self.quantizer, "layers", [self.quantizer])
        codes = torch.from_numpy(self.size.first_codes())
        codes = codes.reshape(len(layers), 1, self.size.codes, self.size.channels)
        for layer, own in zip(layers, codes, strict=True):
            codebook = layer._codebook
            codebook.embed_avg.copy_(own)
            codebook.embed.data.copy_(codebook.transform_input(own))
            restart_at_even_use(layer, self.size.vectors)
