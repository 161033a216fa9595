"""Autoregressive priors over codes, and code auto-encoders together with their priors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8

from vaeflow._util.shapes import sum_event
from vaeflow.bijectors import Conditioner
from vaeflow.distributions import CodeMaps
from vaeflow.distributions.code_maps import log_prob_of_codes
from vaeflow.flows.base import prepare_context
from vaeflow.models.vqvae import CodeAutoEncoder, Codes

Context = Array | tuple[Array, Array] | None


class CodePrior(nn.Module):
    """A density model of maps of codes, such as those that a quantizer finds in images.

    Calling it gives their distribution, given a context: labels where there are `num_classes`, the map
    of codes or features above where there is a network for it, a pair of the two where there are
    both, otherwise vectors or None. Trained by `vaeflow.losses.negative_log_likelihood`; a code is
    one of its dimensions.

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

    def __call__(
        self,
        maps: Int[Array, "batch height width"] | None = None,
        context: Context = None,
        *,
        temperature: float | Float[Array, ""] = 1.0,
        top_k: int | None = None,
        top_p: float | Float[Array, ""] | None = None,
    ) -> CodeMaps:
        """Builds the distribution of maps.

        Args:
          maps: In `init` alone: maps whose frequencies of codes at each position the prior starts
            at; without them all codes are equally probable.
          context: Labels ``[*batch]`` or vectors ``[*batch, feature]``, the map above
            ``[*batch, height', width']`` or ``[*batch, height', width', channel]``, a pair of
            labels and map, or None.
          temperature: As in `CodeMaps`.
          top_k: As in `CodeMaps`.
          top_p: As in `CodeMaps`.

        Returns:
          A distribution over ``[height, width]`` with the batch axes of the context.

        Raises:
          ValueError: If the context isn't what `num_classes` and `above` ask for.
        """
        features = self._features(context)
        context_ndims = 1 if self.above is None else 3
        if self.is_initializing():
            none = jnp.zeros((1, *self.network.map_shape), jnp.int32)
            shape = () if features is None else features.shape[features.ndim - context_ndims :]
            self.network(none, None if features is None else jnp.zeros((1, *shape)))
            if maps is not None:
                self.network.start_at_frequencies(maps)
        network, variables = self.network.unbind()
        conditioner = Conditioner(network, variables, features, 2, context_ndims)
        return CodeMaps(conditioner, temperature=temperature, top_k=top_k, top_p=top_p)

    def log_prob(
        self,
        maps: Int[Array, "batch height width"],
        rng: Array | None = None,
        context: Context = None,
    ) -> Float[Array, " batch"]:
        """Computes the log-probability of each map in nats.

        Where `apply` is given an rng named "dropout" the network drops channels.

        Args:
          maps: Codes; a map with one beyond the range has a log-probability of -inf.
          rng: Ignored, as no noise is drawn but that of dropout.
          context: One for each map, or None.

        Raises:
          ValueError: If the maps aren't integers of the network's shape, or the context isn't one
            for each, or isn't what `num_classes` and `above` ask for.
        """
        del rng
        features = self._features(context)
        if features is not None and features.shape[:1] != maps.shape[:1]:
            raise ValueError(
                f"context must be one for each map, got features of shape {features.shape} for "
                f"maps of shape {maps.shape}"
            )
        return sum_event(log_prob_of_codes(self.network(maps, features), maps), 2)

    def sample(
        self,
        rng: Array,
        count: int,
        context: Context = None,
        *,
        temperature: float | Float[Array, ""] = 1.0,
        top_k: int | None = None,
        top_p: float | Float[Array, ""] | None = None,
    ) -> Int[Array, "count *batch height width"]:
        """Draws maps of codes.

        Args:
          rng: A typed key.
          count: Number of maps, for each context if there is one.
          context: As in a call.
          temperature: As in `CodeMaps`.
          top_k: As in `CodeMaps`.
          top_p: As in `CodeMaps`.
        """
        prior = self(context=context, temperature=temperature, top_k=top_k, top_p=top_p)
        return prior.sample(seed=rng, sample_shape=count)

    def _features(self, context: Context) -> Array | None:
        """What the network is given: vectors of labels, or one vector for each position."""
        both = self.num_classes is not None and self.above is not None
        if isinstance(context, tuple) != both or (isinstance(context, tuple) and len(context) != 2):
            raise ValueError(
                f"context must be {'a pair of labels and the map above' if both else 'one array'} "
                f"for classes={self.num_classes} and above={type(self.above).__name__}, got "
                f"{'a tuple' if isinstance(context, tuple) else type(context).__name__}"
            )
        labels, above = context if both else (context, context)
        if self.above is None:
            return prepare_context(labels, self.num_classes)
        if above is None:
            raise ValueError("context must hold the map above where `above` is given, got None")
        features = self.above(above)
        if self.num_classes is None:
            return features
        vectors = prepare_context(labels, self.num_classes)[..., None, None, :]
        batch = jnp.broadcast_shapes(vectors.shape[:-3], features.shape[:-3])
        parts = [
            jnp.broadcast_to(part, (*batch, *features.shape[-3:-1], part.shape[-1]))
            for part in (vectors.astype(features.dtype), features)
        ]
        return jnp.concatenate(parts, axis=-1)


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
    def num_classes(self) -> int | None:
        """Number of classes where the priors are given labels."""
        return self.priors[0].num_classes

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
            if quantizer.codebooks or prior.network.num_codes != quantizer.num_codes:
                raise ValueError(
                    f"priors must be of the codes of their quantizers: level {level} from the top "
                    f"has {quantizer.num_codes} codes and codebooks of shape {quantizer.codebooks}, "
                    f"where there must be one of shape (), and a prior of {prior.network.num_codes}"
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
        expected = None if self.num_classes is None else (count,)
        if (None if labels is None else jnp.shape(labels)) != expected:
            raise ValueError(
                f"labels must have shape {expected} for {count} images and classes={self.num_classes}, "
                f"got {None if labels is None else jnp.shape(labels)}"
            )
        shapes = [(count, *prior.network.map_shape) for prior in self.priors]
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
    context = [] if prior.num_classes is None else [labels]
    context += [] if prior.above is None else [above[-1]]
    return tuple(context) if len(context) > 1 else next(iter(context), None)
