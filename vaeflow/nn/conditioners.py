"""Networks that couplings, posteriors and differential equations are conditioned by."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from vaeflow.nn.blocks import ResidualBlock, relu
from vaeflow.nn.convolution import Conv, ZeroConv
from vaeflow.nn.normalization import ActNormConv


class MLP(nn.Module):
    """A multilayer perceptron on vectors, its last layer zero at first.

    Attributes:
      features: Number of outputs.
      hidden_sizes: Sizes of the hidden layers.
      activation: Nonlinearity after each hidden layer.
      dtype: Type to compute in; the result is float32 or wider.
    """

    features: int
    hidden_sizes: Sequence[int] = (64, 64)
    activation: Callable[[Array], Array] = relu
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch channel"], context: Float[Array, "batch feature"] | None = None
    ) -> Float[Array, "batch out"]:
        """Maps ``[batch, channel]`` to ``[batch, features]``, given a context if there is one."""
        if context is not None:
            x = jnp.concatenate([x, context.astype(x.dtype)], axis=-1)
        if x.shape[-1] == 0:
            # Nothing to read: what follows is a function of its biases.
            x = jnp.ones((*x.shape[:-1], 1), x.dtype)
        x = x.astype(self.dtype)
        for size in self.hidden_sizes:
            x = self.activation(nn.Dense(size, dtype=self.dtype)(x))
        zeros = nn.initializers.zeros
        x = nn.Dense(self.features, dtype=self.dtype, kernel_init=zeros)(x)
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))


class GlowNetwork(nn.Module):
    """Glow's coupling network: 3x3 and 1x1 normalised convolutions with ReLU, a zero convolution.

    Source: Kingma & Dhariwal 2018, section 3.3 and their published code.

    Attributes:
      features: Number of output channels.
      hidden_features: Number of hidden channels.
      dtype: Type to compute in; the result is float32 or wider.
    """

    features: int
    _: dataclasses.KW_ONLY
    hidden_features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch height width channel"],
        context: Float[Array, "batch *positions feature"] | None = None,
    ) -> Float[Array, "batch height width out"]:
        """Maps ``[batch, height, width, channel]`` to ``[batch, height, width, features]``."""
        x, bias = join_context(x, context, self.hidden_features, self.dtype)
        # Names of saved parameters, which outlive that of the class.
        x = relu(
            ActNormConv(self.hidden_features, (3, 3), dtype=self.dtype, name="NormalizedConv_0")(x)
            + bias
        )
        x = relu(
            ActNormConv(self.hidden_features, (1, 1), dtype=self.dtype, name="NormalizedConv_1")(x)
        )
        return ZeroConv(self.features, dtype=self.dtype)(x)


class ResidualNetwork(nn.Module):
    """RealNVP's coupling network: a 3x3 convolution, residual blocks, a zero convolution.

    Source: Dinh, Sohl-Dickstein & Bengio 2017, section 3.6 (without batch normalization).

    Attributes:
      features: Number of output channels.
      hidden_features: Number of hidden channels.
      num_blocks: Number of residual blocks.
      dtype: Type to compute in; the result is float32 or wider.
    """

    features: int
    _: dataclasses.KW_ONLY
    hidden_features: int
    num_blocks: int = 2
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch height width channel"],
        context: Float[Array, "batch *positions feature"] | None = None,
    ) -> Float[Array, "batch height width out"]:
        """Maps ``[batch, height, width, channel]`` to ``[batch, height, width, features]``."""
        x, bias = join_context(x, context, self.hidden_features, self.dtype)
        x = Conv(self.hidden_features, (3, 3), dtype=self.dtype)(x) + bias
        for _ in range(self.num_blocks):
            x = ResidualBlock(self.hidden_features, dtype=self.dtype)(x)
        return ZeroConv(self.features, dtype=self.dtype)(relu(x))


def join_context(x: Array, context: Array | None, width: int, dtype: Any) -> tuple[Array, Array]:
    """Gives the first layer of a convolutional network its context.

    Feature maps join the input's channels. Vectors become a bias of each example, through a dense
    layer that belongs to the calling module.

    Returns:
      The input of the first convolution, and a bias to add to its output.
    """
    zero = jnp.zeros((), dtype)
    if context is None:
        return x, zero
    if context.ndim == x.ndim:
        return jnp.concatenate([x, context.astype(x.dtype)], axis=-1), zero
    bias = nn.Dense(width, dtype=dtype, name="context")(context)
    return x, bias[:, None, None, :]


class TimeDependentMLP(nn.Module):
    """A multilayer perceptron whose layers are gated and shifted by time, zero at first.

    Each layer computes (W x + b) * sigmoid(G u + g) + H u, with u the time, followed by the entries
    of the context where there is one. With tanh between the layers the result is a smooth and
    bounded function of x, so that dx/dt = network(x, t) has a solution for all times.

    It multiplies in full precision: solvers take rounding for error.

    Source: Grathwohl, Chen, Bettencourt, Sutskever & Duvenaud 2019, "FFJORD: Free-form continuous
    dynamics for scalable reversible generative models", and their published code.

    Attributes:
      dimension: Number of entries of a vector, of inputs and of outputs.
      hidden_sizes: Sizes of the hidden layers.
      activation: Nonlinearity after each hidden layer; smooth, as solvers want it.
    """

    dimension: int
    hidden_sizes: Sequence[int] = (64, 64)
    activation: Callable[[Array], Array] = jnp.tanh

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch entry"],
        time: Float[Array, " batch"],
        context: Float[Array, "batch feature"] | None = None,
    ) -> Float[Array, "batch entry"]:
        """Maps ``[batch, entries]`` at times ``[batch]`` to ``[batch, entries]``."""
        given = time[:, None].astype(x.dtype)
        if context is not None:
            given = jnp.concatenate([given, context.astype(x.dtype)], axis=-1)
        for number, size in enumerate((*self.hidden_sizes, self.dimension)):
            last = number == len(self.hidden_sizes)
            init = nn.initializers.zeros if last else nn.initializers.lecun_normal()

            def dense(name, bias=True, init=init, size=size, number=number):
                return nn.Dense(
                    size,
                    use_bias=bias,
                    kernel_init=init,
                    precision=lax.Precision.HIGHEST,
                    name=f"{name}_{number}",
                )

            x = dense("layer")(x) * jax.nn.sigmoid(dense("gate")(given))
            x = x + dense("shift", bias=False)(given)
            x = x if last else self.activation(x)
        return x
