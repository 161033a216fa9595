"""zuko's side of the comparison of fits."""

from __future__ import annotations

import time

import torch
import zuko

from benchmarks.fit_data import split

STEPS = 2048
"""Steps of the tutorial: 8 passes over 16,384 points in batches of 64."""
BATCH = 64


def make(source: str) -> Zuko:
    """Makes the side."""
    return Zuko(source)


class Zuko:
    """Its neural spline flow, trained by the loop of its documentation's first tutorial.

    zuko has no function that trains. The tutorial's loop has a fixed number of steps, Adam at its
    rate of 1e-3, and no validation.
    """

    def __init__(self, source: str):
        self.split = split(source)

    def shape(self) -> tuple[int, ...]:
        """Shape of the rows to train on."""
        return self.split.train.shape

    def fit(self, seed: int) -> dict[str, float]:
        """Trains; returns the seconds and the mean log-likelihood of the test rows in nats."""
        torch.manual_seed(seed)
        start = time.perf_counter()
        rows = torch.from_numpy(self.split.train)
        flow = zuko.flows.NSF(rows.shape[1], transforms=3, hidden_features=[64, 64])
        optimizer = torch.optim.Adam(flow.parameters(), lr=1e-3)
        data = torch.utils.data.TensorDataset(rows)
        loader = torch.utils.data.DataLoader(data, batch_size=BATCH, shuffle=True)
        epochs = max(1, round(STEPS / len(loader)))
        for _ in range(epochs):
            for (batch,) in loader:
                loss = -flow().log_prob(batch).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        seconds = time.perf_counter() - start
        with torch.no_grad():
            log_prob = flow().log_prob(torch.from_numpy(self.split.test))
        return {"seconds": seconds, "log_likelihood": float(log_prob.mean())}
