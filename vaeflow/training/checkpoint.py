"""Checkpoints of a run: the last three, written in the background and verified by a checksum.

A checkpoint holds the arrays and JSON values of a `vaeflow.training.state.LoopState`.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
import zlib
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from vaeflow._util.files import optional_import
from vaeflow._util.messages import shown
from vaeflow.training.hosts import is_first

if TYPE_CHECKING:
    import orbax.checkpoint as ocp
    from etils import epath

PyTree = Any


class Checkpoint(NamedTuple):
    """The content of a checkpoint.

    Attributes:
      tree: A pytree of arrays.
      progress: JSON values.
    """

    tree: PyTree
    progress: dict[str, Any]


def _with_dtype(leaf: jax.ShapeDtypeStruct, dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, dtype, sharding=leaf.sharding)


def _rounded(leaf: jax.Array, wanted: jax.ShapeDtypeStruct) -> jax.Array:
    return leaf if leaf.dtype == wanted.dtype else jnp.round(leaf).astype(wanted.dtype)


class Checkpoints:
    """The last three checkpoints of a run, written in the background. A context manager.

    A checkpoint appears under its step only when it is complete, so a kill leaves the one before.

    Attributes:
      path: Their directory.

    Raises:
      ValueError: If Orbax isn't installed.
    """

    def __init__(self, path: epath.Path) -> None:
        _orbax()  # if it is missing, raise before anything is written
        self.path = path
        self._manager = self._open()
        self._quiet = contextlib.ExitStack()

    def _open(self) -> ocp.CheckpointManager:
        ocp = _orbax()
        options = ocp.CheckpointManagerOptions(max_to_keep=3, create=True)
        return ocp.CheckpointManager(self.path, options=options)

    def __enter__(self) -> Checkpoints:
        self._quiet.enter_context(_closed_loop_errors_hidden())
        return self

    def __exit__(self, *exception: Any) -> None:
        with self._quiet, self._writing():
            self._manager.close()

    def latest_step(self) -> int | None:
        """The step of the last complete checkpoint, None if there is none."""
        return self._manager.latest_step()

    def save(self, step: int, checkpoint: Checkpoint) -> None:
        """Saves the checkpoint of a step; the arrays may be donated as soon as this returns.

        Raises:
          OSError: If this checkpoint, or the one before it, which was being written, can't be.
        """
        ocp = _orbax()
        if step == self.latest_step():
            return
        values = {
            "progress": checkpoint.progress,
            "crc32": checksum(checkpoint.tree),
            "progress_crc32": _checksum_of_json(checkpoint.progress),
        }
        arguments = ocp.args.Composite(  # both names are part of the file format
            tree=ocp.args.StandardSave(checkpoint.tree), beside=ocp.args.JsonSave(values)
        )
        with self._writing():
            self._manager.save(step, args=arguments)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turns any error of the writer into an `OSError` that says how to go on."""
        try:
            yield
        except Exception as error:
            reason = _summary(error)
            _await_failed_operations()
            raise OSError(
                f"no checkpoint can be written to {shown(self.path)} ({reason}); those there stay"
                " as they are, and the same command goes on from the last one"
            ) from error

    def restore_latest(self, abstract: PyTree) -> tuple[Checkpoint | None, list[str]]:
        """Restores the last checkpoint that can be read.

        Later ones, which can't, are renamed to "unreadable-STEP". If none can be read, nothing is
        renamed: then the model has probably changed.

        Args:
          abstract: The tree to restore, as `jax.ShapeDtypeStruct`s with shardings.

        Returns:
          The checkpoint, None if there is none yet, and a warning for each that was renamed.

        Raises:
          ValueError: If there are checkpoints and none can be read.
        """
        reasons: dict[int, str] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                checkpoint = self._restore(step, abstract)
            except Exception as error:  # damaged files raise errors of many types
                reasons[step] = _summary(error)
                _await_failed_operations()
                continue
            if reasons:
                self._set_aside(list(reasons))
            return checkpoint, [
                f"checkpoint {bad} can't be read and is set aside, {step} is used ({reason})"
                for bad, reason in reasons.items()
            ]
        if reasons:
            problems = "; ".join(f"{step}: {reason}" for step, reason in reasons.items())
            raise ValueError(f"no checkpoint in {shown(self.path)} can be read ({problems})")
        return None, []

    def _restore(self, step: int, abstract: PyTree) -> Checkpoint:
        try:
            return self._read(step, abstract)
        except ValueError:
            # Permutations and signs of version 0.1 are floats.
            leaves = jax.tree.leaves(abstract)
            if not any(leaf.dtype == np.int8 for leaf in leaves):
                raise
        before = jax.tree.map(
            lambda leaf: _with_dtype(leaf, np.float32) if leaf.dtype == np.int8 else leaf,
            abstract,
        )
        found = self._read(step, before)
        return found._replace(tree=jax.tree.map(_rounded, found.tree, abstract))

    def _read(self, step: int, abstract: PyTree) -> Checkpoint:
        ocp = _orbax()
        arguments = ocp.args.Composite(
            tree=ocp.args.StandardRestore(abstract), beside=ocp.args.JsonRestore()
        )
        restored = self._manager.restore(step, args=arguments)
        tree, values = jax.block_until_ready(restored["tree"]), restored["beside"]
        if checksum(tree) != values["crc32"]:
            raise ValueError("its arrays aren't those that were saved")
        progress = values["progress"]
        # Checkpoints of earlier versions have no checksum of it.
        if values.get("progress_crc32", _checksum_of_json(progress)) != _checksum_of_json(progress):
            raise ValueError("its values aren't those that were saved")
        return Checkpoint(tree, progress)

    def _set_aside(self, steps: list[int]) -> None:
        self._manager.close()
        for step in steps if is_first() else ():
            target = self.path / f"unreadable-{step}"
            if target.exists():
                target.rmtree()
            (self.path / str(step)).rename(target)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("checkpoints set aside")
        self._manager = self._open()  # it lists its steps only once


def checksum(tree: PyTree) -> int:
    """CRC-32 of the bytes of all leaves, in order, on this host's first device.

    It notices damage that decompression doesn't.
    """
    total = 0
    for leaf in jax.tree.leaves(tree):
        array = np.ascontiguousarray(leaf.addressable_data(0))
        total = zlib.crc32(array.reshape(-1).view(np.uint8), total)
    return total


def _checksum_of_json(value: Any) -> int:
    return zlib.crc32(json.dumps(value, sort_keys=True).encode())


def _summary(error: Exception) -> str:
    """An error's type and message; of a long one, which names many paths, both ends."""
    text = f"{type(error).__name__}: " + " ".join(str(error).split())
    return text if len(text) <= 200 else f"{text[:90]} ... {text[-100:]}"


@contextlib.contextmanager
def _closed_loop_errors_hidden() -> Iterator[None]:
    """Hides the tracebacks of reads and writes that were under way when another one failed.

    Orbax closes its event loop at the first error; the others then report to a closed loop.
    """
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            before(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


def _await_failed_operations() -> None:
    time.sleep(0.5)  # nothing holds a reference to them that could be waited on


def _orbax() -> ModuleType:
    return optional_import("orbax.checkpoint", "training.train", "orbax-checkpoint")
