"""Folders of Hugging Face data sets."""

from __future__ import annotations

import functools
import io
import pathlib
import tempfile

import datasets
import numpy as np
from PIL import Image

from tests.fuzz.mutations import SPECIAL, damaged, pick, special_file
from tests.fuzz.oracle import MARK, Input
from vaeflow import data

PIXELS = np.random.RandomState(0).randint(0, 256, (12, 4, 5, 3)).astype(np.uint8)


@functools.cache
def good(layout: str) -> dict[str, bytes]:
    """The files of a good folder by their names."""
    datasets.disable_progress_bars()
    features = datasets.Features(
        image=datasets.Image(), label=datasets.ClassLabel(names=["a", "b", "c"])
    )
    columns = {"image": [Image.fromarray(each) for each in PIXELS], "label": [0, 1, 2] * 4}
    rows = datasets.Dataset.from_dict(columns, features=features)
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        if layout == "hub":
            content = io.BytesIO()
            rows.to_parquet(content)
            return {"train-00000-of-00001.parquet": content.getvalue()}
        rows.save_to_disk(root)
        return {file.name: file.read_bytes() for file in root.iterdir()}


def make(random: np.random.Generator, folder: pathlib.Path) -> Input:
    """Makes a folder with a file that is damaged, or is none."""
    files = good(pick(random, ["saved", "hub"]))
    root = folder / f"{MARK} folder"
    root.mkdir()
    chosen = pick(random, sorted(files))
    title = "nothing"
    for name, content in files.items():
        if name != chosen:
            (root / name).write_bytes(content)
        elif random.random() < 0.05:
            title = pick(random, SPECIAL)
            special_file(root / name, title)
        else:
            title, content = damaged(random, content)
            (root / name).write_bytes(content)
    return Input(f"{chosen}, {title}", functools.partial(_read, root), _right)


def _read(root: pathlib.Path) -> list[data.dataset.Batch]:
    found = data.open_dataset(data.DataConfig(f"hf:{root}"))
    return [data.stack(split) for split in (found.train, found.validation, found.test)]


def _right(batches: list[data.dataset.Batch]) -> bool:
    """Whether these are images and labels: that they are others than before, no file can tell."""
    return all(batch["image"].ndim == 4 and batch["image"].dtype == np.uint8 for batch in batches)
