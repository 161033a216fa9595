"""The same MUNIT in PyTorch, without a library: its losses and its step."""

from __future__ import annotations

import os
import time
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from benchmarks.munit_networks_torch import Coder, Discriminator
from benchmarks.munit_size import DECAYS, LEARNING_RATE, SHAPES, WEIGHTS, MunitSize

DOMAINS = {"a": "b", "b": "a"}
"""The other one of each."""

Tensors = dict[str, torch.Tensor]


def make(**size: Any) -> Torch:
    """Makes the side; nothing is computed yet."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    return Torch(MunitSize(**size))


def observe(images: torch.Tensor) -> torch.Tensor:
    """Turns bytes into values from -1 to 1."""
    return (images.float() + 0.5) / 128 - 1


def squares(judgements: list[torch.Tensor], target: float) -> torch.Tensor:
    """Squared distances from a target, averaged over patches and summed over scales."""
    return sum((judgement - target).square().mean() for judgement in judgements)


class Network(nn.Module):
    """Both players, each with a network for each domain."""

    def __init__(self, size: MunitSize):
        super().__init__()
        self.generator = nn.ModuleDict(
            {domain: Coder(size, shape[-1]) for domain, shape in SHAPES.items()}
        )
        self.discriminator = nn.ModuleDict(
            {domain: Discriminator(size, shape[-1]) for domain, shape in SHAPES.items()}
        )

    def contents(self, values: Tensors) -> Tensors:
        """The content of images of each domain."""
        return {domain: self.generator[domain].content(values[domain]) for domain in DOMAINS}

    def discriminator_terms(self, values: Tensors, contents: Tensors, drawn: Tensors) -> Tensors:
        """The terms of the loss of the discriminators, given a style of each domain."""
        terms = {}
        for to, source in DOMAINS.items():
            with torch.no_grad():
                translated = self.generator[to].decoder(contents[source], drawn[to])
            both = self.discriminator[to](torch.cat([values[to], translated]))
            real, fake = zip(*(judgement.chunk(2) for judgement in both), strict=True)
            terms[f"real_{to}"] = squares(real, 1.0)
            terms[f"translated_{to}"] = squares(fake, 0.0)
        return terms

    def generator_terms(self, values: Tensors, contents: Tensors, drawn: Tensors) -> Tensors:
        """The terms of the loss of the auto-encoders, unweighted."""
        terms = {}
        for to, source in DOMAINS.items():
            own, coder = self.generator[to].style(values[to]), self.generator[to]
            both = torch.cat([contents[to], contents[source]])
            again, translated = coder.decoder(both, torch.cat([own, drawn[to]])).chunk(2)
            terms[f"adversarial_{to}"] = squares(self.discriminator[to](translated), 1.0)
            terms[f"reconstruction_{to}"] = functional.l1_loss(again, values[to])
            terms[f"content_{source}"] = functional.l1_loss(
                coder.content(translated), contents[source]
            )
            terms[f"style_{to}"] = functional.l1_loss(coder.style(translated), drawn[to])
        return terms


def total(terms: Tensors) -> torch.Tensor:
    """The weighted sum of a player's terms."""
    return sum(WEIGHTS.get(name.rpartition("_")[0], 1.0) * term for name, term in terms.items())


class Torch:
    """Both players and their optimisers."""

    def __init__(self, size: MunitSize):
        self.size = size
        self.terms: dict[str, Tensors] = {}

    def initialize(self) -> dict[str, Any]:
        """Initialises; returns the number of parameters and their types."""
        torch.manual_seed(self.size.seed)
        self.batch = {
            domain: torch.from_numpy(images).permute(0, 3, 1, 2)  # channels last in memory
            for domain, images in self.size.images().items()
        }
        self.network = Network(self.size).to(memory_format=torch.channels_last)
        self.parameters = {
            name: list(player.parameters()) for name, player in self.network.named_children()
        }
        self.optimizers = {
            name: torch.optim.Adam(own, LEARNING_RATE, DECAYS, fused=True)
            for name, own in self.parameters.items()
        }
        leaves = list(self.network.parameters())
        dtypes = {str(leaf.dtype).removeprefix("torch.") for leaf in leaves}
        return {"parameters": sum(leaf.numel() for leaf in leaves), "dtypes": sorted(dtypes)}

    def run(self, calls: int = 1) -> float:
        """Makes some steps; returns the seconds that each took."""
        start = time.perf_counter()
        for _ in range(calls):
            self._step()
        return (time.perf_counter() - start) / calls

    def loss(self) -> float:
        """The loss of the auto-encoders at the last step."""
        return float(total(self.terms["generator"]))

    def _step(self) -> None:
        values = {domain: observe(images) for domain, images in self.batch.items()}
        # The auto-encoders stay as they are while the discriminators are updated, so contents
        # serve both; each player draws styles of its own, as ours does.
        contents = self.network.contents(values)
        terms = self.network.discriminator_terms(values, contents, self._draw_styles())
        self._update("discriminator", terms)
        terms = self.network.generator_terms(values, contents, self._draw_styles())
        self._update("generator", terms)

    def _draw_styles(self) -> Tensors:
        return {
            domain: torch.randn(self.size.batch_size, self.size.style_size) for domain in DOMAINS
        }

    def _update(self, player: str, terms: Tensors) -> None:
        self.optimizers[player].zero_grad()
        # Of this player's parameters alone: the other's gradients aren't computed.
        total(terms).backward(inputs=self.parameters[player])
        self.optimizers[player].step()
        self.terms[player] = {name: term.detach() for name, term in terms.items()}
