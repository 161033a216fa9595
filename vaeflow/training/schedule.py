"""Which step of a run logs, evaluates, plots or saves, and after which it ends."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from vaeflow.training.config import TrainConfig


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Which step does what, as a function of the step and of the last (best) evaluation's step.

    Both are checkpointed, so that a run that goes on does what it would have done.

    Attributes:
      config: How to train.
      evaluates: Whether there are evaluations at all.
      plots: Whether figures are plotted at all.
    """

    config: TrainConfig
    evaluates: bool
    plots: bool

    def ends_at(self, step: int, evaluated_step: int) -> bool:
        """Whether training ends after a step: it is the last step, or patience is exhausted."""
        patience = self.config.patience * self.config.evaluate_every
        exhausted = 0 < patience <= step - evaluated_step
        return step >= self.config.steps or (exhausted and self.evaluates_at(step))

    def evaluates_at(self, step: int) -> bool:
        """Whether there is an evaluation after a step."""
        every = self.config.evaluate_every
        due = step == self.config.steps or (every > 0 and step % every == 0)
        return self.evaluates and due

    def logs_at(self, step: int) -> bool:
        """Whether a line of metrics is written for a step, unless its evaluation writes it."""
        return step == 1 or step % self.config.log_every == 0 or step == self.config.steps

    def plots_at(self, step: int, evaluated_step: int) -> bool:
        """Whether figures are plotted after a step."""
        early = step & (step - 1) == 0  # 1 and the powers of two
        return self.plots and (early or self.ends_at(step, evaluated_step))

    def saves_at(self, step: int, evaluated_step: int) -> bool:
        """Whether a checkpoint is written after a step."""
        return step % self.config.checkpoint_every == 0 or self.ends_at(step, evaluated_step)

    def pauses_at(self, step: int) -> bool:
        """Whether anything is done after a step; it may end early only where it evaluates."""
        return self.plots_at(step, step) or self.evaluates_at(step) or self.saves_at(step, step)

    def sizes(self, start: int) -> Iterator[int]:
        """Number of steps in each call up to the end: at most `scan_steps`, none across a pause."""
        size = 0
        for step in range(start + 1, self.config.steps + 1):
            size += 1
            if size == self.config.scan_steps or self.pauses_at(step):
                yield size
                size = 0
