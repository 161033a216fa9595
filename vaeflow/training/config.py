"""The training options that every experiment shares, and the optimizer that they describe.

Names and values are stored in `config.json` and are the options of the command line. The optimizer
is Adam or Adamax with warm-up, decay, clipping and weight decay.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from typing import Any, Literal

import jax
import optax


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How to train."""

    steps: int = 1000
    """Number of updates."""
    batch_size: int = 64
    """Examples in a batch, over all devices."""
    seed: int = 0
    """Seed of initialisation, order of the data, augmentations and noise."""
    strategy: Literal["jit", "pmap"] = "jit"
    """Data parallelism: the compiler partitions the step, or each device runs it on its rows."""
    accumulate: int = 1
    """Number of microbatches over which gradients are accumulated, for batches that don't fit."""
    optimizer: Literal["adam", "adamax"] = "adam"
    """Adam, or Adamax as in the Glow paper."""
    learning_rate: float = 1e-3
    """Learning rate after the warm-up."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises linearly."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Learning rate after the warm-up: constant, or a cosine that ends at 0 with the run."""
    halve_every: int = 0
    """Steps after which a constant learning rate is halved, repeatedly; 0 for never."""
    clip_norm: float = 0.0
    """Largest global norm of the gradient; 0 leaves it as it is."""
    weight_decay: float = 0.0
    """Decoupled weight decay of kernels."""
    ema_decay: float = 0.999
    """Decay of the moving average of the parameters, lower in early steps; 0 keeps no average."""
    scan_steps: int = 1
    """Steps in one compiled call; above 1 the training data are kept on the device."""
    log_every: int = 10
    """Steps between lines of metrics.jsonl."""
    evaluate_every: int = 0
    """Steps between evaluations; 0 evaluates at the end alone."""
    patience: int = 0
    """Early stopping: end after this many evaluations without improvement; 0 for none. The
    schedule of the learning rate still spans all steps."""
    checkpoint_every: int = 500
    """Steps between checkpoints; one is always written at the end."""

    def __post_init__(self) -> None:
        """Validates the ranges.

        Raises:
          ValueError: Naming the field, the value given and what is allowed.
        """
        for name, kind in typing.get_type_hints(type(self)).items():
            value = getattr(self, name)
            if choices := typing.get_args(kind):
                self._require(name, value in choices, f"one of {choices}")
            elif kind is float:
                self._require(name, math.isfinite(value), "finite")
            else:  # the state counts steps in 32 bits
                bits = 63 if name == "seed" else 31
                self._require(name, value < 2**bits, f"below 2^{bits}")
        for name in (
            "steps",
            "batch_size",
            "scan_steps",
            "accumulate",
            "log_every",
            "checkpoint_every",
        ):
            self._require(name, getattr(self, name) >= 1, "at least 1")
        for name in (
            "seed",
            "warmup_steps",
            "halve_every",
            "clip_norm",
            "weight_decay",
            "evaluate_every",
            "patience",
        ):
            self._require(name, getattr(self, name) >= 0, "at least 0")
        self._require(
            "patience", not self.patience or self.evaluate_every > 0, "0 without evaluate_every"
        )
        self._require(
            "halve_every", not self.halve_every or self.schedule == "constant", "0 with a cosine"
        )
        self._require("learning_rate", self.learning_rate > 0, "above 0")
        self._require("ema_decay", 0 <= self.ema_decay < 1, "in [0, 1)")

    def _require(self, name: str, condition: bool, allowed: str) -> None:
        if not condition:
            raise ValueError(f"train.{name} must be {allowed}, got {getattr(self, name)!r}")


def check_batch_size(config: TrainConfig, name: str = "train") -> None:
    """Validates that the batch size is divisible by devices times `accumulate`.

    `train` does; call it up front for later stages of a run.

    Args:
      config: How to train.
      name: Prefix of the options of `config`.

    Raises:
      ValueError: If the rows of a batch can't be divided.
    """
    devices = jax.device_count()
    if config.batch_size % (devices * config.accumulate):
        raise ValueError(
            f"{name}.batch_size must be divisible by {devices} devices times {name}.accumulate "
            f"{config.accumulate}, got {config.batch_size}"
        )


PyTree = Any


def make_schedule(config: TrainConfig) -> optax.Schedule:
    """Returns the learning rate as a function of the step.

    It rises linearly from 0 over `config.warmup_steps`, step t (from 0) having
    `learning_rate * (t + 1) / warmup_steps`, then stays constant, or is halved every
    `config.halve_every` steps, or falls to 0 along half a cosine that ends with the run.

    Args:
      config: The training configuration.

    Returns:
      A function of the number of updates made so far.
    """
    peak, warmup = config.learning_rate, config.warmup_steps
    if config.schedule == "cosine":
        after = optax.cosine_decay_schedule(peak, max(config.steps - warmup, 1))
    elif config.halve_every:
        after = optax.exponential_decay(peak, config.halve_every, 0.5, staircase=True)
    else:
        after = optax.constant_schedule(peak)
    if not warmup:
        return after
    # The first step isn't wasted on a rate of 0.
    rise = optax.linear_schedule(peak / warmup, peak, max(warmup - 1, 1))
    return optax.join_schedules([rise, after], [warmup])


def weight_decay_mask(parameters: PyTree) -> PyTree:
    """The mask of weight decay: True for the leaves named "kernel".

    Biases, scales and the invertible matrices of flows, which have no reason to be near zero, don't
    decay. The name decides rather than the rank, which is higher in stacked layers.

    Args:
      parameters: Nested dicts of arrays.

    Returns:
      The same structure with a bool for each leaf.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, _: bool(path) and getattr(path[-1], "key", None) == "kernel", parameters
    )


def make_optimizer(
    config: TrainConfig, decays: tuple[float, float] = (0.9, 0.999)
) -> optax.GradientTransformation:
    """Returns the optimiser that a configuration describes.

    Gradients are clipped by their global norm and scaled by Adam (Kingma & Ba 2015, algorithm 1) or
    Adamax (algorithm 2); decoupled weight decay (Loshchilov & Hutter 2019) of kernels is added, and
    the sum is multiplied by the learning rate.

    Args:
      config: The training configuration.
      decays: Decay of the averages of gradients and of their squares, beta_1 and beta_2; in
        adversarial training beta_1 is often 0.5.

    Returns:
      An Optax transformation.

    Raises:
      ValueError: If a decay isn't in [0, 1).
    """
    if not all(0 <= decay < 1 for decay in decays):
        raise ValueError(f"decays must be in [0, 1), got {decays}")
    parts = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    scale = optax.scale_by_adamax if config.optimizer == "adamax" else optax.scale_by_adam
    parts.append(scale(*decays))
    if config.weight_decay:
        parts.append(optax.add_decayed_weights(config.weight_decay, mask=weight_decay_mask))
    return optax.chain(*parts, optax.scale_by_learning_rate(make_schedule(config)))
