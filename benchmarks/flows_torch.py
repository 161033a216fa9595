"""The common part of the sides of PyTorch's libraries."""

from __future__ import annotations

import abc
import os
import time
from typing import Any

import torch

from benchmarks.flow_size import LEARNING_RATE, FlowSize, Rows


class TorchSide(abc.ABC):
    """A flow and its optimiser."""

    def __init__(self, size: FlowSize):
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        self.size = size
        self.rows = Rows(size)

    @abc.abstractmethod
    def build(self) -> torch.nn.Module:
        """Builds the flow."""

    @abc.abstractmethod
    def log_prob(self, rows: torch.Tensor) -> torch.Tensor:
        """Log-densities of rows, in nats."""

    @abc.abstractmethod
    def sample(self, count: int) -> torch.Tensor:
        """Draws rows."""

    def initialize(self) -> dict[str, Any]:
        """Initialises; returns the number of parameters and their types."""
        torch.manual_seed(self.size.seed)
        self.flow = self.build()
        self.optimizer = torch.optim.Adam(self.flow.parameters(), LEARNING_RATE)
        self.batch = torch.from_numpy(self.rows.first())
        leaves = [leaf for leaf in self.flow.parameters() if leaf.requires_grad]
        dtypes = {str(leaf.dtype).removeprefix("torch.") for leaf in leaves}
        return {"parameters": sum(leaf.numel() for leaf in leaves), "dtypes": sorted(dtypes)}

    def run(self, work: str, calls: int = 1) -> float:
        """Runs some calls; returns the seconds that each took."""
        start = time.perf_counter()
        for _ in range(calls):
            if work == "step":
                self._step(self.batch)
                continue
            with torch.no_grad():
                if work == "log_prob":
                    self.log_prob(self.batch)
                else:
                    self.sample(len(self.batch))
        return (time.perf_counter() - start) / calls

    def train(self, steps: int) -> float:
        """Trains from the start; returns the mean log-likelihood of the test rows, in nats."""
        self.initialize()
        for rows in self.rows.batches(steps):
            self._step(torch.from_numpy(rows))
        with torch.no_grad():
            return float(self.log_prob(torch.from_numpy(self.rows.test)).mean())

    def _step(self, rows: torch.Tensor) -> None:
        self.optimizer.zero_grad()
        (-self.log_prob(rows).mean()).backward()
        self.optimizer.step()
