"""Measurements over a split: batches with a progress bar, and quantities of latent-variable models.

A function of a batch that depends on noise takes it from the indices of the examples, so that a
figure depends neither on the order of the examples nor on the size of batches.
"""

from __future__ import annotations

import functools
import io
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from etils import epath

import vaeflow as vf
from vaeflow import data, encoders, estimators, metrics, models, training
from vaeflow._util.files import write_whole
from vaeflow._util.messages import shown
from vaeflow.data.archive import open_archive
from vaeflow.training.parallel import compiler_options

BATCH = 100
"""Examples that are measured at once."""
VALIDATION = "validation_negative_elbo"
SPLITS = ("train", "validation", "test")

PyTree = Any
LatentModel = vf.models.VAE | vf.models.HierarchicalVAE


# Splits


def progress_bar(total: int, title: str) -> tqdm.tqdm:
    """Makes a bar of examples on the first host's stderr; none if the title is empty."""
    interval = 0.2 if sys.stderr.isatty() else 30.0
    return tqdm.tqdm(
        total=total,
        desc=f"evaluating {title}",
        disable=not title or not training.is_first(),
        unit="example",
        mininterval=interval,
        maxinterval=2 * interval,
        dynamic_ncols=True,
    )


def filled_batches(
    source: data.Source, size: int | None = None, title: str = ""
) -> Iterator[tuple[PyTree, int]]:
    """Yields the batches of a split, each filled up to one size, and the number of rows that count.

    One size means that one shape is compiled.

    Args:
      source: The split.
      size: Number of rows of a batch; `BATCH` if None.
      title: What is measured, for a progress bar on the first host's stderr; no bar if empty.
    """
    size = BATCH if size is None else size
    with progress_bar(len(source), title) as bar:
        for batch in data.epoch_batches(source, size):
            count = len(next(iter(batch.values())))
            rows = np.arange(size) % count
            yield {key: values[rows] for key, values in batch.items()}, count
            bar.update(count)


def measure(
    function: Callable[[PyTree, PyTree], PyTree],
    variables: PyTree,
    source: data.Source,
    title: str = "",
    size: int | None = None,
) -> PyTree:
    """Applies a compiled function to each batch of a split.

    Args:
      function: From variables and a batch to arrays ``[example, ...]``, in any pytree.
      variables: Its first argument.
      source: The split.
      title: As for `filled_batches`.
      size: As for `filled_batches`.

    Returns:
      The arrays of all examples, float64.
    """
    parts = [
        jax.tree.map(lambda values, count=count: np.asarray(values)[:count], output)
        for batch, count in filled_batches(source, size, title)
        for output in [jax.device_get(function(variables, batch))]
    ]
    return jax.tree.map(lambda *arrays: np.concatenate(arrays, dtype=np.float64), *parts)


def mean_loss(
    loss: Callable[..., Any], variables: PyTree, source: data.Source, title: str = ""
) -> float:
    """Averages a loss of images, which takes variables, a batch and a key, over a split."""
    compiled = jax.jit(loss)
    total = 0.0
    with progress_bar(len(source), title) as bar:
        for batch in data.epoch_batches(source, BATCH):
            count = len(batch["index"])
            value, _ = compiled(variables, {"image": batch["image"]}, jax.random.key(0))
            total += float(value) * count
            bar.update(count)
    return total / len(source)


def example_keys(batch: PyTree) -> jax.Array:
    """Returns a key for each example, which depends on its index alone."""
    return jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(0)))(batch["index"])


# Latents


class Unit(NamedTuple):
    """A real latent, or the dimensions that encode one category.

    Attributes:
      name: ``z3`` for the fourth of the latents, ``style.3`` for that of a group, ``digit`` for a
        category.
      start: Its first dimension in the vector of all latents.
      categories: Number of categories, and so of dimensions; 0 for a real latent.
    """

    name: str
    start: int
    categories: int = 0


def units_of(model: Any) -> list[Unit]:
    """Lists the latents of a model that can be set, in their order.

    In a hierarchy those are the latents of the lowest level, by which alone others reach the image.
    """
    posterior = getattr(getattr(model, "encoder", None), "posterior", None)
    if not isinstance(posterior, encoders.GroupedPosterior):
        hierarchical = isinstance(model, models.HierarchicalVAE)
        count = model.latent_sizes[0] if hierarchical else model.num_latents
        return [Unit(f"z{i}", i) for i in range(count)]
    units: list[Unit] = []
    start = 0
    for name, group in posterior.groups.items():
        if isinstance(group, encoders.ConcretePosterior):
            units.append(Unit(name, start, group.num_latents))
        else:
            units += [Unit(f"{name}.{i}", start + i) for i in range(group.num_latents)]
        start += group.num_latents
    return units


