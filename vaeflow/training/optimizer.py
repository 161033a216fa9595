"""Adam or Adamax with warm-up, decay, clipping and weight decay, as a `TrainConfig` describes."""

from __future__ import annotations

from typing import Any

import jax
import optax

from vaeflow.training.config import TrainConfig

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
