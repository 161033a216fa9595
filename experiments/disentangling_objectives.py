"""Objectives that are to disentangle latents, by name."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Literal

import optax

import vaeflow as vf
from vaeflow import losses, nn, training

PyTree = Any
DISCRIMINATOR = (256, 256, 256)
"""Hidden layers of the FactorVAE's discriminator."""


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
    """What is minimised."""

    name: Literal["elbo", "capacity", "beta-tcvae", "factor-vae", "dip-vae-1", "dip-vae-2", "hfvae"]
    """The negative ELBO with a weight of the KL; with ``|KL - C|`` for its KL; with a weight of its
    total correlation; with a discriminator's estimate of that added; with a penalty on covariances
    of the means (1) or of the samples (2); or with weights of the total correlations of groups."""
    weight: float = 1.0
    """Of the KL (elbo), of ``|KL - C|`` (capacity), of the total correlation (beta-tcvae,
    factor-vae; hfvae: between groups), of covariances off the diagonal (dip-vae; tenfold on the
    diagonal for 1, as much for 2)."""
    information: float = 1.0
    """Weight of the mutual information of images and latents, for beta-tcvae and hfvae."""
    within: float = 1.0
    """Weight of the total correlation within groups, for hfvae."""
    capacity: float = 0.0
    """C at last, in nats, for capacity."""
    rising: float = 0.5
    """Share of the training over which C rises from 0, in a line."""

    def __post_init__(self) -> None:
        """Refuses values out of range.

        Raises:
          ValueError: Naming the field, the value given and what is allowed.
        """
        for name in ("weight", "information", "within", "capacity"):
            if getattr(self, name) < 0:
                raise ValueError(f"objective.{name} must be at least 0, got {getattr(self, name)}")
        if not 0 <= self.rising <= 1:
            raise ValueError(f"objective.rising must be in [0, 1], got {self.rising}")


class Training:
    """What `vaeflow.training.fit` is given to train a VAE by an objective.

    Attributes:
      model: The VAE, or that and its discriminator.
      losses: The loss, or one for each player.
      optimizers: The optimiser, or one for each player.
      weights: Weights of the loss, or those of each player.
    """

    def __init__(
        self,
        objective: ObjectiveConfig,
        vae: vf.models.VAE,
        train: training.TrainConfig,
    ):
        self._adversarial = objective.name == "factor-vae"
        self.model: Any = vae
        self.losses: Any
        self.optimizers: Any = training.make_optimizer(train)
        self.losses, self.weights = _loss(objective, train.steps, train.batch_size)
        if self._adversarial:
            self.model = vf.models.FactorVAE(vae, nn.LatentDiscriminator(DISCRIMINATOR))
            self.losses = {"model": self.losses, "discriminator": losses.factor_vae_discriminator}
            # The decays are the paper's.
            against = optax.adam(training.make_schedule(train), b1=0.5, b2=0.9)
            self.optimizers = {"model": self.optimizers, "discriminator": against}
            self.weights = {"model": self.weights}

    @property
    def prefix(self) -> str:
        """What the names of the VAE's metrics begin with."""
        return "model/" if self._adversarial else ""

    def variables_of_vae(self, variables: PyTree) -> PyTree:
        """The variables of the VAE alone."""
        if not self._adversarial:
            return variables
        return vf.models.submodel(self.model, variables, "model")[1]


def _loss(objective: ObjectiveConfig, steps: int, batch_size: int) -> tuple[Any, dict[str, Any]]:
    """The loss of the VAE, and its weights."""
    weight = objective.weight
    if objective.name == "elbo":
        return losses.elbo, {"beta": weight}
    if objective.name == "capacity":
        rise = losses.linear_schedule(objective.rising * steps, end=objective.capacity)
        return losses.elbo, {"beta": weight, "capacity": rise}
    if objective.name == "factor-vae":
        return losses.factor_vae, {"gamma": weight}
    if objective.name in ("beta-tcvae", "hfvae"):
        # Of the aggregate posterior of the batch, which is known, not of that of the data: a batch
        # tells of the latter too low a density, the more so the more the latents tell, and its
        # total correlation then goes below zero, which a weight on it rewards.
        loss = losses.beta_tcvae if objective.name == "beta-tcvae" else losses.hfvae
        weights = {"alpha": objective.information, "beta": weight}
        if objective.name == "hfvae":
            weights["gamma"] = objective.within
        return functools.partial(loss, dataset_size=batch_size), weights
    of_samples = objective.name == "dip-vae-2"
    loss = functools.partial(losses.dip_vae, of_samples=of_samples)
    return loss, {"off_diagonal": weight, "diagonal": weight if of_samples else 10 * weight}
