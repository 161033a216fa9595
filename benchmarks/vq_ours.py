"""vaeflow's side of the comparison of quantizers."""

from __future__ import annotations

import functools
import time
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.vq_size import (
    COMMITMENT,
    DECAY,
    ENTROPY,
    LEVELS,
    RESTART_BELOW,
    STAGES,
    QuantizerSize,
)
from vaeflow import quantizers
from vaeflow.training.parallel import compiler_options

WEIGHTS = {"commitment": COMMITMENT, "codebook": 1.0, "entropy": ENTROPY, "kl": 1e-3}
"""Weights of the quantizers' losses."""


def make(**size: Any) -> Ours:
    """Makes the side; nothing is computed yet but that JAX finds its device."""
    jax.devices()
    return Ours(QuantizerSize(**size))


def build(size: QuantizerSize) -> quantizers.Quantizer:
    """Builds the quantizer."""
    average = quantizers.MovingAverage(DECAY, restart_below=RESTART_BELOW)
    vectors = functools.partial(quantizers.VectorQuantizer, size.codes)
    match size.kind:
        case "average":
            return vectors(average)
        case "gradient":
            return vectors(None)
        case "rotation":
            return vectors(average, quantizers.rotation_trick)
        case "cosine":
            return vectors(average, cosine=True)
        case "residual":
            return quantizers.ResidualQuantizer(size.codes, num_stages=STAGES, average=average)
        case "finite-scalar":
            return quantizers.FiniteScalarQuantizer(LEVELS)
        case "lookup-free":
            return quantizers.LookupFreeQuantizer(size.channels)
        case "gumbel":
            return quantizers.GumbelQuantizer(size.codes)


class Ours:
    """A quantizer, its variables and its compiled step."""

    def __init__(self, size: QuantizerSize):
        self.size = size
        self.quantizer = build(size)
        self.made = 0
        self.losses: list[jax.Array] = []
        self.step = jax.jit(
            self._step,
            donate_argnums=0,
            compiler_options=compiler_options(jax.default_backend()),
        )

    def initialize(self) -> None:
        """Takes the vectors, and the codes to start from."""
        self.features = [jnp.asarray(batch) for batch in self.size.features()]
        self.readout = jnp.asarray(self.size.readout())
        self.variables = self._first_variables()

    def run(self, calls: int = 1) -> float:
        """Quantises some batches, forward and backward, compiling at the first; returns the
        seconds that each took."""
        start = time.perf_counter()
        for _ in range(calls):
            self.variables, gradients, loss = self.step(
                self.variables, self.features[self.made % self.size.batches], self.made
            )
            self.made += 1
        jax.block_until_ready((self.variables, gradients, loss))
        seconds = (time.perf_counter() - start) / calls
        self.losses = [*self.losses[:1], loss]
        return seconds

    def first_and_last_loss(self) -> tuple[float, float]:
        """Of the first call and of the last."""
        return float(self.losses[0]), float(self.losses[-1])

    def _first_variables(self) -> dict[str, Any]:
        codes = jnp.asarray(self.size.first_codes())
        match self.size.kind:
            case "finite-scalar" | "lookup-free":
                return {}
            case "gumbel":
                return self.quantizer.init(jax.random.key(self.size.seed), self.features[0])
            case "gradient":
                return {"params": {"codebook": codes}}
        return {"codebook": self.quantizer.average.initial(codes)._asdict()}

    def _step(self, variables: dict, features: jax.Array, made: jax.Array) -> tuple:
        key = jax.random.fold_in(jax.random.key(self.size.seed), made)
        parameters = variables.get("params", {})

        def loss_of(parameters: Any, features: jax.Array) -> tuple[jax.Array, dict]:
            results, learned = self.quantizer.apply(
                {**variables, "params": parameters}, features, key, train=True, mutable=["codebook"]
            )
            loss = jnp.mean(results.values @ self.readout)
            for name, term in results.losses.items():
                loss += WEIGHTS[name] * jnp.mean(term)
            return loss, learned

        (loss, learned), gradients = jax.value_and_grad(loss_of, (0, 1), has_aux=True)(
            parameters, features
        )
        return {**variables, **learned}, gradients, loss
