"""Glow on faces: exact likelihoods, and faces sampled from noise.

Trains a Glow (Kingma & Dhariwal 2018), reports bits/dim on held-out images with plain baselines,
and plots samples, reconstructions, interpolations and nearest neighbours.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

import vaeflow as vf
from experiments import _cli, _figures
from experiments._evaluation import example_keys, filled_batches
from vaeflow import data, metrics, plotting, training

TEMPERATURES = (0.5, 0.7, 0.85, 1.0)
BATCH = 256
"""Images that are measured at once."""
VALIDATION = "validation_bits_per_dim"

PyTree = Any


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Which Glow."""

    levels: int = 3
    """Levels L; height and width must be divisible by 2^levels."""
    steps: int = 8
    """Steps K of each level."""
    width: int = 64
    """Hidden channels of the coupling networks."""
    bits: int = 8
    """Bits kept of each pixel; bits/dim of different bits can't be compared."""
    dequantization: Literal["uniform", "variational"] = "uniform"
    """Noise added to whole numbers: uniform, or from a small flow trained jointly."""
    margin: float = 0.0
    """End the flow with a sigmoid whose range extends this far beyond that of pixels, 1 wide, which
    spreads out a background of equal pixels; 0 for none."""
    standardize: bool = False
    """Give each pixel its own scale and shift, for aligned images such as faces."""
    smallest_scale: float = 1e-3
    """Smallest factor of a coupling; sampling divides by it."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Type in which the networks compute; log-determinants are float32."""
    scan: bool = True
    """Compile the steps of a level as one loop."""
    backward: Literal["plain", "remat", "reversible"] = "plain"
    """How the backward pass gets the layers of a step: stored; recomputed, which saves memory, and
    on CPUs time; or recomputed from inverted steps, which saves the most memory."""

    def __post_init__(self) -> None:
        _cli.check_least(self, "model.", margin=0)


@dataclasses.dataclass(frozen=True)
class Config:
    """A run."""

    data: data.DataConfig
    model: ModelConfig
    train: training.TrainConfig
    baselines: bool = False
    """Fit plain densities to the same split, for comparison; meant for small data sets."""


LARGE = training.TrainConfig(
    steps=400_000,
    batch_size=64,
    optimizer="adamax",
    learning_rate=1e-3,
    warmup_steps=20_000,
    clip_norm=50.0,
    ema_decay=0.9995,
    evaluate_every=10_000,
    checkpoint_every=5000,
    log_every=100,
)
"""For images of 64 pixels and more."""

PRESETS = {
    "faces": _cli.Preset(
        Config(
            data.DataConfig("embedded:faces", flip=True),
            # So few images are soon learned by heart: narrow networks, strong weight decay and the
            # choice of the best step on validation generalise.
            ModelConfig(
                levels=2, steps=8, width=16, standardize=True, smallest_scale=0.5, backward="remat"
            ),
            training.TrainConfig(
                steps=300,
                batch_size=16,
                learning_rate=2e-3,
                warmup_steps=50,
                schedule="cosine",
                clip_norm=1.0,
                weight_decay=1.0,
                ema_decay=0.99,
                evaluate_every=25,
            ),
            baselines=True,
        ),
        yields="100 real faces of 24x24 grey pixels, shipped with the dependencies.",
        cost="about a minute on 2 CPU cores",
        expected={"bits_per_dim": _cli.Expected(6.28, "our run, fold 0, seed 0")},
    ),
    "mnist": _cli.Preset(
        Config(
            data.DataConfig("embedded:digits"),
            ModelConfig(
                levels=2,
                steps=8,
                width=64,
                dequantization="variational",
                margin=1e-4,
                backward="remat",
            ),
            training.TrainConfig(
                steps=20_000,
                batch_size=32,
                learning_rate=2e-3,
                warmup_steps=200,
                schedule="cosine",
                clip_norm=1.0,
                evaluate_every=2000,
                checkpoint_every=2000,
            ),
        ),
        yields="Digits of 28x28; 5,000 are embedded, --data.source npz:PATH takes all of MNIST.",
        cost="an hour on 2 CPU cores",
        expected={
            "bits_per_dim": _cli.Expected(
                1.101, "our run on all of MNIST, 50 minutes, seed 0", _cli.MNIST
            )
        },
    ),
    "celeba-64": _cli.Preset(
        Config(
            data.DataConfig("tfds:celeb_a", image_size=64, crop="celeba", flip=True),
            ModelConfig(levels=4, steps=32, width=512, precision="bfloat16", backward="reversible"),
            LARGE,
        ),
        yields="CelebA at 64x64, 8 bits, with the crop of published bits/dim.",
        cost="days on an accelerator; not run by us",
        expected={
            "bits_per_dim": _cli.Expected(3.02, "RealNVP, Dinh et al. 2017, by a secondary source")
        },
    ),
    "celebahq-256": _cli.Preset(
        Config(
            data.DataConfig("tfds:celeb_a_hq/256", image_size=256, flip=True),
            ModelConfig(
                levels=6, steps=32, width=512, bits=5, precision="bfloat16", backward="reversible"
            ),
            dataclasses.replace(LARGE, steps=800_000, batch_size=40),
        ),
        yields="CelebA-HQ at 256x256, 5 bits.",
        cost="weeks on several accelerators; not run by us",
        expected={
            "bits_per_dim": _cli.Expected(
                1.03, "Kingma & Dhariwal 2018, 5 bits, by a secondary source"
            )
        },
    ),
}


