"""The data that the scripts of all sides are given, NumPy arrays, and the energy."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np


@functools.cache
def _rows() -> dict[str, np.ndarray]:
    """A random walk of skewed steps, ``[row, 6]``, whose columns are standardised."""
    walks = np.random.default_rng(0).gamma(2.0, size=(12_000, 6)).cumsum(axis=1)
    return _split("rows", _standardized(walks), 2000)


@functools.cache
def _simulations() -> dict[str, np.ndarray]:
    """Parameters ``[row, 2]`` of a simulator, and three noisy observations given them."""
    generator = np.random.default_rng(0)
    theta = generator.normal(size=(8000, 2)).astype(np.float32)
    noise = 0.2 * generator.normal(size=(8000, 3))
    simulated = (expected(theta) + noise).astype(np.float32)
    observed = expected(np.array([1.0, -0.5])).astype(np.float32)
    return (
        _split("theta", theta, 4000) | _split("simulated", simulated, 4000) | {"observed": observed}
    )


def expected(theta: np.ndarray) -> np.ndarray:
    """Means of the three observations, given parameters ``[*batch, 2]``."""
    first, second = theta[..., 0], theta[..., 1]
    return np.stack([first + second, np.abs(first), np.sin(2 * second)], axis=-1)


@functools.cache
def _images() -> dict[str, np.ndarray]:
    """Digits of MNIST, uint8 ``[image, 28, 28, 1]``: 1,000 to train on and 500 to test on."""
    from vaeflow.data.embedded import read_digits  # by scripts of images alone; without JAX

    images, _ = read_digits("embedded:digits")
    order = np.random.default_rng(0).permutation(5000)[:1500]
    return _split("images", images[order], 1000)


@functools.cache
def _skewed() -> dict[str, np.ndarray]:
    """Correlated columns with skewed and heavy tails, ``[row, 3]``."""
    generator = np.random.default_rng(0)
    noise = generator.normal(size=(12_000, 3)) @ np.linalg.cholesky(0.4 + 0.6 * np.eye(3)).T
    rows = np.sinh(np.exp([0.0, 0.2, 0.4]) * (np.arcsinh(noise) + np.array([0.5, 0.0, -0.3])))
    return _split("skewed", rows.astype(np.float32), 2000)


def energy(z: Any) -> Any:
    """A banana, U(z) = z_1^2 / 2 + 2 (z_2 - z_1^2)^2 in nats; arrays of any library.

    exp(-U) integrates to pi.
    """
    return z[..., 0] ** 2 / 2 + 2 * (z[..., 1] - z[..., 0] ** 2) ** 2


LOG_NORMALIZER = float(np.log(np.pi))
"""log Z of the energy, in nats."""

_MAKERS = {
    "rows": _rows,
    "test_rows": _rows,
    "theta": _simulations,
    "test_theta": _simulations,
    "simulated": _simulations,
    "test_simulated": _simulations,
    "observed": _simulations,
    "images": _images,
    "test_images": _images,
    "skewed": _skewed,
    "test_skewed": _skewed,
}


def __getattr__(name: str) -> np.ndarray:
    if name not in _MAKERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _MAKERS[name]()[name]


def _standardized(rows: np.ndarray) -> np.ndarray:
    return ((rows - rows.mean(0)) / rows.std(0)).astype(np.float32)


def _split(name: str, rows: np.ndarray, count: int) -> dict[str, np.ndarray]:
    """The first rows to train on, the others to test on."""
    return {name: rows[:count], f"test_{name}": rows[count:]}
