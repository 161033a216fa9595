"""Product quantisation (Jégou et al. 2011): groups of channels, each quantised by itself."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vaeflow._util.arrays import LOCAL, Axis, row_keys
from vaeflow.quantizers.base import Quantized, Quantizer, check_axes
from vaeflow.quantizers.vector import COLLECTION


class GroupedQuantizer(Quantizer):
    """Splits the channels into G groups of equal size, each quantised with codes of its own.

    K codes a group make K^G codes in all. The losses are the sums of the groups'. Each group
    samples with keys of its own.

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
    def code_shape(self) -> tuple[int, ...]:
        """Shape of the indices of one latent."""
        return (self.num_groups, *self.quantizer.code_shape)

    def __call__(
        self,
        features: Float[Array, "batch *positions channel"],
        rng: Array | None = None,
        *,
        axis: Axis = LOCAL,
        train: bool = False,
        **options: Array | float,
    ) -> Quantized:
        """Quantises each group by the quantizer, to which all arguments go."""
        check_axes(features.shape)
        if self.num_groups < 1 or features.shape[-1] % self.num_groups:
            raise ValueError(
                f"GroupedQuantizer: num_groups must divide the channels of the features, got "
                f"{self.num_groups} groups for shape {features.shape}"
            )
        size = features.shape[-1] // self.num_groups
        parts = features.reshape(*features.shape[:-1], self.num_groups, size)
        keys = None
        if rng is not None:
            rows = row_keys(rng, features.shape[0])
            fold_in_group = jax.vmap(jax.random.fold_in, (0, None))
            keys = jax.vmap(fold_in_group, (None, 0))(rows, jnp.arange(self.num_groups))

        def quantize(quantizer: Quantizer, features: Array, keys: Array | None) -> Quantized:
            return quantizer(features, keys, axis=axis, train=train, **options)

        group_axis = features.ndim - 1
        out_axes = Quantized(group_axis, group_axis, 0, 0)
        scanned = self._scan(quantize, (group_axis, 0), out_axes)
        _, groups = scanned(self.quantizer, None, parts, keys)
        return Quantized(
            groups.values.reshape(features.shape),
            groups.indices,
            {name: jnp.sum(loss, axis=0) for name, loss in groups.losses.items()},
            groups.counts,
        )

    def lookup(self, indices: Int[Array, "*batch_and_codebooks"]) -> Array:
        """Looks up each group and joins their channels; see `Quantizer.lookup`."""
        group_axis = indices.ndim - len(self.code_shape)
        if group_axis < 0 or indices.shape[group_axis] != self.num_groups:
            raise ValueError(
                f"GroupedQuantizer: expected indices of shape [..., "
                f"{', '.join(map(str, self.code_shape))}], got {indices.shape}"
            )

        def lookup(quantizer: Quantizer, indices: Array) -> Array:
            return quantizer.lookup(indices)

        _, values = self._scan(lookup, (group_axis,), group_axis)(self.quantizer, None, indices)
        return values.reshape(*values.shape[:-2], self.num_groups * values.shape[-1])

    def _scan(self, method, in_axes, out_axes):
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
