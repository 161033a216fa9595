"""Chains in ArviZ's data structure: groups, effective sample sizes, R-hat."""

from __future__ import annotations

import arviz
import numpy as np
import pytest

from vaeflow.interop.arviz import from_chains

CHAINS, DRAWS = 4, 1000


def autoregressive(correlation: float) -> np.ndarray:
    """Chains [chain, draw, 2] with x_t = correlation x_(t-1) + noise, stationary."""
    generator = np.random.RandomState(0)
    x = generator.normal(size=(CHAINS, DRAWS, 2))
    for draw in range(1, DRAWS):
        x[:, draw] = correlation * x[:, draw - 1] + np.sqrt(1 - correlation**2) * x[:, draw]
    return x


def test_effective_sample_sizes_and_r_hat_are_those_of_the_chains():
    """An AR(1) chain has (1 - correlation) / (1 + correlation) effective samples a draw."""
    correlation = 0.8
    diverging = np.arange(CHAINS * DRAWS).reshape(CHAINS, DRAWS) % 10 == 0
    data = from_chains(autoregressive(correlation), {"diverging": diverging})
    share = arviz.ess(data, method="mean")["x"].values / (CHAINS * DRAWS)
    np.testing.assert_allclose(share, (1 - correlation) / (1 + correlation), rtol=0.25)
    assert np.all(arviz.rhat(data)["x"].values < 1.02)
    np.testing.assert_array_equal(data.sample_stats["diverging"].values, diverging)
    assert data.posterior["x"].dims[:2] == ("chain", "draw")
    apart = autoregressive(0) + np.arange(CHAINS)[:, None, None]
    assert np.all(arviz.rhat(from_chains(apart))["x"].values > 1.2)


def test_names_and_shapes_are_kept():
    samples = {"v": np.zeros((2, 5)), "w": np.ones((2, 5, 3, 4), np.float32)}
    data = from_chains(samples)
    assert data.groups() == ["posterior"]
    assert data.posterior["v"].shape == (2, 5)
    assert data.posterior["w"].shape == (2, 5, 3, 4)
    np.testing.assert_array_equal(data.posterior["w"].values, samples["w"])


@pytest.mark.parametrize(
    ("samples", "statistics", "message"),
    [
        ({}, None, "samples must hold at least one array, got none"),
        (np.zeros(5), None, r"samples must be arrays \[chain, draw, ...\].* got x of shape \(5,\)"),
        ({"a": np.zeros((2, 5)), "b": np.zeros((2, 6))}, None, r"got b of shape \(2, 6\)"),
        (np.zeros((2, 5)), {"lp": np.zeros((5, 2))}, r"statistics must be .* got lp of shape"),
        (np.zeros((2, 0)), None, r"samples must be .* got x of shape \(2, 0\)"),
    ],
)
def test_shapes_that_dont_agree_are_named(samples, statistics, message):
    with pytest.raises(ValueError, match=message):
        from_chains(samples, statistics)
