"""`fit_energy` trains a flow on an unnormalised density, by samples of the flow."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
import optax

from vaeflow import losses, training
from vaeflow._util.checks import check_count
from vaeflow.estimators import importance_diagnostics
from vaeflow.fitting.data import History, as_density
from vaeflow.fitting.fitted import Fitted, summary_of
from vaeflow.losses.flow import Energy


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class FittedEnergy(Fitted):
    """A density q that was fitted to p(x) = exp(-U(x)) / Z, and how well it covers it.

    Attributes:
      log_normalizer: Estimate of log Z in nats, by importance sampling.
      effective_sample_size: (E_q w)^2 / E_q[w^2], w = p / q: 1 where q is p, near 0 where samples
        of q say little of p. A mode that q misses can't be seen from its samples.
    """

    log_normalizer: float = float("nan")
    effective_sample_size: float = float("nan")

    def __repr__(self) -> str:
        return (
            f"{super().__repr__()[:-1]}; log normalizer {self.log_normalizer:.4f}, effective "
            f"sample size {self.effective_sample_size:.1%})"
        )


def fit_energy(
    flow: Any,
    energy: Energy,
    *,
    steps: int = 2000,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    warm_up: float = 0.25,
    optimizer: optax.GradientTransformation | None = None,
    num_samples: int = 10_000,
    seed: int = 0,
    progress: bool = True,
) -> FittedEnergy:
    """Trains a flow to sample p(x) = exp(-U(x)) / Z, by reverse KL.

    The energy's weight rises from 0.1 to 1 in the first steps, so that the flow doesn't settle in
    the first mode that it finds; see `vaeflow.losses.reverse_kl`.

    Args:
      flow: A module of `vaeflow.flows`, or a `vaeflow.models.FlowModel` of reals.
      energy: U, a pure function from ``[*batch, *event]`` to nats ``[*batch]``, in JAX.
      steps: Number of steps.
      batch_size: Samples of the flow at each step.
      learning_rate: Of Adam, at the start; it falls to zero along half a cosine.
      warm_up: Share of the steps in which the energy's weight rises; 0 for none.
      optimizer: An Optax transformation in place of Adam with its rate and clipped gradients.
      num_samples: Samples from which the normalizer is estimated.
      seed: Seed of the parameters and the noise.
      progress: Whether to show a progress bar.

    Raises:
      ValueError: If an option is out of range, or the model takes a context or images.
      vaeflow.training.NonFiniteError: If the loss isn't finite.
    """
    check_count("steps", steps)
    check_count("num_samples", num_samples)
    if not 0 <= warm_up <= 1:
        raise ValueError(f"warm_up must be a share in [0, 1], got {warm_up}")
    model = as_density(flow)
    if getattr(model, "dequantizer", None) is not None:
        raise ValueError("flow must be of reals, got one of images with a dequantizer")
    devices = jax.device_count()
    config = training.TrainConfig(
        steps=steps,
        batch_size=max(batch_size // devices, 1) * devices,
        seed=seed,
        learning_rate=learning_rate,
        schedule="cosine",
        clip_norm=5.0,
        ema_decay=0.0,
        scan_steps=min(steps, 100),
        log_every=min(steps, 100),
    )
    rise = round(warm_up * steps)
    beta = optax.linear_schedule(0.1, 1.0, rise) if rise else 1.0
    history = History()
    initialize = jax.jit(model.init)
    found = training.train(
        model,
        functools.partial(losses.reverse_kl, energy=energy),
        training.IndexBatches(config.batch_size),
        config,
        optimizers=optimizer,
        initialize=lambda: initialize(jax.random.key(seed)),
        weights={"beta": beta},
        loggers=[history.opened],
        progress=progress,
    )

    @jax.jit
    def diagnose(variables: Any, key: jax.Array) -> Any:
        samples, log_q = model.apply(variables).sample_and_log_prob(
            seed=key, sample_shape=num_samples
        )
        return importance_diagnostics(-energy(samples) - log_q)

    key = jax.random.fold_in(jax.random.key(seed), steps)
    diagnostics = jax.device_get(diagnose(found.variables, key))
    summary = summary_of(
        model,
        found,
        config,
        loss="reverse KL",
        metric="free_energy",
        metrics={name: float(value) for name, value in diagnostics._asdict().items()},
    )
    return FittedEnergy(
        model,
        found.variables,
        tuple(history.records),
        summary,
        float(diagnostics.log_normalizer),
        float(np.asarray(diagnostics.effective_sample_size)),
    )
