"""A bound on the log-likelihood of images by their codes."""

from __future__ import annotations

from typing import Any, NamedTuple

from jaxtyping import Array, Float

from vaeflow.losses.vq_vae import code_evidence
from vaeflow.models import CodeModel, submodel


class CodeBound(NamedTuple):
    """The parts of a lower bound on log p(x), in nats.

    Attributes:
      log_likelihood: log p(x | c(x)) of each image, ``[batch]``.
      log_prior: log P of the codes of each level given those above, from the top, ``[batch]`` each.
    """

    log_likelihood: Float[Array, " batch"]
    log_prior: tuple[Float[Array, " batch"], ...]

    def total(self) -> Float[Array, " batch"]:
        """Computes log p(x | c(x)) + log P(c(x))."""
        return self.log_likelihood + sum(self.log_prior)


def code_bound(
    model: CodeModel, variables: dict[str, Any], batch: dict[str, Array], rng: Array
) -> CodeBound:
    """Computes log p(x | c(x)) and log P(c(x)), whose sum is at most log p(x).

    p(x) is the sum of P(c) p(x | c) over all codes c, of which this is one term. With the noise of
    an observation, the bound is that of the noisy image, and its cost is included.

    Args:
      model: The auto-encoder and its priors.
      variables: The model's variables.
      batch: ``{"image": [batch, height, width, channel], ...}``, and "label" where the priors take
        labels.
      rng: A typed key, or one for each row.

    Raises:
      ValueError: If the priors take labels and the batch has none.
    """
    if model.classes is not None and batch.get("label") is None:
        raise ValueError(
            f"batch must have an entry 'label' for priors of {model.classes} classes, got "
            f"{sorted(batch)}"
        )
    auto_encoder, own = submodel(model, variables, "auto_encoder")
    found = code_evidence(auto_encoder, own, batch, rng)
    codes = tuple(level.indices for level in found.levels)
    labels = None if model.classes is None else batch["label"]
    log_prior = model.apply(variables, codes, labels, method="log_prior")
    return CodeBound(found.log_likelihood, log_prior)
