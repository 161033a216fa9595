"""Glow on faces: exact likelihoods, and faces that come out of noise.

Trains a Glow (Kingma & Dhariwal 2018), reports bits/dim on held-out images beside plain baselines,
and draws samples, reconstructions, interpolations and nearest neighbours.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

import vaeflow as vf
from experiments import common
from vaeflow import data, metrics, plotting, training

TEMPERATURES = (0.5, 0.7, 0.85, 1.0)


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
    """Noise added to whole numbers: uniform, or from a small flow that is trained along."""
    margin: float = 0.0
    """End the flow with a sigmoid that reaches this far beyond the range of pixels, which spreads
    out a background of equal pixels; 0 for none. The whole range is 1 wide."""
    standardize: bool = False
    """Give each pixel a scale and a shift of its own, for aligned images such as faces."""
    smallest_scale: float = 1e-3
    """Smallest factor of a coupling; sampling divides by it."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Type in which the networks compute; log-determinants are float32."""
    scan: bool = True
    """Compile the steps of a level as one loop."""
    backward: Literal["plain", "remat", "reversible"] = "plain"
    """How the backward pass has the layers of a step: kept; computed again, which saves memory, and
    on CPUs time; or computed again from inverted steps, which saves the most memory."""


@dataclasses.dataclass(frozen=True)
class Config:
    """A run."""

    data: data.DataConfig
    model: ModelConfig
    train: training.TrainConfig
    baselines: bool = False
    """Fit plain densities to the same split, for comparison; meant for small data sets."""


