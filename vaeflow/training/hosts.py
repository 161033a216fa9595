"""Several hosts: how they join, agree before they train, and end when one of them is lost.

JAX's coordination service, on the first host, receives every host's heartbeats. Where they stop, it
ends all processes from C++ with a page on stderr; here that page becomes one line that names the
host.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import importlib.util
import json
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from vaeflow.training.fingerprint import difference

JOINING_SECONDS = 300
"""How long hosts wait for one another at the start."""
HEARTBEAT_SECONDS = 30
"""Without a heartbeat for so long, a host counts as lost."""
LEAVING_SECONDS = 5
"""How long a host that fails waits before it leaves, so that others that fail alike can say so."""


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
        """Validates the address and the numbers.

        Raises:
          ValueError: Naming the field, the value given and what is allowed.
        """
        if self.count < 1:
            raise ValueError(f"hosts.count must be at least 1, got {self.count}")
        if not 0 <= self.index < self.count:
            raise ValueError(f"hosts.index must be in 0..{self.count - 1}, got {self.index}")
        if self.count > 1 and not self.coordinator:
            raise ValueError(f"hosts.coordinator must be ADDRESS:PORT for {self.count} hosts")
        if self.coordinator and not _is_address(self.coordinator):
            raise ValueError(
                "hosts.coordinator must be ADDRESS:PORT with a port in 1..65535, got "
                f"{self.coordinator!r}"
            )


def _is_address(text: str) -> bool:
    address, _, port = text.rpartition(":")
    # More colons are those of an IPv6 address, in brackets.
    whole = ":" not in address or (address.startswith("[") and address.endswith("]"))
    return bool(address and whole and re.fullmatch("[0-9]{1,5}", port)) and 0 < int(port) < 2**16


def join_hosts(config: HostsConfig) -> None:
    """Joins the other hosts, if there are any; call it before any other function of JAX.

    Without a coordinator, only the hosts of a Cloud TPU are joined, which find each other. Hosts
    wait for one another for `JOINING_SECONDS`. From then on the process ends with code 1, and a
    line that names the host, when one of them is lost: it was killed, or has sent no heartbeat for
    `HEARTBEAT_SECONDS`. For that the process's stderr is read by a thread, which passes it on.

    Args:
      config: The hosts.

    Raises:
      ValueError: If the coordinator's port can't be used.
    """
    if config.coordinator:
        if config.index == 0:
            _check_port(config.coordinator)
        terminal = _watch_for_lost_hosts(config)
        # Collectives that wait for one another may otherwise run in an order that never ends.
        jax.config.update("jax_cpu_enable_async_dispatch", False)
        with _patience(config, terminal):
            try:
                jax.distributed.initialize(
                    config.coordinator,
                    config.count,
                    config.index,
                    initialization_timeout=2 * JOINING_SECONDS,  # ours ends with a line
                    heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
                )
            except RuntimeError as error:
                reason = str(error).splitlines()[0]
                raise ValueError(
                    f"hosts.coordinator {config.coordinator} can't be used ({reason})"
                ) from error
    elif importlib.util.find_spec("libtpu") and (jax.config.jax_platforms or "") != "cpu":
        try:
            jax.distributed.initialize()
        except (RuntimeError, ValueError) as error:
            print(f"warning: training on this host alone ({error})", file=sys.stderr)


def _check_port(coordinator: str) -> None:
    """Checks that this host can listen where it is to coordinate; the service would crash."""
    port = int(coordinator.rpartition(":")[2])
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        with socket.create_server(("", port), family=family, dualstack_ipv6=both):
            pass
    except OSError as error:
        raise ValueError(
            f"hosts.coordinator {coordinator} can't be used: {error.strerror}"
        ) from error


@contextlib.contextmanager
def _patience(config: HostsConfig, terminal: int) -> Iterator[None]:
    """Says at once what is waited for, and ends the process where it doesn't come."""
    others = f"the other {config.count - 1} hosts" if config.count > 2 else "the other host"
    awaited = f"the coordinator at {config.coordinator}" if config.index else others
    if config.count > 1:
        print(
            f"host {config.index} of {config.count} waits for {awaited}, for up to "
            f"{JOINING_SECONDS} s",
            file=sys.stderr,
            flush=True,
        )

    def give_up() -> None:
        _end(
            1,
            f"host {config.index} waited {JOINING_SECONDS} s for {awaited} in vain; all hosts must "
            "be started with the same hosts.coordinator and hosts.count, each with its hosts.index",
            terminal,
        )

    timer = threading.Timer(JOINING_SECONDS, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


FATAL = "the JAX distributed service detected fatal errors"
"""Part of the last message of a process that the coordination service ends."""
_leaving = threading.Event()


def _watch_for_lost_hosts(config: HostsConfig) -> int:
    """Has a thread read all that C++ writes to stderr, and end the process when a host is lost.

    The coordination service has no other way to say so before it aborts the process.

    Returns:
      The descriptor of stderr itself.
    """
    reading, writing = os.pipe()
    terminal = os.dup(2)
    try:
        ours = sys.stderr.fileno() == 2
    except (AttributeError, OSError, ValueError):  # absent, or not a file
        ours = False
    if ours:  # Python's own lines needn't go through the thread
        sys.stderr.flush()
        sys.stderr = open(  # noqa: SIM115, for as long as the process lives
            terminal, "w", 1, sys.stderr.encoding, "backslashreplace", closefd=False
        )
    os.dup2(writing, 2)
    os.close(writing)
    # abort() calls the handler first. As one it sleeps for as many seconds as the number of the
    # signal, 6, in which the thread has read the message and ends the process.
    library = ctypes.CDLL(None)
    library.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
    library.signal(signal.SIGABRT, ctypes.cast(library.sleep, ctypes.c_void_p))
    thread = threading.Thread(target=_read_messages, args=(reading, terminal, config), daemon=True)
    thread.start()
    return terminal


def _read_messages(reading: int, terminal: int, config: HostsConfig) -> None:
    """Passes lines on, but for messages of the coordination service, which go on over lines."""
    pending, message, of_service, fatal = b"", "", False, False
    while piece := os.read(reading, 2**16):
        *lines, pending = (pending + piece).split(b"\n")
        for line in lines:
            text = line.decode(errors="replace")
            if re.match(r"[IWEF]\d{4} ", text):  # the first line of a message
                of_service = "coordination_service" in text
            fatal = fatal or FATAL in text
            if not fatal and not of_service:
                with contextlib.suppress(OSError):
                    os.write(terminal, line + b"\n")
            elif "stack trace" not in text:
                message += f"{text}\n" if fatal else ""
            else:
                _end(
                    1,
                    f"{_named(lost_hosts(message), config)} can't be reached any more: killed, "
                    "ended or cut off; the same command on all hosts goes on from the last "
                    "checkpoint",
                    terminal,
                )


def lost_hosts(message: str) -> list[int]:
    """The hosts that a message of the coordination service says are lost; 0 is the service's."""
    listed = re.search(r"tasks are unhealthy[^\n]*:\n((?:[^\n]*\d+\n)+)", message)
    if listed:
        return sorted(int(re.findall(r"\d+", line)[-1]) for line in listed[1].splitlines())
    return [0]


def _named(lost: list[int], config: HostsConfig) -> str:
    text = f"host{'s' * (len(lost) > 1)} {', '.join(map(str, lost))} of {config.count}"
    return text + f" (the coordinator, {config.coordinator})" * (lost == [0])


def _end(code: int, line: str, terminal: int) -> None:
    """Ends the process at once, with a line on stderr unless it is leaving already."""
    if not _leaving.is_set():
        with contextlib.suppress(OSError):
            os.write(terminal, f"\nerror: {line}\n".encode())
    os._exit(code)


def leave_hosts(code: int) -> None:
    """Ends this process, which has failed, where there are several hosts; else does nothing.

    An exit in order would wait for the others, which may wait for this one.

    Args:
      code: Its exit code.
    """
    if jax.process_count() == 1:
        return
    _leaving.set()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    time.sleep(LEAVING_SECONDS)
    os._exit(code)


def await_lost_host(error: BaseException | None) -> None:
    """Waits for the line that names a lost host, if an error looks as if one was.

    A collective fails at once when a host is killed, and the service says a little later which.
    """
    if jax.process_count() == 1:
        return
    while error is not None:
        if isinstance(error, jax.errors.JaxRuntimeError) or "Gloo" in str(error):
            time.sleep(2 * HEARTBEAT_SECONDS)
            return
        error = error.__cause__ or error.__context__


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


def check_same(value: dict[str, Any], of: str) -> None:
    """Checks that a JSON value is the same on all hosts, each of which calls this.

    Args:
      value: The value.
      of: Its name in the error.

    Raises:
      ValueError: On every host, with the differences of the first host that has another.
    """
    if jax.process_count() == 1:
        return
    own = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = np.asarray(multihost_utils.process_allgather(np.int32(len(own))))
    padded = np.zeros(sizes.max(), np.uint8)
    padded[: len(own)] = own
    rows = np.asarray(multihost_utils.process_allgather(padded))
    first, *others = (
        json.loads(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True)
    )
    for index, other in enumerate(others, 1):
        if other != first:
            shown = difference(first, other, "on host 0", f"on host {index}")
            raise ValueError(f"all hosts must have the same {of} ({shown})")
