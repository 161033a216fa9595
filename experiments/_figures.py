"""Figures of trained models: samples, reconstructions, latents and curves.

Functions return figures, or pairs of a name and a figure, and `save` writes them into a run.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

import vaeflow as vf
from experiments import _evaluation
from experiments._evaluation import VALIDATION, LatentModel, Unit, measure
from vaeflow import data, distributions, metrics, plotting, training
from vaeflow.plotting.latents import latent_grid, normal_quantiles

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 8
"""Images in a row, and rows of samples."""
PATH = 8
"""Images of a path between two real ones."""
LATENTS = 10
"""Latents that are traversed at most."""
DEVIATIONS = np.arange(-3, 4)
"""Values of a latent, in deviations from its mean, that its traversal shows."""
FRAMES = 13
"""Values over the same range in the animation."""
SIDE = 17
"""Images along each side of a manifold."""
COMPARED = 10
"""Samples of each kind where an auto-encoder is compared with a VAE."""
TEMPERATURES = (0.7, 0.85, 1.0)
"""Temperatures of the priors of codes."""

PyTree = Any
Named = Iterator[tuple[str, "Figure"]]


# Any model


def save(directory: training.RunDirectory, name: str, figure: Figure) -> None:
    """Writes a figure of a run."""
    plotting.save_figure(directory.figures / f"{name}.png", figure)


def save_all(directory: training.RunDirectory, figures: Named) -> None:
    """Writes figures of a run, each as soon as it is made."""
    for name, figure in figures:
        save(directory, name, figure)


def training_curve(
    directory: training.RunDirectory,
    metric: str,
    label: str,
    validation: str = "",
    expected: Mapping[str, float] | None = None,
) -> Figure:
    """Plots a metric of the training batches, and one of validation if named, by step."""
    curves = {"training batches": metric}
    if validation:
        curves["validation"] = validation
    return plotting.training_curve(directory.read_metrics(), curves, expected or {}, label)


def title_of(name: str) -> str:
    """Returns the name of a density in figures."""
    return name.replace("_", " ").replace("gauss", "Gauss")


@functools.lru_cache(maxsize=32)
def compiled(model: Any, method: str, static: int | tuple[int, ...] = ()) -> Callable[..., Any]:
    """Compiles a method of a model, called with variables and its arguments."""
    return jax.jit(functools.partial(model.apply, method=method), static_argnums=static)


def sample(model: Any, variables: PyTree, key: jax.Array, count: int, **given: Any) -> np.ndarray:
    """Samples images of a latent-variable model or of a model of codes."""
    return np.asarray(compiled(model, "sample", 2)(variables, key, count, **given))


def decode(model: Any, variables: PyTree, latents: Any, **context: Any) -> np.ndarray:
    """Decodes latents, or codes, to images."""
    return np.asarray(compiled(model, "decode")(variables, latents, **context))


# Latent-variable models


def latent_figures(
    model: LatentModel, variables: PyTree, dataset: data.Dataset, directory: training.RunDirectory
) -> Named:
    """Yields all figures of a VAE, and saves the animation of its traversals."""
    yield "samples", samples(model, variables)
    yield "reconstructions", reconstructions(model, variables, dataset.test)
    if len(dataset.test) > 1:
        yield "interpolations", interpolations(model, variables, dataset)
    figure, frames = traversals(model, variables, dataset)
    yield "traversals", figure
    plotting.save_animation(directory.figures / "traversals.gif", frames, 0.1)
    if model.num_latents > 1:
        yield "aggregate_posterior", aggregate_posterior(model, variables, dataset)
    if model.num_latents == 2 and model.num_classes is None:
        yield "manifold", manifold(model, variables, dataset)


def sample_table(model: LatentModel, variables: PyTree) -> np.ndarray:
    """Samples ``[row, column, ...]``; with classes a column of each, of the same noise in a row."""
    key = jax.random.key(1)
    if model.num_classes is None:
        images = sample(model, variables, key, COLUMNS * COLUMNS)
        return images.reshape(COLUMNS, COLUMNS, *images.shape[1:])
    labels = np.arange(model.num_classes, dtype=np.int32)
    columns = [sample(model, variables, key, COLUMNS, context=label) for label in labels]
    return np.stack(columns, axis=1)


def samples(model: LatentModel, variables: PyTree, rows: int = COLUMNS) -> Figure:
    """Plots rows of the table of samples."""
    table = sample_table(model, variables)[:rows]
    return plotting.image_grid(table.reshape(-1, *table.shape[2:]), table.shape[1])


def _encoded(
    model: Any, variables: PyTree, source: data.Source
) -> tuple[np.ndarray, jax.Array, dict[str, np.ndarray]]:
    """Returns eight images, their latents, and labels as "context" if it takes them."""
    batch = data.stack(source, COLUMNS)
    labelled = getattr(model, "num_classes", None) is not None
    context = {"context": batch["label"]} if labelled else {}
    z = compiled(model, "encode")(variables, batch["image"], jax.random.key(2), **context)
    return batch["image"], z, context


def reconstructions(model: Any, variables: PyTree, source: data.Source) -> Figure:
    """Plots images and their reconstructions."""
    real, z, context = _encoded(model, variables, source)
    return plotting.reconstructions(real, decode(model, variables, z, **context))


def interpolations(model: Any, variables: PyTree, dataset: data.Dataset) -> Figure:
    """Plots paths between test images: along lines, and below each along a great circle."""
    real, z, context = _encoded(model, variables, dataset.test)
    paths, names = [], []
    for first in range(0, min(len(real) - 1, 6), 2):
        # Labels don't mix: that of the second image takes over half-way.
        between = {key: np.repeat(of[first : first + 2], PATH // 2) for key, of in context.items()}
        for name, path in (("linear", vf.linear_path), ("spherical", vf.spherical_path)):
            steps = decode(model, variables, path(z[first], z[first + 1], PATH), **between)
            paths.append(np.concatenate([real[first, None], steps, real[first + 1, None]]))
            names.append(name)
    return plotting.interpolations(np.stack(paths), names)


def has_standard_prior(model: LatentModel) -> bool:
    """Returns whether the prior of each latent is a standard normal."""
    return isinstance(model, vf.models.VAE) and model.prior_model is None


def _posterior_samples(model: LatentModel, variables: PyTree, dataset: data.Dataset) -> np.ndarray:
    return measure(functools.partial(_evaluation.posterior_sample, model), variables, dataset.test)


def ranked_units(
    model: LatentModel, variables: PyTree, dataset: data.Dataset
) -> tuple[list[Unit], np.ndarray | None]:
    """Ranks the real latents by KL; without a closed form, by the variance of posterior means.

    Returns:
      The latents, the most used first, and their KLs in nats, or None without a closed form.
    """
    units = _evaluation.units_of(model)
    kl = functools.partial(_evaluation.unit_kl, model)
    use = measure(kl, variables, dataset.test).mean(axis=0)
    known = not np.isnan(use).any()
    if not known:
        means = measure(
            functools.partial(_evaluation.posterior_mean, model), variables, dataset.test
        )
        use = np.var(means, axis=0)[[unit.start for unit in units]]
    order = [i for i in np.argsort(-use, kind="stable") if not units[i].categories]
    return [units[i] for i in order], use[order] if known else None


def traversals(
    model: LatentModel, variables: PyTree, dataset: data.Dataset
) -> tuple[Figure, Sequence[np.ndarray]]:
    """Plots a test image with one latent at a time moved, for the most used latents.

    The values are in deviations from the mean: those of the prior where it is standard, else those
    over the test data.

    Returns:
      The figure, and the frames of an animation.
    """
    units, kl = ranked_units(model, variables, dataset)
    units, kl = units[:LATENTS], None if kl is None else kl[:LATENTS]
    standard = has_standard_prior(model)
    _, z, context = _encoded(model, variables, dataset.test)
    sampled = _posterior_samples(model, variables, dataset)

    def moved(deviations: np.ndarray) -> np.ndarray:
        """Images ``[latent, value, ...]``."""
        label = {key: np.repeat(of[:1], len(deviations)) for key, of in context.items()}
        images = []
        for unit in units:
            of_unit = sampled[:, unit.start]
            values = deviations if standard else of_unit.mean() + deviations * of_unit.std()
            latents = jnp.tile(z[0], (len(deviations), 1)).at[:, unit.start].set(values)
            images.append(decode(model, variables, latents, **label))
        return np.stack(images)

    names = [unit.name for unit in units]
    headings = [f"{value:d}" if standard else f"{value:+d} sd" for value in DEVIATIONS]
    if not standard:
        headings[len(headings) // 2] = "mean"
    figure = plotting.traversals(moved(DEVIATIONS), names, kl, headings)
    values = np.linspace(DEVIATIONS[0], DEVIATIONS[-1], FRAMES)
    return figure, plotting.traversal_frames(moved(values), names)


def aggregate_posterior(model: LatentModel, variables: PyTree, dataset: data.Dataset) -> Figure:
    """Plots the two most used latents of the test data, by label and by component of the prior."""
    test = data.stack(dataset.test)
    units, _ = ranked_units(model, variables, dataset)
    pair = sorted(units[:2], key=lambda unit: unit.start)
    places = np.array([unit.start for unit in pair])
    sampled = _posterior_samples(model, variables, dataset)
    cloud = functools.partial(
        plotting.LatentScatter, sampled[:, places], names=tuple(unit.name for unit in pair)
    )
    clouds = []
    if "label" in test:
        clouds.append(cloud(test["label"], title="test data by label"))
    prior = model.apply(variables, method="prior")
    if isinstance(prior, distributions.Mixture):
        components = functools.partial(_evaluation.prior_components, model)
        labels = measure(components, variables, dataset.test)[:, 1].astype(int)
        title = "by component of the prior, with the components"
        clouds.append(cloud(labels, "component", *_ellipses(prior, places), title))
    return plotting.aggregate_posterior(clouds or [cloud(title="test data")])


def _ellipses(prior: distributions.Mixture, places: np.ndarray):
    """Means and covariances of a mixture's components in two latents; None if not known."""
    components = prior.components_distribution
    try:
        variances = np.asarray(components.variance())[:, places]
    except NotImplementedError:
        return None, None
    return np.asarray(components.mean())[:, places], variances[:, :, None] * np.eye(2)


