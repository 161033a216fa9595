"""Masked autoregressive networks, and their sequential inversion."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vaeflow.nn.blocks import relu

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Layer:
    """One layer of a network that `solve_sequentially` evaluates.

    Attributes:
      kernel: Weights, zero where a unit must not read.
      extra: What `combine` adds to the weighted sums: the same for all rows, or one for each.
      combine: Computes units from weighted sums and `extra`, entry by entry.
      starts: At each turn, the first unit to compute; earlier units are known by then.
      size: Number of units to compute at a turn.
    """

    kernel: Float[Array, "unit input"]
    extra: Float[Array, "unit row_or_one"]
    combine: Callable[[Array, Array], Array]
    starts: np.ndarray
    size: int


def solve_sequentially(
    layers: Sequence[Layer],
    entry: Callable[[Float[Array, "output row"], PyTree], tuple[Array, PyTree]],
    inputs: PyTree,
    places: np.ndarray,
    rows: int,
    dtype: Any,
) -> PyTree:
    """Computes the outputs for one entry after another, each fed back before the next.

    At each turn only those units are computed whose inputs have just become known, so that all
    turns together cost little more than one pass through the network. Units are rows of matrices
    here, and examples columns: what a turn reads and writes is then contiguous.

    Args:
      layers: The layers in order; the units of the last that a turn computes are its outputs. Units
        that follow them in a layer may be computed before their inputs are known; they are
        computed again before anything with a weight other than zero reads them.
      entry: Computes from the outputs of a turn, and from what `inputs` holds for it, the value
        ``[width, row]`` to feed back, and a result.
      inputs: Pytree of arrays with one entry a turn along the first axis.
      places: At each turn, where in the input of the first layer the value belongs.
      rows: Number of examples.
      dtype: Type in which units are kept and multiplied; sums are float32 or wider.

    Returns:
      The results, stacked along the first axis.
    """
    widths = [layer.kernel.shape[1] for layer in layers]
    known = tuple(jnp.zeros((width, rows), dtype) for width in widths)
    starts = [jnp.asarray(layer.starts) for layer in layers]

    def turn(known, at):
        starts, place, given = at
        units = list(known)
        for index, (layer, start) in enumerate(zip(layers, starts, strict=True)):
            kernel = jax.lax.dynamic_slice_in_dim(layer.kernel, start, layer.size)
            extra = jax.lax.dynamic_slice_in_dim(layer.extra, start, layer.size)
            outputs = layer.combine(product(kernel, units[index]), extra)
            if index + 1 < len(layers):
                units[index + 1] = _written(units[index + 1], outputs, start)
        value, result = entry(outputs, given)
        return (_written(units[0], value, place), *units[1:]), result

    return jax.lax.scan(turn, known, (starts, jnp.asarray(places), inputs))[1]


def blocks(degrees: np.ndarray, entries: int) -> tuple[np.ndarray, int]:
    """Finds the units of each degree, where degrees are in order.

    Returns:
      The first unit of each degree from 0 to `entries` - 1, and the largest number of units that
      have one degree. So many units starting there exist: at the end of the layer, blocks begin
      earlier.
    """
    size = int(np.bincount(degrees).max())
    return np.minimum(np.searchsorted(degrees, np.arange(entries)), len(degrees) - size), size


@jax.custom_vjp
def product(
    a: Float[Array, "row inner"], b: Float[Array, "inner column"]
) -> Float[Array, "row column"]:
    """Multiplies matrices of one dtype, with sums in float32 or wider.

    Gradients are multiplied in that dtype as well. Reverse-mode derivatives only.
    """
    return jnp.matmul(
        a,
        b,
        # Accelerators would otherwise multiply float32 in bfloat16, and one way and the other
        # round differently.
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=jnp.promote_types(a.dtype, jnp.float32),
    )


def _product_forward(a, b):
    return product(a, b), (a, b)


def _product_backward(factors, dproduct):
    a, b = factors
    dproduct = dproduct.astype(a.dtype)
    return product(dproduct, b.T).astype(a.dtype), product(a.T, dproduct).astype(b.dtype)


product.defvjp(_product_forward, _product_backward)


def _written(array: Array, block: Array, start: Array) -> Array:
    return jax.lax.dynamic_update_slice_in_dim(array, block.astype(array.dtype), start, 0)


class MaskedMLP(nn.Module):
    """A multilayer perceptron with masked kernels, its last layer zero at first.

    Unit j of a hidden layer has a degree m(j), reads the units of the layer before whose degrees
    are at most m(j), and so depends on the first m(j) entries alone. Outputs for entry i, counted
    from zero, read units of degree at most i. Degrees rise along a layer, in blocks of nearly equal
    sizes. A context has degree 0: every unit reads it. Where there is one, some units of degree 0
    depend on nothing else; otherwise there are none, and the outputs for entry 0 are biases.

    At first weights and biases of a hidden unit that reads n others are normal with variance 2/n.
    For weights that is He, Zhang, Ren & Sun 2015, "Delving Deep into Rectifiers", section 2.2.

    Source: Germain, Gregor, Murray & Larochelle 2015, "MADE: Masked Autoencoder for Distribution
    Estimation", section 4; degrees in order and a context, as in Papamakarios, Pavlakou & Murray
    2017, "Masked Autoregressive Flow for Density Estimation", section 3.

    Attributes:
      dimension: Number of entries of a vector.
      num_parameters: Number of outputs for each entry.
      hidden_sizes: Sizes of the hidden layers, at least one.
      activation: Nonlinearity after each hidden layer.
      dtype: Type to compute in; the result is float32 or wider.
    """

    dimension: int
    num_parameters: int
    hidden_sizes: Sequence[int] = (64, 64)
    activation: Callable[[Array], Array] = relu
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch entry"], context: Float[Array, "batch feature"] | None = None
    ) -> Float[Array, "batch entry parameter"]:
        """Maps ``[batch, entries]`` to ``[batch, entries, parameters]``, given a context if any."""
        parameters = {}
        for index, mask in enumerate(self._masks(_features(context))):
            kernel_init = bias_init = nn.initializers.zeros
            if index < len(self.hidden_sizes):
                # With biases of zero all units that read a single entry would have one kink.
                scale = np.sqrt(2 / np.maximum(mask.sum(axis=0), 1))
                kernel_init, bias_init = _scaled_normal(scale * mask), _scaled_normal(scale)
            kernel = self.param(f"kernel_{index}", kernel_init, mask.shape)
            bias = self.param(f"bias_{index}", bias_init, mask.shape[1:])
            parameters |= {f"kernel_{index}": kernel, f"bias_{index}": bias}
        return self._sums(parameters, x, context)[-1].reshape(
            (*x.shape[:-1], self.dimension, self.num_parameters)
        )

    @nn.nowrap
    def solve(
        self,
        variables: dict[str, Any],
        context: Float[Array, "batch feature"] | None,
        entry: Callable[[Float[Array, "batch parameter"], PyTree], tuple[Array, PyTree]],
        inputs: PyTree,
        rows: int,
    ) -> PyTree:
        """Finds x with x_i = entry(outputs for entry i given x, inputs_i), for about one pass.

        Args:
          variables: The module's variables.
          context: Vectors, or None.
          entry: Computes x_i ``[batch]`` and a result from the outputs ``[batch, parameters]``.
          inputs: Pytree of arrays with one entry for each i along the first axis.
          rows: Size of the batch.

        Returns:
          The results, stacked along the first axis.
        """
        features = _features(context)
        kernels, biases = self._masked(variables["params"], features)
        biases = [bias[:, None] for bias in biases]
        if context is not None:
            given = product(kernels[0][:features].T, context.T.astype(self.dtype))
            biases[0] = biases[0] + given
        kernels[0] = kernels[0][features:]
        layers = [
            Layer(kernel.T, bias, self._activated, *blocks(degrees, self.dimension))
            for kernel, bias, degrees in zip(
                kernels, biases, self._degrees(features)[1:], strict=True
            )
        ]
        layers[-1] = dataclasses.replace(layers[-1], combine=jnp.add)

        def turn(outputs, given):
            value, result = entry(outputs.T, given)
            return value[None], result

        return solve_sequentially(layers, turn, inputs, np.arange(self.dimension), rows, self.dtype)

    @nn.nowrap
    def solve_transposed(
        self,
        variables: dict[str, Any],
        context: Float[Array, "batch feature"] | None,
        x: Float[Array, "batch entry"],
        entry: Callable[[Float[Array, " batch"], PyTree], tuple[Array, PyTree]],
        inputs: PyTree,
    ) -> PyTree:
        """Finds c with c_i = entry(q_i, inputs_i), where q is what c pulls back to x.

        q_i is the sum over j > i of c_j times the derivative of the outputs for entry j with
        respect to x_i: a system of equations that is solved from the last entry to the first, for
        about one pass.

        Args:
          variables: The module's variables.
          context: Vectors, or None.
          x: The input of the network.
          entry: Computes c_i ``[batch, parameters]`` and a result from q_i ``[batch]``.
          inputs: Pytree of arrays with one entry for each i along the first axis.

        Returns:
          The results, stacked along the first axis.
        """
        features = _features(context)
        kernels, _ = self._masked(variables["params"], features)
        *sums, _ = self._sums(variables["params"], x, context)
        slopes = [_slopes(self.activation, hidden).T for hidden in sums]
        kernels[0] = kernels[0][features:]
        layers = []
        # Units of degree i + 1 are known once c_i+1 is, and q_i reads those of higher degrees.
        for kernel, slope, degrees in zip(
            kernels[:0:-1], slopes[::-1], self._degrees(features)[-2:0:-1], strict=True
        ):
            starts, size = blocks(degrees, self.dimension)
            starts = np.append(starts[1:], len(degrees) - size)[::-1]
            layers.append(Layer(kernel, slope, jnp.multiply, starts, size))
        zero = jnp.zeros((self.dimension, 1), self.dtype)
        layers.append(Layer(kernels[0], zero, jnp.add, np.arange(self.dimension)[::-1], 1))
        places = self.num_parameters * np.arange(self.dimension)[::-1]

        def turn(outputs, given):
            value, result = entry(outputs[0], given)
            return value.T, result

        inputs = jax.tree.map(lambda leaf: jnp.flip(leaf, axis=0), inputs)
        results = solve_sequentially(layers, turn, inputs, places, x.shape[0], self.dtype)
        return jax.tree.map(lambda leaf: jnp.flip(leaf, axis=0), results)

    @nn.nowrap
    def _sums(self, parameters: dict[str, Array], x: Array, context: Array | None) -> list[Array]:
        """Weighted sums of every layer, of which the last are the outputs."""
        if x.shape[-1] != self.dimension:
            raise ValueError(
                f"MaskedMLP: expected vectors of shape {(self.dimension,)}, got an array of shape "
                f"{x.shape}"
            )
        units = x if context is None else jnp.concatenate([context.astype(x.dtype), x], axis=-1)
        sums = []
        for kernel, bias in zip(*self._masked(parameters, _features(context)), strict=True):
            sums.append(product(units.astype(self.dtype), kernel) + bias)
            units = self.activation(sums[-1])
        return sums

    @nn.nowrap
    def _activated(self, sums: Array, bias: Array) -> Array:
        return self.activation(sums + bias)

    @nn.nowrap
    def _masked(
        self, parameters: dict[str, Array], features: int
    ) -> tuple[list[Array], list[Array]]:
        masks = self._masks(features)
        kernels = [
            jnp.where(mask, parameters[f"kernel_{index}"], 0).astype(self.dtype)
            for index, mask in enumerate(masks)
        ]
        return kernels, [parameters[f"bias_{index}"] for index in range(len(masks))]

    @nn.nowrap
    def _masks(self, features: int) -> list[np.ndarray]:
        """Which input each unit reads, ``[input, unit]``, layer by layer."""
        degrees = self._degrees(features)
        return [before[:, None] <= after for before, after in itertools.pairwise(degrees)]

    @nn.nowrap
    def _degrees(self, features: int) -> list[np.ndarray]:
        """Degrees of the inputs, of every hidden layer, and of the outputs, each in order."""
        least = 0 if features or self.dimension == 1 else 1
        count = self.dimension - least
        inputs = np.concatenate([np.zeros(features, int), np.arange(1, self.dimension + 1)])
        hidden = [least + np.arange(width) * count // width for width in self.hidden_sizes]
        return [inputs, *hidden, np.repeat(np.arange(self.dimension), self.num_parameters)]


def _features(context: Array | None) -> int:
    return 0 if context is None else context.shape[-1]


def _scaled_normal(scale: np.ndarray) -> Callable[..., Array]:
    return lambda key, shape: jnp.asarray(scale, jnp.float32) * jax.random.normal(key, shape)


def _slopes(function: Callable[[Array], Array], x: Array) -> Array:
    value, pull_back = jax.vjp(function, x)
    return pull_back(jnp.ones_like(value))[0]
