"""Autoregressive priors over maps of codes, and code auto-encoders together with their priors.

`CodePrior` is the second stage of VQ-VAE and VQ-VAE-2; `CodeModel` joins both stages into a model
of images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8

from vaeflow._util.arrays import sum_event
from vaeflow._util.checks import (
    as_array,
    bound,
    check_context,
    check_count,
    check_keys,
    check_labels,
    encode_labels,
)
from vaeflow.bijectors import Conditioner
from vaeflow.distributions import CodeMaps
from vaeflow.distributions.code_maps import log_prob_of_codes
from vaeflow.models.vqvae import CodeAutoEncoder, Codes

Context = Array | tuple[Array, Array] | None


class CodePrior(nn.Module):
    """An autoregressive model of maps of codes, such as those of a VQ-VAE.

    Calling it returns their distribution, given a context: labels where there are `num_classes`,
    the map of codes or features above where there is a network for it, a pair of the two where
    there are both, otherwise vectors or None. It is trained by
    `vaeflow.losses.negative_log_likelihood`, with one dimension for each code.

    Source: van den Oord, Vinyals & Kavukcuoglu 2017, "Neural discrete representation learning",
    section 3.3; of several levels, Razavi, van den Oord & Vinyals 2019, "Generating diverse
    high-fidelity images with VQ-VAE-2", section 3.2.

    Attributes:
      network: A `vaeflow.nn.AutoregressiveMapNetwork`: `GatedPixelCNN` or `PixelSNAIL`.
      num_classes: Number of classes where there are labels, otherwise None.
      above: A `vaeflow.nn.UpsampledConditioner` for the map above, or None.
    """

    network: nn.Module
    num_classes: int | None = None
    above: nn.Module | None = None

    @bound
    def __call__(
        self,
        maps: Int[Array, "batch height width"] | None = None,
        *,
        context: Context = None,
        temperature: float | Float[Array, ""] = 1.0,
        top_k: int | None = None,
        top_p: float | Float[Array, ""] | None = None,
    ) -> CodeMaps:
        """Builds the distribution of maps.

        Args:
          maps: In `init` alone: maps whose code frequencies at each position initialise the prior;
            without them all codes are equally probable.
          context: Labels ``[*batch]`` or vectors ``[*batch, feature]``, the map above
            ``[*batch, height', width']`` or ``[*batch, height', width', channel]``, a pair of
            labels and map, or None.
          temperature: As in `CodeMaps`.
          top_k: As in `CodeMaps`.
          top_p: As in `CodeMaps`.

        Returns:
          A distribution over ``[height, width]`` with the batch axes of the context.

        Raises:
          ValueError: If the context doesn't fit `num_classes` and `above`.
        """
        features = self._features(context)
        context_ndims = 1 if self.above is None else 3
        if self.is_initializing():
            none = jnp.zeros((1, *self.network.map_shape), jnp.int32)
            shape = () if features is None else features.shape[features.ndim - context_ndims :]
            self.network(none, None if features is None else jnp.zeros((1, *shape), jnp.float32))
            if maps is not None:
                self.network.start_at_frequencies(maps)
        network, variables = self.network.unbind()
        conditioner = Conditioner(network, variables, features, 2, context_ndims)
        return CodeMaps(conditioner, temperature=temperature, top_k=top_k, top_p=top_p)

    @bound
    def log_prob(
        self,
        maps: Int[Array, "batch height width"],
        rng: Array | None = None,
        *,
        context: Context = None,
    ) -> Float[Array, " batch"]:
        """Computes the log-probability of each map in nats.

        The network drops channels if `apply` is given an rng named "dropout".

        Args:
          maps: Codes; a map with one beyond the range has a log-probability of -inf.
          rng: Ignored: the only noise is that of dropout.
          context: One for each map, or None.

        Raises:
          ValueError: If the maps aren't integers of the network's shape, or the context isn't one
            for each, or doesn't fit `num_classes` and `above`.
        """
        del rng
        maps = as_array("maps", maps)
        features = self._features(context)
        if features is not None and features.shape[:1] != maps.shape[:1]:
            raise ValueError(
                f"context must be one for each map, got features of shape {features.shape} for "
                f"maps of shape {maps.shape}"
            )
        return sum_event(log_prob_of_codes(self.network(maps, features), maps), 2)

    @bound
    def sample(
        self,
        rng: Array,
        num_samples: int,
        *,
        context: Context = None,
        temperature: float | Float[Array, ""] = 1.0,
        top_k: int | None = None,
        top_p: float | Float[Array, ""] | None = None,
    ) -> Int[Array, "num_samples *batch height width"]:
        """Samples maps of codes.

        Args:
          rng: A typed key.
          num_samples: Number of maps, for each context if there is one.
          context: As in a call.
          temperature: As in `CodeMaps`.
          top_k: As in `CodeMaps`.
          top_p: As in `CodeMaps`.
        """
        check_keys(rng)
        check_count("num_samples", num_samples, 0)
        prior = self(context=context, temperature=temperature, top_k=top_k, top_p=top_p)
        return prior.sample(seed=rng, sample_shape=num_samples)

    def _features(self, context: Context) -> Array | None:
        """Computes the network's context: vectors of labels, or one vector for each position."""
        is_pair = self.num_classes is not None and self.above is not None
        if isinstance(context, tuple) != is_pair or (is_pair and len(context) != 2):
            raise ValueError(
                f"context must be {'a pair: labels and the map above' if is_pair else 'one array'} "
                f"for num_classes={self.num_classes} and above={type(self.above).__name__}, got "
                f"{'a tuple' if isinstance(context, tuple) else type(context).__name__}"
            )
        labels, above = context if is_pair else (context, context)
        if self.above is None:
            if self.num_classes is not None:
                return encode_labels(labels, self.num_classes)
            known = None if self.is_initializing() else self.network.context_features()
            return check_context(labels, features=known)
        if above is None:
            raise ValueError("context must hold the map above where `above` is given, got None")
        features = self.above(above)
        if self.num_classes is None:
            return features
        vectors = encode_labels(labels, self.num_classes)[..., None, None, :]
        batch = jnp.broadcast_shapes(vectors.shape[:-3], features.shape[:-3])
        parts = [
            jnp.broadcast_to(part, (*batch, *features.shape[-3:-1], part.shape[-1]))
            for part in (vectors.astype(features.dtype), features)
        ]
        return jnp.concatenate(parts, axis=-1)