def manifold(model: LatentModel, variables: PyTree, dataset: data.Dataset) -> Figure:
    """Plots the images of two latents, over the quantiles of a normal or the range of the data."""
    across = up = normal_quantiles(SIDE)
    if not has_standard_prior(model):
        sampled = _posterior_samples(model, variables, dataset)
        across, up = np.linspace(*np.quantile(sampled, [0.01, 0.99], axis=0), SIDE, axis=1)
    images = decode(model, variables, jnp.asarray(latent_grid(across, up)))
    return plotting.latent_manifold(images, across, up)


def elbo_curve(directory: training.RunDirectory, metric: str = "negative_elbo") -> Figure:
    """Plots the negative ELBO in training and validation."""
    return training_curve(directory, metric, "negative ELBO, nats", VALIDATION)


# Auto-encoder and VAE compared


def compared_figures(
    model: vf.models.AutoEncoder,
    variables: PyTree,
    vae: vf.models.VAE,
    of_vae: PyTree,
    dataset: data.Dataset,
    directory: training.RunDirectory,
) -> Named:
    """Yields the figures of an auto-encoder, and of it and a VAE of the same networks."""
    yield "reconstructions", reconstructions(model, variables, dataset.test)
    if len(dataset.test) > 1:
        yield "interpolations", interpolations(model, variables, dataset)
    label = "reconstruction, nats"
    yield "training_curve", training_curve(directory, "reconstruction", label)

    def codes(source: data.Source) -> np.ndarray:
        images = data.stack(source, 10_000)["image"]
        z = compiled(model, "encode")(variables, images, jax.random.key(0))
        return np.asarray(z, np.float64)

    yield "samples", compared_samples(model, variables, codes(dataset.train), vae, of_vae)
    if model.num_latents > 1:
        sampled = _posterior_samples(vae, of_vae, dataset)
        yield "latents", compared_latents(dataset, codes(dataset.test), sampled)


