"""Images from NumPy archives."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Mapping

import numpy as np

from tests.fuzz import arrays
from tests.fuzz.mutations import SPECIAL, name_of, pick, same, special_file
from tests.fuzz.oracle import Input
from vaeflow import data

IMAGES = np.random.RandomState(0).randint(0, 256, (12, 3, 2)).astype(np.uint8)
GOOD = {"image": IMAGES, "label": np.arange(12) % 3}


def right(held: Mapping[str, np.ndarray], dataset: data.Dataset) -> bool:
    """Whether a data set holds the images; labels may be lost where their name is damaged."""
    parts = [data.stack(getattr(dataset, split)) for split in ("train", "validation", "test")]
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.argsort(whole["index"])
    expected = {"image": held["image"][..., np.newaxis], "label": held["label"].astype(np.int32)}
    found = {name: whole[name][order] for name in expected if name in whole}
    return same(found, {name: expected[name] for name in found}) and "image" in found


def make(random: np.random.Generator, folder: pathlib.Path) -> Input:
    """Makes an archive."""
    path = folder / name_of(random, ".npz")
    read = functools.partial(data.open_dataset, data.DataConfig(f"npz:{path}"))
    if random.random() < 0.02:
        kind = pick(random, SPECIAL)
        special_file(path, kind)
        return Input(kind, read, None)
    title, content, held = arrays.hostile(random, GOOD, pick(random, list(GOOD)))
    path.write_bytes(content)
    return Input(title, read, None if held is None else functools.partial(right, held))
