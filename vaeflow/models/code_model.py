"""Images by their codes, and codes by their priors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8

from vaeflow.models.code_auto_encoder import CodeAutoEncoder, Codes
from vaeflow.models.code_prior import CodePrior, Context


class CodeModel(nn.Module):
    """p(x) = sum over codes c of P(c) p(x | c), where P(c) is a product over levels from the top.

    The prior of the top is given labels or nothing, that of each level below the codes above it as
    well. The parts are trained one after another: first the auto-encoder, by
    `vaeflow.losses.vq_vae`; then the priors of its codes, by
    `vaeflow.losses.negative_log_likelihood`. `vaeflow.models.merge_submodels` makes the variables of the
    whole, by the names "auto_encoder", "priors_0" (the top), "priors_1" and so on.

    Source: van den Oord, Vinyals & Kavukcuoglu 2017, "Neural discrete representation learning",
    section 3.3; Razavi, van den Oord & Vinyals 2019, "Generating diverse high-fidelity images with
    VQ-VAE-2", section 3.2.

    Attributes:
      auto_encoder: A `VQVAE` or `VQVAE2`, whose quantizers have one codebook each.
      priors: A `CodePrior` for each level, from the top.
    """

    auto_encoder: CodeAutoEncoder
    priors: Sequence[CodePrior]

    @property
    def classes(self) -> int | None:
        """Number of classes where the priors are given labels."""
        return self.priors[0].classes

    def __call__(
        self,
        images: UInt8[Array, "batch height width channel"],
        labels: Int[Array, " batch"] | None = None,
    ) -> Codes:
        """Finds the codes of images and builds their priors; `init` calls it with the first batch.

        The auto-encoder and the priors are initialised from that batch.

        Raises:
          ValueError: If the priors aren't one for each quantizer, of its codes and of one codebook,
            or the top's wants a map above it.
        """
        quantizers = self.auto_encoder.quantizers
        if len(self.priors) != len(quantizers):
            raise ValueError(
                f"priors must be one for each of {len(quantizers)} levels, got {len(self.priors)}"
            )
        for level, (prior, quantizer) in enumerate(zip(self.priors, quantizers, strict=True)):
            if quantizer.codebooks or prior.network.codes != quantizer.codes:
                raise ValueError(
                    f"priors must be of the codes of their quantizers: level {level} from the top "
                    f"has {quantizer.codes} codes and codebooks of shape {quantizer.codebooks}, "
                    f"where there must be one of shape (), and a prior of {prior.network.codes}"
                )
        if self.priors[0].above is not None:
            raise ValueError("the prior of the top must have above=None, as no map is above it")
        self.auto_encoder(images)
        rng = self.make_rng("params" if self.is_initializing() else "sample")
        codes = self.auto_encoder.encode(images, rng)
        for level, (prior, maps) in enumerate(zip(self.priors, codes, strict=True)):
            prior(maps, context_of_level(prior, codes[:level], labels))
        return codes

    def log_prior(
        self, codes: Codes, labels: Int[Array, " batch"] | None = None
    ) -> tuple[Float[Array, " batch"], ...]:
        """Computes log P of the codes of each level given those above, in nats, from the top.

        Args:
          codes: Maps from the top, a row for each image.
          labels: One for each image where the priors take them.
        """
        return tuple(
            prior.log_prob(maps, None, context_of_level(prior, codes[:level], labels))
            for level, (prior, maps) in enumerate(zip(self.priors, codes, strict=True))
        )

    def sample_codes(
        self,
        rng: Array,
        count: int,
        labels: Int[Array, " count"] | None = None,
        *,
        given: Codes = (),
        temperature: float | Float[Array, ""] = 1.0,
        top_k: int | None = None,
        top_p: float | Float[Array, ""] | None = None,
    ) -> Codes:
        """Draws codes, level by level from the top.

        Args:
          rng: A typed key.
          count: Number of images.
          labels: One for each image where the priors take them.
          given: Codes of the uppermost levels that aren't to be drawn, ``[count, height, width]``.
          temperature: Of all levels, as in `vaeflow.distributions.CodeMaps`.
          top_k: Likewise.
          top_p: Likewise.

        Returns:
          Maps ``[count, height, width]`` from the top, those given among them.

        Raises:
          ValueError: If there isn't a label for each image where there are classes, or there are
            labels where there are none, or what is given isn't maps of so many images and of some
            of the levels.
        """
        expected = None if self.classes is None else (count,)
        if (None if labels is None else jnp.shape(labels)) != expected:
            raise ValueError(
                f"labels must have shape {expected} for {count} images and classes={self.classes}, "
                f"got {None if labels is None else jnp.shape(labels)}"
            )
        shapes = [(count, *prior.network.shape) for prior in self.priors]
        if [maps.shape for maps in given] != shapes[: len(given)]:
            raise ValueError(
                f"given must be maps of shapes {shapes} or the first of these, got "
                f"{[maps.shape for maps in given]}"
            )
        codes = tuple(given)
        for prior, key in list(
            zip(self.priors, jax.random.split(rng, len(self.priors)), strict=True)
        )[len(codes) :]:
            context = context_of_level(prior, codes, labels)
            own = count if context is None else 1  # else one for each context
            drawn = prior.sample(
                key, own, context, temperature=temperature, top_k=top_k, top_p=top_p
            )
            codes += (drawn.reshape(count, *drawn.shape[-2:]),)
        return codes

    def sample(
        self,
        rng: Array,
        count: int,
        labels: Int[Array, " count"] | None = None,
        **options: Any,
    ) -> UInt8[Array, "count height width channel"]:
        """Draws codes and shows the means of p(x | c) as images; arguments as `sample_codes`."""
        return self.auto_encoder.decode(self.sample_codes(rng, count, labels, **options))


def context_of_level(
    prior: CodePrior, above: Codes, labels: Int[Array, " batch"] | None
) -> Context:
    """What a prior is given: labels if it takes them, and the map right above if there is one."""
    context = [] if prior.classes is None else [labels]
    context += [] if prior.above is None else [above[-1]]
    return tuple(context) if len(context) > 1 else next(iter(context), None)
