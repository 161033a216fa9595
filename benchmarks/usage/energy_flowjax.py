"""An energy to samples with log-densities; follows flowjax's page "Variational inference"."""

import jax.random as jr
from flowjax.distributions import StandardNormal
from flowjax.flows import masked_autoregressive_flow
from flowjax.train import fit_to_key_based_loss
from flowjax.train.losses import ElboLoss

from benchmarks.usage.checks import check_energy
from benchmarks.usage.data import energy

flow_key, train_key, sample_key = jr.split(jr.key(0), 3)
flow = masked_autoregressive_flow(flow_key, base_dist=StandardNormal((2,)), invert=False)
loss = ElboLoss(lambda z: -energy(z), num_samples=256)
flow, losses = fit_to_key_based_loss(train_key, flow, loss_fn=loss, steps=2000, learning_rate=1e-3)
samples, log_prob = flow.sample_and_log_prob(sample_key, (10_000,))
check_energy(samples, log_prob)
