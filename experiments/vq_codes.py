"""Codes of a data set, found once and kept in a file."""

from __future__ import annotations

import functools
import io
from typing import Any

import jax
import numpy as np
from etils import epath

import vaeflow as vf
from experiments.latent_evaluation import filled_batches, keys_of
from vaeflow import data
from vaeflow._util.files import write_whole

PyTree = Any
SPLITS = ("train", "validation", "test")


class Codes:
    """Codes of the three splits: arrays by the names of the levels, and labels if there are some.

    Attributes:
      splits: Arrays by name, of each split by name.
      names: Names of the levels, from the top.
    """

    def __init__(self, splits: dict[str, dict[str, np.ndarray]], names: tuple[str, ...]):
        self.splits, self.names = splits, names

    def source(self, split: str) -> data.Source:
        """A split as examples to train on."""
        arrays = self.splits[split]
        rows = np.arange(len(arrays[self.names[0]]))
        return data.Source(lambda chosen: {n: a[chosen] for n, a in arrays.items()}, rows)

    def counts(self, codes: int) -> dict[str, np.ndarray]:
        """How often each code of each level was used in the training split."""
        train = self.splits["train"]
        return {name: np.bincount(train[name].ravel(), minlength=codes) for name in self.names}

    def save(self, path: epath.Path) -> None:
        """Writes a NumPy archive of arrays such as train/top, whole or not at all."""
        buffer = io.BytesIO()
        arrays = {
            f"{split}/{name}": array
            for split, of_split in self.splits.items()
            for name, array in of_split.items()
        }
        np.savez_compressed(buffer, **arrays)
        write_whole(path, buffer.getvalue())


def load_codes(path: epath.Path, names: tuple[str, ...]) -> Codes:
    """Reads what `Codes.save` wrote."""
    splits: dict[str, dict[str, np.ndarray]] = {split: {} for split in SPLITS}
    with path.open("rb") as file, np.load(io.BytesIO(file.read())) as archive:
        for key in archive.files:
            split, name = key.split("/")
            splits[split][name] = archive[key]
    return Codes(splits, names)


def find_codes(
    model: vf.models.CodeAutoEncoder,
    variables: PyTree,
    dataset: data.Dataset,
    names: tuple[str, ...],
    flip: bool,
) -> Codes:
    """Encodes all splits; of the training images their mirror images as well, if they are flipped.

    Raises:
      ValueError: If a latent has no code, as its features aren't finite.
    """
    encode = jax.jit(functools.partial(model.apply, method="encode"))

    def found(source: data.Source, mirror: bool) -> dict[str, list[np.ndarray]]:
        arrays: dict[str, list[np.ndarray]] = {}
        for batch, count in filled_batches(source):
            images = batch["image"][:, :, ::-1] if mirror else batch["image"]
            maps = encode(variables, images, keys_of(batch))
            named = dict(zip(names, maps, strict=True))
            if "label" in batch:
                named["label"] = batch["label"]
            for name, values in named.items():
                arrays.setdefault(name, []).append(np.asarray(values, np.int32)[:count])
        return arrays

    splits = {}
    for split in SPLITS:
        source = getattr(dataset, split)
        parts = [found(source, False)]
        if flip and split == "train":
            parts.append(found(source, True))
        splits[split] = {
            name: np.concatenate([array for part in parts for array in part[name]])
            for name in parts[0]
        }
        if any(splits[split][name].min() < 0 for name in names):
            raise ValueError(f"the {split} images have latents that aren't finite")
    return Codes(splits, names)