class CodeModel(nn.Module):
    """p(x) = sum over codes c of P(c) p(x | c), where P(c) is a product over levels from the top.

    The prior of the top is conditioned on labels or nothing, that of each level below on the codes
    above it as well. The parts are trained one after another: first the auto-encoder, by
    `vaeflow.losses.vq_vae`; then the priors of its codes, by
    `vaeflow.losses.negative_log_likelihood`. `vaeflow.models.merge_submodels` merges their
    variables by the names "auto_encoder", "priors_0" (the top), "priors_1" and so on.

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
    def num_classes(self) -> int | None:
        """Number of classes where the priors are given labels."""
        return self.priors[0].num_classes

    @bound
    def __call__(
        self,
        images: UInt8[Array, "batch height width channel"],
        *,
        context: Int[Array, " batch"] | None = None,
    ) -> Codes:
        """Encodes images and builds the priors of the codes; `init` calls it with the first batch.

        The auto-encoder and the priors are initialised from that batch.

        Raises:
          ValueError: If the priors aren't one for each quantizer, of its codes and of one codebook,
            or the top's is conditioned on a map above it.
        """
        quantizers = self.auto_encoder.quantizers
        if len(self.priors) != len(quantizers):
            raise ValueError(
                f"priors must be one for each of {len(quantizers)} levels, got {len(self.priors)}"
            )
        for level, (prior, quantizer) in enumerate(zip(self.priors, quantizers, strict=True)):
            if quantizer.code_shape or prior.network.num_codes != quantizer.num_codes:
                raise ValueError(
                    f"priors must be of the codes of their quantizers: level {level} from the top "
                    f"has {quantizer.num_codes} codes of shape {quantizer.code_shape} "
                    f"where it must be (), and its prior {prior.network.num_codes} codes"
                )
        if self.priors[0].above is not None:
            raise ValueError("the prior of the top must have above=None, as no map is above it")
        self.auto_encoder(images)
        rng = self.make_rng("params" if self.is_initializing() else "sample")
        codes = self.auto_encoder.encode(images, rng)
        for level, (prior, maps) in enumerate(zip(self.priors, codes, strict=True)):
            prior(maps, context=context_of_level(prior, codes[:level], context))
        return codes

    @bound
    def log_prior(
        self, codes: Codes, *, context: Int[Array, " batch"] | None = None
    ) -> tuple[Float[Array, " batch"], ...]:
        """Computes log P of the codes of each level given those above, in nats, from the top.

        Args:
          codes: Maps from the top, a row for each image.
          context: Labels, one for each image, where the priors take them.
        """
        return tuple(
            prior.log_prob(maps, context=context_of_level(prior, codes[:level], context))
            for level, (prior, maps) in enumerate(zip(self.priors, codes, strict=True))
        )

    @bound
    def sample_codes(
        self,
        rng: Array,
        num_samples: int,
        *,
        context: Int[Array, " num_samples"] | None = None,
        upper_codes: Codes = (),
        temperature: float | Float[Array, ""] = 1.0,
        top_k: int | None = None,
        top_p: float | Float[Array, ""] | None = None,
    ) -> Codes:
        """Samples codes, level by level from the top.

        Args:
          rng: A typed key.
          num_samples: Number of images.
          context: Labels, one for each image, where the priors take them.
          upper_codes: Codes of the uppermost levels, ``[num_samples, height, width]``, which are
            kept; the levels below are sampled given these.
          temperature: Of all levels, as in `vaeflow.distributions.CodeMaps`.
          top_k: As in `CodeMaps`.
          top_p: As in `CodeMaps`.

        Returns:
          Maps ``[num_samples, height, width]`` from the top, `upper_codes` first.

        Raises:
          ValueError: If there isn't a label for each image where there are classes, or there are
            labels without classes, or `upper_codes` have the wrong shapes.
        """
        expected = None if self.num_classes is None else (num_samples,)
        if (None if context is None else jnp.shape(context)) != expected:
            raise ValueError(
                f"context must hold labels of shape {expected} for {num_samples} images and "
                f"num_classes={self.num_classes}, got "
                f"{None if context is None else jnp.shape(context)}"
            )
        if context is not None:
            check_labels("context", context, self.num_classes)
        check_keys(rng)
        check_count("num_samples", num_samples, 0)
        shapes = [(num_samples, *prior.network.map_shape) for prior in self.priors]
        if [maps.shape for maps in upper_codes] != shapes[: len(upper_codes)]:
            raise ValueError(
                f"upper_codes must be maps of shapes {shapes} or the first of these, got "
                f"{[maps.shape for maps in upper_codes]}"
            )
        codes = tuple(upper_codes)
        for prior, key in list(
            zip(self.priors, jax.random.split(rng, len(self.priors)), strict=True)
        )[len(codes) :]:
            of_level = context_of_level(prior, codes, context)
            per_context = num_samples if of_level is None else 1
            maps = prior.sample(
                key,
                per_context,
                context=of_level,
                temperature=temperature,
                top_k=top_k,
                top_p=top_p,
            )
            codes += (maps.reshape(num_samples, *maps.shape[-2:]),)
        return codes

    @bound
    def sample(
        self,
        rng: Array,
        num_samples: int,
        *,
        context: Int[Array, " num_samples"] | None = None,
        **options: Any,
    ) -> UInt8[Array, "num_samples height width channel"]:
        """Samples codes and returns the means of p(x | c) as images; see `sample_codes`."""
        return self.auto_encoder.decode(
            self.sample_codes(rng, num_samples, context=context, **options)
        )


def context_of_level(
    prior: CodePrior, above: Codes, labels: Int[Array, " batch"] | None
) -> Context:
    """Returns the context of a prior: labels if it takes them, and the map above if any."""
    context = [] if prior.num_classes is None else [labels]
    context += [] if prior.above is None else [above[-1]]
    return tuple(context) if len(context) > 1 else next(iter(context), None)
