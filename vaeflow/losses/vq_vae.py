"""The loss of the VQ-VAE, and the bound on log p(x) of its auto-encoder and priors together."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow._util.arrays import LOCAL, Axis
from vaeflow._util.checks import as_array, check_number, entry, require
from vaeflow.estimators import split_rows
from vaeflow.losses.elbo import bits_of
from vaeflow.models import CodeModel, submodel
from vaeflow.typing import Aux

if TYPE_CHECKING:
    from vaeflow.quantizers import Quantized


class CodeEvidence(NamedTuple):
    """Codes of images, and the log-likelihood of the images given them.

    Attributes:
      levels: The result of each quantizer, from the top.
      log_likelihood: log p(x | c(x)) of each uint8 image, in nats, ``[batch]``, including the
        log-det of the preprocessing.
      state: Updated mutable collections, {} where there are none.
    """

    levels: tuple[Quantized, ...]
    log_likelihood: Float[Array, " batch"]
    state: dict[str, Any]


def code_evidence(
    model: nn.Module,
    variables: dict[str, Any],
    batch: dict[str, Array],
    rng: Array,
    *,
    axis: Axis = LOCAL,
    train: bool = False,
    **options: Array | float,
) -> CodeEvidence:
    """Encodes images and evaluates the model at their codes; arguments as for `vq_vae`."""
    require(model, "quantize")
    images = as_array("image", entry(batch, "image"))
    first, second = split_rows(rng, images.shape[0])
    values, log_det = model.apply(variables, images, first, method="observe")
    levels, state = model.apply(
        variables,
        values,
        second,
        axis=axis,
        train=train,
        **options,
        method="quantize",
        mutable=["codebook"],
    )
    latents = model.apply(variables, [level.values for level in levels], method="merge")
    likelihood = model.apply(variables, latents, method="likelihood")
    return CodeEvidence(levels, likelihood.log_prob(values) + log_det, state)


def vq_vae(
    model: nn.Module,
    variables: dict[str, Any],
    batch: dict[str, Array],
    rng: Array,
    *,
    axis: Axis = LOCAL,
    train: bool = True,
    commitment: Float[Array, ""] | float = 0.25,
    codebook: Float[Array, ""] | float = 1.0,
    entropy: Float[Array, ""] | float = 0.1,
    kl: Float[Array, ""] | float = 1.0,
    temperature: Float[Array, ""] | float | None = None,
) -> tuple[Float[Array, ""], Aux]:
    """Computes the mean of -log p(x | c(x)) plus the weighted losses of the quantizers.

    Each quantizer has some of the four losses, see `vaeflow.quantizers.Quantized`; those of all
    levels are summed. Where codes are moving averages, their sums are in the state returned.

    With codes that are equally likely, of which each latent has K,
    -log p(x) <= -log p(x | c(x)) + (number of latents) log K: this is the metric `bits_per_dim`,
    except in training with relaxed values, which aren't codes. A trained
    `vaeflow.models.CodePrior` tightens the bound.

    Source: van den Oord, Vinyals & Kavukcuoglu 2017, "Neural discrete representation learning",
    equation 3; Yu et al. 2024, "Language model beats diffusion: tokenizer is key to visual
    generation", equation 5 (entropy).

    Args:
      model: A `vaeflow.models.VQVAE` or `VQVAE2`.
      axis: How the batch is divided; codes are learned from all of it.
      train: Whether codes are learned and sampled as in training.
      commitment: Weight of the features' distance to their codes.
      codebook: Weight of the codes' distance to their features.
      entropy: Weight of lookup-free codes' entropies.
      kl: Weight of the KL of Gumbel codes to equally likely ones.
      temperature: Of Gumbel codes, which alone have one; None for theirs.

    Returns:
      The loss, and the metrics `reconstruction` (-log p(x | c)) and the unweighted losses by name,
      in nats or squared distances an example; `reconstruction_per_dim` and `bits_per_dim`.

    Raises:
      ValueError: If the model has no codes, or a weight is below zero.
    """
    if temperature is not None:
        temperature = check_number("temperature", temperature, above=0)
    options = {} if temperature is None else {"temperature": temperature}
    weights = {"commitment": commitment, "codebook": codebook, "entropy": entropy, "kl": kl}
    weights = {name: check_number(name, weight, 0) for name, weight in weights.items()}
    codes = code_evidence(model, variables, batch, rng, axis=axis, train=train, **options)
    reconstruction = -jnp.mean(codes.log_likelihood)
    terms: dict[str, Array] = {}
    for level in codes.levels:
        for name, of_rows in level.losses.items():
            terms[name] = terms.get(name, 0.0) + jnp.mean(of_rows)
    loss = reconstruction + sum(weights[name] * term for name, term in terms.items())
    code_nats = sum(
        math.prod(level.indices.shape[1:]) * math.log(level.counts.shape[-1])
        for level in codes.levels
    )
    bits = bits_of(entry(batch, "image"))
    metrics = {
        "reconstruction": reconstruction,
        "reconstruction_per_dim": reconstruction / bits,
        "bits_per_dim": (reconstruction + code_nats) / bits,
        **terms,
    }
    return loss, Aux(metrics, codes.state)


class CodeBound(NamedTuple):
    """The two terms of a lower bound on log p(x), in nats.

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

    p(x) is the sum of P(c) p(x | c) over all codes c, of which this is one term. With a dequantizer
    the bound is that of the noisy image, including the log-det.

    Args:
      model: The auto-encoder and its priors.
      variables: The model's variables.
      batch: ``{"image": [batch, height, width, channel], ...}``, and "label" where the priors take
        labels.
      rng: A typed key, or one for each row.

    Raises:
      ValueError: If the priors take labels and the batch has none.
    """
    labels = None if model.num_classes is None else entry(batch, "label")
    auto_encoder, auto_encoder_variables = submodel(model, variables, "auto_encoder")
    codes = code_evidence(auto_encoder, auto_encoder_variables, batch, rng)
    indices = tuple(level.indices for level in codes.levels)
    log_prior = model.apply(variables, indices, context=labels, method="log_prior")
    return CodeBound(codes.log_likelihood, log_prior)
