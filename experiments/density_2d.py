"""Flows trained by maximum likelihood on densities of the plane.

Trains one flow of any kind on samples of one or more densities, drawn anew at every step. Reports
the log-likelihood of held-out samples and, where the density is known, KL(p || q); draws the
densities, and the path of the samples from noise to data through the steps of the flow.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

import vaeflow as vf
from experiments import common, density_1d
from experiments.plane_targets import (
    DENSITIES,
    FAR,
    KNOWN,
    DataConfig,
    DensityName,
    Target,
    open_target,
)
from experiments.vector_flows import FlowConfig, build
from vaeflow import losses, metrics, plotting, training
from vaeflow.plotting.plane import noise_colors, plane_points, undo_axis_swaps

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BOUND = 4.6
"""Half the side of the squares that are drawn."""
CELLS = 1000
"""Cells along each side of the square over which the mass is taken, which reaches out to FAR."""
PART = 10_000
"""Points whose densities are computed at once."""
FRAMES = 60
"""Frames of the animation of a path, or one for each step if there are more."""

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Config:
    """A run."""

    data: DataConfig
    model: FlowConfig
    train: training.TrainConfig
    samples: int = 20_000
    """Held-out samples behind each figure that is reported."""
    points: int = 200
    """Points along each side of a density that is drawn."""

    def __post_init__(self) -> None:
        """Refuses values out of range.

        Raises:
          ValueError: Naming the field, the value given and what is allowed.
        """
        density = self.data.density
        if len(set(density)) != len(density) or not density:
            raise ValueError(
                f"data.density must be different names, one or more of {DENSITIES}, got {density}"
            )
        for name in ("samples", "points"):
            if getattr(self, name) < 2:
                raise ValueError(f"{name} must be at least 2, got {getattr(self, name)}")


Targets = Mapping[str, Target]


def every_negative_log_likelihood(
    model, variables, batch, rng, *, targets: Targets, axis=vf.LOCAL, train=True
):
    """Negative log-likelihood of one model for each target, stacked along the first axis.

    That axis is of the variables; the examples are drawn from the keys of the rows. As the sum of
    losses that share no parameter it trains all of them at once, each as by itself.
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
    found = {f"{name}/negative_log_likelihood": nats[i] for i, name in enumerate(targets)}
    return jnp.sum(values), losses.Aux(found, {})


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

    return training.fit(
        model,
        functools.partial(every_negative_log_likelihood, targets=targets),
        training.IndexBatches(train.batch_size),
        train,
        directory,
        initialize=initialize,
    ).variables


def path(model, variables: PyTree, noise: jax.Array) -> jax.Array:
    """Noise, and what it has become after each step of the flow: shape [step, point, 2]."""
    return vf.bijectors.trajectory(model.apply(variables).bijector, noise)


class Evaluation:
    """Compiled functions of a model and the variables for one target."""

    def __init__(self, model):
        self.path = jax.jit(functools.partial(path, model))

        @jax.jit
        def log_prob(variables: PyTree, points: jax.Array) -> jax.Array:
            """Log-densities in nats, a part of the points at a time."""
            log_prob = functools.partial(model.apply, variables, method="log_prob")
            return jax.lax.map(lambda x: log_prob(x[None])[0], points, batch_size=PART)

        self.log_prob = log_prob

    def measure(self, variables: PyTree, target: Target, samples: int) -> dict[str, float]:
        """Figures of one target, by what they measure."""
        held_out = target.draw(jax.random.key(1), (samples,))
        log_q = functools.partial(self.log_prob, variables)
        log_likelihoods = np.asarray(log_q(held_out), np.float64)
        mass = np.exp(metrics.log_integral(log_q, [-FAR] * 2, [FAR] * 2, CELLS))
        found = {"log_likelihood": np.mean(log_likelihoods), "mass": mass}
        if target.log_prob is not None:
            exact = np.asarray(target.log_prob(held_out), np.float64)
            found |= {"kl": np.mean(exact - log_likelihoods), "entropy": target.entropy}
        return {name: float(value) for name, value in found.items()}


