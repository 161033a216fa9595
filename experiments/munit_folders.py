"""MUNIT between any two sets of images: two folders, or the halves of files that hold both.

One command trains it and reports each term of its loss on held-out images. It plots translations
with random styles and with those of examples, between styles, and cycles.

Source: Huang, Liu, Belongie & Kautz 2018, "Multimodal unsupervised image-to-image translation".
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import vaeflow as vf
from experiments import _cli, _figures
from experiments._evaluation import progress_bar
from vaeflow import data, decoders, encoders, losses, nn, plotting, training
from vaeflow._util.arrays import row_keys
from vaeflow.models.munit import DOMAINS, Domain, other_domain
from vaeflow.plotting.images import as_pixels
from vaeflow.training.config import weight_decay_mask

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PLAYERS = ("discriminator", "generator")
"""The players in the order of their updates."""
DECAYS = (0.5, 0.999)
"""Decays of Adam's averages, as in the paper."""
CHUNK = 20
"""Test images of each domain that are measured at once."""
ROWS, COLUMNS = 6, 8
"""Inputs, and translations of each, in a figure."""

PyTree = Any
Images = np.ndarray
Shape = tuple[int, int, int]


# Configuration


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The networks of each domain."""

    content_channels: tuple[int, ...] = (64, 128, 256)
    """Channels of the convolutions that encode the content, and in reverse of those that decode it;
    all but the first halve height and width."""
    blocks: int = 4
    """Residual blocks of the encoder of the content, and of the decoder."""
    style_channels: tuple[int, ...] = (64, 128, 256, 256, 256)
    """Channels of the convolutions that encode the style; all but the first halve."""
    style_size: int = 8
    """Number of dimensions of a style."""
    hidden: int = 256
    """Units of the two hidden layers from a style to the scales and shifts of features."""
    discriminator_channels: tuple[int, ...] = (64, 128, 256, 512)
    """Channels of the convolutions of a discriminator, each of which halves."""
    scales: int = 3
    """Sizes of an image that discriminators see, each half the one before."""
    spectral: bool = False
    """Divide kernels of the discriminators by their spectral norms."""

    def __post_init__(self) -> None:
        for name in ("content_channels", "style_channels", "discriminator_channels"):
            channels = getattr(self, name)
            _cli.check(
                bool(channels) and min(channels) >= 1,
                f"model.{name} must be one or more from 1 up, got {channels}",
            )
        _cli.check_least(self, "model.", style_size=1, hidden=1, scales=1, blocks=0)


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Weights of the auto-encoders' terms; that of the adversarial one is 1."""

    reconstruction: float = 10.0
    """Weight of the error of an image decoded from its own content and style."""
    content: float = 1.0
    """Weight of the error of the content encoded from a translation."""
    style: float = 1.0
    """Weight of the error of the style encoded from a translation."""
    cycle: float = 0.0
    """Weight of the error of an image translated there and back; 0 omits it, and is faster."""

    def __post_init__(self) -> None:
        _cli.check_least(self, "loss.", reconstruction=0, content=0, style=0, cycle=0)


@dataclasses.dataclass(frozen=True)
class Config:
    """A run."""

    data: data.PairConfig
    model: ModelConfig
    loss: LossConfig
    train: training.TrainConfig


# Presets


SMALL = ModelConfig(
    content_channels=(16, 32),
    blocks=3,
    style_channels=(16, 32, 64),
    hidden=64,
    discriminator_channels=(32, 64, 128),
    scales=2,
)
"""For images of about 28 pixels, whose lines a map of a quarter of the size wouldn't hold."""

TRAIN = training.TrainConfig(
    steps=2500,
    batch_size=8,
    learning_rate=5e-4,
    ema_decay=0.999,
    scan_steps=20,
    log_every=20,
    checkpoint_every=500,
)
"""For those."""

PRESETS = {
    "faces": _cli.Preset(
        Config(
            data.PairConfig("embedded:face-edges", "embedded:faces", flip=True),
            SMALL,
            LossConfig(),
            dataclasses.replace(TRAIN, steps=1500),
        ),
        yields="80 faces and line drawings of them, which are embedded; coarse, learned from so "
        "few.",
        cost="6 minutes on 2 CPU cores",
    ),
    "paper": _cli.Preset(
        Config(
            data.PairConfig("folder:PATH", "folder:PATH", image_size=256, flip=True),
            ModelConfig(),
            LossConfig(),
            training.TrainConfig(
                steps=1_000_000,
                batch_size=1,
                learning_rate=1e-4,
                halve_every=100_000,
                weight_decay=1e-4,
                ema_decay=0.999,
                scan_steps=1,
                log_every=100,
                checkpoint_every=10_000,
            ),
        ),
        yields="Images of 256 pixels, with the paper's sizes, rates and batches: --data.a "
        "folder:PATH --data.b folder:PATH. Where a file holds a drawing and a photograph, one next "
        "to the other, as in edges2shoes, both are one folder, with --data.crop-a left "
        "--data.crop-b right.",
        cost="days on one GPU",
    ),
}


