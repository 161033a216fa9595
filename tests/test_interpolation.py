"""Paths between latents, against Shoemake's formula in float64 and where that formula fails."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaeflow as vf

linear_path = jax.jit(vf.linear_path, static_argnums=2)
spherical_path = jax.jit(vf.spherical_path, static_argnums=2)


def random_vectors(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def shoemake(first, last, count):
    """For vectors of any length: the formula for directions, lengths in equal steps."""
    first, last = first.astype(np.float64), last.astype(np.float64)
    lengths = np.linalg.norm(first), np.linalg.norm(last)
    first, last = first / lengths[0], last / lengths[1]
    t = np.linspace(0, 1, count)[:, None]
    angle = np.arccos(first @ last)
    turned = (np.sin((1 - t) * angle) * first + np.sin(t * angle) * last) / np.sin(angle)
    return ((1 - t) * lengths[0] + t * lengths[1]) * turned


@pytest.mark.parametrize("path", [linear_path, spherical_path])
def test_paths_end_where_they_should_for_any_batch(path):
    first, last = random_vectors(2, 3, 4, 5)
    result = np.asarray(path(first, last, 6))
    assert result.shape == (3, 4, 6, 5)
    np.testing.assert_allclose(result[..., 0, :], first, atol=1e-6)
    np.testing.assert_allclose(result[..., -1, :], last, atol=1e-6)
    single = path(first[1, 2], last[1, 2], 6)
    np.testing.assert_allclose(single, result[1, 2], atol=1e-6)


def test_linear_steps_are_equal():
    first, last = random_vectors(2, 5)
    steps = np.diff(linear_path(first, last, 5), axis=0)
    np.testing.assert_allclose(steps, np.tile((last - first) / 4, (4, 1)), atol=1e-6)


@pytest.mark.parametrize("size", [2, 3, 50])
def test_spherical_paths_follow_shoemake(size):
    first, last = random_vectors(2, size)
    result = spherical_path(first, 3 * last, 7)
    np.testing.assert_allclose(result, shoemake(first, 3 * last, 7), atol=1e-5)


@pytest.mark.parametrize("nearness", [1e-1, 1e-3, 1e-5, 1e-7, 0.0])
@pytest.mark.parametrize("sign", [1, -1])
def test_directions_turn_evenly_for_nearly_parallel_and_opposite_vectors(nearness, sign):
    first, across = random_vectors(2, 5)
    across -= first * (first @ across) / (first @ first)
    last = sign * first + nearness * across
    result = np.asarray(spherical_path(first, last, 5), np.float64)
    lengths = np.linspace(np.linalg.norm(first), np.linalg.norm(last), 5)
    np.testing.assert_allclose(np.linalg.norm(result, axis=-1), lengths, rtol=1e-6)
    np.testing.assert_allclose(result[[0, -1]], [first, last], atol=2e-6)
    tangent = nearness * np.linalg.norm(across) / np.linalg.norm(first)
    whole = np.arctan2(tangent, sign)
    units = result / lengths[:, None]
    chords = np.linalg.norm(np.diff(units, axis=0), axis=-1)
    np.testing.assert_allclose(2 * np.arcsin(chords / 2), whole / 4, atol=1e-6)


@jax.jit
@jax.grad
def gradients_of_scaled(pair, scale):
    return jnp.sum(vf.spherical_path(scale * pair[0], pair[1], 5))


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1.0, 1e6, 1e30])
def test_any_magnitude_has_finite_paths_and_gradients(scale):
    first, last = random_vectors(2, 4, 5)
    first = first.copy()
    first[1], last[1] = last[1], -last[1]
    first[2] = last[2]
    first[3] = 0.0

    result = np.asarray(spherical_path(np.float32(scale) * first, last, 5))
    assert np.isfinite(result).all()
    np.testing.assert_allclose(result[:, -1], last, atol=1e-6)
    np.testing.assert_allclose(result[:, 0], scale * first, rtol=1e-5, atol=1e-6 * scale)
    gradients = gradients_of_scaled((first, last), np.float32(scale))
    assert all(np.isfinite(leaf).all() for leaf in gradients)


def test_a_zero_vector_takes_the_other_direction():
    last = np.array([3.0, -4.0], np.float32)
    result = vf.spherical_path(np.zeros(2, np.float32), last, 3)
    np.testing.assert_allclose(result, [[0, 0], [1.5, -2], [3, -4]], atol=1e-6)


@pytest.mark.parametrize("path", [vf.linear_path, vf.spherical_path])
def test_mismatched_ends_raise(path):
    with pytest.raises(ValueError, match=r"shapes \(2, 3\) and \(3,\) and 4"):
        path(np.zeros((2, 3)), np.zeros(3), 4)
    with pytest.raises(ValueError, match=r"shapes \(3,\) and \(3,\) and 1"):
        path(np.zeros(3), np.zeros(3), 1)
