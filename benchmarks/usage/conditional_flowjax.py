"""Pairs to samples of a posterior; follows flowjax's page "Conditional density estimation"."""

import jax.random as jr
from flowjax.distributions import StandardNormal
from flowjax.flows import block_neural_autoregressive_flow
from flowjax.train import fit_to_data

from benchmarks.usage.checks import check_conditional
from benchmarks.usage.data import observed, simulated, test_simulated, test_theta, theta

flow_key, train_key, sample_key = jr.split(jr.key(0), 3)
flow = block_neural_autoregressive_flow(flow_key, base_dist=StandardNormal((2,)), cond_dim=3)
flow, losses = fit_to_data(train_key, flow, (theta, simulated), learning_rate=5e-3)
log_prob = flow.log_prob(test_theta, condition=test_simulated)
samples = flow.sample(sample_key, (1000,), condition=observed)
sample_log_prob = flow.log_prob(samples, condition=observed)
check_conditional(log_prob, samples, sample_log_prob)
