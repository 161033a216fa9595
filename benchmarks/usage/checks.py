"""The checks that end the scripts: the result of a job is right, and how good it is.

Each raises a `ValueError` where the result is wrong, and prints one line of JSON, the quality by
its name, which the runner reads. Results are arrays or tensors of any library.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from benchmarks.usage import data

LEAST_NATS = {"fit": -5.1, "conditional": -0.75, "bijector": -5.3}
"""Mean log-likelihoods of held-out rows that a trained flow must be above, in nats.

A normal distribution with the covariance of the training rows has -5.20, -0.84 and -5.33.
"""

LARGEST_KL = 0.2
"""Nats of KL(q || p) that a flow fitted to the energy is below; a standard normal has 6.9."""

LARGEST_ERROR = 0.05
"""Mean squared error of a pixel that reconstructions are below; the mean image has 0.068."""


def check_fit(log_prob: Any, samples: Any, again: Any) -> None:
    """Checks log-densities of the held-out rows, before and after a file, and 1,000 samples."""
    log_prob, again = _finite(log_prob, (10_000,)), _finite(again, (10_000,))
    samples = _finite(samples, (1000, 6))
    if not np.allclose(log_prob, again, rtol=0, atol=1e-4):
        raise ValueError(
            f"log-densities after loading must be the same, got {abs(log_prob - again).max()} nats"
        )
    _standard(samples, 0.3)
    _nats("fit", log_prob)


def check_conditional(log_prob: Any, samples: Any, sample_log_prob: Any) -> None:
    """Checks log-densities of the held-out pairs, and posterior samples with theirs."""
    samples = _finite(samples, (1000, 2))
    if not -4 < _finite(sample_log_prob, (1000,)).mean() < 4:
        raise ValueError(f"log-densities of samples are wrong, {np.mean(sample_log_prob)} nats")
    means = data.expected(samples).mean(0)
    if abs(means - data.observed).max() > 0.2:  # the deviation of the noise
        raise ValueError(f"samples must explain {data.observed}, got ones that expect {means}")
    _nats("conditional", _finite(log_prob, (4000,)))


def check_energy(samples: Any, log_prob: Any) -> None:
    """Checks 10,000 samples of q with their log-densities."""
    samples, log_prob = _finite(samples, (10_000, 2)), _finite(log_prob, (10_000,))
    log_weights = -data.energy(samples) - log_prob
    kl = data.LOG_NORMALIZER - log_weights.mean()
    if not -0.05 < kl < LARGEST_KL:
        raise ValueError(f"KL(q || p) must be below {LARGEST_KL} nats, got {kl}")
    weights = np.exp(log_weights - log_weights.max())
    share = weights.mean() ** 2 / (weights**2).mean()
    _report({"KL, nats": f"{kl:.4f}", "effective samples": f"{share:.1%}"})


def check_vae(reconstructions: Any, samples: Any) -> None:
    """Checks reconstructions of the held-out images, and 16 samples: uint8, or from 0 to 1."""
    found, truth = _unit(reconstructions, len(data.test_images)), _unit(data.test_images, 500)
    samples = _unit(samples, 16)
    error = float(((found - truth) ** 2).mean())
    if error > LARGEST_ERROR:
        raise ValueError(f"the mean squared error must be below {LARGEST_ERROR}, got {error}")
    if np.ptp(samples, axis=0).max() < 0.2 or abs(samples.mean() - truth.mean()) > 0.08:
        raise ValueError(f"samples must differ, and be as bright as digits, got {samples.mean()}")
    _report({"mean squared error": f"{error:.4f}"})


def check_bijector(log_prob: Any, samples: Any) -> None:
    """Checks log-densities of the held-out rows, and 1,000 samples."""
    samples, truth = _finite(samples, (1000, 3)), data.test_skewed
    levels = [0.1, 0.5, 0.9]
    if np.abs(np.quantile(samples, levels, 0) - np.quantile(truth, levels, 0)).max() > 1:
        raise ValueError("samples must have the quantiles of the data")
    _nats("bijector", _finite(log_prob, (10_000,)))


def _array(values: Any) -> np.ndarray:
    values = values.detach() if hasattr(values, "detach") else values
    return np.asarray(values)


def _finite(values: Any, shape: tuple[int, ...]) -> np.ndarray:
    array = _array(values).astype(np.float64)
    if array.shape != shape or not np.isfinite(array).all():
        raise ValueError(f"a result must be finite and have shape {shape}, got {array.shape}")
    return array


def _unit(images: Any, count: int) -> np.ndarray:
    """Images as ``[image, pixel]`` from 0 to 1."""
    array = _array(images)
    scale = 255 if array.dtype == np.uint8 else 1
    array = _finite(array.reshape(len(array), -1), (count, 28 * 28)) / scale
    if array.min() < 0 or array.max() > 1:
        raise ValueError(f"pixels must be from 0 to 1, got {array.min()} to {array.max()}")
    return array


def _standard(samples: np.ndarray, tolerance: float) -> None:
    means, deviations = samples.mean(0), samples.std(0)
    if abs(means).max() > tolerance or abs(deviations - 1).max() > tolerance:
        raise ValueError(
            f"samples must have the data's mean 0 and deviation 1, got {means}, {deviations}"
        )


def _nats(job: str, log_prob: np.ndarray) -> None:
    mean = float(log_prob.mean())
    if not mean > LEAST_NATS[job] or not math.isfinite(mean):
        raise ValueError(f"held-out rows must have more than {LEAST_NATS[job]} nats, got {mean}")
    _report({"held-out, nats": f"{mean:.3f}"})


def _report(quality: dict[str, str]) -> None:
    print(json.dumps(quality), flush=True)
