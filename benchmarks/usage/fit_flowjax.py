"""An array to a trained spline flow and back from a file.

Follows flowjax's README, "Short example", and the page "Unconditional density estimation" of its
documentation; the file is that of Equinox, `eqx.tree_serialise_leaves`, as in its FAQ.
"""

import equinox as eqx
import jax.random as jr
from flowjax.bijections import RationalQuadraticSpline
from flowjax.distributions import StandardNormal
from flowjax.flows import masked_autoregressive_flow
from flowjax.train import fit_to_data

from benchmarks.usage.checks import check_fit
from benchmarks.usage.data import rows, test_rows

flow_key, train_key, sample_key = jr.split(jr.key(0), 3)
spline = RationalQuadraticSpline(knots=8, interval=4)
flow = masked_autoregressive_flow(flow_key, base_dist=StandardNormal((6,)), transformer=spline)
trained, losses = fit_to_data(train_key, flow, rows)
log_prob = trained.log_prob(test_rows)
samples = trained.sample(sample_key, (1000,))
eqx.tree_serialise_leaves("flow.eqx", trained)
again = eqx.tree_deserialise_leaves("flow.eqx", flow).log_prob(test_rows)
check_fit(log_prob, samples, again)
