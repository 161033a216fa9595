"""Tables from NumPy archives."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Mapping

import numpy as np

from tests.fuzz import arrays
from tests.fuzz.mutations import SPECIAL, name_of, pick, same, special_file
from tests.fuzz.oracle import Input
from vaeflow import data

TABLE = np.random.RandomState(0).normal(size=(12, 3))
GOOD = {"train": TABLE[:6], "validation": TABLE[6:9].astype(np.float32), "test": TABLE[9:]}


def right(held: Mapping[str, np.ndarray], table: data.Table) -> bool:
    """Whether a table holds the rows, in its splits."""
    found = {split: data.stack(getattr(table, split))["vector"] for split in held}
    return same(found, {split: rows.astype(np.float32) for split, rows in held.items()})


def make(random: np.random.Generator, folder: pathlib.Path) -> Input:
    """Makes an archive."""
    path = folder / name_of(random, ".npz")
    read = functools.partial(data.open_table, data.TableConfig(f"npz:{path}"))
    if random.random() < 0.02:
        kind = pick(random, SPECIAL)
        special_file(path, kind)
        return Input(kind, read, None)
    key = pick(random, list(GOOD))
    if random.random() < 0.1:
        number = pick(random, [np.nan, np.inf, -np.inf, 1e39, -1e300])
        changed = GOOD[key].astype(np.float64)
        changed[int(random.integers(len(changed))), int(random.integers(3))] = number
        np.savez(path.open("wb"), **{**GOOD, key: changed})
        return Input(f"{number} in {key}", read, None)
    title, content, held = arrays.hostile(random, GOOD, key)
    path.write_bytes(content)
    return Input(title, read, None if held is None else functools.partial(right, held))