def context_key_of(model: LatentModel) -> str | None:
    """Returns the key of a batch whose value is the model's context, or None."""
    return None if model.num_classes is None else "label"


# Functions of a batch, for `measure`; all are compiled for the model, their first argument.

_of_model = functools.partial(jax.jit, static_argnames="model")


def _evidence(model: LatentModel, variables: PyTree, batch: PyTree) -> estimators.Evidence:
    keys = example_keys(batch)
    return estimators.evidence(model, variables, batch, keys, context_key=context_key_of(model))


@_of_model
def elbo_terms(model: LatentModel, variables: PyTree, batch: PyTree) -> dict[str, jax.Array]:
    """Computes the terms of the negative ELBO, in nats: "reconstruction" and a "kl/GROUP" each."""
    terms = _evidence(model, variables, batch)
    kl = {f"kl/{name}": nats for name, nats in terms.latents.kl_by_group().items()}
    return {"reconstruction": -terms.log_likelihood[0], **kl}


def negative_elbo(terms: dict[str, np.ndarray]) -> dict[str, float]:
    """Averages the terms over examples: the negative ELBO, reconstruction and KL, in nats."""
    kl = sum(nats for name, nats in terms.items() if name != "reconstruction")
    return {
        "negative_elbo": float(np.mean(terms["reconstruction"] + kl)),
        "reconstruction": float(np.mean(terms["reconstruction"])),
        "kl": float(np.mean(kl)),
    }


def mean_elbo(model: LatentModel, variables: PyTree, source: data.Source) -> float:
    """Averages the negative ELBO over a split, in nats."""
    terms = measure(functools.partial(elbo_terms, model), variables, source)
    return negative_elbo(terms)["negative_elbo"]


@_of_model
def posterior_mean(model: LatentModel, variables: PyTree, batch: PyTree) -> jax.Array:
    """Computes the mean of q(z | x), ``[example, latent]``; in a hierarchy its own part of each.

    There the mean of a level moves with the levels above, whatever the level itself adds.
    """
    method = "shifts" if isinstance(model, vf.models.HierarchicalVAE) else "encode"
    key = context_key_of(model)
    context = None if key is None else batch[key]
    return model.apply(
        variables, batch["image"], example_keys(batch), context=context, method=method
    )


@_of_model
def posterior_sample(model: LatentModel, variables: PyTree, batch: PyTree) -> jax.Array:
    """Samples q(z | x), ``[example, latent]``."""
    return _evidence(model, variables, batch).latents.z[0]


@_of_model
def unit_kl(model: LatentModel, variables: PyTree, batch: PyTree) -> jax.Array:
    """Computes the KL of each of `units_of`, ``[example, unit]``; NaN without a closed form."""
    latents, units = _evidence(model, variables, batch).latents, len(units_of(model))
    known = [latents.kl[name] for name in latents.log_q if name in latents.kl]
    if sum(nats.shape[-1] for nats in known) < units:
        return jnp.full((len(batch["index"]), units), jnp.nan)
    return jnp.concatenate(known, axis=-1)[:, :units]


@_of_model
def prior_components(model: LatentModel, variables: PyTree, batch: PyTree) -> jax.Array:
    """Computes the most probable component of a mixture prior, ``[example, 2]``.

    It is that of the posterior mean and that of a posterior sample.
    """
    prior = model.apply(variables, method="prior")
    latents = [function(model, variables, batch) for function in (posterior_mean, posterior_sample)]
    return jnp.stack([prior.component_of(z) for z in latents], axis=-1)


def log_likelihood(model: LatentModel, num_samples: int) -> Callable[[PyTree, PyTree], jax.Array]:
    """Makes a compiled function of a batch: log p(x) by importance sampling, in nats."""
    context_key = context_key_of(model)

    # Without these options it takes twice the time on CPUs.
    @functools.partial(jax.jit, compiler_options=compiler_options(jax.default_backend()))
    def function(variables: PyTree, batch: PyTree) -> jax.Array:
        return metrics.importance_weighted_log_likelihood(
            model,
            variables,
            batch["image"],
            example_keys(batch),
            num_samples=num_samples,
            chunk=50,
            context=None if context_key is None else batch[context_key],
        )

    return function