def compared_samples(
    model: vf.models.AutoEncoder, variables: PyTree, codes: np.ndarray, vae: Any, of_vae: PyTree
) -> Figure:
    """Plots decoded samples of N(0, I), and of a normal fitted to the codes; and those of the VAE.

    The codes are those of the training images, ``[example, latent]``.
    """
    noise = np.random.default_rng(0).normal(size=(COMPARED, model.num_latents))
    covariance = np.atleast_2d(np.cov(codes, rowvar=False))
    values, vectors = np.linalg.eigh(covariance)
    factor = vectors * np.sqrt(np.maximum(values, 0))
    rows = {
        "auto-encoder, z from N(0, I)": (model, variables, noise),
        "auto-encoder, z from a normal\nfitted to its codes": (
            *(model, variables),
            codes.mean(axis=0) + noise @ factor.T,
        ),
        "VAE, z from N(0, I)": (vae, of_vae, noise),
    }
    images = [decode(*parts, jnp.asarray(z, jnp.float32)) for *parts, z in rows.values()]
    return plotting.image_table(np.stack(images), list(rows))


def compared_latents(dataset: data.Dataset, codes: np.ndarray, sampled: np.ndarray) -> Figure:
    """Plots the two latents of the largest variance of both models, ``[test image, latent]``."""
    test = data.stack(dataset.test, len(codes))
    clouds = []
    for name, z in (("codes of the auto-encoder", codes), ("samples of q(z | x), VAE", sampled)):
        pair = np.sort(np.argsort(-z.var(axis=0), kind="stable")[:2])
        names = tuple(f"z{place}" for place in pair)
        points = z[: len(codes), pair]
        clouds.append(plotting.LatentScatter(points, test.get("label"), title=name, names=names))
    return plotting.aggregate_posterior(clouds)


# Models of discrete codes


