"""Leaving in good order when asked to stop."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils


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
        """Whether to stop now, the same on all hosts, each of which has to ask after every call.

        Several hosts agree through JAX's own pre-emption service, which hears SIGTERM and takes
        the first call that none of them has passed.
        """
        self._asked += 1  # it must grow by ones, which the number of steps need not
        if jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(self._asked):
            self.signal_number = signal.SIGTERM
        return self.signal_number is not None

    def receive(self, signal_number: int, frame: object) -> None:
        """Takes a signal; the second one stops at once.

        Raises:
          KeyboardInterrupt: At the second signal.
        """
        if self.signal_number is not None:
            raise KeyboardInterrupt
        self.signal_number = signal_number


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Turns SIGINT and SIGTERM into a request to stop after the current step, while it lasts.

    Only the main thread may handle signals; in another one nothing is ever requested. Of several
    hosts none handles signals here: see `StopRequest.agreed`.
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
