"""What is measured of a variational auto-encoder."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import vaeflow as vf
from experiments.latent_units import units_of
from vaeflow import data, estimators, metrics
from vaeflow.training.strategy import compiler_options

VALIDATION = "validation_negative_elbo"
BATCH = 100
"""Images that are measured at once."""
ROWS = 8
"""Rows of samples in a figure."""

PyTree = Any


class Evaluation:
    """What is measured of the model, with noise that depends on the example alone.

    Called by name: `bound` (negative log-likelihood and KL), `log_likelihood`, `encode` (the middle
    of the posterior), `sample` (a draw from it), `kl` (of each unit of the latents, see
    `experiments.latent_units`, NaN where it has no closed form), `component` (of the prior where it
    is a mixture: that of the middle of the posterior and that of the draw).
    """

    def __init__(self, model: vf.models.VAE | vf.models.HierarchicalVAE, samples: int):
        units, condition = units_of(model), condition_of(model)

        def context_of(batch: PyTree) -> jax.Array | None:
            return None if condition is None else batch[condition]

        @jax.jit
        def bound(variables: PyTree, batch: PyTree) -> jax.Array:
            found = estimators.evidence(
                model, variables, batch, keys_of(batch), context_key=condition
            )
            groups = found.latents.kl_by_group()
            return jnp.stack([-found.log_likelihood[0], *groups.values()])

        # Without these options it takes twice the time on CPUs.
        options = compiler_options(jax.default_backend())

        @functools.partial(jax.jit, compiler_options=options)
        def log_likelihood(variables: PyTree, batch: PyTree) -> jax.Array:
            return metrics.importance_weighted_log_likelihood(
                model,
                variables,
                batch["image"],
                keys_of(batch),
                num_samples=samples,
                chunk=50,
                context=context_of(batch),
            )[None]

        # In a hierarchy a level's mean moves with those above, whatever it adds itself.
        method = "shifts" if isinstance(model, vf.models.HierarchicalVAE) else "encode"

        @jax.jit
        def encode(variables: PyTree, batch: PyTree) -> jax.Array:
            images, context = batch["image"], context_of(batch)
            return model.apply(variables, images, keys_of(batch), context, method=method).T

        def infer(variables: PyTree, batch: PyTree):
            found = estimators.evidence(
                model, variables, batch, keys_of(batch), context_key=condition
            )
            return found.latents

        @jax.jit
        def sample(variables: PyTree, batch: PyTree) -> jax.Array:
            return infer(variables, batch).z[0].T

        @jax.jit
        def kl(variables: PyTree, batch: PyTree) -> jax.Array:
            found = infer(variables, batch)
            known = [found.kl[name].T for name in found.log_q if name in found.kl]
            if sum(map(len, known)) < len(units):
                return jnp.full((len(units), BATCH), jnp.nan)
            return jnp.concatenate(known)[: len(units)]

        @jax.jit
        def component(variables: PyTree, batch: PyTree) -> jax.Array:
            prior = model.apply(variables, method="prior")
            drawn = sample(variables, batch).T
            return jnp.stack([prior.component_of(z) for z in (encode(variables, batch).T, drawn)])

        functions = (bound, log_likelihood, encode, sample, kl, component)
        self._functions = {function.__name__: function for function in functions}

    def __call__(self, name: str, variables: PyTree, source: data.Source) -> np.ndarray:
        """Values of each example of a split, ``[value, example]``."""
        found = []
        for batch, count in filled_batches(source):
            found.append(np.asarray(self._functions[name](variables, batch))[:, :count])
        return np.concatenate(found, axis=1, dtype=np.float64)


def filled_batches(source: data.Source) -> Iterator[tuple[PyTree, int]]:
    """Batches filled up to one size, for one shape is compiled, and how many rows count."""
    for batch in data.epoch_batches(source, BATCH):
        count = len(batch["index"])
        rows = np.arange(BATCH) % count
        yield {key: values[rows] for key, values in batch.items()}, count


def condition_of(model: vf.models.VAE | vf.models.HierarchicalVAE) -> str | None:
    """Name of the entry of a batch that is the model's context."""
    return None if model.num_classes is None else "label"


def keys_of(batch: PyTree) -> jax.Array:
    """Keys that depend on the numbers of the examples alone."""
    return jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(0)))(batch["index"])
