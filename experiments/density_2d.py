"""Flows trained by maximum likelihood on densities of the plane, and of the line.

Trains one flow of any kind on samples of one or more densities, fresh at every step. Reports the
log-likelihood of held-out samples and, where the density is known, KL(p || q); plots the densities,
and the path of the samples from noise to data through the steps of the flow.

The preset `one-d` and the choice of flows are those of `experiments.density_1d`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

import vaeflow as vf
from experiments import _cli, _figures, density_1d
from experiments.density_1d import FlowConfig, build_flow
from vaeflow import distributions, losses, metrics, plotting, training
from vaeflow.plotting.plane import undo_axis_swaps

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DensityName = Literal[
    "checkerboard", "eight_gaussians", "pinwheel", "two_moons", "two_spirals", "image"
]
DENSITIES: tuple[DensityName, ...] = get_args(DensityName)
KNOWN: tuple[DensityName, ...] = ("checkerboard", "eight_gaussians", "image")
"""Those whose density is known, and not only their samples."""
THREE = ("checkerboard", "eight_gaussians", "two_moons")
"""Densities of the presets that compare the flows."""
FAR = 10.0
"""Half the side of the square over which integrals are taken."""
BOUND = 4.6
"""Half the side of the squares that are plotted."""
CELLS = 1000
"""Cells along each side of the square over which the mass is taken, which reaches out to FAR."""
PART = 10_000
"""Points whose densities are computed at once."""
FRAMES = 60
"""Frames of the animation of a path, or one for each step if there are more."""

PyTree = Any


# Configuration


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which densities."""

    density: tuple[DensityName, ...] = DENSITIES
    """Densities to fit, each by a flow of its own."""
    image: str = "embedded:camera"
    """The image whose brightness is the density called image: a file, or embedded:camera for a
    photograph shipped by scikit-image."""


@dataclasses.dataclass(frozen=True)
class Config:
    """A run."""

    data: DataConfig
    model: FlowConfig
    train: training.TrainConfig
    samples: int = 20_000
    """Held-out samples behind each figure that is reported."""
    points: int = 200
    """Points along each side of a density that is plotted."""

    def __post_init__(self) -> None:
        density = self.data.density
        _cli.check(
            len(set(density)) == len(density) > 0,
            f"data.density must be different names, one or more of {DENSITIES}, got {density}",
        )
        _cli.check_least(self, "", samples=2, points=2)


# Presets


def preset(
    flow: str,
    steps: int,
    width: int,
    learning_rate: float,
    yields: str,
    expected: tuple[float, ...],
    *,
    density: tuple[DensityName, ...] = THREE,
    updates: int = 4000,
    clip_norm: float = 0.0,
    cost: str = "a minute or two on 2 CPU cores",
) -> _cli.Preset:
    """Makes a preset from its flow, its training and its densities.

    The expected figures are the KL of each density, or the log-likelihood where KL isn't known.
    """
    train = training.TrainConfig(
        steps=updates,
        batch_size=256,
        learning_rate=learning_rate,
        schedule="cosine",
        clip_norm=clip_norm,
        ema_decay=0.0,
        scan_steps=100,
        log_every=100,
        checkpoint_every=2000,
    )
    names = [f"{'kl' if name in KNOWN else 'log_likelihood'}_{name}" for name in density]
    titles = [_figures.title_of(name) for name in density]
    return _cli.Preset(
        Config(DataConfig(density), FlowConfig(flow, steps, width), train),
        yields=f"{yields}, on {', '.join(titles[:-1])} and {titles[-1]}.",
        cost=cost,
        expected={
            name: _cli.Expected(value, "our run, seed 0")
            for name, value in zip(names, expected, strict=True)
        },
    )


