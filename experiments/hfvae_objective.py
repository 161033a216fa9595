"""What a model of a style and a category minimises."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow import losses
from vaeflow._util.axis import LOCAL, Axis
from vaeflow.estimators import split_rows


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
    """Weights of the parts of the KL, all one for the negative ELBO, and what leads the category.

    Without the last five it is the published objective.
    """

    alpha: float = 1.0
    """Weight of the mutual information of images and latents."""
    beta: float = 12.0
    """Weight of the total correlation between style and category."""
    gamma: float = 4.0
    """Weight of the total correlation within the style."""
    capacity: float = 0.0
    """Nats that the category is to tell of an image."""
    capacity_weight: float = 0.0
    """Weight of the distance from it; 0 for no such aim."""
    first_style_weight: float = 0.0
    """At first, weight of the KL of the style beyond what the objective has."""
    early: float = 0.0
    """Share of the training with that weight, and with 1 for beta and gamma."""
    late: float = 0.0
    """Share of the training after which beta and gamma are as given and the style's weight is 0;
    between the two, all change linearly."""

    def __post_init__(self) -> None:
        """Refuses values out of range.

        Raises:
          ValueError: Naming the field, the value given and what is allowed.
        """
        for field in dataclasses.fields(self):
            if getattr(self, field.name) < 0:
                raise ValueError(
                    f"objective.{field.name} must be at least 0, got {getattr(self, field.name)}"
                )
        if not self.early <= self.late <= 1:
            raise ValueError(
                "objective.early and objective.late must be in order and at most 1, got "
                f"{self.early} and {self.late}"
            )


def make_weights(objective: ObjectiveConfig, steps: int, dataset_size: int) -> dict[str, Any]:
    """The weights of `loss` in a run of so many steps: numbers, and schedules of the step."""
    start, length = objective.early * steps, (objective.late - objective.early) * steps

    def changing(first: float, last: float) -> Any:
        line = losses.linear_schedule(length, start=first, end=last)
        return lambda step: line(jnp.maximum(step - start, 0))

    return {
        "alpha": objective.alpha,
        "beta": changing(1.0, objective.beta),
        "gamma": changing(1.0, objective.gamma),
        "capacity": objective.capacity,
        "capacity_weight": objective.capacity_weight,
        "style_weight": changing(objective.first_style_weight, 0.0),
        "dataset_size": dataset_size,
    }


def loss(
    model: Any,
    variables: dict[str, Any],
    batch: dict[str, Array],
    rng: Array,
    *,
    axis: Axis = LOCAL,
    train: bool = True,
    capacity: Float[Array, ""] | float,
    capacity_weight: Float[Array, ""] | float,
    style_weight: Float[Array, ""] | float,
    dataset_size: Float[Array, ""] | int,
    **weights: Any,
) -> tuple[Float[Array, ""], losses.Aux]:
    """`losses.hfvae`, and a capacity of the category, and a weight of the style.

    To the objective are added w |I(x; c) - C| for the category c, with a capacity C, and
    v KL(q(s | x) || p(s)) for the style s. I(x; c) = H(mean pi) - mean H(pi), in nats, with the
    probabilities pi(x) of the categories and means over the batch.

    Source of the capacity: Dupont 2018, "Learning disentangled joint continuous and discrete
    representations", equation 7, there of the KL, which one category for all images meets too.
    """
    value, aux = losses.hfvae(
        model, variables, batch, rng, axis=axis, train=train, dataset_size=dataset_size, **weights
    )
    # The compiler finds these in the objective, whose observation has the same keys.
    keys, _ = split_rows(rng, batch["image"].shape[0])
    values, _ = model.apply(variables, batch["image"], keys, method="observe")
    category = model.apply(variables, values, method="posterior").groups["category"]
    conditional = jnp.sum(category.mean() * category.log_probability, axis=-1)
    marginal = axis.mean(jnp.mean(category.mean(), axis=0))
    # A category that no image has gets no gradient, rather than an infinite one.
    log_marginal = jnp.log(jnp.maximum(marginal, jnp.finfo(marginal.dtype).tiny))
    information = axis.mean(jnp.mean(conditional)) - jnp.sum(marginal * log_marginal)
    value = value + capacity_weight * jnp.abs(information - capacity)
    value = value + style_weight * aux.metrics["kl/style"]
    return value, losses.Aux({**aux.metrics, "category_mutual_information": information}, aux.state)
