"""A bijector of one's own, with learned parameters, at the end of a flow.

Follows CONTRIBUTING.md, "A bijector", and README.md, "Flows".
"""

import jax.numpy as jnp

import vaeflow as vf
from benchmarks.usage.checks import check_bijector
from benchmarks.usage.data import skewed, test_skewed


class SinhArcsinh(vf.bijectors.Bijector):
    def __init__(self, skew, log_tail):
        super().__init__(event_ndims_in=1)
        self.skew, self.log_tail = skew, log_tail

    def _forward(self, x):
        inner = jnp.exp(self.log_tail) * (jnp.arcsinh(x) + self.skew)
        slope = jnp.exp(self.log_tail) * jnp.cosh(inner) / jnp.sqrt(1 + x**2)
        return jnp.sinh(inner), jnp.log(slope).sum(-1)

    def _inverse(self, y):
        x = jnp.sinh(jnp.exp(-self.log_tail) * jnp.arcsinh(y) - self.skew)
        return x, -self._forward(x)[1]


start = {"skew": jnp.zeros(3), "log_tail": jnp.zeros(3)}
flow = vf.flows.TransformedFlow(vf.flows.RealNVP((3,)), SinhArcsinh, start)
fitted = vf.fit(flow, skewed)
log_prob = fitted.log_prob(test_skewed)
samples = fitted.sample(1000)
check_bijector(log_prob, samples)
