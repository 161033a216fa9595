"""Densities of earlier runs: experiments build flows with the log scales of version 0.1."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import density_1d, glow_celeba, tabular_density, vae_mnist
from vaeflow import bijectors, flows


def _tabular(name: str) -> Any:
    config = tabular_density.PRESETS["power"].config
    model = dataclasses.replace(config.model, flow=name)
    return tabular_density.build(dataclasses.replace(config, model=model), (3,))


def _density(name: str) -> Any:
    return density_1d.FLOWS[name]((3,), 2, 8)


def _vae(**options: str) -> Any:
    config = next(iter(vae_mnist.PRESETS.values())).config
    model = dataclasses.replace(config.model, **options)
    posterior = vae_mnist.build_posterior(model)
    return posterior, vae_mnist.build_prior(model, (28, 28, 1))


def _glow(dequantization: str) -> Any:
    config = glow_celeba.PRESETS["mnist"].config
    model = dataclasses.replace(config.model, dequantization=dequantization)
    return glow_celeba.build(dataclasses.replace(config, model=model), (32, 32, 1))


MODELS = {
    "tabular-density-maf": lambda: _tabular("maf"),
    "tabular-density-real-nvp": lambda: _tabular("real-nvp"),
    "density-maf": lambda: _density("maf"),
    "density-iaf": lambda: _density("iaf"),
    "density-real-nvp": lambda: _density("real-nvp"),
    "vae-iaf": lambda: _vae(posterior="iaf"),
    "vae-real-nvp": lambda: _vae(prior="flow"),
    "vae-maf": lambda: _vae(prior="autoregressive"),
    "glow": lambda: _glow("uniform"),
    "glow-variational": lambda: _glow("variational"),
}

AUTOREGRESSIVE = (flows.MaskedAutoregressiveFlow, flows.InverseAutoregressiveFlow)


def bounded(raw: jax.Array) -> jax.Array:
    """The log scales of affine maps in version 0.1."""
    return 8 * jnp.tanh(raw / 8)


def log_scales_within(part: Any) -> list[Any]:
    """The pairs of a function from raw outputs to log scales and the one of version 0.1."""
    if isinstance(part, flows.RealNVP):
        return [(part.log_scale, bounded)]
    if isinstance(part, AUTOREGRESSIVE):
        return [(part.transformer.log_scale, bounded)]
    if isinstance(part, flows.Glow):
        m = part.smallest_scale
        function = bijectors.SigmoidLogScale(m, part.lowest_log_scale)
        return [(function, lambda raw: jnp.log(m + (1 - m) * jax.nn.sigmoid(raw + 2)))]
    if isinstance(part, tuple):
        return [pair for each in part for pair in log_scales_within(each)]
    if not dataclasses.is_dataclass(part):
        return []
    fields = (field.name for field in dataclasses.fields(part) if field.name != "parent")
    return [pair for name in fields for pair in log_scales_within(getattr(part, name))]


@pytest.mark.parametrize("name", MODELS)
def test_log_scales_of_experiments_are_those_of_their_first_runs(name):
    pairs = log_scales_within(MODELS[name]())
    assert len(pairs) == (2 if name == "glow-variational" else 1)
    raw = jnp.linspace(-40, 40, 401)
    for function, first in pairs:
        np.testing.assert_array_equal(function(raw), first(raw))
