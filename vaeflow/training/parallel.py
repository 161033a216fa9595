"""Strategies of data parallelism over several devices.

A strategy, `jax.jit` over a mesh of devices or `jax.pmap`, compiles a step, places each host's part
of a batch on its devices, and makes the random keys of its rows.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int

from vaeflow._util.arrays import LOCAL, Axis, row_keys

CPU_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": ""}
"""By default jaxlib 0.10 computes matrix products with YNNPACK, which keeps one core busy; its own
kernels use all. A step of a masked flow of 100 hidden units takes 0.8 of the time with them."""

PyTree = Any

DATA_AXIS = "data"
"""Name of the axis of devices that the rows of a batch are divided over."""


@functools.cache
def compiler_options(platform: str) -> dict[str, str | bool]:
    """XLA options for a training step on a platform; results differ in rounding alone.

    Options depend on the version of the compiler: those that it doesn't know are left out.

    Args:
      platform: The platform of the devices: "cpu", "gpu" or "tpu".
    """
    if platform != "cpu":
        return {}
    try:
        jax.jit(lambda x: x, compiler_options=CPU_OPTIONS).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return CPU_OPTIONS


class Strategy(Protocol):
    """Interface of a strategy; the state has the same layout under each.

    Attributes:
      mesh: The devices, of all hosts, along one axis.
    """

    mesh: Mesh

    @property
    def axis(self) -> Axis:
        """The axis that losses and updates reduce over."""

    def compile(self, function: Callable, rows: Sequence[int | None]) -> Callable:
        """Compiles `function(state, *arguments)`, donating the state.

        Args:
          function: Returns pytrees that are the same on every device.
          rows: For each argument after the state, which axis of its leaves is divided over the
            devices; None where the argument is replicated.

        Returns:
          The compiled function. A state that isn't on the devices yet is copied to them first.
        """

    def place(self, tree: PyTree, rows: int) -> PyTree:
        """Puts this host's part of an argument on its devices, axis `rows` divided over them."""

    def keys(self, seed: int, step: Int[Array, ""], count: int) -> Array:
        """The local rows, `count` of them, of `row_keys(fold_in(key(seed), step))`."""


@dataclasses.dataclass(frozen=True)
class Jit:
    """The compiler partitions the step, which sees whole batches (`jax.jit`, `NamedSharding`).

    Attributes:
      mesh: The devices, along one axis.
    """

    mesh: Mesh

    @property
    def axis(self) -> Axis:
        """The identity, as every array is global."""
        return LOCAL

    def compile(self, function: Callable, rows: Sequence[int | None]) -> Callable:
        """See `Strategy.compile`."""
        everywhere = replicated(self.mesh)
        divided = (everywhere if axis is None else self._divided(axis) for axis in rows)
        compiled = jax.jit(
            function,
            donate_argnums=0,
            in_shardings=(everywhere, *divided),
            out_shardings=everywhere,
            compiler_options=compiler_options(self.mesh.devices.flat[0].platform),
        )
        return _with_replicated_state(compiled, self.mesh)

    def place(self, tree: PyTree, rows: int) -> PyTree:
        """See `Strategy.place`."""
        put = jax.make_array_from_process_local_data
        return jax.tree.map(lambda leaf: put(self._divided(rows), np.asarray(leaf)), tree)

    def keys(self, seed: int, step: Int[Array, ""], count: int) -> Array:
        """See `Strategy.keys`."""
        keys = _keys_of_step(seed, step, count)
        return jax.lax.with_sharding_constraint(keys, self._divided(0))

    def _divided(self, axis: int) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec(*[None] * axis, DATA_AXIS))


