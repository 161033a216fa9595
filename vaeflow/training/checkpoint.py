"""Checkpoints: everything that a run needs to go on exactly where it was."""

from __future__ import annotations

import contextlib
import sys
import time
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils

from vaeflow.training.hosts import is_first

PyTree = Any


class Checkpoint(NamedTuple):
    """What is saved at a step.

    Attributes:
      tree: A pytree of arrays.
      progress: JSON values beside it.
    """

    tree: PyTree
    progress: dict[str, Any]


class Checkpoints:
    """The last three checkpoints of a run, written in the background. A context manager.

    A checkpoint appears under its step only when it is complete, so a kill leaves the one before.

    Args:
      path: The directory to keep them in.
    """

    def __init__(self, path: epath.Path) -> None:
        self._path = path
        self._manager = self._open()
        self._quiet = contextlib.ExitStack()

    def _open(self) -> ocp.CheckpointManager:
        options = ocp.CheckpointManagerOptions(max_to_keep=3, create=True)
        return ocp.CheckpointManager(self._path, options=options)

    def __enter__(self) -> Checkpoints:
        self._quiet.enter_context(_stragglers_ignored())
        return self

    def __exit__(self, *exception: Any) -> None:
        with self._quiet, self._writing():
            self._manager.close()

    def latest_step(self) -> int | None:
        """The step of the last complete checkpoint, None where there is none."""
        return self._manager.latest_step()

    def save(self, step: int, checkpoint: Checkpoint) -> None:
        """Saves the checkpoint of a step; the arrays may be donated as soon as this returns.

        Raises:
          OSError: If this one, or the one before, which was written meanwhile, can't be written.
        """
        if step == self.latest_step():
            return
        beside = {"progress": checkpoint.progress, "crc32": checksum(checkpoint.tree)}
        arguments = ocp.args.Composite(
            tree=ocp.args.StandardSave(checkpoint.tree), beside=ocp.args.JsonSave(beside)
        )
        with self._writing():
            self._manager.save(step, args=arguments)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Words what goes wrong on the disk, whatever the writer raises."""
        try:
            yield
        except Exception as error:
            reason = _one_line(error)
            _let_stragglers_end()
            raise OSError(
                f"no checkpoint can be written to {self._path} ({reason}); those there stay as "
                "they are, and the same command goes on from the last one"
            ) from error

    def restore_latest(self, abstract: PyTree) -> tuple[Checkpoint | None, list[str]]:
        """Restores the last checkpoint that can be read.

        Later ones, which can't, are set aside under the name "unreadable-STEP". Where none can be
        read nothing is touched, for then it is rather the model that has changed.

        Args:
          abstract: The tree to restore, as `jax.ShapeDtypeStruct`s with shardings.

        Returns:
          The checkpoint, None where there is none yet, and a line about each that was set aside.

        Raises:
          ValueError: If there are checkpoints and none can be read.
        """
        reasons: dict[int, str] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                found = self._restore(step, abstract)
            except Exception as error:  # damaged files raise whatever their reader raises
                reasons[step] = _one_line(error)
                _let_stragglers_end()
                continue
            if reasons:
                self._set_aside(list(reasons))
            return found, [
                f"checkpoint {bad} can't be read and is set aside, {step} is used ({reason})"
                for bad, reason in reasons.items()
            ]
        if reasons:
            shown = "; ".join(f"{step}: {reason}" for step, reason in reasons.items())
            raise ValueError(f"no checkpoint in {self._path} can be read ({shown})")
        return None, []

    def _restore(self, step: int, abstract: PyTree) -> Checkpoint:
        arguments = ocp.args.Composite(
            tree=ocp.args.StandardRestore(abstract), beside=ocp.args.JsonRestore()
        )
        restored = self._manager.restore(step, args=arguments)
        tree, beside = jax.block_until_ready(restored["tree"]), restored["beside"]
        if checksum(tree) != beside["crc32"]:
            raise ValueError("its arrays aren't those that were saved")
        return Checkpoint(tree, beside["progress"])

    def _set_aside(self, steps: list[int]) -> None:
        self._manager.close()
        for step in steps if is_first() else ():
            target = self._path / f"unreadable-{step}"
            if target.exists():
                target.rmtree()
            (self._path / str(step)).rename(target)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("checkpoints set aside")
        self._manager = self._open()  # it lists its steps only once


def checksum(tree: PyTree) -> int:
    """CRC-32 of the bytes of all leaves, one after another, as this host's first device has them.

    Where a file was damaged its compression mostly fails, but it needn't.
    """
    total = 0
    for leaf in jax.tree.leaves(tree):
        array = np.ascontiguousarray(leaf.addressable_data(0))
        total = zlib.crc32(array.reshape(-1).view(np.uint8), total)
    return total


def _one_line(error: Exception) -> str:
    """An error's type and message; of a long one, which names many paths, both ends."""
    text = f"{type(error).__name__}: " + " ".join(str(error).split())
    return text if len(text) <= 200 else f"{text[:90]} ... {text[-100:]}"


@contextlib.contextmanager
def _stragglers_ignored() -> Iterator[None]:
    """Keeps what failed from printing a traceback for every read or write still under way.

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


def _let_stragglers_end() -> None:
    time.sleep(0.5)  # there is nothing to wait on: they belong to nobody any more
