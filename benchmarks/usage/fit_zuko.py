"""An array to a trained spline flow and back from a file.

Follows zuko's tutorial "Train from data", with its 2,048 steps of 64 rows; zuko has no function
that trains, and leaves files to `torch.save`.
"""

import torch
import zuko
from torch.utils.data import DataLoader

from benchmarks.usage.checks import check_fit
from benchmarks.usage.data import rows, test_rows

flow = zuko.flows.NSF(6, transforms=3, hidden_features=(64, 64))
optimizer = torch.optim.Adam(flow.parameters(), lr=1e-3)
loader = DataLoader(torch.from_numpy(rows), batch_size=64, shuffle=True)
for _ in range(64):
    for x in loader:
        loss = -flow().log_prob(x).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
log_prob = flow().log_prob(torch.from_numpy(test_rows))
samples = flow().sample((1000,))
torch.save(flow, "flow.pt")
again = torch.load("flow.pt", weights_only=False)().log_prob(torch.from_numpy(test_rows))
check_fit(log_prob, samples, again)