# Model


def build(config: Config, shapes: Mapping[str, Shape]) -> vf.models.MUNIT:
    """Builds the model that translates, for images of the shapes of domains "a" and "b"."""
    return build_game(config.model, shapes).generator


def build_game(config: ModelConfig, shapes: Mapping[str, Shape]) -> vf.models.MUNITGame:
    """Builds both players: the model that translates and the discriminators."""

    def coder(shape: Shape) -> vf.models.ContentStyleCoder:
        return vf.models.ContentStyleCoder(
            content=encoders.ContentEncoder(config.content_channels, num_blocks=config.blocks),
            style=encoders.Encoder(
                encoders.StyleEncoder(config.style_channels),
                encoders.PointMassPosterior(config.style_size),
            ),
            decoder=decoders.AdaINDecoder(
                config.content_channels[::-1],
                num_blocks=config.blocks,
                hidden_sizes=(config.hidden, config.hidden),
            ),
            image_shape=tuple(shape),
        )

    def discriminator() -> nn.MultiScaleDiscriminator:
        return nn.MultiScaleDiscriminator(
            num_scales=config.scales,
            channels=config.discriminator_channels,
            spectral=config.spectral,
        )

    return vf.models.MUNITGame(
        vf.models.MUNIT(coder(shapes["a"]), coder(shapes["b"])),
        vf.models.Discriminators(discriminator(), discriminator()),
    )


def make_losses(config: LossConfig) -> dict[str, Any]:
    """Returns the loss of each player."""
    return {
        "discriminator": losses.munit_discriminator,
        "generator": functools.partial(losses.munit, **dataclasses.asdict(config)),
    }


def make_optimizers(config: training.TrainConfig) -> dict[str, Any]:
    """Returns the optimiser of each player, in the order of their updates.

    Weight decay is added to the gradient, as in the paper's program, before Adam scales it.
    """
    plain = training.make_optimizer(dataclasses.replace(config, weight_decay=0), DECAYS)
    penalty = optax.add_decayed_weights(config.weight_decay, mask=weight_decay_mask)
    return {player: optax.chain(penalty, plain) for player in PLAYERS}


# Figures


def _encode(
    model: vf.models.MUNIT, variables: PyTree, images: Images, domain: Domain
) -> tuple[jax.Array, jax.Array]:
    content, style = model.apply(variables, images, domain, method="encode")
    return content, style.mean()


def _translations(
    model: vf.models.MUNIT, variables: PyTree, content: jax.Array, styles: jax.Array, to: Domain
) -> Images:
    """Decodes each content with each style: ``[image, style, height, width, channel]``."""
    rows, columns = len(content), len(styles)
    contents, styles = jnp.repeat(content, columns, axis=0), jnp.tile(styles, (rows, 1))
    images = _figures.compiled(model, "decode", 3)(variables, contents, styles, to)
    return np.asarray(images).reshape(rows, columns, *images.shape[1:])


def _images(pair: data.Pair, domain: Domain, split: str, count: int) -> Images:
    return data.stack(getattr(pair._asdict()[domain], split), count)["image"]


def random_styles(
    model: vf.models.MUNIT, variables: PyTree, pair: data.Pair, to: Domain, split: str
) -> Figure:
    """Plots images translated with the same styles, sampled from the prior."""
    images = _images(pair, other_domain(to), split, ROWS)
    content, _ = _encode(model, variables, images, other_domain(to))
    draw = _figures.compiled(model, "draw_styles", (2, 3))
    styles = draw(variables, jax.random.key(0), COLUMNS, to)
    return plotting.translations(images, _translations(model, variables, content, styles, to))


def translation_figures(
    model: vf.models.MUNIT, variables: PyTree, pair: data.Pair, to: Domain
) -> _figures.Named:
    """Yields the figures of translations of test images to a domain."""
    source, blank = other_domain(to), 255
    name = f"{source}_to_{to}"
    yield f"{name}_drawn_styles", random_styles(model, variables, pair, to, "test")

    images = _images(pair, source, "test", ROWS)
    content, own_styles = _encode(model, variables, images, source)
    examples = _images(pair, to, "test", COLUMNS)
    styles = _encode(model, variables, examples, to)[1]
    table = _translations(model, variables, content, styles, to)
    yield f"{name}_styles_of_examples", plotting.translations(images, table, examples)

    # Styles on the line between those of two examples.
    ends = _images(pair, to, "test", 2)
    first, last = _encode(model, variables, ends, to)[1]
    weight = jnp.linspace(0, 1, COLUMNS)[:, None]
    table = _translations(model, variables, content, (1 - weight) * first + weight * last, to)
    between = np.full((COLUMNS - 2, *ends.shape[1:]), blank, np.uint8)
    examples = np.concatenate([ends[:1], between, ends[1:]])
    shares = ["style 1", *(f"{share:.0%}" for share in weight[1:-1, 0]), "style 2"]
    figure = plotting.translations(images, table, examples, column_labels=shares)
    yield f"{name}_style_interpolation", figure

    # There and back, and the reconstruction from the image's own content and style.
    decode = _figures.compiled(model, "decode", 3)
    again = decode(variables, content, own_styles, source)
    draw = _figures.compiled(model, "draw_styles", (2, 3))
    there = decode(variables, content, draw(variables, jax.random.key(1), len(images), to), to)
    back = decode(variables, _encode(model, variables, there, to)[0], own_styles, source)
    columns = [as_pixels(each, "images", 4) for each in (again, there, back)]
    yield (
        f"{name}_and_back",
        plotting.translations(
            images,
            np.stack(columns, axis=1),
            column_labels=["reconstruction", "translation", "and back"],
        ),
    )


