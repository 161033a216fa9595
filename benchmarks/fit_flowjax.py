"""flowjax's side of the comparison of fits."""

from __future__ import annotations

import time

import equinox as eqx
import jax
import paramax
from flowjax.bijections import RationalQuadraticSpline
from flowjax.distributions import StandardNormal
from flowjax.flows import masked_autoregressive_flow
from flowjax.train import fit_to_data

from benchmarks.fit_data import split


def make(source: str) -> Flowjax:
    """Makes the side; nothing is computed yet but that JAX finds its device."""
    jax.devices()
    return Flowjax(source)


class Flowjax:
    """Its spline flow and its `fit_to_data`, as in its documentation's first example."""

    def __init__(self, source: str):
        self.split = split(source)

    def shape(self) -> tuple[int, ...]:
        """Shape of the rows to train on."""
        return self.split.train.shape

    def fit(self, seed: int) -> dict[str, float]:
        """Trains; returns the seconds and the mean log-likelihood of the test rows in nats."""
        start = time.perf_counter()
        flow_key, train_key = jax.random.split(jax.random.key(seed))
        flow = masked_autoregressive_flow(
            flow_key,
            base_dist=StandardNormal(self.split.train.shape[1:]),
            transformer=RationalQuadraticSpline(knots=8, interval=4),
        )
        flow, _ = fit_to_data(train_key, flow, self.split.train, show_progress=False)
        seconds = time.perf_counter() - start
        log_prob = eqx.filter_jit(lambda flow, rows: paramax.unwrap(flow).log_prob(rows))
        return {
            "seconds": seconds,
            "log_likelihood": float(log_prob(flow, self.split.test).mean()),
        }
