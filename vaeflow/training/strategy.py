"""Parallel strategies: jit over a mesh of devices, and pmap."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int

from vaeflow._util.axis import LOCAL, Axis
from vaeflow._util.random import row_keys

CPU_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": ""}
"""By default jaxlib 0.10 hands matrix products to YNNPACK, which keeps one core busy; its own
kernels use all. A step of a masked flow of 100 hidden units takes 0.8 of the time with them."""


@functools.cache
def compiler_options(platform: str) -> dict[str, str | bool]:
    """Options of the compiler for a training step on a platform; results differ in rounding alone.

    Options belong to a version of the compiler: where it doesn't know one, it is left out.

    Args:
      platform: That of the devices: "cpu", "gpu" or "tpu".
    """
    if platform != "cpu":
        return {}
    try:
        jax.jit(lambda x: x, compiler_options=CPU_OPTIONS).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return CPU_OPTIONS


PyTree = Any

DATA_AXIS = "data"
"""Name of the axis of devices that the rows of a batch are divided over."""


class Strategy(Protocol):
    """What training asks of a strategy; the state has the same layout under each.

    Attributes:
      mesh: The devices, of all hosts, along one axis.
    """

    mesh: Mesh

    @property
    def axis(self) -> Axis:
        """What losses and updates reduce over."""

    def compile(self, function: Callable, rows: Sequence[int | None]) -> Callable:
        """Compiles `function(state, *arguments)`, donating the state.

        Args:
          function: Returns pytrees that are the same on every device.
          rows: For each argument after the state, which axis of its leaves is divided over the
            devices; None where every device has all of it.
        """

    def place(self, tree: PyTree, rows: int) -> PyTree:
        """Puts this host's part of an argument on its devices, axis `rows` divided over them."""

    def keys(self, seed: int, step: Int[Array, ""], count: int) -> Array:
        """Keys of the `count` rows at hand: those of `row_keys(fold_in(key(seed), step))`."""


@dataclasses.dataclass(frozen=True)
class Jit:
    """The compiler partitions the step, which sees whole batches (`jax.jit`, `NamedSharding`)."""

    mesh: Mesh

    @property
    def axis(self) -> Axis:
        """The identity, as every array is global."""
        return LOCAL

    def compile(self, function: Callable, rows: Sequence[int | None]) -> Callable:
        """See `Strategy.compile`."""
        whole = replicated(self.mesh)
        shardings = (whole, *(whole if axis is None else self._divided(axis) for axis in rows))
        compiled = jax.jit(
            function,
            donate_argnums=0,
            in_shardings=shardings,
            out_shardings=whole,
            compiler_options=compiler_options(self.mesh.devices.flat[0].platform),
        )
        return _placing_the_state(compiled, self.mesh)

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
    """Every device runs the step on its own rows and joins in collectives (`jax.pmap`)."""

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
            # What isn't mapped enters and leaves pmap as arrays of this host's devices alone.
            own = [
                self._of(argument, self.mesh.local_mesh) if axis is None else argument
                for argument, axis in zip((state, *arguments), mapped, strict=True)
            ]
            return self._of(compiled(*own), self.mesh)

        return _placing_the_state(call, self.mesh)

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
    """The sharding of what every device has whole: the state, and data kept on the devices."""
    return NamedSharding(mesh, PartitionSpec())


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
    """Puts a pytree that all hosts hold alike whole on every device; what is there stays."""
    whole = replicated(mesh)

    def put(leaf: Any) -> Array:
        if getattr(leaf, "sharding", None) == whole:
            return leaf
        return jax.make_array_from_process_local_data(whole, np.asarray(leaf))

    return jax.tree.map(put, tree)


def on_one_device(tree: PyTree) -> PyTree:
    """What this host's first device holds of a replicated pytree; the buffers are shared."""
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)


def _keys_of_step(seed: int, step: Int[Array, ""], count: int) -> Array:
    return row_keys(jax.random.fold_in(jax.random.key(seed), step), count)


def _placing_the_state(compiled: Callable, mesh: Mesh) -> Callable:
    """Lets a first state that isn't on the devices yet share the compilation of later ones."""

    def call(state: PyTree, *arguments: PyTree) -> PyTree:
        return compiled(replicate(state, mesh), *arguments)

    return call
