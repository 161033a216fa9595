"""Conditioner networks of flows: MLPs, the coupling networks of Glow and RealNVP, velocities.

All take an optional context, and their outputs are initially zero.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from vaeflow._util.arrays import compute_dtype
from vaeflow.nn.blocks import ResidualBlock
from vaeflow.nn.convolution import Conv, ZeroConv, relu
from vaeflow.nn.normalization import ActNormConv


class MLP(nn.Module):
    """A multilayer perceptron on vectors, its last layer initially zero.

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
            # Without inputs the output is a function of the biases; kernels need one input.
            x = jnp.ones((*x.shape[:-1], 1), x.dtype)
        dtype = compute_dtype(self.dtype, x)
        x = x.astype(dtype)
        for size in self.hidden_sizes:
            x = self.activation(nn.Dense(size, dtype=dtype)(x))
        zeros = nn.initializers.zeros
        x = nn.Dense(self.features, dtype=dtype, kernel_init=zeros)(x)
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))

    @nn.nowrap
    def context_features(self, params: dict[str, Any], channels: int, given: int) -> int:
        """Number of features of the context of parameters for inputs of so many channels.

        Without channels a single input may be one feature or none: one where one is `given`.
        """
        inputs = params["Dense_0"]["kernel"].shape[0]
        return int(given == 1) if channels == 0 and inputs == 1 else inputs - channels


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
        x, bias = join_context(x, context, self.hidden_features, compute_dtype(self.dtype, x))
        # The explicit names are those of saved parameters.
        x = relu(
            ActNormConv(self.hidden_features, (3, 3), dtype=self.dtype, name="NormalizedConv_0")(x)
            + bias
        )
        x = relu(
            ActNormConv(self.hidden_features, (1, 1), dtype=self.dtype, name="NormalizedConv_1")(x)
        )
        return ZeroConv(self.features, dtype=self.dtype)(x)

    @nn.nowrap
    def context_features(self, params: dict[str, Any], channels: int) -> int:
        """Number of features of the context of parameters for inputs of so many channels."""
        return features_joined(params, params["NormalizedConv_0"], channels)


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
        x, bias = join_context(x, context, self.hidden_features, compute_dtype(self.dtype, x))
        x = Conv(self.hidden_features, (3, 3), dtype=self.dtype)(x) + bias
        for _ in range(self.num_blocks):
            x = ResidualBlock(self.hidden_features, dtype=self.dtype)(x)
        return ZeroConv(self.features, dtype=self.dtype)(relu(x))

    @nn.nowrap
    def context_features(self, params: dict[str, Any], channels: int) -> int:
        """Number of features of the context of parameters for inputs of so many channels."""
        return features_joined(params, params["Conv_0"], channels)


def join_context(x: Array, context: Array | None, features: int, dtype: Any) -> tuple[Array, Array]:
    """Adds a context to the first layer, of so many features, of a convolutional network.

    Feature maps are concatenated to the input's channels. Vectors become a bias of each example,
    by a dense layer that belongs to the calling module.

    Returns:
      The input of the first convolution, and a bias to add to its output.
    """
    zero = jnp.zeros((), dtype)
    if context is None:
        return x, zero
    if context.ndim == x.ndim:
        return jnp.concatenate([x, context.astype(x.dtype)], axis=-1), zero
    bias = nn.Dense(features, dtype=dtype, name="context")(context)
    return x, bias[:, None, None, :]


def features_joined(params: dict[str, Any], first: dict[str, Any], channels: int) -> int:
    """Number of features of the context of a network that called `join_context`, 0 for none.

    Args:
      params: The network's parameters.
      first: Those of its first convolution.
      channels: Number of channels of its input.
    """
    dense = params.get("context")
    return first["kernel"].shape[2] - channels if dense is None else dense["kernel"].shape[0]


class TimeDependentMLP(nn.Module):
    """A multilayer perceptron whose layers are gated and shifted by time, initially zero.

    Each layer computes (W x + b) * sigmoid(G u + g) + H u, with u the time, concatenated with the
    context where there is one. With tanh between the layers the result is a smooth and bounded
    function of x, so that dx/dt = network(x, t) has a solution for all times.

    Products have full precision: the error estimate of a solver would include their rounding.

    Source: Grathwohl, Chen, Bettencourt, Sutskever & Duvenaud 2019, "FFJORD: Free-form continuous
    dynamics for scalable reversible generative models", and their published code.

    Attributes:
      dimension: Number of dimensions of the input and of the output.
      hidden_sizes: Sizes of the hidden layers.
      activation: Nonlinearity after each hidden layer; solvers need a smooth one.
    """

    dimension: int
    hidden_sizes: Sequence[int] = (64, 64)
    activation: Callable[[Array], Array] = jnp.tanh

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch dimension"],
        time: Float[Array, " batch"],
        context: Float[Array, "batch feature"] | None = None,
    ) -> Float[Array, "batch dimension"]:
        """Maps ``[batch, dimension]`` at times ``[batch]`` to ``[batch, dimension]``."""
        u = time[:, None].astype(x.dtype)
        if context is not None:
            u = jnp.concatenate([u, context.astype(x.dtype)], axis=-1)
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

            x = dense("layer")(x) * jax.nn.sigmoid(dense("gate")(u))
            x = x + dense("shift", bias=False)(u)
            x = x if last else self.activation(x)
        return x

    @nn.nowrap
    def context_features(self, params: dict[str, Any]) -> int:
        """Number of features of the context that parameters were made for, 0 for none."""
        return params["gate_0"]["kernel"].shape[0] - 1
