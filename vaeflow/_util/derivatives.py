"""Functions with a derivative of their own, which every transformation keeps.

`jax.custom_jvp` is dropped where a scan is differentiated twice, backward and then forward: JAX
then differentiates the function inside, which an iteration to convergence doesn't allow. A
primitive isn't looked into.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array

PyTree = Any


@jax.custom_jvp
def quotient(numerator: Array, denominator: Array) -> Array:
    """Computes a quotient whose derivative doesn't square the denominator, as JAX's does.

    In float32 squares vanish or overflow from 1e-19 and 1e19 on: derivatives of a log-density by a
    deviation of that size would be infinite, or lack a term.
    """
    return numerator / denominator


@quotient.defjvp
def _quotient_jvp(primals, tangents):
    ratio = quotient(*primals)
    change, change_below = tangents
    return ratio, (change - ratio * change_below) / primals[1]


class CustomJVP:
    """A function of pytrees of arrays with a derivative of its own, as `jax.custom_jvp`.

    It works in every mode and order in which its rule can be differentiated. It is a function of
    its arguments alone: it must not refer to values that are traced.
    """

    def __init__(self, function: Callable, nondiff_argnums: Sequence[int] = ()):
        """Wraps a function.

        Args:
          function: The function.
          nondiff_argnums: Positions of arguments that are hashable rather than arrays.
        """
        functools.update_wrapper(self, function)
        self.function = function
        self.nondiff_argnums = tuple(nondiff_argnums)
        self.signature = inspect.signature(function)
        self.rule: Callable | None = None

    def defjvp(self, rule: Callable) -> Callable:
        """Sets the rule: ``rule(*nondiff, primals, tangents) -> (result, its tangent)``."""
        self.rule = rule
        return rule

    def __call__(self, *args: Any, **kwargs: Any) -> PyTree:
        """Applies the function."""
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        static = tuple(bound.args[i] for i in self.nondiff_argnums)
        arrays = [arg for i, arg in enumerate(bound.args) if i not in self.nondiff_argnums]
        leaves, structure = jax.tree.flatten(tuple(arrays))
        call = _Call(self, static, structure)
        result = jax.eval_shape(functools.partial(_evaluate, call=call), *leaves)
        return jax.tree.unflatten(jax.tree.structure(result), _primitive.bind(*leaves, call=call))


@dataclasses.dataclass(frozen=True)
class _Call:
    """A function with its static arguments, of the leaves of the others; equal by value."""

    custom: CustomJVP
    static: tuple[Hashable, ...]
    structure: Any

    def apply(self, *leaves: Any) -> PyTree:
        arguments = list(jax.tree.unflatten(self.structure, leaves))
        for position, value in sorted(zip(self.custom.nondiff_argnums, self.static, strict=True)):
            arguments.insert(position, value)
        return self.custom.function(*arguments)

    def jvp(self, primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[PyTree, PyTree]:
        trees = (jax.tree.unflatten(self.structure, leaves) for leaves in (primals, tangents))
        return self.custom.rule(*self.static, *trees)


@dataclasses.dataclass(frozen=True)
class _Mapped:
    """A call that is mapped over the first axis of some leaves."""

    call: Any
    axes: tuple[int | None, ...]

    def apply(self, *leaves: Any) -> PyTree:
        return jax.vmap(self.call.apply, in_axes=self.axes)(*leaves)

    def jvp(self, primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[PyTree, PyTree]:
        # Tangents of integers can't be mapped, and are the same for all.
        constant = [t.dtype == jax.dtypes.float0 for t in tangents]

        def one(primals, tangents):
            tangents = [
                np.zeros(jnp.shape(primal), jax.dtypes.float0) if fixed else tangent
                for primal, tangent, fixed in zip(primals, tangents, constant, strict=True)
            ]
            return self.call.jvp(primals, tangents)

        mapped = [None if fixed else t for t, fixed in zip(tangents, constant, strict=True)]
        axes = list(self.axes)
        of_tangents = [None if fixed else a for a, fixed in zip(axes, constant, strict=True)]
        return jax.vmap(one, in_axes=(axes, of_tangents))(list(primals), mapped)


@functools.partial(jax.jit, static_argnames="call")
def _evaluate(*leaves: Any, call: _Call | _Mapped) -> PyTree:
    return call.apply(*leaves)


def _leaves(*leaves: Any, call: _Call | _Mapped) -> list[Any]:
    return jax.tree.leaves(_evaluate(*leaves, call=call))


def _abstract(*leaves: Any, call: _Call | _Mapped) -> list[Any]:
    structs = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves]
    result = jax.eval_shape(functools.partial(_evaluate, call=call), *structs)
    return [jax.core.ShapedArray(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(result)]


def _jvp(primals: Sequence[Any], tangents: Sequence[Any], *, call: _Call | _Mapped):
    tangents = [_instantiated(tangent) for tangent in tangents]
    results = call.jvp(primals, tangents)
    return tuple(jax.tree.leaves(result) for result in results)


def _instantiated(tangent: Any) -> Any:
    if not isinstance(tangent, ad.Zero):
        return tangent
    aval = tangent.aval
    zeros = np.zeros if aval.dtype == jax.dtypes.float0 else jnp.zeros
    return zeros(aval.shape, aval.dtype)


def _batched(leaves: Sequence[Any], axes: Sequence[Any], *, call: _Call | _Mapped):
    leaves = [
        leaf if axis is None else jnp.moveaxis(leaf, axis, 0)
        for leaf, axis in zip(leaves, axes, strict=True)
    ]
    first = tuple(None if axis is None else 0 for axis in axes)
    results = _primitive.bind(*leaves, call=_Mapped(call, first))
    return results, [0] * len(results)


_primitive = Primitive("custom_jvp_primitive")
_primitive.multiple_results = True
_primitive.def_impl(_leaves)
_primitive.def_abstract_eval(_abstract)
mlir.register_lowering(_primitive, mlir.lower_fun(_leaves, multiple_results=True))
ad.primitive_jvps[_primitive] = _jvp
batching.primitive_batchers[_primitive] = _batched


def backward_only(x: Array, message: str) -> Array:
    """Returns x, whose derivatives raise a TypeError in forward mode.

    For arguments of a `jax.custom_vjp`, whose own error speaks of JAX's parts, and comes only where
    a compiled function is lowered. Forward mode over a gradient passes, as it does there.

    Args:
      x: Values.
      message: Text of the error.
    """
    return _backward_only.bind(x, message=message)


def _backward_only_jvp(primals, tangents, *, message):
    change = tangents[0]
    if not isinstance(change, ad.Zero):
        change = _backward_only_change.bind(change, message=message)
    return primals[0], change


def _raise_forward_mode(*_: Any, message: str, **__: Any) -> Any:
    raise TypeError(message)


_backward_only = Primitive("backward_only")
_backward_only.def_impl(lambda x, *, message: x)
_backward_only.def_abstract_eval(lambda x, *, message: x)
mlir.register_lowering(_backward_only, mlir.lower_fun(lambda x, *, message: x, False))
ad.primitive_jvps[_backward_only] = _backward_only_jvp
batching.defvectorized(_backward_only)

# Its change can be staged and transposed, but neither computed nor lowered.
_backward_only_change = Primitive("backward_only_change")
_backward_only_change.def_impl(_raise_forward_mode)
_backward_only_change.def_abstract_eval(lambda change, *, message: change)
mlir.register_lowering(_backward_only_change, _raise_forward_mode)
ad.primitive_jvps[_backward_only_change] = _raise_forward_mode
ad.primitive_transposes[_backward_only_change] = lambda cotangent, _, *, message: [cotangent]
batching.primitive_batchers[_backward_only_change] = _raise_forward_mode
