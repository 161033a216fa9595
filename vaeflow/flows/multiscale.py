"""The multiscale architecture: squeeze, transform, let half of the channels go, repeat."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from vaeflow.bijectors import (
    AffineCoupling,
    Bijector,
    Chain,
    Conditioner,
    ElementwiseAffine,
    FactorOut,
    Reshape,
    Squeeze,
)
from vaeflow.nn import ZeroConv


def multiscale(
    event_shape: tuple[int, int, int],
    levels: int,
    make_level: Callable[..., tuple[Bijector, tuple[int, int, int]]],
    context: Array | None,
    context_ndims: int,
    data: Array | None,
    dtype: Any,
) -> Bijector:
    """Builds one bijection from images to flat noise.

    At each level `make_level` gives a bijector (its squeeze included), then half of the channels
    leave, standardised by an affine coupling given those that stay: a learned Gaussian prior
    written as a bijection. What is left at the last level is standardised by an elementwise affine
    map. To be called inside the compact method of a flow.

    Args:
      event_shape: Height, width and channels of an image.
      levels: Number of levels.
      make_level: Called with the level, the shape, the context and the data; returns the level's
        bijector and the shape that it yields.
      context: Vectors ``[*batch, feature]`` or feature maps ``[*batch, height, width, feature]``.
      context_ndims: 1 for vectors, 3 for feature maps.
      data: Images that reach the first level during `init`, otherwise None.
      dtype: Type in which networks compute.

    Returns:
      A bijector from ``[*batch, height, width, channel]`` to ``[*batch, entries]``.
    """
    shape = tuple(event_shape)
    body = _from_level(0, shape, levels, make_level, context, context_ndims, data, dtype)
    # Keeping the shape moves nothing; it refuses images of another size by their own shape.
    return Chain([body, Reshape(shape, shape)])


def _from_level(level, shape, levels, make_level, context, context_ndims, data, dtype):
    if context is not None and context_ndims == 3:
        context = Squeeze().forward(context)
    body, shape = make_level(level, shape, context, data)
    if data is not None:
        data = body.forward(data)
    if level == levels - 1:
        prior = TopPrior(shape, context_ndims, dtype, name="top_prior")(context)
        return Chain([Reshape(shape, (shape[0] * shape[1] * shape[2],)), prior, body])
    kept = shape[-1] // 2
    prior = SplitPrior(shape[-1], kept, context_ndims, dtype, name=f"split_prior_{level}")(
        context, data
    )
    rest = _from_level(
        level + 1,
        (*shape[:2], kept),
        levels,
        make_level,
        context,
        context_ndims,
        None if data is None else data[..., :kept],
        dtype,
    )
    return Chain([FactorOut(rest, shape, kept), prior, body])


class PriorNetwork(nn.Module):
    """A zero-initialised convolution of the features that stay and of the context."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, context: Array | None = None) -> Array:
        """Maps ``[batch, height, width, channel]`` to ``[batch, height, width, features]``."""
        if context is not None:
            if context.ndim < x.ndim:
                context = context[:, None, None, :]
            context = jnp.broadcast_to(context, (*x.shape[:-1], context.shape[-1]))
            x = jnp.concatenate([x, context.astype(x.dtype)], axis=-1)
        return ZeroConv(self.features, dtype=self.dtype)(x)


class SplitPrior(nn.Module):
    """Standardises the channels that leave given those that stay."""

    channels: int
    kept: int
    context_ndims: int
    dtype: Any

    @nn.compact
    def __call__(self, context: Array | None, data: Array | None) -> AffineCoupling:
        """Builds the coupling; data are read by `init` alone."""
        network = PriorNetwork(2 * (self.channels - self.kept), self.dtype, parent=None)
        if self.is_initializing():
            variables = network.init(self.make_rng("params"), data[..., : self.kept], context)
            parameters = self.param("network", lambda _: variables["params"])
        else:
            parameters = self.get_variable("params", "network")
        conditioner = Conditioner(network, {"params": parameters}, context, 3, self.context_ndims)
        return AffineCoupling(conditioner, self.kept, event_ndims=3)


class TopPrior(nn.Module):
    """Standardises what is left at the last level, given the context if there is one."""

    shape: tuple[int, int, int]
    context_ndims: int
    dtype: Any

    @nn.compact
    def __call__(self, context: Array | None) -> ElementwiseAffine:
        """Builds the affine map."""
        zeros = nn.initializers.zeros
        shift = self.param("shift", zeros, self.shape)
        log_scale = self.param("log_scale", zeros, self.shape)
        if context is not None:
            channels = self.shape[-1]
            if self.context_ndims == 1:
                dense = nn.Dense(2 * channels, kernel_init=zeros, use_bias=False, name="context")
                both = dense(context)[..., None, None, :]
            else:
                batch = context.shape[:-3]
                both = ZeroConv(2 * channels, dtype=self.dtype, name="context")(
                    context.reshape((-1, *context.shape[-3:]))
                )
                both = both.reshape(batch + both.shape[1:])
            shift = shift + both[..., :channels]
            log_scale = log_scale + both[..., channels:]
        return ElementwiseAffine(shift, log_scale, event_ndims=3)
