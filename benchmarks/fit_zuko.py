"""zuko's side of the comparison of fits."""

from __future__ import annotations

import torch
import zuko

from benchmarks.fit_data import FitSide

STEPS = 2048
"""Steps of the tutorial: 8 passes over 16,384 points in batches of 64."""
BATCH = 64


def make(source: str) -> Zuko:
    """Makes the side."""
    return Zuko(source)


class Zuko(FitSide):
    """Its neural spline flow, trained by the loop of its documentation's first tutorial.

    zuko has no function that trains. The tutorial's loop has a fixed number of steps, Adam at its
    rate of 1e-3, and no validation.
    """

    def train(self, rows, seed):
        """Trains; see `FitSide`."""
        torch.manual_seed(seed)
        flow = zuko.flows.NSF(rows.shape[1], transforms=3, hidden_features=[64, 64])
        optimizer = torch.optim.Adam(flow.parameters(), lr=1e-3)
        data = torch.utils.data.TensorDataset(torch.from_numpy(rows))
        loader = torch.utils.data.DataLoader(data, batch_size=BATCH, shuffle=True)
        epochs = max(1, round(STEPS / len(loader)))
        for _ in range(epochs):
            for (batch,) in loader:
                loss = -flow().log_prob(batch).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        return lambda test: flow().log_prob(torch.from_numpy(test)).detach()
