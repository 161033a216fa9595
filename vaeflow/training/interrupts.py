"""Leaving in good order when asked to stop."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator


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
    """Whether a signal has asked to stop.

    Attributes:
      signal_number: The signal, None as long as there was none.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None

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

    Only the main thread may handle signals; in another one nothing is ever requested.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, request.receive) for number in numbers}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
