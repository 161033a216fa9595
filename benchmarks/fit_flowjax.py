"""flowjax's side of the comparison of fits."""

from __future__ import annotations

import equinox as eqx
import jax
import paramax
from flowjax.bijections import RationalQuadraticSpline
from flowjax.distributions import StandardNormal
from flowjax.flows import masked_autoregressive_flow
from flowjax.train import fit_to_data

from benchmarks.fit_data import FitSide


def make(source: str) -> Flowjax:
    """Makes the side; nothing is computed yet but that JAX finds its device."""
    jax.devices()
    return Flowjax(source)


class Flowjax(FitSide):
    """Its spline flow and its `fit_to_data`, as in its documentation's first example."""

    def train(self, rows, seed):
        """Trains; see `FitSide`."""
        flow_key, train_key = jax.random.split(jax.random.key(seed))
        flow = masked_autoregressive_flow(
            flow_key,
            base_dist=StandardNormal(rows.shape[1:]),
            transformer=RationalQuadraticSpline(knots=8, interval=4),
        )
        flow, _ = fit_to_data(train_key, flow, rows, show_progress=False)
        log_prob = eqx.filter_jit(lambda flow, test: paramax.unwrap(flow).log_prob(test))
        return lambda test: log_prob(flow, test)
