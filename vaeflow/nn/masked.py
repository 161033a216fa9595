"""Masked autoregressive networks (MADE, Germain et al. 2015) and their sequential inversion.

`solve_sequentially` inverts an autoregressive map, or solves its transposed Jacobian, for about
the cost of one pass: it computes each hidden unit once, as soon as its inputs are known.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vaeflow._util.arrays import compute_dtype
from vaeflow.nn.convolution import relu

PyTree = Any

WIDTH = 64
"""Number of units of a hidden layer by default, where a network has no more dimensions."""


@dataclasses.dataclass(frozen=True)
class Layer:
    """One layer of a network that `solve_sequentially` evaluates: activation(kernel x, bias).

    Attributes:
      kernel: Weights, zero where a unit must not read.
      bias: Second argument of the activation: the same for all rows, or one for each. A pull-back
        has the slopes of the activation here, which multiply.
      activation: Computes units from weighted sums and `bias`, elementwise.
      starts: At each step, the first unit to compute; earlier units are known by then.
      size: Number of units to compute at a step.
    """

    kernel: Float[Array, "unit input"]
    bias: Float[Array, "unit row_or_one"]
    activation: Callable[[Array, Array], Array]
    starts: np.ndarray
    size: int


def solve_sequentially(
    layers: Sequence[Layer],
    solve_one: Callable[[Float[Array, "output row"], PyTree], tuple[Array, PyTree]],
    inputs: PyTree,
    positions: np.ndarray,
    num_rows: int,
    dtype: Any,
) -> PyTree:
    """Solves for one dimension of a network's input after another, each given those before it.

    At each step only the units are computed whose inputs have just become known, so that all steps
    together cost little more than one pass through the network. Units are rows of matrices here,
    and examples columns: what a step reads and writes is then contiguous.

    Args:
      layers: The layers in order; the units of the last that a step computes are its outputs. Units
        that follow them in a layer may be computed before their inputs are known; they are
        recomputed before anything with a nonzero weight reads them.
      solve_one: Computes from the outputs of a step, and from the slice of `inputs` for it, the
        value ``[width, row]`` to feed back, and a result.
      inputs: Pytree of arrays whose first axis is the step.
      positions: At each step, the first input of the first layer that the value fills.
      num_rows: Number of examples.
      dtype: Type in which units are stored and multiplied; sums are float32 or wider.

    Returns:
      The results, stacked along the first axis.
    """
    widths = [layer.kernel.shape[1] for layer in layers]
    known = tuple(jnp.zeros((width, num_rows), dtype) for width in widths)
    starts = [jnp.asarray(layer.starts) for layer in layers]

    def step(known, slices):
        starts, position, step_inputs = slices
        units = list(known)
        for index, (layer, start) in enumerate(zip(layers, starts, strict=True)):
            kernel = jax.lax.dynamic_slice_in_dim(layer.kernel, start, layer.size)
            bias = jax.lax.dynamic_slice_in_dim(layer.bias, start, layer.size)
            outputs = layer.activation(matmul_float32(kernel, units[index]), bias)
            if index + 1 < len(layers):
                units[index + 1] = _updated(units[index + 1], outputs, start)
        value, result = solve_one(outputs, step_inputs)
        return (_updated(units[0], value, position), *units[1:]), result

    return jax.lax.scan(step, known, (starts, jnp.asarray(positions), inputs))[1]


def units_by_degree(degrees: np.ndarray, num_degrees: int) -> tuple[np.ndarray, int]:
    """Computes where the units of each degree start in a layer whose degrees are sorted.

    Returns:
      The first unit of each degree from 0 to `num_degrees` - 1, and the largest number of units
      that have one degree. That many units exist from each start on: at the end of the layer,
      blocks start earlier.
    """
    size = int(np.bincount(degrees).max())
    return np.minimum(np.searchsorted(degrees, np.arange(num_degrees)), len(degrees) - size), size


@jax.custom_jvp
def matmul_float32(
    a: Float[Array, "row inner"], b: Float[Array, "inner column"]
) -> Float[Array, "row column"]:
    """Multiplies matrices of one dtype, with sums in float32 or wider.

    Gradients are multiplied in that dtype as well.
    """
    return jnp.matmul(
        a,
        b,
        # Accelerators would otherwise multiply float32 in bfloat16, and the two directions would
        # round differently.
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=jnp.promote_types(a.dtype, jnp.float32),
    )


@matmul_float32.defjvp
def _matmul_jvp(primals, tangents):
    (a, b), (da, db) = primals, tangents
    product = matmul_float32(a, b)
    # Rounded to the dtype of the factors here, so that the transpose rounds the gradient.
    multiply = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
    change = multiply(da, b).astype(product.dtype) + multiply(a, db).astype(product.dtype)
    return product, change


def _updated(array: Array, block: Array, start: Array) -> Array:
    return jax.lax.dynamic_update_slice_in_dim(array, block.astype(array.dtype), start, 0)


class MaskedMLP(nn.Module):
    """A multilayer perceptron with masked kernels, its last layer initially zero.

    Unit j of a hidden layer has a degree m(j), reads the units of the layer before whose degrees
    are at most m(j), and so depends on the first m(j) dimensions only. Outputs for dimension i,
    counted from zero, read units of degree at most i. Degrees increase along a layer, in blocks of
    nearly equal sizes. A context has degree 0: every unit reads it. Where there is one, some units
    of degree 0 depend on nothing else; otherwise there are none, and the outputs for dimension 0
    are biases.

    Outputs depend on every dimension before theirs where each hidden layer has a unit of every
    degree: at least `dimension` units with a context and one less without. In a narrower layer of n
    units degrees are about `dimension` / n apart, and the outputs for dimension i depend only on as
    many dimensions as the largest of these degrees that is at most i: not on those just before it.

    Initially weights and biases of a hidden unit that reads n others are normal with variance 2/n.
    For weights that is He, Zhang, Ren & Sun 2015, "Delving Deep into Rectifiers", section 2.2.

    Source: Germain, Gregor, Murray & Larochelle 2015, "MADE: Masked Autoencoder for Distribution
    Estimation", section 4; sorted degrees and a context, as in Papamakarios, Pavlakou & Murray
    2017, "Masked Autoregressive Flow for Density Estimation", section 3.

    Attributes:
      dimension: Number of dimensions of a vector.
      num_parameters: Number of outputs for each dimension.
      hidden_sizes: Sizes of the hidden layers, at least one. None for two layers of `WIDTH` units,
        or of as many as dimensions where these are more.
      activation: Nonlinearity after each hidden layer.
      dtype: Type to compute in; the result is float32 or wider.
    """

    dimension: int
    _: dataclasses.KW_ONLY
    num_parameters: int
    hidden_sizes: Sequence[int] | None = None
    activation: Callable[[Array], Array] = relu
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch dimension"],
        context: Float[Array, "batch feature"] | None = None,
    ) -> Float[Array, "batch dimension parameter"]:
        """Maps ``[batch, dimension]`` to ``[batch, dimension, parameter]``."""
        params = {}
        for index, mask in enumerate(self._masks(_features(context))):
            kernel_init = bias_init = nn.initializers.zeros
            if index < len(self._hidden_sizes):
                # With zero biases all units that read a single dimension would have the same kink.
                scale = np.sqrt(2 / np.maximum(mask.sum(axis=0), 1))
                kernel_init, bias_init = _scaled_normal(scale * mask), _scaled_normal(scale)
            kernel = self.param(f"kernel_{index}", kernel_init, mask.shape, jnp.float32)
            bias = self.param(f"bias_{index}", bias_init, mask.shape[1:], jnp.float32)
            params |= {f"kernel_{index}": kernel, f"bias_{index}": bias}
        return self._sums(params, x, context)[-1].reshape(
            (*x.shape[:-1], self.dimension, self.num_parameters)
        )

    @nn.nowrap
    def solve(
        self,
        variables: dict[str, Any],
        context: Float[Array, "batch feature"] | None,
        solve_one: Callable[[Float[Array, "batch parameter"], PyTree], tuple[Array, PyTree]],
        inputs: PyTree,
        num_rows: int,
    ) -> PyTree:
        """Solves x_i = solve_one(outputs for dimension i given x, inputs_i), for about one pass.

        Args:
          variables: The module's variables.
          context: Vectors, or None.
          solve_one: Computes x_i ``[batch]`` and a result from the outputs ``[batch, parameter]``.
          inputs: Pytree of arrays whose first axis is the dimension i.
          num_rows: Size of the batch.

        Returns:
          The results, stacked along the first axis.
        """
        features = _features(context)
        dtype = self._dtype(variables["params"], *jax.tree.leaves(inputs))
        kernels, biases = self._masked(variables["params"], features, dtype)
        biases = [bias[:, None] for bias in biases]
        if context is not None:
            shift = matmul_float32(kernels[0][:features].T, context.T.astype(dtype))
            biases[0] = biases[0] + shift
        kernels[0] = kernels[0][features:]
        layers = [
            Layer(kernel.T, bias, self._activated, *units_by_degree(degrees, self.dimension))
            for kernel, bias, degrees in zip(
                kernels, biases, self._degrees(features)[1:], strict=True
            )
        ]
        layers[-1] = dataclasses.replace(layers[-1], activation=jnp.add)

        def step(outputs, step_inputs):
            value, result = solve_one(outputs.T, step_inputs)
            return value[None], result

        positions = np.arange(self.dimension)
        return solve_sequentially(layers, step, inputs, positions, num_rows, dtype)

    @nn.nowrap
    def solve_transposed(
        self,
        variables: dict[str, Any],
        context: Float[Array, "batch feature"] | None,
        x: Float[Array, "batch dimension"],
        solve_one: Callable[[Float[Array, " batch"], PyTree], tuple[Array, PyTree]],
        inputs: PyTree,
    ) -> PyTree:
        """Solves c_i = solve_one(q_i, inputs_i), where q = J^T c is the pull-back of c to x.

        q_i is the sum over j > i of c_j times the derivative of the outputs for dimension j with
        respect to x_i: a triangular system that is solved from the last dimension to the first, for
        about one pass.

        Args:
          variables: The module's variables.
          context: Vectors, or None.
          x: The input of the network.
          solve_one: Computes c_i ``[batch, parameter]`` and a result from q_i ``[batch]``.
          inputs: Pytree of arrays whose first axis is the dimension i.

        Returns:
          The results, stacked along the first axis.
        """
        features = _features(context)
        dtype = self._dtype(variables["params"], x)
        kernels, _ = self._masked(variables["params"], features, dtype)
        *sums, _ = self._sums(variables["params"], x, context)
        slopes = [_slopes(self.activation, hidden).T for hidden in sums]
        kernels[0] = kernels[0][features:]
        layers = []
        # Units of degree i + 1 are known once c_i+1 is, and q_i reads those of higher degrees.
        for kernel, slope, degrees in zip(
            kernels[:0:-1], slopes[::-1], self._degrees(features)[-2:0:-1], strict=True
        ):
            starts, size = units_by_degree(degrees, self.dimension)
            starts = np.append(starts[1:], len(degrees) - size)[::-1]
            layers.append(Layer(kernel, slope, jnp.multiply, starts, size))
        zero = jnp.zeros((self.dimension, 1), dtype)
        layers.append(Layer(kernels[0], zero, jnp.add, np.arange(self.dimension)[::-1], 1))
        positions = self.num_parameters * np.arange(self.dimension)[::-1]

        def step(outputs, step_inputs):
            value, result = solve_one(outputs[0], step_inputs)
            return value.T, result

        inputs = jax.tree.map(lambda leaf: jnp.flip(leaf, axis=0), inputs)
        results = solve_sequentially(layers, step, inputs, positions, x.shape[0], dtype)
        return jax.tree.map(lambda leaf: jnp.flip(leaf, axis=0), results)

    @nn.nowrap
    def _sums(self, params: dict[str, Array], x: Array, context: Array | None) -> list[Array]:
        """Pre-activations of every layer, of which the last are the outputs."""
        if x.shape[-1] != self.dimension:
            raise ValueError(
                f"MaskedMLP: expected vectors of shape {(self.dimension,)}, got an array of shape "
                f"{x.shape}"
            )
        units = x if context is None else jnp.concatenate([context.astype(x.dtype), x], axis=-1)
        dtype, sums = self._dtype(params, x), []
        for kernel, bias in zip(*self._masked(params, _features(context), dtype), strict=True):
            sums.append(matmul_float32(units.astype(dtype), kernel) + bias)
            units = self.activation(sums[-1])
        return sums

    @nn.nowrap
    def context_features(self, params: dict[str, Array]) -> int:
        """Number of features of the context that parameters were made for, 0 for none."""
        return params["kernel_0"].shape[0] - self.dimension

    @nn.nowrap
    def _activated(self, sums: Array, bias: Array) -> Array:
        return self.activation(sums + bias)

    @nn.nowrap
    def _dtype(self, params: dict[str, Array], *values: Array) -> Any:
        return compute_dtype(self.dtype, params["kernel_0"], *values)

    @nn.nowrap
    def _masked(
        self, params: dict[str, Array], features: int, dtype: Any
    ) -> tuple[list[Array], list[Array]]:
        """Masked kernels, and biases, layer by layer."""
        masks = self._masks(features)
        kernels = [
            jnp.where(mask, params[f"kernel_{index}"], 0).astype(dtype)
            for index, mask in enumerate(masks)
        ]
        return kernels, [params[f"bias_{index}"] for index in range(len(masks))]

    @property
    def _hidden_sizes(self) -> Sequence[int]:
        if self.hidden_sizes is None:
            return (max(WIDTH, self.dimension),) * 2
        return self.hidden_sizes

    @nn.nowrap
    def _masks(self, features: int) -> list[np.ndarray]:
        """Masks ``[input, unit]``, true where the unit reads the input, layer by layer."""
        degrees = self._degrees(features)
        return [before[:, None] <= after for before, after in itertools.pairwise(degrees)]

    @nn.nowrap
    def _degrees(self, features: int) -> list[np.ndarray]:
        """Degrees of the inputs, of every hidden layer, and of the outputs, each sorted."""
        least = 0 if features or self.dimension == 1 else 1
        count = self.dimension - least
        inputs = np.concatenate([np.zeros(features, int), np.arange(1, self.dimension + 1)])
        hidden = [least + np.arange(width) * count // width for width in self._hidden_sizes]
        return [inputs, *hidden, np.repeat(np.arange(self.dimension), self.num_parameters)]


def _features(context: Array | None) -> int:
    return 0 if context is None else context.shape[-1]


def _scaled_normal(scale: np.ndarray) -> Callable[..., Array]:
    return lambda key, shape, dtype: (
        jnp.asarray(scale, dtype) * jax.random.normal(key, shape, dtype)
    )


def _slopes(function: Callable[[Array], Array], x: Array) -> Array:
    value, pull_back = jax.vjp(function, x)
    return pull_back(jnp.ones_like(value))[0]