PRESETS = {
    "spline-autoregressive": preset(
        "spline-autoregressive",
        *(6, 64, 5e-3),
        "Rational-quadratic splines of each coordinate given the one before",
        (0.026, 0.005, -2.328, -2.563, -2.722, 0.036),
        density=DENSITIES,
        updates=6000,
        cost="2 to 3 minutes on 2 CPU cores",
    ),
    "spline-coupling": preset(
        "spline-coupling",
        *(6, 64, 5e-3),
        "Splines of one coordinate given the other",
        (0.040, 0.016, -2.565),
    ),
    # The gradients of affine maps have rare spikes; clipped, they don't undo what is learned.
    "real-nvp": preset(
        "real-nvp", 12, 64, 2e-3, "Affine couplings", (0.118, 0.118, -2.570), clip_norm=3.0
    ),
    "nice": preset("nice", 16, 64, 3e-3, "Additive couplings", (0.337, 0.495, -2.648)),
    "maf": preset(
        "maf",
        *(12, 64, 2e-3),
        "Affine autoregressive maps, cheap from data to noise",
        (0.096, 0.042, -2.567),
        clip_norm=3.0,
    ),
    "iaf": preset(
        "iaf",
        *(12, 64, 3e-3),
        "Affine autoregressive maps, cheap from noise to data, which training inverts one "
        "coordinate after the other",
        (0.107, 0.044, -2.568),
    ),
    "block-autoregressive": preset(
        "block-autoregressive",
        *(4, 24, 2e-2),
        "Monotone networks, whose samples take a search for each coordinate",
        (0.251, 0.097, -2.580),
    ),
    "planar": preset(
        "planar",
        *(32, 1, 1e-2),
        "Planar maps, cheap from noise to data, which training inverts by a search and "
        "differentiates by the implicit function theorem",
        (0.179, 0.013, -2.581),
    ),
    "radial": preset(
        "radial", 32, 1, 1e-2, "Radial maps, inverted in closed form", (0.537, 0.357, -2.719)
    ),
    "sylvester": preset(
        "sylvester",
        *(16, 1, 1e-2),
        "Sylvester maps, inverted as the planar ones",
        (0.313, 0.116, -2.588),
    ),
    "gaussianization": preset(
        "gaussianization",
        *(4, 1, 1e-2),
        "Mixtures to the normal scale and rotations, which start at quantiles of the data",
        (0.050, 0.048, -2.640),
        updates=1000,
    ),
    "residual": preset(
        "residual",
        *(8, 64, 2e-3),
        "Contractions added to the identity, inverted by iteration",
        (0.347, 0.015, -2.616),
        updates=3000,
        cost="5 minutes on 2 CPU cores",
    ),
    "continuous": preset(
        "continuous",
        *(1, 32, 1e-2),
        "A differential equation, solved both ways; it needs the extra continuous",
        (0.020, -2.616),
        density=("eight_gaussians", "two_moons"),
        updates=500,
    ),
    "one-d": density_1d.PRESET,
}


# Targets


class Target(NamedTuple):
    """A density to fit.

    Attributes:
      draw: From a typed key and a shape to points ``[*shape, dimension]``.
      log_prob: From points to nats; None where it isn't known.
      entropy: In nats, where `log_prob` is known.
    """

    draw: Callable[..., jax.Array]
    log_prob: Callable[[jax.Array], jax.Array] | None = None
    entropy: float = math.nan


