"""Priors over maps of codes."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vaeflow.bijectors import Conditioner
from vaeflow.bijectors.base import sum_event
from vaeflow.distributions import CodeMaps
from vaeflow.distributions.code_maps import log_prob_of_codes
from vaeflow.flows.context import prepare_context

Context = Array | tuple[Array, Array] | None


class CodePrior(nn.Module):
    """A density model of maps of codes, such as those that a quantizer finds in images.

    Calling it gives their distribution, given a context: labels where there are `classes`, the map
    of codes or features above where there is a network for it, a pair of the two where there are
    both, otherwise vectors or None. Trained by `vaeflow.losses.negative_log_likelihood`; a code is
    one of its dimensions.

    Source: van den Oord, Vinyals & Kavukcuoglu 2017, "Neural discrete representation learning",
    section 3.3; of several levels, Razavi, van den Oord & Vinyals 2019, "Generating diverse
    high-fidelity images with VQ-VAE-2", section 3.2.

    Attributes:
      network: A `vaeflow.nn.AutoregressiveMapNetwork`: `GatedPixelCNN` or `PixelSNAIL`.
      classes: Number of classes where there are labels, otherwise None.
      above: A `vaeflow.nn.UpsampledConditioner` for the map above, or None.
    """

    network: nn.Module
    classes: int | None = None
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
          ValueError: If the context isn't what `classes` and `above` ask for.
        """
        features = self._features(context)
        context_ndims = 1 if self.above is None else 3
        if self.is_initializing():
            none = jnp.zeros((1, *self.network.shape), jnp.int32)
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
            for each, or isn't what `classes` and `above` ask for.
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
        both = self.classes is not None and self.above is not None
        if isinstance(context, tuple) != both or (isinstance(context, tuple) and len(context) != 2):
            raise ValueError(
                f"context must be {'a pair of labels and the map above' if both else 'one array'} "
                f"for classes={self.classes} and above={type(self.above).__name__}, got "
                f"{'a tuple' if isinstance(context, tuple) else type(context).__name__}"
            )
        labels, above = context if both else (context, context)
        if self.above is None:
            return prepare_context(labels, self.classes)
        if above is None:
            raise ValueError("context must hold the map above where `above` is given, got None")
        features = self.above(above)
        if self.classes is None:
            return features
        vectors = prepare_context(labels, self.classes)[..., None, None, :]
        batch = jnp.broadcast_shapes(vectors.shape[:-3], features.shape[:-3])
        parts = [
            jnp.broadcast_to(part, (*batch, *features.shape[-3:-1], part.shape[-1]))
            for part in (vectors.astype(features.dtype), features)
        ]
        return jnp.concatenate(parts, axis=-1)
