"""Quantisation of channels group by group."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vaeflow._util.axis import LOCAL, Axis
from vaeflow._util.random import row_keys
from vaeflow.quantizers.base import Quantized, Quantizer, check_axes
from vaeflow.quantizers.vector import COLLECTION


class GroupedQuantizer(Quantizer):
    """Splits the channels into G groups of equal size, each quantised with codes of its own.

    K codes a group make K^G of the whole. The losses are the sums of the groups'. Draws of a group
    are from keys of its own.

    Shapes: features are ``[batch, *positions, channel]`` with G dividing the channels, indices
    ``[batch, *positions, group, *codebooks]``, with the codebooks of the quantizer inside. Its
    variables have a first axis of groups.

    Source: Jégou, Douze & Schmid 2011, "Product quantization for nearest neighbor search",
    section II.B.

    Attributes:
      quantizer: Any quantizer, of the channels of a group.
      num_groups: Number G of groups.
    """

    quantizer: Quantizer
    num_groups: int

    @property
    def num_codes(self) -> int:
        """Number of codes of a group."""
        return self.quantizer.num_codes

    @property
    def codebooks(self) -> tuple[int, ...]:
        """Shape of the indices of one latent."""
        return (self.num_groups, *self.quantizer.codebooks)

    def __call__(
        self,
        features: Float[Array, "batch *positions channel"],
        rng: Array | None = None,
        *,
        axis: Axis = LOCAL,
        train: bool = False,
        **options: Array | float,
    ) -> Quantized:
        """Quantises features; see `Quantizer.__call__`.

        Args:
          features: As for `Quantizer.__call__`.
          rng: As for `Quantizer.__call__`.
          axis: As for `Quantizer.__call__`.
          train: As for `Quantizer.__call__`.
          **options: Further arguments of the quantizer inside.
        """
        check_axes(features.shape)
        if self.num_groups < 1 or features.shape[-1] % self.num_groups:
            raise ValueError(
                f"GroupedQuantizer: groups must divide the channels of the features, got "
                f"{self.num_groups} groups for shape {features.shape}"
            )
        size = features.shape[-1] // self.num_groups
        parts = features.reshape(*features.shape[:-1], self.num_groups, size)
        keys = None
        if rng is not None:
            rows = row_keys(rng, features.shape[0])
            of_group = jax.vmap(jax.random.fold_in, (0, None))
            keys = jax.vmap(of_group, (None, 0))(rows, jnp.arange(self.num_groups))

        def one(quantizer: Quantizer, features: Array, keys: Array | None) -> Quantized:
            return quantizer(features, keys, axis=axis, train=train, **options)

        place = features.ndim - 1
        found = self._each(one, (place, 0), Quantized(place, place, 0, 0))(
            self.quantizer, None, parts, keys
        )[1]
        return Quantized(
            found.values.reshape(features.shape),
            found.indices,
            {name: jnp.sum(loss, axis=0) for name, loss in found.losses.items()},
            found.counts,
        )

    def lookup(self, indices: Int[Array, "*batch_and_codebooks"]) -> Array:
        """Looks up each group and joins their channels; see `Quantizer.lookup`."""
        place = indices.ndim - len(self.codebooks)
        if place < 0 or indices.shape[place] != self.num_groups:
            raise ValueError(
                f"GroupedQuantizer: expected indices of shape [..., "
                f"{', '.join(map(str, self.codebooks))}], got {indices.shape}"
            )
        values = self._each(lambda quantizer, indices: quantizer.lookup(indices), (place,), place)(
            self.quantizer, None, indices
        )[1]
        return values.reshape(*values.shape[:-2], self.num_groups * values.shape[-1])

    def _each(self, method, in_axes, out_axes):
        """Calls a method on the groups one after another, as one loop."""

        def step(quantizer: Quantizer, carry: None, *arguments):
            return carry, method(quantizer, *arguments)

        return nn.scan(
            step,
            in_axes=in_axes,
            out_axes=out_axes,
            length=self.num_groups,
            variable_axes={"params": 0, COLLECTION: 0},
            split_rngs={"params": True},
        )
