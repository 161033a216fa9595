"""Checkpoints: everything that a run needs to go on exactly where it was."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from etils import epath

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

    def _open(self) -> ocp.CheckpointManager:
        options = ocp.CheckpointManagerOptions(max_to_keep=3, create=True)
        return ocp.CheckpointManager(self._path, options=options)

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *exception: Any) -> None:
        self._manager.close()

    def latest_step(self) -> int | None:
        """The step of the last complete checkpoint, None where there is none."""
        return self._manager.latest_step()

    def save(self, step: int, checkpoint: Checkpoint) -> None:
        """Saves the checkpoint of a step; the arrays may be donated as soon as this returns."""
        if step == self.latest_step():
            return
        arguments = ocp.args.Composite(
            tree=ocp.args.StandardSave(checkpoint.tree),
            progress=ocp.args.JsonSave(checkpoint.progress),
        )
        self._manager.save(step, args=arguments)

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
                with _stragglers_ignored():
                    found = self._restore(step, abstract)
            except Exception as error:  # damaged files raise whatever their reader raises
                reasons[step] = f"{type(error).__name__}: " + " ".join(str(error).split())[:200]
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
            tree=ocp.args.StandardRestore(abstract), progress=ocp.args.JsonRestore()
        )
        restored = self._manager.restore(step, args=arguments)
        return Checkpoint(jax.block_until_ready(restored["tree"]), restored["progress"])

    def _set_aside(self, steps: list[int]) -> None:
        self._manager.close()
        for step in steps:
            target = self._path / f"unreadable-{step}"
            if target.exists():
                target.rmtree()
            (self._path / str(step)).rename(target)
        self._manager = self._open()  # it lists its steps only once


@contextlib.contextmanager
def _stragglers_ignored() -> Iterator[None]:
    """Keeps a failed restore from printing a traceback for every read still under way.

    Orbax closes its event loop at the first error; the other reads then report to a closed loop.
    """
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            before(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    except Exception:
        time.sleep(0.5)  # there is nothing to wait on: the reads belong to nobody any more
        raise
    finally:
        sys.unraisablehook = before