def code_samples(
    model: vf.models.CodeModel, variables: PyTree, key: jax.Array, count: int, **options: Any
) -> np.ndarray:
    """Samples images of a model of codes, of one class after another where priors take labels."""
    classes = model.num_classes
    labels = None if classes is None else np.arange(count, dtype=np.int32) % classes
    return sample(model, variables, key, count, context=labels, **options)


def code_figures(
    model: vf.models.CodeModel,
    variables: PyTree,
    dataset: data.Dataset,
    names: tuple[str, ...],
    counts: Mapping[str, np.ndarray],
    flip: bool,
) -> Named:
    """Yields the figures of a model of codes, given the names of its levels, from the top.

    Counts are those of the codes in training, by level; `flip` means also of mirror images.
    """
    yield "code_usage", plotting.code_usage(counts)
    yield "reconstructions", code_reconstructions(model, variables, dataset, names, counts)
    images = code_samples(model, variables, jax.random.key(1), COLUMNS * COLUMNS)
    yield "samples", plotting.image_grid(images, COLUMNS)
    key = jax.random.key(4)
    rows = [
        code_samples(model, variables, key, COLUMNS, temperature=value) for value in TEMPERATURES
    ]
    yield "samples_by_temperature", plotting.temperature_samples(np.stack(rows), TEMPERATURES)
    images = code_samples(model, variables, key, COLUMNS)
    train = data.stack(dataset.train, 20_000)["image"]
    if flip:
        train = np.concatenate([train, train[:, :, ::-1]])
    yield "nearest_training_images", nearest_training_images(images, train)


def code_curves(
    directory: training.RunDirectory, names: Sequence[str], of_coder: str, of_prior: str
) -> Named:
    """Yields the curves of the auto-encoder and of each prior, given their validation metrics."""
    label = "reconstruction, nats"
    yield "training_curve", training_curve(directory, "reconstruction", label, of_coder)
    for name in names:
        inner = dataclasses.replace(directory, path=directory.path / f"prior_{name}")
        label, metric = f"-log P({name}), nats", "negative_log_likelihood"
        yield f"prior_curve_{name}", training_curve(inner, metric, label, of_prior)


def nearest_training_images(images: np.ndarray, train: np.ndarray) -> Figure:
    """Plots samples above the training images nearest to them."""
    nearest = metrics.nearest_neighbors(images, train, num_neighbors=2)[0]
    return plotting.nearest_images(images, train[nearest])


def code_reconstructions(
    model: vf.models.CodeModel,
    variables: PyTree,
    dataset: data.Dataset,
    names: tuple[str, ...],
    counts: Mapping[str, np.ndarray],
) -> Figure:
    """Plots test images and their reconstructions from all levels, or from the upper ones alone.

    The lower levels are then either the mean of a level's codes, weighted by their use, or codes
    sampled from the priors given the levels above.
    """
    batch = data.stack(dataset.test, COLUMNS)
    images = batch["image"]
    labels = None if model.num_classes is None else batch["label"]
    coder, params = vf.models.submodel(model, variables, "auto_encoder")
    codes = compiled(coder, "encode")(params, images, jax.random.key(2))
    full = decode(coder, params, codes)
    if len(names) == 1:
        return plotting.reconstructions(images, full)
    rows = {"input": images}
    for level in range(1, len(names)):
        upper = " + ".join(names[:level])
        rows[f"{upper},\nmeans below"] = _with_means_below(coder, params, codes, level, counts)
        given = {"context": labels, "upper_codes": tuple(codes[:level])}
        drawn = sample(model, variables, jax.random.key(3), len(images), **given)
        rows[f"{upper},\ndrawn below"] = drawn
    rows[" + ".join(names)] = full
    return plotting.image_table(np.stack([*rows.values()]), [*rows])


def _with_means_below(
    coder: vf.models.CodeAutoEncoder,
    params: PyTree,
    codes: Sequence[jax.Array],
    num_upper: int,
    counts: Mapping[str, np.ndarray],
) -> np.ndarray:
    """Decodes the codes of the upper levels and the mean codes of those below."""

    def show(coder: vf.models.CodeAutoEncoder, codes: Sequence[jax.Array]) -> jax.Array:
        values = []
        levels = zip(coder.quantizers, codes, counts.values(), strict=True)
        for level, (quantizer, indices, uses) in enumerate(levels):
            vectors = quantizer.lookup(indices)
            if level >= num_upper:
                uses = jnp.asarray(uses, jnp.float32)
                mean = uses @ quantizer.lookup(jnp.arange(uses.size)) / jnp.sum(uses)
                vectors = jnp.broadcast_to(mean, vectors.shape)
            values.append(vectors)
        return coder.show(coder.merge(values))

    return np.asarray(jax.jit(functools.partial(coder.apply, method=show))(params, codes))