def collapse(means: np.ndarray) -> tuple[dict[str, float], str]:
    """Counts active and collapsed latents, from posterior means ``[example, latent]``.

    Returns:
      The counts by name, and a remark where some have collapsed.
    """
    active = metrics.active_units(means)
    collapsed = int((~active).sum())
    counts = {"active_units": int(active.sum()), "collapsed_units": collapsed}
    remark = f"{collapsed} of {active.size} latents have collapsed to the prior"
    return counts, remark if collapsed else ""


# Discrete codes


def level_names(num_levels: int) -> tuple[str, ...]:
    """Returns the names of the levels of codes, from the top."""
    if num_levels == 1:
        return ("codes",)
    inner = [f"middle_{level}" for level in range(1, num_levels - 1)]
    return ("top", *(["middle"] if num_levels == 3 else inner), "bottom")


class Codes:
    """Codes of the three splits: arrays by the names of the levels, and labels if there are any.

    Attributes:
      splits: Arrays by name, of each split by name.
      names: Names of the levels, from the top.
    """

    def __init__(self, splits: dict[str, dict[str, np.ndarray]], names: tuple[str, ...]):
        self.splits, self.names = splits, names

    def source(self, split: str) -> data.Source:
        """Returns a split as examples to train on."""
        arrays = self.splits[split]
        rows = np.arange(len(arrays[self.names[0]]))
        return data.Source(lambda chosen: {n: a[chosen] for n, a in arrays.items()}, rows)

    def counts(self, num_codes: int) -> dict[str, np.ndarray]:
        """Counts how often each code of each level was used in the training split."""
        train = self.splits["train"]
        return {name: np.bincount(train[name].ravel(), minlength=num_codes) for name in self.names}

    def save(self, path: epath.Path) -> None:
        """Writes a NumPy archive of arrays such as train/top, atomically."""
        buffer = io.BytesIO()
        arrays = {
            f"{split}/{name}": array
            for split, of_split in self.splits.items()
            for name, array in of_split.items()
        }
        np.savez_compressed(buffer, **arrays)
        write_whole(path, buffer.getvalue())


def load_codes(path: epath.Path, names: tuple[str, ...]) -> Codes:
    """Reads the archive that `Codes.save` writes.

    Raises:
      ValueError: It is damaged, or holds something else.
    """
    splits: dict[str, dict[str, np.ndarray]] = {split: {} for split in SPLITS}
    label = shown(path)
    with open_archive(label, os.fspath(path)) as archive:
        for key in archive.keys:
            split, _, name = key.partition("/")
            splits.setdefault(split, {})[name] = archive.read(key)
    for split, arrays in splits.items():
        lengths = {len(array) if array.ndim else None for array in arrays.values()}
        kinds = {array.dtype.kind for array in arrays.values()}
        if not set(names) <= set(arrays) <= {*names, "label"} or len(lengths) > 1 or kinds != {"i"}:
            shapes = {shown(name, 40): array.shape for name, array in [*arrays.items()][:5]}
            raise ValueError(
                f"{label}: {shown(split, 40)} must hold maps of whole numbers named {names}, of as "
                f"many examples each, got {shapes}"
            )
    return Codes(splits, names)


def encode_splits(
    model: vf.models.CodeAutoEncoder,
    variables: PyTree,
    dataset: data.Dataset,
    names: tuple[str, ...],
    flip: bool,
) -> Codes:
    """Encodes all splits; with `flip` the training images and their mirror images.

    Raises:
      ValueError: If a latent has no code, as its features aren't finite.
    """
    encode = jax.jit(functools.partial(model.apply, method="encode"))

    def arrays_of(source: data.Source, mirror: bool, title: str) -> dict[str, np.ndarray]:
        parts = []
        for batch, count in filled_batches(source, title=title):
            images = batch["image"][:, :, ::-1] if mirror else batch["image"]
            maps = encode(variables, images, example_keys(batch))
            named = dict(zip(names, maps, strict=True))
            if "label" in batch:
                named["label"] = batch["label"]
            parts.append({n: np.asarray(a, np.int32)[:count] for n, a in named.items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    splits = {}
    for split in SPLITS:
        mirrors = (False, True) if flip and split == "train" else (False,)
        parts = [
            arrays_of(getattr(dataset, split), mirror, f"codes, {split}") for mirror in mirrors
        ]
        splits[split] = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        if any(splits[split][name].min() < 0 for name in names):
            raise ValueError(f"the {split} images have latents that aren't finite")
    return Codes(splits, names)
