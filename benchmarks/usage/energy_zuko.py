"""An energy to samples with log-densities; follows zuko's tutorial "Train from energy"."""

import torch
import zuko

from benchmarks.usage.checks import check_energy
from benchmarks.usage.data import energy

flow = zuko.flows.MAF(2, transforms=3, hidden_features=(64, 64))
flow = zuko.flows.Flow(flow.transform.inv, flow.base)
optimizer = torch.optim.Adam(flow.parameters(), lr=1e-3)
for _ in range(2000):
    x, log_prob = flow().rsample_and_log_prob((256,))
    loss = (log_prob + energy(x)).mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
samples, log_prob = flow().rsample_and_log_prob((10_000,))
check_energy(samples, log_prob)
