"""Several hosts that train as one."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys

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
        """Refuses numbers that don't fit each other.

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
    """Joins the other hosts, if there are any; to be called before anything else of JAX.

    With a coordinator, as the configuration says. Without one, only a Cloud TPU is looked for,
    whose hosts know of each other.

    Args:
      config: Who they are.

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
    """The first host's values, on every host, so that all decide alike."""
    if jax.process_count() == 1:
        return values
    names = sorted(values)
    sent = np.array([values[name] for name in names], np.float64).view(np.uint32)
    agreed = np.asarray(multihost_utils.broadcast_one_to_all(sent)).view(np.float64)
    return {name: float(value) for name, value in zip(names, agreed, strict=True)}
