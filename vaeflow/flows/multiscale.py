"""The multiscale architecture of image flows: squeeze, transform, factor out half of the channels.

Source: Dinh, Sohl-Dickstein & Bengio 2017, "Density estimation using Real NVP", section 3.6; with
learned priors of the channels that leave, Kingma & Dhariwal 2018, "Glow".
"""

from __future__ import annotations

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
    Inverse,
    Reshape,
    Squeeze,
)
from vaeflow.flows.base import SteppedFlow
from vaeflow.nn import ZeroConv


class MultiscaleFlow(SteppedFlow, kw_only=True):
    """A flow between flat noise and images, level by level; a subclass implements `level`.

    From data to noise, a level squeezes the image and transforms it; then half of the channels
    leave, standardised by an affine coupling given the half that stays: a learned Gaussian prior
    written as a bijector. The last level's channels are standardised by an elementwise affine map.

    Shapes: noise ``[*batch, height * width * channel]``, data ``[*batch, height, width, channel]``.

    Attributes:
      event_shape: Height, width and channels of an image; height and width must be divisible by
        2^num_levels.
      num_levels: Number of levels L.
      hidden_features: Number of hidden channels of the coupling networks.
      context_ndims: For contexts of floats, 1 for vectors and 3 for feature maps of the height and
        width of the images.
      dtype: Type in which the networks compute; parameters, states and log-determinants are
        float32.
    """

    num_levels: int = 3
    hidden_features: int = 128
    context_ndims: int = 1
    dtype: Any = jnp.float32

    def check_fields(self) -> None:
        """Checks that height and width can be halved at each level."""
        check_image_shape(type(self).__name__, self.event_shape, self.num_levels)

    def level(
        self, index: int, channels: int, context: Array | None, data: Array | None
    ) -> Bijector:
        """Creates the submodules of a level and builds its bijector, from data to noise.

        Args:
          index: Number of the level, from 0.
          channels: Number of channels of its input.
          context: Vectors ``[*batch, feature]``, feature maps of half the height and width of the
            input, or None.
          data: The input, in `init`; otherwise None.

        Returns:
          A bijector from ``[*batch, height, width, channel]`` to
          ``[*batch, height / 2, width / 2, 4 channel]``.
        """
        raise NotImplementedError

    def build(self, context, data, batch_shape) -> Bijector:
        """Builds the bijector inside the compact call; arguments as in `Flow.build`."""
        del batch_shape
        shape = tuple(self.event_shape)
        outer = []
        for index in range(self.num_levels):
            if context is not None and self.context_ndims == 3:
                context = Squeeze().forward(context)
            body = self.level(index, shape[-1], context, data)
            shape = (shape[0] // 2, shape[1] // 2, 4 * shape[2])
            if data is not None:
                data = body.forward(data)
            if index == self.num_levels - 1:
                break
            num_kept = shape[-1] // 2
            prior = SplitPrior(
                channels=shape[-1],
                num_kept=num_kept,
                context_ndims=self.context_ndims,
                dtype=self.dtype,
                name=f"split_prior_{index}",
            )(context, data)
            outer.append((body, prior, shape, num_kept))
            shape = (*shape[:2], num_kept)
            data = None if data is None else data[..., :num_kept]
        prior = TopPrior(
            shape=shape, context_ndims=self.context_ndims, dtype=self.dtype, name="top_prior"
        )(context)
        encoder = Chain([Reshape(shape, (shape[0] * shape[1] * shape[2],)), prior, body])
        for body, prior, shape, num_kept in reversed(outer):
            encoder = Chain([FactorOut(encoder, shape, num_kept), prior, body])
        # This reshape moves nothing; its check raises an error that names the shape of an image.
        image_shape = tuple(self.event_shape)
        return Inverse(Chain([encoder, Reshape(image_shape, image_shape)]))


def check_image_shape(name: str, event_shape: tuple[int, ...], num_levels: int) -> None:
    """Checks that images can be halved once per level.

    Raises:
      ValueError: If `event_shape` isn't height, width and channels, or height or width isn't
        divisible by 2^num_levels.
    """
    if len(event_shape) != 3:
        raise ValueError(f"{name}: event_shape must be (height, width, channel), got {event_shape}")
    if num_levels < 1:
        raise ValueError(f"{name}: num_levels must be at least 1, got {num_levels}")
    if event_shape[0] % 2**num_levels or event_shape[1] % 2**num_levels:
        raise ValueError(
            f"{name}: height and width of event_shape must be divisible by {2**num_levels} for "
            f"num_levels={num_levels}, got {event_shape}"
        )


class PriorNetwork(nn.Module):
    """A zero-initialised convolution of the channels that stay and of the context.

    Attributes:
      features: Number of output channels.
      dtype: Type to compute in.
    """

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


class SplitPrior(nn.Module, kw_only=True):
    """The prior of the channels that leave a level, given the first `num_kept`, which stay.

    Attributes:
      channels: Number of channels of the level.
      num_kept: Number of channels that stay.
      context_ndims: Number of trailing axes that make a context.
      dtype: Type in which the network computes.
    """

    channels: int
    num_kept: int
    context_ndims: int
    dtype: Any

    @nn.compact
    def __call__(self, context: Array | None, data: Array | None) -> AffineCoupling:
        """Builds the coupling that standardises them; data are read by `init` only."""
        network = PriorNetwork(2 * (self.channels - self.num_kept), self.dtype, parent=None)
        if self.is_initializing():
            variables = network.init(self.make_rng("params"), data[..., : self.num_kept], context)
            params = self.param("network", lambda _: variables["params"])
        else:
            params = self.get_variable("params", "network")
        conditioner = Conditioner(network, {"params": params}, context, 3, self.context_ndims)
        return AffineCoupling(conditioner, self.num_kept, event_ndims=3)


class TopPrior(nn.Module, kw_only=True):
    """The prior of the output of the last level, given the context if there is one.

    Attributes:
      shape: Height, width and channels of the output.
      context_ndims: Number of trailing axes that make a context.
      dtype: Type in which the network computes.
    """

    shape: tuple[int, int, int]
    context_ndims: int
    dtype: Any

    @nn.compact
    def __call__(self, context: Array | None) -> ElementwiseAffine:
        """Builds the affine map that standardises it."""
        zeros = nn.initializers.zeros
        shift = self.param("shift", zeros, self.shape, jnp.float32)
        log_scale = self.param("log_scale", zeros, self.shape, jnp.float32)
        if context is not None:
            channels = self.shape[-1]
            if self.context_ndims == 1:
                dense = nn.Dense(2 * channels, kernel_init=zeros, use_bias=False, name="context")
                terms = dense(context)[..., None, None, :]
            else:
                batch = context.shape[:-3]
                terms = ZeroConv(2 * channels, dtype=self.dtype, name="context")(
                    context.reshape((-1, *context.shape[-3:]))
                )
                terms = terms.reshape(batch + terms.shape[1:])
            shift = shift + terms[..., :channels]
            log_scale = log_scale + terms[..., channels:]
        return ElementwiseAffine(shift, log_scale, event_ndims=3)
