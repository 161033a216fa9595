"""Pairs to samples of a posterior; follows zuko's README, "Getting started"."""

import torch
import zuko
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.usage.checks import check_conditional
from benchmarks.usage.data import observed, simulated, test_simulated, test_theta, theta

flow = zuko.flows.NSF(2, 3, transforms=3, hidden_features=(64, 64))
optimizer = torch.optim.Adam(flow.parameters(), lr=1e-3)
trainset = TensorDataset(torch.from_numpy(theta), torch.from_numpy(simulated))
for _ in range(32):
    for x, c in DataLoader(trainset, batch_size=64, shuffle=True):
        loss = -flow(c).log_prob(x).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
log_prob = flow(torch.from_numpy(test_simulated)).log_prob(torch.from_numpy(test_theta))
posterior = flow(torch.from_numpy(observed))
samples = posterior.sample((1000,))
sample_log_prob = posterior.log_prob(samples)
check_conditional(log_prob, samples, sample_log_prob)
