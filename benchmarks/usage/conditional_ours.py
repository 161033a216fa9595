"""Pairs to samples of a posterior; follows README.md, "From an array to a trained model"."""

import vaeflow as vf
from benchmarks.usage.checks import check_conditional
from benchmarks.usage.data import observed, simulated, test_simulated, test_theta, theta

posterior = vf.fit(vf.flows.NeuralSplineFlow((2,)), theta, context=simulated)
log_prob = posterior.log_prob(test_theta, context=test_simulated)
samples = posterior.sample(1000, context=observed)
sample_log_prob = posterior.log_prob(samples, context=observed)
check_conditional(log_prob, samples, sample_log_prob)
