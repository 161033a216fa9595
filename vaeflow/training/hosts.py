"""Runs on several hosts, and signals that stop a run: how hosts join, agree and stop together."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import signal
import sys
import threading
from collections.abc import Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils


@dataclasses.dataclass(frozen=True)
class HostsConfig:
    """Several hosts, each given the same command but for its index. A Cloud TPU needs none."""

    coordinator: str = ""
    """ADDRESS:PORT of the host of index 0, which the others must be able to reach."""
    count: int = 1
    """Number of hosts."""
    index: int = 0
    """Which of them this is, from 0."""

    def __post_init__(self) -> None:
        """Validates the numbers.

        Raises:
          ValueError: Naming the field, the value given and what is allowed.
        """
        if self.count < 1:
            raise ValueError(f"hosts.count must be at least 1, got {self.count}")
        if not 0 <= self.index < self.count:
            raise ValueError(f"hosts.index must be in 0..{self.count - 1}, got {self.index}")
        if self.count > 1 and not self.coordinator:
            raise ValueError(f"hosts.coordinator must be ADDRESS:PORT for {self.count} hosts")


def join_hosts(config: HostsConfig) -> None:
    """Joins the other hosts, if there are any; call it before any other function of JAX.

    Without a coordinator, only the hosts of a Cloud TPU are joined, which find each other.

    Args:
      config: The hosts.

    Raises:
      ValueError: If the coordinator can't be reached.
    """
    if config.coordinator:
        # Collectives that wait for one another may otherwise run in an order that never ends.
        jax.config.update("jax_cpu_enable_async_dispatch", False)
        try:
            jax.distributed.initialize(config.coordinator, config.count, config.index)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"hosts.coordinator {config.coordinator} can't be reached ({reason})"
            ) from error
    elif importlib.util.find_spec("libtpu") and (jax.config.jax_platforms or "") != "cpu":
        try:
            jax.distributed.initialize()
        except (RuntimeError, ValueError) as error:
            print(f"warning: training on this host alone ({error})", file=sys.stderr)


def is_first() -> bool:
    """Whether this host is the one that writes files."""
    return jax.process_index() == 0


def agree(values: dict[str, float]) -> dict[str, float]:
    """The first host's values, on every host, so that all take the same decisions."""
    if jax.process_count() == 1:
        return values
    names = sorted(values)
    sent = np.array([values[name] for name in names], np.float64).view(np.uint32)
    agreed = np.asarray(multihost_utils.broadcast_one_to_all(sent)).view(np.float64)
    return {name: float(value) for name, value in zip(names, agreed, strict=True)}


class Interrupted(KeyboardInterrupt):
    """A run stopped by a signal, its state saved.

    Attributes:
      step: The step that was saved.
      signal_number: The signal that was received.
    """

    def __init__(self, step: int, signal_number: int) -> None:
        super().__init__(f"stopped at step {step}, which is saved")
        self.step = step
        self.signal_number = signal_number


class StopRequest:
    """Whether this host, or another, was asked to stop.

    Attributes:
      signal_number: The signal, None as long as there was none.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._asked = 0

    def agreed(self) -> bool:
        """Whether to stop now, the same on all hosts; each must call this after every step call.

        Several hosts agree through JAX's pre-emption service, which receives SIGTERM and chooses
        the first call that none of them has passed.
        """
        self._asked += 1  # the service needs a counter that grows by one; steps may grow by more
        if jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(self._asked):
            self.signal_number = signal.SIGTERM
        return self.signal_number is not None

    def receive(self, signal_number: int, frame: object) -> None:
        """Handles a signal; the second one stops at once.

        Raises:
          KeyboardInterrupt: At the second signal.
        """
        if self.signal_number is not None:
            raise KeyboardInterrupt
        self.signal_number = signal_number


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Context in which SIGINT and SIGTERM request a stop after the current step.

    Only the main thread may handle signals; in another one nothing is ever requested. With several
    hosts no signals are handled here: see `StopRequest.agreed`.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread() or jax.process_count() > 1:
        yield request
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, request.receive) for number in numbers}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