def build(config: Config, shape: tuple[int, int, int]) -> vf.models.FlowModel:
    """Builds the model for images of a shape."""
    model = config.model
    options = {
        "scan": model.scan,
        "backward": model.backward,
        "dtype": jnp.dtype(model.precision),
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
    if model.margin < 0:
        raise ValueError(f"model.margin must be at least 0, got {model.margin}")
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


def functions(config: Config, shape: tuple[int, int, int]) -> dict[str, vf.sharing.FunctionSpec]:
    """Lists what `python -m experiments.export` writes of the model."""
    return vf.sharing.export_functions(build(config, shape))


class Evaluation:
    """What is measured of the model, with noise that depends on the example alone."""

    def __init__(self, model: vf.models.FlowModel, batch_size: int):
        self.batch_size = batch_size
        self.key = jax.random.key(0)

        @jax.jit
        def log_prob(variables, images, index):
            keys = jax.vmap(functools.partial(jax.random.fold_in, self.key))(index)
            return model.apply(variables, images, keys, method="log_prob")

        @jax.jit
        def round_trip(variables, images, index):
            keys = jax.vmap(functools.partial(jax.random.fold_in, self.key))(index)
            values = model.apply(variables, images, keys, method=lambda m, *a: m.dequantizer(*a))
            bijector = model.apply(variables).bijector
            return jnp.max(jnp.abs(bijector.forward(bijector.inverse(values[0])) - values[0]))

        self.log_prob = log_prob
        self.round_trip = round_trip

    def batches(self, source: data.Source):
        """Yields batches of one size, the last filled up, with the number of rows that count."""
        for batch in data.epoch_batches(source, self.batch_size):
            count = len(batch["index"])
            rows = np.arange(self.batch_size) % count
            yield batch["image"][rows], batch["index"][rows], count

    def bits_per_dim(self, variables, source: data.Source) -> float:
        """Mean bits/dim over a whole split."""
        nats, rows = 0.0, 0
        for images, index, count in self.batches(source):
            nats -= float(np.sum(np.asarray(self.log_prob(variables, images, index))[:count]))
            rows += count
        return float(metrics.bits_per_dim(nats / rows, int(np.prod(images.shape[1:]))))

    def round_trip_error(self, variables, source: data.Source) -> float:
        """Largest change of a value, which lies in [-0.5, 0.5), on its way to noise and back."""
        images, index, _ = next(self.batches(source))
        return float(self.round_trip(variables, images, index))


class Drawing:
    """The figures of a run."""

    def __init__(self, model, dataset: data.Dataset, directory: training.RunDirectory):
        self.dataset, self.directory = dataset, directory
        self.noise = jax.random.normal(jax.random.key(1), (8, *model.flow.noise_shape))
        # Everything is drawn in batches of eight, so that one compiled function serves all.
        self.decode = jax.jit(functools.partial(model.apply, method="decode"))
        self.encode = jax.jit(functools.partial(model.apply, method="encode"))

    def save(self, name: str, figure) -> None:
        plotting.save_figure(self.directory.figures / f"{name}.png", figure)

    def samples(self, variables, temperature: float) -> np.ndarray:
        return np.asarray(self.decode(variables, temperature * self.noise))

    def progress(self, step: int, variables) -> None:
        """Samples during training, from the same noise each time."""
        self.save(f"samples_step_{step:07d}", plotting.image_grid(self.samples(variables, 0.7), 8))

    def final(self, variables) -> None:
        """All figures of the trained model."""
        by_temperature = np.stack([self.samples(variables, t) for t in TEMPERATURES])
        self.save("samples", plotting.temperature_samples(by_temperature, TEMPERATURES))
        drawn = self.samples(variables, 0.7)
        train = data.stack(self.dataset.train, 20_000)["image"]
        nearest = metrics.nearest_neighbors(drawn, train, num_neighbors=2)[0]
        self.save("nearest_training_images", plotting.nearest_images(drawn, train[nearest]))
        real = data.stack(self.dataset.test, 8)["image"]
        real = real[np.arange(8) % len(real)]
        noise = self.encode(variables, real, jax.random.key(2))
        outputs = np.asarray(self.decode(variables, noise))
        self.save("reconstructions", plotting.reconstructions(real, outputs))
        weights = jnp.linspace(0, 1, 8)[:, None]
        paths = [
            np.asarray(self.decode(variables, (1 - weights) * noise[i] + weights * noise[i + 1]))
            for i in range(0, 8, 2)
        ]
        self.save("interpolations", plotting.interpolations(np.stack(paths)))

    def curve(self, expected: dict[str, float]) -> None:
        """Training and validation bits/dim against the step."""
        names = {"training batches": "bits_per_dim", "validation": "validation_bits_per_dim"}
        records = self.directory.read_metrics()
        self.save("training_curve", plotting.training_curve(records, names, expected))


def baselines(dataset: data.Dataset) -> dict[str, float]:
    """Bits/dim on the test images of densities fitted to the same training images."""
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


def run(config: Config, directory: training.RunDirectory) -> common.Result:
    """Trains, measures and draws."""
    dataset = data.open_dataset(config.data)
    print(dataset)
    model = build(config, dataset.shape)
    train = config.train
    batches = training.Batches(dataset.train, train.batch_size, train.seed, config.data.flip)
    first = data.stack(dataset.train, 256)["image"]
    held_out = max(len(dataset.validation), len(dataset.test))
    evaluation = Evaluation(model, min(held_out, 256))
    drawing = Drawing(model, dataset, directory)

    def evaluate(step: int, variables) -> dict[str, float]:
        return {"validation_bits_per_dim": evaluation.bits_per_dim(variables, dataset.validation)}

    fitted = training.fit(
        model,
        vf.losses.negative_log_likelihood,
        batches,
        train,
        directory,
        initialize=lambda: jax.jit(model.init)(jax.random.key(train.seed), first),
        figures=drawing.progress,
        evaluate=evaluate,
        best="validation_bits_per_dim",
    )
    variables = fitted.variables
    directory.write_model(variables, dataset.shape)
    found = {"bits_per_dim": evaluation.bits_per_dim(variables, dataset.test), **fitted.metrics}
    found["round_trip_error"] = evaluation.round_trip_error(variables, dataset.test)
    if not found["round_trip_error"] <= 1e-3:
        common.say(f"warning: round trip error {found['round_trip_error']:.2g} is above 0.001")
    plain = baselines(dataset) if config.baselines else {}
    if training.is_first():
        drawing.final(variables)
        names = {name: name.removeprefix("bits_per_dim_").replace("_", " ") for name in plain}
        drawing.curve({names[name]: value for name, value in plain.items()})
    return common.Result(fitted.step, found | plain)


PRESETS = {
    "faces": common.Preset(
        Config(
            data.DataConfig("embedded:faces", flip=True),
            # So few images are soon learned by heart: narrow networks, strong weight decay and the
            # choice of the best step on validation are what generalises.
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
        expected={"bits_per_dim": common.Expected(6.28, "our run, fold 0, seed 0")},
    ),
    "mnist": common.Preset(
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
            "bits_per_dim": common.Expected(1.101, "our run on all of MNIST, 50 minutes, seed 0")
        },
    ),
    "celeba-64": common.Preset(
        Config(
            data.DataConfig("tfds:celeb_a", image_size=64, crop="celeba", flip=True),
            ModelConfig(levels=4, steps=32, width=512, precision="bfloat16", backward="reversible"),
            training.TrainConfig(
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
            ),
        ),
        yields="CelebA at 64x64, 8 bits, with the crop of published bits/dim.",
        cost="days on an accelerator; not run by us",
        expected={
            "bits_per_dim": common.Expected(
                3.02, "RealNVP, Dinh et al. 2017, by a secondary source"
            )
        },
    ),
    "celebahq-256": common.Preset(
        Config(
            data.DataConfig("tfds:celeb_a_hq/256", image_size=256, flip=True),
            ModelConfig(
                levels=6, steps=32, width=512, bits=5, precision="bfloat16", backward="reversible"
            ),
            training.TrainConfig(
                steps=800_000,
                batch_size=40,
                optimizer="adamax",
                learning_rate=1e-3,
                warmup_steps=20_000,
                clip_norm=50.0,
                ema_decay=0.9995,
                evaluate_every=10_000,
                checkpoint_every=5000,
                log_every=100,
            ),
        ),
        yields="CelebA-HQ at 256x256, 5 bits.",
        cost="weeks on several accelerators; not run by us",
        expected={
            "bits_per_dim": common.Expected(
                1.03, "Kingma & Dhariwal 2018, 5 bits, by a secondary source"
            )
        },
    ),
}

if __name__ == "__main__":
    common.main("glow_celeba", PRESETS, run)
