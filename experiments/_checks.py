"""Checks of options, each of which names the option: made before anything is trained."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from vaeflow.training import TrainConfig
from vaeflow.training.config import check_batch_size
from vaeflow.training.fingerprint import flatten


def check_least(config: Any, prefix: str, **least: float) -> None:
    """Checks lower bounds of fields, inclusive; of a tuple, those of each of its values.

    Args:
      config: A dataclass.
      prefix: What its options begin with, such as "model."; may be empty.
      **least: The smallest value allowed by field.

    Raises:
      ValueError: Naming the first field below its bound, the bound and the value.
    """
    for name, bound in least.items():
        value = getattr(config, name)
        several = isinstance(value, tuple)
        if not all(each >= bound for each in (value if several else (value,))):
            each = "each be" if several else "be"
            raise ValueError(f"{prefix}{name} must {each} at least {bound}, got {value}")


def check_numbers(config: Any) -> None:
    """Checks that the numbers of a configuration are finite, and integers of 64 bits.

    Raises:
      ValueError: Naming the first field with another number.
    """
    for name, value in flatten(dataclasses.asdict(config)).items():
        for each in value if isinstance(value, tuple) else (value,):
            if isinstance(each, float):
                check(math.isfinite(each), f"{name} must be finite, got {each}")
            elif isinstance(each, int):
                check(abs(each) < 2**63, f"{name} must be of at most 64 bits, got {each}")


def check_batches(config: TrainConfig, name: str, examples: int) -> None:
    """Checks, before an earlier stage is trained, that a later one can divide and fill its batches.

    Args:
      config: How the later stage is trained.
      name: The field of the configuration that it is.
      examples: Number of its training examples.

    Raises:
      ValueError: Naming the option.
    """
    check_batch_size(config, name)
    check(
        config.batch_size <= examples,
        f"{name}.batch_size must be at most {examples}, the number of training examples, got "
        f"{config.batch_size}",
    )


def check(holds: bool, message: str) -> None:
    """Raises a `ValueError` with the message unless a condition on options holds."""
    if not holds:
        raise ValueError(message)


def check_classes(option: str, value: int | None, num_classes: int | None) -> None:
    """Checks that an option, where it is set, is the number of classes of the data.

    Raises:
      ValueError: If it isn't.
    """
    check(
        value in (None, num_classes),
        f"{option} must be that of the data, {num_classes}, got {value}",
    )