@dataclasses.dataclass(frozen=True)
class Pmap:
    """Every device runs the step on its own rows and joins in collectives (`jax.pmap`).

    Attributes:
      mesh: The devices, along one axis.
    """

    mesh: Mesh

    @property
    def axis(self) -> Axis:
        """The mapped axis."""
        return Axis(DATA_AXIS)

    def compile(self, function: Callable, rows: Sequence[int | None]) -> Callable:
        """See `Strategy.compile`."""
        mapped = (None, *(None if axis is None else 0 for axis in rows))
        compiled = jax.pmap(
            function,
            DATA_AXIS,
            in_axes=mapped,
            out_axes=None,
            donate_argnums=0,
            devices=list(self.mesh.devices.flat),
        )

        def call(state: PyTree, *arguments: PyTree) -> PyTree:
            # Unmapped arguments and results of pmap are arrays of this host's devices alone.
            local = [
                self._of(argument, self.mesh.local_mesh) if axis is None else argument
                for argument, axis in zip((state, *arguments), mapped, strict=True)
            ]
            return self._of(compiled(*local), self.mesh)

        return _with_replicated_state(call, self.mesh)

    def place(self, tree: PyTree, rows: int) -> PyTree:
        """See `Strategy.place`."""
        members = self.mesh.local_mesh.size

        def put(leaf: Any) -> Array:
            parts = np.stack(np.split(np.asarray(leaf), members, axis=rows))
            sharding = NamedSharding(self.mesh, PartitionSpec(DATA_AXIS))
            return jax.make_array_from_process_local_data(sharding, parts)

        return jax.tree.map(put, tree)

    def keys(self, seed: int, step: Int[Array, ""], count: int) -> Array:
        """See `Strategy.keys`."""
        keys = _keys_of_step(seed, step, count * self.mesh.size)
        first = count * jax.lax.axis_index(DATA_AXIS)
        return jax.lax.dynamic_slice_in_dim(keys, first, count)

    def _of(self, tree: PyTree, mesh: Mesh) -> PyTree:
        """The same buffers as arrays over a mesh, where there are several hosts."""
        if not self.mesh.is_multi_process:
            return tree

        def view(leaf: Any) -> Any:
            if not isinstance(leaf, jax.Array):
                return leaf
            buffers = [shard.data for shard in leaf.addressable_shards]
            return jax.make_array_from_single_device_arrays(leaf.shape, replicated(mesh), buffers)

        return jax.tree.map(view, tree)


STRATEGIES = {"jit": Jit, "pmap": Pmap}


def make_strategy(name: str = "jit", devices: Sequence[jax.Device] | None = None) -> Strategy:
    """Makes a strategy over devices.

    Args:
      name: "jit" or "pmap".
      devices: The devices; None for all, those of other hosts included.

    Raises:
      ValueError: If there is no strategy of that name.
    """
    if name not in STRATEGIES:
        raise ValueError(f"strategy must be one of {tuple(STRATEGIES)}, got {name!r}")
    devices = jax.devices() if devices is None else devices
    # Each host's devices follow one another, as do its rows in the global batch.
    devices = sorted(devices, key=lambda device: (device.process_index, device.id))
    return STRATEGIES[name](Mesh(np.array(devices), (DATA_AXIS,), axis_types=(AxisType.Auto,)))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of replicated arrays: the state, and data kept on the devices."""
    return NamedSharding(mesh, PartitionSpec())


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
    """Copies a pytree, the same on all hosts, to every device; replicated leaves are kept."""
    everywhere = replicated(mesh)

    def put(leaf: Any) -> Array:
        if getattr(leaf, "sharding", None) == everywhere:
            return leaf
        return jax.make_array_from_process_local_data(everywhere, np.asarray(leaf))

    return jax.tree.map(put, tree)


def on_one_device(tree: PyTree) -> PyTree:
    """A replicated pytree as arrays of this host's first device; the buffers are shared."""
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)


def _keys_of_step(seed: int, step: Int[Array, ""], count: int) -> Array:
    return row_keys(jax.random.fold_in(jax.random.key(seed), step), count)


def _with_replicated_state(compiled: Callable, mesh: Mesh) -> Callable:
    """Replicates a first state that isn't on the devices yet, so that it shares the compilation.

    States that the step returned are replicated: their first leaf tells.
    """
    everywhere = replicated(mesh)

    def call(state: PyTree, *arguments: PyTree) -> PyTree:
        first = next(iter(jax.tree.leaves(state)), None)
        if getattr(first, "sharding", None) != everywhere:
            state = replicate(state, mesh)
        return compiled(state, *arguments)

    return call
