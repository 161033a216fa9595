"""The energies of Rezende & Mohamed against a plain transcription."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaeflow import distributions, metrics

POINTS = np.random.default_rng(0).uniform(-3.9, 3.9, (200, 2))
ENERGIES = {
    "ring": distributions.toy.ring_energy,
    "wave": distributions.toy.wave_energy,
    "bulging wave": distributions.toy.bulging_wave_energy,
    "forked wave": distributions.toy.forked_wave_energy,
}
COMPILED = {name: jax.jit(energy) for name, energy in ENERGIES.items()}
every = pytest.mark.parametrize("name", ENERGIES)


def plain(name, z1, z2):
    w1 = np.sin(2 * np.pi * z1 / 4)
    w2 = 3 * np.exp(-0.5 * ((z1 - 1) / 0.6) ** 2)
    w3 = 3 / (1 + np.exp(-(z1 - 1) / 0.3))

    def density(distance, width):
        return np.exp(-0.5 * (distance / width) ** 2)

    if name == "ring":
        return 0.5 * ((np.hypot(z1, z2) - 2) / 0.4) ** 2 - np.log(
            density(z1 - 2, 0.6) + density(z1 + 2, 0.6)
        )
    if name == "wave":
        return 0.5 * ((z2 - w1) / 0.4) ** 2
    if name == "bulging wave":
        return -np.log(density(z2 - w1, 0.35) + density(z2 - w1 + w2, 0.35))
    return -np.log(density(z2 - w1, 0.4) + density(z2 - w1 + w3, 0.35))


@every
def test_energies_equal_the_formulas_of_the_paper(name):
    got = COMPILED[name](np.float32(POINTS))
    np.testing.assert_allclose(got, plain(name, *POINTS.T), rtol=1e-4, atol=1e-4)
    assert got.dtype == jnp.float32


@every
def test_waves_have_gaussian_tails(name):
    z1 = np.array([4.0, 4.5, -5.0])
    z = np.stack([z1, np.sin(np.pi / 2 * z1)], axis=-1)
    added = 0 if name == "ring" else np.array([0, 0.5, 2])
    # As many points as elsewhere, for the same program.
    got = np.asarray(COMPILED[name](np.float32(np.resize(z, POINTS.shape))))[:3]
    np.testing.assert_allclose(got - plain(name, *z.T), added, atol=1e-4)


@every
def test_integral_is_independent_of_the_grid(name):
    values = [
        metrics.log_integral(
            lambda z: -np.asarray(COMPILED[name](z)), [-bound] * 2, [bound] * 2, cells
        )
        for bound, cells in ((8, 800), (10, 1500))
    ]
    assert values[0] == pytest.approx(values[1], abs=1e-5)


def test_the_integral_of_the_wave_in_closed_form():
    # Over z2 it is 0.4 sqrt(2 pi) for every z1; over z1, 8 and two half Gaussians.
    expected = np.log(0.4 * np.sqrt(2 * np.pi) * (8 + 0.5 * np.sqrt(2 * np.pi)))
    found = metrics.log_integral(lambda z: -np.asarray(COMPILED["wave"](z)), [-8, -8], [8, 8], 800)
    assert found == pytest.approx(expected, abs=1e-5)


@every
def test_values_and_gradients_are_finite_everywhere(name):
    energy = ENERGIES[name]
    edges = np.array([0, 1e-30, -1e-20, 1, -4, 1e3, -1e3, 1e6, -1e6], np.float32)
    z = np.stack(np.meshgrid(edges, edges), -1)

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def gradient(z):
        values = energy(z)
        return values.sum(), values

    slopes, values = jax.device_get(gradient(z))
    assert np.all(np.isfinite(values))
    assert np.all(np.isfinite(slopes))
    assert values.shape == (9, 9)
    with pytest.raises(ValueError, match=r"\[\*batch, 2\].*\(5, 3\)"):
        energy(np.zeros((5, 3)))