class Drawing:
    """The figures of a run."""

    def __init__(self, evaluation: Evaluation, points: int):
        self.evaluation = evaluation
        self.points = plane_points(BOUND, points)
        self.noise = np.asarray(jax.random.normal(jax.random.key(2), (4000, 2)))

    def target(self, target: Target) -> plotting.Density | plotting.Samples:
        """The density itself, or samples where it isn't known."""
        if target.log_prob is None:
            return plotting.Samples(target.draw(jax.random.key(3), (len(self.noise),)))
        return plotting.Density(np.exp(np.asarray(target.log_prob(self.points))))

    def density(self, variables: PyTree, found: Mapping[str, float]) -> plotting.Density:
        """A model's density, with how close it is."""
        close = f"log-likelihood {found['log_likelihood']:.3f}"
        if "kl" in found:
            close = f"KL {found['kl']:.3f}"
        log_prob = self.evaluation.log_prob(variables, self.points)
        return plotting.Density(np.exp(np.asarray(log_prob)), close)

    def path(self, variables: PyTree) -> np.ndarray:
        """The path of the noise, with the exchanges of axes undone."""
        return undo_axis_swaps(self.evaluation.path(variables, self.noise))

    def table(
        self,
        targets: Targets,
        trained: Mapping[str, PyTree],
        paths: Mapping[str, np.ndarray],
        found: Mapping[str, Mapping[str, float]],
    ) -> Figure:
        """Each target, its model's density and the path, a row for each."""
        rows = []
        for name, states in paths.items():
            colors = noise_colors(states[0])
            # All states of a few, otherwise up to five.
            last = len(states) - 1
            shown = [*range(0, last, -(-last // 4)), last]
            points = [plotting.Samples(states[step], colors) for step in shown]
            density = self.density(trained[name], found[name])
            rows.append([self.target(targets[name]), density, *points])
        between = [f"step {step}" for step in shown[1:-1]]
        columns = ["data", "density", "noise", *between, "samples"]
        return plotting.plane_table(rows, BOUND, [shown_name(name) for name in targets], columns)


def save_path(directory: training.RunDirectory, paths: Mapping[str, np.ndarray]) -> None:
    """Saves the paths as an animation; few points and frames keep it small."""
    states = [path[:, :800] for path in paths.values()]
    between = max(FRAMES // (len(states[0]) - 1), 1)
    frames = plotting.transport_frames(states, BOUND, [shown_name(name) for name in paths], between)
    seconds = np.full(len(frames), 0.06)
    seconds[[0, -1]] = 1.0, 2.0
    plotting.save_animation(directory.figures / "path.gif", frames, seconds)


def shown_name(name: str) -> str:
    """What figures call a target."""
    return name.replace("_", " ").replace("gaussians", "Gaussians")


def run(config: Config | density_1d.Config, directory: training.RunDirectory) -> common.Result:
    """Trains, measures and draws."""
    if isinstance(config, density_1d.Config):
        return density_1d.run(config, directory)
    targets = {name: open_target(name, config.data.image) for name in config.data.density}
    model = build(config.model, (2,))
    variables = fit(model, targets, config.train, directory)
    directory.write_model(variables, (2,))
    trained = {
        name: jax.tree.map(lambda leaf, number=number: leaf[number], variables)
        for number, name in enumerate(targets)
    }
    evaluation = Evaluation(model)
    found = {
        name: evaluation.measure(trained[name], target, config.samples)
        for name, target in targets.items()
    }
    if training.is_first():
        drawing = Drawing(evaluation, config.points)
        paths = {name: drawing.path(trained[name]) for name in targets}
        table = drawing.table(targets, trained, paths, found)
        plotting.save_figure(directory.figures / "densities.png", table)
        save_path(directory, paths)
    return common.Result(
        config.train.steps,
        {f"{key}_{name}": value for name in found for key, value in found[name].items()},
    )


THREE = ("checkerboard", "eight_gaussians", "two_moons")
"""Densities of the presets that compare the flows."""


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
) -> common.Preset:
    """A preset that differs from others in its flow, its training and its densities.

    What is expected is KL of each density, or the log-likelihood where KL isn't known.
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
    shown = [shown_name(name) for name in density]
    return common.Preset(
        Config(DataConfig(density), FlowConfig(flow, steps, width), train),
        yields=f"{yields}, on {', '.join(shown[:-1])} and {shown[-1]}.",
        cost=cost,
        expected={
            name: common.Expected(value, "our run, seed 0")
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
    # With affine maps gradients leap now and then; clipped, they don't undo what is learned.
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

if __name__ == "__main__":
    common.main("density_2d", PRESETS, run)
