"""Random numbers of a seed: splits, orders of batches, keys of rows."""

from __future__ import annotations

import itertools
import pathlib
from typing import Any

import jax
import numpy as np

import vaeflow as vf
from vaeflow import data, training


def orders(root: pathlib.Path) -> dict[str, Any]:
    """Arrays by name, of the images in a folder."""
    dataset = data.open_dataset(data.DataConfig(f"npz:{root / 'images.npz'}"))
    splits = (dataset.train, dataset.validation, dataset.test)
    found = {
        f"split_{name}": data.stack(split)["image"][:, :2, :2, 0]
        for name, split in zip(("train", "validation", "test"), splits, strict=True)
    }
    batches = training.Batches(dataset.train, 8, 3, flip=True)
    streamed = itertools.islice(batches.stream(5), 2)
    found["stream"] = np.stack([batch["image"][:, :2, :2, 0] for batch in streamed])
    for name in ("index", "flip"):
        planned = itertools.islice(batches.plan(0), 12)
        found[name] = np.stack([batch[name] for batch in planned])
    pairs = training.UnpairedBatches(dataset.train, dataset.train, 8, 3)
    planned = [*itertools.islice(pairs.plan(2), 4)]
    for domain in ("a", "b"):
        found[f"pair_{domain}"] = np.stack([batch[domain]["index"] for batch in planned])
    keys = vf.row_keys(jax.random.key(7), 4)
    found["row_keys"] = jax.random.key_data(keys)
    found["noise"] = jax.vmap(lambda key: jax.random.normal(key, (3,)))(keys)
    strategy = training.make_strategy()
    of_step = jax.jit(lambda step: jax.random.key_data(strategy.keys(3, step, 4)))
    found["keys_of_step"] = of_step(5)
    return {name: np.asarray(value) for name, value in found.items()}
