"""Archives of a run's codes."""

from __future__ import annotations

import functools
import pathlib

import numpy as np
from etils import epath

from experiments import _evaluation
from tests.fuzz import arrays
from tests.fuzz.mutations import SPECIAL, name_of, pick, same, special_file
from tests.fuzz.oracle import Input

NAMES = ("top", "bottom")

SIZES = {"train": 12, "validation": 3, "test": 4}

GOOD = {
    f"{split}/{name}": np.arange(count * side**2, dtype=np.int32).reshape(count, side, side)
    for split, count in SIZES.items()
    for name, side in zip(NAMES, (1, 2), strict=True)
}


def right(held: arrays.Arrays, codes: _evaluation.Codes) -> bool:
    """Whether the codes are those that the archive holds."""
    found = {
        f"{split}/{name}": array for split in SIZES for name, array in codes.splits[split].items()
    }
    return same(found, {name: held[name] for name in GOOD})


def make(random: np.random.Generator, folder: pathlib.Path) -> Input:
    """Makes an archive."""
    path = folder / name_of(random, ".npz")
    read = functools.partial(_evaluation.load_codes, epath.Path(path), NAMES)
    if random.random() < 0.02:
        kind = pick(random, SPECIAL)
        special_file(path, kind)
        return Input(kind, read, None)
    title, content, held = arrays.hostile(random, GOOD, pick(random, list(GOOD)))
    path.write_bytes(content)
    return Input(title, read, None if held is None else functools.partial(right, held))