def curve_figures(directory: training.RunDirectory) -> _figures.Named:
    """Yields the curves of the terms of the generator's loss."""
    records = directory.read_metrics()
    for name, label in {
        "reconstruction": "mean absolute error, black -1 to white 1",
        "style": "mean absolute error of the style",
        "content": "mean absolute error of the content",
        "adversarial": "squared distance of judgements from 1, summed over scales",
    }.items():
        curves = {f"domain {domain}": f"generator/{name}_{domain}" for domain in DOMAINS}
        yield f"{name}_curve", plotting.training_curve(records, curves, {}, label)


# Run


def run(config: Config, directory: training.RunDirectory) -> _cli.Result:
    """Trains, measures and plots."""
    pair = open_pair(config)
    step, _, terms = fit(config, pair, directory)
    return _cli.Result(step, terms)


def open_pair(config: Config) -> data.Pair:
    """Opens both domains, and prints their descriptions.

    Raises:
      ValueError: If the options don't fit the data, before anything is trained.
    """
    pair = data.open_pair(config.data)
    for domain, dataset in pair._asdict().items():
        print(f"{domain}: {dataset}")
        _cli.check_batches(config.train, "train", len(dataset.train))
        _cli.check(
            len(dataset.test) >= 2,
            f"domain {domain} must have 2 test images, to interpolate between styles",
        )
    return pair


def shapes_of(pair: data.Pair) -> dict[str, Shape]:
    """Returns height, width and channels of the images of each domain."""
    return {domain: dataset.shape for domain, dataset in pair._asdict().items()}


def fit(
    config: Config, pair: data.Pair, directory: training.RunDirectory
) -> tuple[int, PyTree, dict[str, float]]:
    """Trains, or goes on, and writes model and figures into the run's directory.

    Returns:
      The number of updates, the variables of the `vaeflow.models.MUNIT`, and the terms of the loss
      on test images.
    """
    train, shapes = config.train, shapes_of(pair)
    game = build_game(config.model, shapes)
    model = game.generator
    first = [data.stack(dataset.train, 1)["image"] for dataset in pair]

    def generator_of(variables: PyTree) -> PyTree:
        return vf.models.submodel(game, variables, "generator")[1]

    def figures(step: int, variables: PyTree) -> None:
        for to in DOMAINS:
            figure = random_styles(model, generator_of(variables), pair, to, "validation")
            _figures.save(directory, f"{other_domain(to)}_to_{to}_step_{step:07d}", figure)

    fitted = training.train(
        game,
        make_losses(config.loss),
        training.UnpairedBatches(
            pair.a.train, pair.b.train, train.batch_size, train.seed, config.data.flip
        ),
        train,
        directory,
        optimizers=make_optimizers(train),
        initialize=lambda: jax.jit(game.init)(jax.random.key(train.seed), *first),
        figures=figures,
    )
    variables = generator_of(fitted.variables)
    directory.write_model(variables, shapes)
    if training.is_first():
        for to in DOMAINS:
            _figures.save_all(directory, translation_figures(model, variables, pair, to))
        _figures.save_all(directory, curve_figures(directory))
    return fitted.step, variables, held_out_terms(game, fitted.variables, pair)


def held_out_terms(
    game: vf.models.MUNITGame, variables: PyTree, pair: data.Pair
) -> dict[str, float]:
    """Averages each term of the loss over test images, the cycle included.

    The test images are as many of each domain as fill chunks of both.
    """
    count = min(len(dataset.test) for dataset in pair)
    chunk = min(CHUNK, count)

    @jax.jit
    def measure(variables: PyTree, batch: PyTree, key: jax.Array) -> dict[str, jax.Array]:
        return losses.munit(game, variables, batch, row_keys(key, chunk), cycle=1.0)[1].metrics

    terms = []
    with progress_bar(count // chunk * chunk, "loss") as bar:
        for start in range(0, count - chunk + 1, chunk):
            rows = np.arange(start, start + chunk)
            batch = {
                domain: {"image": dataset.test.gather(rows)["image"]}
                for domain, dataset in pair._asdict().items()
            }
            key = jax.random.fold_in(jax.random.key(0), start)
            terms.append(jax.device_get(measure(variables, batch, key)))
            bar.update(chunk)
    return {f"held_out/{name}": float(np.mean([each[name] for each in terms])) for name in terms[0]}


if __name__ == "__main__":
    _cli.main("munit_folders", PRESETS, run)
