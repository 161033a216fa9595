"""The energies of Rezende & Mohamed against a plain transcription."""

from __future__ import annotations

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
    got = ENERGIES[name](jnp.asarray(POINTS, jnp.float32))
    np.testing.assert_allclose(got, plain(name, *POINTS.T), rtol=1e-4, atol=1e-4)
    assert got.dtype == jnp.float32


@every
def test_waves_have_gaussian_tails(name):
    z = np.stack([np.array([4.0, 4.5, -5.0]), np.sin(np.pi / 2 * np.array([4.0, 4.5, -5.0]))], -1)
    added = 0 if name == "ring" else np.array([0, 0.5, 2])
    got = ENERGIES[name](jnp.asarray(z, jnp.float32))
    np.testing.assert_allclose(got - plain(name, *z.T), added, atol=1e-4)


@every
def test_integral_is_independent_of_the_grid(name):
    energy = jax.jit(ENERGIES[name])
    values = [
        metrics.log_integral(lambda z: -energy(z), [-bound] * 2, [bound] * 2, cells)
        for bound, cells in ((8, 800), (10, 1500))
    ]
    assert values[0] == pytest.approx(values[1], abs=1e-5)


def test_the_integral_of_the_wave_in_closed_form():
    # Over z2 it is 0.4 sqrt(2 pi) for every z1; over z1, 8 and two half Gaussians.
    expected = np.log(0.4 * np.sqrt(2 * np.pi) * (8 + 0.5 * np.sqrt(2 * np.pi)))
    found = metrics.log_integral(lambda z: -ENERGIES["wave"](z), [-8, -8], [8, 8], 800)
    assert found == pytest.approx(expected, abs=1e-5)


@every
def test_values_and_gradients_are_finite_everywhere(name):
    energy = ENERGIES[name]
    edges = np.array([0, 1e-30, -1e-20, 1, -4, 1e3, -1e3, 1e6, -1e6], np.float32)
    z = jnp.asarray(np.stack(np.meshgrid(edges, edges), -1))
    assert jnp.all(jnp.isfinite(energy(z)))
    assert jnp.all(jnp.isfinite(jax.grad(lambda z: energy(z).sum())(z)))
    assert energy(z).shape == (9, 9)
    with pytest.raises(ValueError, match=r"\[\*batch, 2\].*\(5, 3\)"):
        energy(jnp.zeros((5, 3)))
