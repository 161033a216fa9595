"""Checkpoints of runs."""

from __future__ import annotations

import functools
import pathlib
import shutil
import tempfile

import jax
import numpy as np
from etils import epath

from tests.fuzz.mutations import damaged, name_of, pick, same
from tests.fuzz.oracle import Input
from vaeflow.training.checkpoint import Checkpoint, Checkpoints


def tree(step: int) -> dict[str, jax.Array]:
    """The arrays of a step."""
    return {"a": jax.numpy.arange(6.0) + step, "b": {"c": jax.numpy.full((2, 2), step)}}


@functools.cache
def good() -> tempfile.TemporaryDirectory:
    """A folder of two checkpoints, which goes with the process."""
    folder = tempfile.TemporaryDirectory(prefix="inputs-")
    with Checkpoints(epath.Path(folder.name)) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, Checkpoint(tree(step), {"best": step}))
    return folder


def right(checkpoint: Checkpoint | None) -> bool:
    """Whether one of the checkpoints was read, or none is there any more."""
    if checkpoint is None:
        return True
    return same(checkpoint.tree, tree(checkpoint.progress["best"]))


def make(random: np.random.Generator, folder: pathlib.Path) -> Input:
    """Makes a folder with a file that is damaged, lost or strange."""
    root = folder / name_of(random, "")
    shutil.copytree(good().name, root)
    file = pick(random, sorted(path for path in root.rglob("*") if path.is_file()))
    kind = pick(random, ["damaged"] * 6 + ["lost", "folder"])
    title = kind
    if kind == "damaged":
        title, content = damaged(random, file.read_bytes() or b"\0")
        file.write_bytes(content)
    else:
        file.unlink()
        if kind == "folder":
            file.mkdir()

    def read() -> Checkpoint | None:
        device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        abstract = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), tree(1)
        )
        with Checkpoints(epath.Path(root)) as checkpoints:
            return checkpoints.restore_latest(abstract)[0]

    return Input(f"{file.relative_to(root)}: {title}", read, right)
