"""Signals that stop a run once its state is saved."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

import jax
from jax.experimental import multihost_utils

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that ask a run to stop."""


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
    """Context in which `SIGNALS` request a stop after the current step.

    Only the main thread may handle signals; in another one nothing is ever requested. With several
    hosts SIGTERM is handled by JAX, see `StopRequest.agreed`, and SIGHUP made one.
    """
    request = StopRequest()
    if jax.process_count() == 1:
        with handled_signals(request.receive):
            yield request
    else:
        with handled_signals(lambda *_: os.kill(os.getpid(), signal.SIGTERM), (signal.SIGHUP,)):
            yield request


@contextlib.contextmanager
def handled_signals(
    handler: Callable[[int, object], object], numbers: tuple[int, ...] = SIGNALS
) -> Iterator[None]:
    """Context in which signals are handled, in the main thread; elsewhere nothing is changed.

    Args:
      handler: Called with the number of the signal and the frame.
      numbers: The signals. Those that the process ignores, as SIGHUP under nohup, stay ignored.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in numbers:
            if signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
