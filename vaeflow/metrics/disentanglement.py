"""`disentanglement_scores`: all scores of a representation with known factors, by name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from vaeflow.metrics.informativeness import (
    disentanglement_completeness_informativeness,
    modularity,
    mutual_information_gap,
    separated_attribute_predictability,
)
from vaeflow.metrics.interventions import beta_vae_score, factor_vae_score


def disentanglement_scores(
    codes: Float[np.ndarray, "example latent"],
    factors: Int[np.ndarray, "example factor"],
    *,
    categorical: Sequence[int] = (),
    seed: int = 0,
) -> dict[str, float]:
    """Computes the disentanglement scores of a representation with known factors.

    For sprites, with a trained model::

        factors = dataset.truth.codes(batch["index"])
        codes = np.asarray(model.apply(variables, batch["image"], rng, method="encode"))
        metrics.disentanglement_scores(codes, factors, categorical=(0,))

    Some 5,000 to 10,000 examples, sampled from all combinations of the factors, make scores
    comparable with one another. All are better the higher they are, and 1 at best (up to less with
    categories for `separated_attribute_predictability`, and with more values than bins for
    `mutual_information_gap`); their docstrings state the scores of useless latents.

    Args:
      codes: Posterior means; each latent in any units.
      factors: Ground-truth factors of the examples.
      categorical: Columns of `factors` whose order means nothing, such as shapes.
      seed: Seed of the samples.

    Returns:
      `mutual_information_gap`, `modularity`, `separated_attribute_predictability`,
      `disentanglement`, `completeness`, `informativeness`, `factor_vae_score` and `beta_vae_score`.

    Raises:
      ValueError: As the functions of these names.
    """
    predicted = disentanglement_completeness_informativeness(
        codes, factors, categorical=categorical, seed=seed
    )
    return {
        "mutual_information_gap": mutual_information_gap(codes, factors),
        "modularity": modularity(codes, factors),
        "separated_attribute_predictability": separated_attribute_predictability(
            codes, factors, categorical=categorical
        ),
        "disentanglement": predicted.disentanglement,
        "completeness": predicted.completeness,
        "informativeness": predicted.informativeness,
        "factor_vae_score": factor_vae_score(codes, factors, seed=seed),
        "beta_vae_score": beta_vae_score(codes, factors, seed=seed),
    }