def build(config: Config, shape: tuple[int, int, int]) -> vf.models.FlowModel:
    """Builds the model for images of a shape."""
    model = config.model
    options = {
        "scan": model.scan,
        "backward": model.backward,
        "dtype": jnp.dtype(model.precision),
        # As in all runs so far: with a bound, those with smaller scales would have other densities.
        "lowest_log_scale": -math.inf,
    }
    flow = vf.flows.Glow(
        shape,
        num_levels=model.levels,
        num_steps=model.steps,
        hidden_features=model.width,
        smallest_scale=model.smallest_scale,
        **options,
    )
    if model.standardize:
        flow = vf.flows.StandardizedFlow(flow)
    if model.margin > 0:
        flow = vf.flows.BoundedFlow(flow, -0.5 - model.margin, 0.5 + model.margin)
    if model.dequantization == "uniform":
        return vf.models.FlowModel(flow, vf.models.UniformDequantizer(model.bits))
    noise = vf.flows.Glow(
        shape,
        num_levels=1,
        num_steps=4,
        hidden_features=max(model.width // 2, 8),
        context_ndims=3,
        **options,
    )
    return vf.models.FlowModel(flow, vf.models.VariationalDequantizer(noise, model.bits))


@functools.partial(jax.jit, static_argnums=0)
def log_prob(model: vf.models.FlowModel, variables: PyTree, batch: PyTree) -> jax.Array:
    """Computes log p(x) of each image, in nats, with noise that depends on its index alone."""
    return model.apply(variables, batch["image"], example_keys(batch), method="log_prob")


@functools.partial(jax.jit, static_argnums=0)
def round_trip_error(model: vf.models.FlowModel, variables: PyTree, batch: PyTree) -> jax.Array:
    """Computes the largest change of a value, in [-0.5, 0.5), on the way to noise and back."""

    def dequantize(model: vf.models.FlowModel, images: jax.Array, keys: jax.Array) -> jax.Array:
        return model.dequantizer(images, keys).values

    values = model.apply(variables, batch["image"], example_keys(batch), method=dequantize)
    bijector = model.apply(variables).bijector
    return jnp.max(jnp.abs(bijector.forward(bijector.inverse(values)) - values))


def bits_per_dim(
    model: vf.models.FlowModel,
    variables: PyTree,
    source: data.Source,
    title: str = "",
    batch_size: int = BATCH,
) -> float:
    """Averages bits/dim over a split."""
    nats = 0.0
    for batch, count in filled_batches(source, batch_size, title):
        nats -= float(np.sum(np.asarray(log_prob(model, variables, batch))[:count]))
    return float(metrics.bits_per_dim(nats / len(source), int(np.prod(model.flow.event_shape))))


def make_figures(
    model: vf.models.FlowModel, variables: PyTree, dataset: data.Dataset
) -> _figures.Named:
    """Yields the figures of the trained model; all batches are of eight, one compiled shape."""
    table = np.stack([samples(model, variables, value) for value in TEMPERATURES])
    yield "samples", plotting.temperature_samples(table, TEMPERATURES)
    train = data.stack(dataset.train, 20_000)["image"]
    images = samples(model, variables, 0.7)
    yield "nearest_training_images", _figures.nearest_training_images(images, train)
    real = data.stack(dataset.test, 8)["image"]
    real = real[np.arange(8) % len(real)]
    noise = _figures.compiled(model, "encode")(variables, real, jax.random.key(2))
    decoded = _figures.decode(model, variables, noise)
    yield "reconstructions", plotting.reconstructions(real, decoded)
    weights = jnp.linspace(0, 1, 8)[:, None]
    paths = [
        _figures.decode(model, variables, (1 - weights) * noise[i] + weights * noise[i + 1])
        for i in range(0, 8, 2)
    ]
    yield "interpolations", plotting.interpolations(np.stack(paths))


def samples(model: vf.models.FlowModel, variables: PyTree, temperature: float) -> np.ndarray:
    """Samples eight images at a temperature, from the same noise each time."""
    noise = jax.random.normal(jax.random.key(1), (8, *model.flow.noise_shape))
    return _figures.decode(model, variables, temperature * noise)


def baselines(dataset: data.Dataset) -> dict[str, float]:
    """Computes bits/dim on the test images of densities fitted to the same training images."""
    train, validation, test = (
        data.stack(split)["image"] for split in (dataset.train, dataset.validation, dataset.test)
    )
    fits = {
        "diagonal_gaussian": metrics.fit_diagonal_gaussian,
        "shrunk_gaussian": metrics.fit_shrunk_gaussian,
        "linear_predictor": metrics.fit_linear_predictor,
    }
    dimensions = int(np.prod(dataset.shape))
    return {
        f"bits_per_dim_{name}": float(
            metrics.bits_per_dim(-np.mean(fit(train, validation).log_prob(test)), dimensions)
        )
        for name, fit in fits.items()
    }


def run(config: Config, directory: training.RunDirectory) -> _cli.Result:
    """Trains, measures and plots."""
    dataset = data.open_dataset(config.data)
    print(dataset)
    model, train = build(config, dataset.shape), config.train
    batches = training.Batches(dataset.train, train.batch_size, train.seed, config.data.flip)
    first = data.stack(dataset.train, 256)["image"]
    batch_size = min(max(len(dataset.validation), len(dataset.test)), BATCH)

    def evaluate(step: int, variables: PyTree) -> dict[str, float]:
        bits = bits_per_dim(model, variables, dataset.validation, batch_size=batch_size)
        return {VALIDATION: bits}

    def figures(step: int, variables: PyTree) -> None:
        grid = plotting.image_grid(samples(model, variables, 0.7), 8)
        _figures.save(directory, f"samples_step_{step:07d}", grid)

    fitted = training.train(
        model,
        vf.losses.negative_log_likelihood,
        batches,
        train,
        directory,
        initialize=lambda: jax.jit(model.init)(jax.random.key(train.seed), first),
        figures=figures,
        evaluate=evaluate,
        best=VALIDATION,
    )
    variables = fitted.variables
    directory.write_model(variables, dataset.shape)
    bits = bits_per_dim(model, variables, dataset.test, "bits/dim", batch_size)
    batch, _ = next(filled_batches(dataset.test, batch_size))
    error = float(round_trip_error(model, variables, batch))
    if not error <= 1e-3:
        _cli.announce(f"warning: round trip error {error:.2g} is above 0.001")
    plain = baselines(dataset) if config.baselines else {}
    if training.is_first():
        _figures.save_all(directory, make_figures(model, variables, dataset))
        expected = {
            _figures.title_of(name.removeprefix("bits_per_dim_")): value
            for name, value in plain.items()
        }
        curve = _figures.training_curve(directory, "bits_per_dim", "bits/dim", VALIDATION, expected)
        _figures.save(directory, "training_curve", curve)
    results = {"bits_per_dim": bits, **fitted.metrics, "round_trip_error": error}
    return _cli.Result(fitted.step, results | plain)


if __name__ == "__main__":
    _cli.main("glow_celeba", PRESETS, run)
