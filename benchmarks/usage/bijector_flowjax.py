"""A bijection of one's own, with learned parameters, at the end of a flow.

Follows the docstring of flowjax's `AbstractBijection`, "Implementing a bijection", and the page
"Transforming distributions" of its documentation.
"""

from typing import ClassVar

import jax.numpy as jnp
import jax.random as jr
from flowjax.bijections import AbstractBijection
from flowjax.distributions import StandardNormal, Transformed
from flowjax.flows import masked_autoregressive_flow
from flowjax.train import fit_to_data
from jax import Array

from benchmarks.usage.checks import check_bijector
from benchmarks.usage.data import skewed, test_skewed


class SinhArcsinh(AbstractBijection):
    skew: Array
    log_tail: Array
    shape: tuple[int, ...] = (3,)
    cond_shape: ClassVar[None] = None

    def transform_and_log_det(self, x, condition=None):
        inner = jnp.exp(self.log_tail) * (jnp.arcsinh(x) + self.skew)
        slope = jnp.exp(self.log_tail) * jnp.cosh(inner) / jnp.sqrt(1 + x**2)
        return jnp.sinh(inner), jnp.log(slope).sum()

    def inverse_and_log_det(self, y, condition=None):
        x = jnp.sinh(jnp.exp(-self.log_tail) * jnp.arcsinh(y) - self.skew)
        return x, -self.transform_and_log_det(x)[1]


flow_key, train_key, sample_key = jr.split(jr.key(0), 3)
flow = masked_autoregressive_flow(flow_key, base_dist=StandardNormal((3,)))
flow = Transformed(flow, SinhArcsinh(jnp.zeros(3), jnp.zeros(3)))
flow, losses = fit_to_data(train_key, flow, skewed)
log_prob = flow.log_prob(test_skewed)
samples = flow.sample(sample_key, (1000,))
check_bijector(log_prob, samples)