def known(distribution: distributions.toy.Histogram | distributions.Mixture) -> Target:
    """Makes a target of a density of the plane."""
    if isinstance(distribution, distributions.toy.Histogram):
        entropy = float(distribution.entropy())
    else:
        log_p = jax.jit(distribution.log_prob)
        entropy = metrics.expectation(log_p, lambda x: -log_p(x), [-FAR] * 2, [FAR] * 2)

    def draw(key: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
        return distribution.sample(seed=key, sample_shape=shape)

    return Target(draw, distribution.log_prob, entropy)


def open_target(name: DensityName, image: str) -> Target:
    """Opens a density of the plane by its name.

    Raises:
      ValueError: If the image can't be read or is black.
    """
    toy = distributions.toy
    if name == "image":
        try:
            return known(toy.image_density(vf.data.read_grey_image(image)))
        except ValueError as error:
            raise ValueError(f"data.image={image!r}: {error}") from error
    if name in KNOWN:
        return known(getattr(toy, name)())
    return Target(getattr(toy, name))


# Training


Targets = Mapping[str, Target]


def every_negative_log_likelihood(
    model, variables, batch, rng, *, targets: Targets, axis=vf.LOCAL, train=True
):
    """Computes the negative log-likelihood of one model for each target.

    The variables are stacked along their first axis; the examples are sampled from the keys of the
    rows. As a sum of losses without common parameters it trains each model as by itself.
    """
    rows = vf.row_keys(rng, len(batch["index"]))
    keys = [jax.vmap(jax.random.fold_in, (0, None))(rows, number) for number in range(len(targets))]
    points = jnp.stack(
        [jax.vmap(target.draw)(key) for target, key in zip(targets.values(), keys, strict=True)]
    )

    def one(variables: PyTree, points: jax.Array):
        return losses.negative_log_likelihood(
            model, variables, {"image": points}, rows, axis=axis, train=train
        )

    values, aux = jax.vmap(one)(variables, points)
    nats = aux.metrics["negative_log_likelihood"]
    terms = {f"{name}/negative_log_likelihood": nats[i] for i, name in enumerate(targets)}
    return jnp.sum(values), losses.Aux(terms, {})


def fit(
    model, targets: Targets, train: training.TrainConfig, directory: training.RunDirectory
) -> PyTree:
    """Trains a model on every target; returns the variables, stacked."""

    @jax.jit
    def initialize() -> PyTree:
        keys = jax.random.split(jax.random.key(train.seed), len(targets))
        first = jnp.stack(
            [target.draw(key, (1000,)) for target, key in zip(targets.values(), keys, strict=True)]
        )
        return jax.vmap(model.init)(keys, first)

    return training.train(
        model,
        functools.partial(every_negative_log_likelihood, targets=targets),
        training.IndexBatches(train.batch_size),
        train,
        directory,
        initialize=initialize,
    ).variables


# Measurements and figures


def path(model, variables: PyTree, noise: jax.Array) -> jax.Array:
    """Returns noise and its images after each step of the flow: shape [step, point, 2]."""
    return vf.bijectors.trajectory(model.apply(variables).bijector, noise)


@functools.partial(jax.jit, static_argnums=0)
def log_prob(model: vf.models.FlowModel, variables: PyTree, points: jax.Array) -> jax.Array:
    """Computes log-densities in nats, a part of the points at a time."""
    function = functools.partial(model.apply, variables, method="log_prob")
    return jax.lax.map(lambda x: function(x[None])[0], points, batch_size=PART)


def measure(
    model: vf.models.FlowModel, variables: PyTree, target: Target, samples: int
) -> dict[str, float]:
    """Computes the metrics of one target."""
    held_out = target.draw(jax.random.key(1), (samples,))
    log_q = functools.partial(log_prob, model, variables)
    log_likelihoods = np.asarray(log_q(held_out), np.float64)
    mass = np.exp(metrics.log_integral(log_q, [-FAR] * 2, [FAR] * 2, CELLS))
    results = {"log_likelihood": np.mean(log_likelihoods), "mass": mass}
    if target.log_prob is not None:
        exact = np.asarray(target.log_prob(held_out), np.float64)
        results |= {"kl": np.mean(exact - log_likelihoods), "entropy": target.entropy}
    return {name: float(value) for name, value in results.items()}


def density_table(
    config: Config,
    model: vf.models.FlowModel,
    targets: Targets,
    trained: Mapping[str, PyTree],
    paths: Mapping[str, np.ndarray],
    results: Mapping[str, Mapping[str, float]],
) -> Figure:
    """Plots each target, its model's density and the path, a row for each."""
    points = plotting.plane_points(BOUND, config.points)
    rows = []
    for name, target in targets.items():
        if target.log_prob is None:
            exact = plotting.Samples(target.draw(jax.random.key(3), (paths[name].shape[1],)))
        else:
            exact = plotting.Density(np.exp(np.asarray(target.log_prob(points))))
        caption = f"log-likelihood {results[name]['log_likelihood']:.3f}"
        if "kl" in results[name]:
            caption = f"KL {results[name]['kl']:.3f}"
        density = np.exp(np.asarray(log_prob(model, trained[name], points)))
        # All states of a few, otherwise up to five.
        last = len(paths[name]) - 1
        shown = [*range(0, last, -(-last // 4)), last]
        colors = plotting.noise_colors(paths[name][0])
        states = [plotting.Samples(paths[name][step], colors) for step in shown]
        rows.append([exact, plotting.Density(density, caption), *states])
    between = [f"step {step}" for step in shown[1:-1]]
    columns = ["data", "density", "noise", *between, "samples"]
    return plotting.plane_table(rows, BOUND, [_figures.title_of(name) for name in targets], columns)


def save_path(directory: training.RunDirectory, paths: Mapping[str, np.ndarray]) -> None:
    """Saves the paths as an animation; few points and frames keep it small."""
    states = [path[:, :800] for path in paths.values()]
    between = max(FRAMES // (len(states[0]) - 1), 1)
    frames = plotting.transport_frames(
        states, BOUND, [_figures.title_of(name) for name in paths], between
    )
    seconds = np.full(len(frames), 0.06)
    seconds[[0, -1]] = 1.0, 2.0
    plotting.save_animation(directory.figures / "path.gif", frames, seconds)


# Run


def run(config: Config | density_1d.Config, directory: training.RunDirectory) -> _cli.Result:
    """Trains, measures and plots."""
    if isinstance(config, density_1d.Config):
        return density_1d.run(config, directory)
    targets = {name: open_target(name, config.data.image) for name in config.data.density}
    model = build_flow(config.model, (2,))
    variables = fit(model, targets, config.train, directory)
    directory.write_model(variables, (2,))
    trained = {
        name: jax.tree.map(lambda leaf, number=number: leaf[number], variables)
        for number, name in enumerate(targets)
    }
    results = {
        name: measure(model, trained[name], target, config.samples)
        for name, target in targets.items()
    }
    if training.is_first():
        noise = np.asarray(jax.random.normal(jax.random.key(2), (4000, 2)))
        trace = jax.jit(functools.partial(path, model))
        # With the exchanges of axes undone.
        paths = {name: undo_axis_swaps(trace(trained[name], noise)) for name in targets}
        table = density_table(config, model, targets, trained, paths, results)
        _figures.save(directory, "densities", table)
        save_path(directory, paths)
    return _cli.Result(
        config.train.steps,
        {f"{key}_{name}": value for name in results for key, value in results[name].items()},
    )


if __name__ == "__main__":
    _cli.main("density_2d", PRESETS, run)
