"""Planar flows fitted to four densities on the plane.

Trains planar flows of several depths, and beside them a spline flow, to densities known up to a
constant (Rezende & Mohamed 2015, "Variational inference with normalizing flows", figure 3), by
reverse KL with annealing. Reports KL(q || p) and the effective sample size of each, and draws the
densities beside the exact ones.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

import vaeflow as vf
from experiments import common
from vaeflow import distributions, losses, metrics, plotting, training
from vaeflow.plotting.plane import grid_lines, plane_points

ENERGIES = {
    "ring": distributions.toy.ring_energy,
    "wave": distributions.toy.wave_energy,
    "bulging_wave": distributions.toy.bulging_wave_energy,
    "forked_wave": distributions.toy.forked_wave_energy,
}
BOUND = 5.2
"""Half the side of the squares that are drawn; that of the integrals is 10."""

SPLINE = "spline"
"""Name of the spline flow among the models."""

EnergyName = Literal["ring", "wave", "bulging_wave", "forked_wave"]
PyTree = Any


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Which flows."""

    depths: tuple[int, ...] = (2, 8, 32)
    """Steps K of each planar flow."""
    spline_steps: int = 4
    """Steps of the spline flow; 0 for none."""
    spline_width: int = 32
    """Hidden units of its networks."""
    spline_learning_rate: float = 2e-3
    """Its learning rate: at that of the planar flows it loses modes."""


@dataclasses.dataclass(frozen=True)
class Config:
    """A run."""

    model: ModelConfig
    train: training.TrainConfig
    energies: tuple[EnergyName, ...] = tuple(ENERGIES)
    """Densities to fit."""
    annealing: float = 0.5
    """Share of the training over which the energies' weight rises from 0.01 to 1."""
    samples: int = 50_000
    """Samples behind each figure that is reported."""
    points: int = 150
    """Points along each side of a density that is drawn."""

    def __post_init__(self) -> None:
        """Refuses values out of range.

        Raises:
          ValueError: Naming the field, the value given and what is allowed.
        """
        allowed = {
            "model.depths": (self.model.depths, all(depth >= 1 for depth in self.model.depths)),
            "model.spline_steps": (self.model.spline_steps, self.model.spline_steps >= 0),
            "model.spline_learning_rate": (
                self.model.spline_learning_rate,
                self.model.spline_learning_rate > 0,
            ),
            "annealing": (self.annealing, 0 <= self.annealing <= 1),
            "samples": (self.samples, self.samples >= 1),
            "points": (self.points, self.points >= 1),
        }
        for name, (value, fits) in allowed.items():
            if not fits:
                raise ValueError(f"{name} is out of range, got {value}")
        if len(set(self.energies)) != len(self.energies) or not self.energies:
            raise ValueError(f"energies must be different names, one or more, got {self.energies}")
        if len(set(self.model.depths)) + bool(self.model.spline_steps) < 1:
            raise ValueError("model.depths must hold a depth where there is no spline flow, got ()")


def build(config: ModelConfig) -> dict[str, vf.models.FlowModel]:
    """Builds the models by name, the planar ones from shallow to deep."""
    flows: dict[str, Any] = {
        f"planar_{depth}": vf.flows.PlanarFlow((2,), num_steps=depth)
        for depth in sorted(config.depths)
    }
    if config.spline_steps:
        flows[SPLINE] = vf.flows.NeuralSplineFlow(
            (2,),
            num_steps=config.spline_steps,
            hidden_sizes=(config.spline_width, config.spline_width),
        )
    return {name: vf.models.FlowModel(flow) for name, flow in flows.items()}


def chosen(names: tuple[str, ...], number: jax.Array, z: jax.Array) -> jax.Array:
    """The energy of one of the densities, by its number."""
    return jax.lax.switch(number, [ENERGIES[name] for name in names], z)


def every_reverse_kl(
    model, variables, batch, rng, *, names: tuple[str, ...], axis=vf.LOCAL, train=True, beta=1.0
):
    """Reverse KL of one model for each density, stacked along the first axis of the variables.

    As the sum of losses that share no parameter it trains all of them at once, each as by itself.
    """

    rows = vf.row_keys(rng, len(batch["index"]))

    def one(variables: PyTree, number: jax.Array):
        keys = jax.vmap(jax.random.fold_in, (0, None))(rows, number)
        energy = functools.partial(chosen, names, number)
        return losses.reverse_kl(
            model, variables, batch, keys, axis=axis, train=train, energy=energy, beta=beta
        )

    values, aux = jax.vmap(one)(variables, jnp.arange(len(names)))
    found = {
        f"{name}/{metric}": value[number]
        for metric, value in aux.metrics.items()
        for number, name in enumerate(names)
    }
    return jnp.sum(values), losses.Aux(found, {})


def fit(
    model, train: training.TrainConfig, config: Config, directory: training.RunDirectory
) -> PyTree:
    """Trains one model on all densities; returns its variables, stacked."""
    rise = max(config.annealing * train.steps, 1)

    @jax.jit
    def initialize() -> PyTree:
        keys = jax.random.split(jax.random.key(train.seed), len(config.energies))
        return jax.vmap(model.init)(keys)

    return training.fit(
        model,
        functools.partial(every_reverse_kl, names=config.energies),
        training.IndexBatches(train.batch_size),
        train,
        directory,
        initialize=initialize,
        weights={"beta": lambda step: jnp.minimum(1.0, 0.01 + step / rise)},
    ).variables


def measure(model, variables: PyTree, config: Config) -> Mapping[str, np.ndarray]:
    """Metrics of `losses.reverse_kl` from many samples, one for each density."""
    batch = {"index": np.arange(config.samples)}
    loss = functools.partial(every_reverse_kl, model, names=config.energies)
    found = jax.jit(loss)(variables, batch, jax.random.key(1))[1].metrics
    return {name: float(value) for name, value in found.items()}


class Drawing:
    """What is drawn of the densities."""

    def __init__(self, config: Config):
        self.names = config.energies
        self.points = plane_points(BOUND, config.points)
        self.lines = grid_lines(2.5)

    def exact(self, log_normalizers: Mapping[str, float]) -> list[plotting.Density]:
        """The densities themselves."""
        return [
            plotting.Density(
                np.exp(-np.asarray(ENERGIES[name](self.points)) - log_normalizers[name])
            )
            for name in self.names
        ]

    def fitted(self, model, variables: PyTree, kl: Mapping[str, float]) -> list[plotting.Density]:
        """A model's densities, with their KL."""
        log_prob = functools.partial(model.apply, method="log_prob")
        log_densities = jax.jit(jax.vmap(log_prob, (0, None)))(variables, self.points)
        return [
            plotting.Density(np.exp(values), f"KL {kl[name]:.3f}")
            for name, values in zip(self.names, np.asarray(log_densities), strict=True)
        ]

    def grids(self, model, variables: PyTree) -> list[plotting.WarpedGrid]:
        """What a model makes of straight lines in the noise."""
        decode = functools.partial(model.apply, method="decode")
        lines = jax.jit(jax.vmap(decode, (0, None)))(variables, self.lines)
        return [plotting.WarpedGrid(warped) for warped in np.asarray(lines)]

    def save(
        self, directory: training.RunDirectory, name: str, columns: Mapping[str, list]
    ) -> None:
        """Saves a table of columns by title, a row for each density."""
        panels = list(zip(*columns.values(), strict=True))
        labels = [name.replace("_", " ") for name in self.names]
        figure = plotting.plane_table(panels, BOUND, labels, list(columns))
        plotting.save_figure(directory.figures / f"{name}.png", figure)


def titled(name: str) -> str:
    """What a figure calls a model."""
    kind, _, depth = name.partition("_")
    return f"{kind}, K = {depth}" if depth else kind


def run(config: Config, directory: training.RunDirectory) -> common.Result:
    """Trains, measures and draws."""
    log_normalizers = {
        name: metrics.log_integral(lambda z, name=name: -ENERGIES[name](z), [-10] * 2, [10] * 2)
        for name in config.energies
    }
    drawing = Drawing(config)
    densities, grids = {"exact": drawing.exact(log_normalizers)}, {}
    found = {f"log_normalizer_{name}": value for name, value in log_normalizers.items()}
    trained = {}
    for title, model in build(config.model).items():
        common.announce(f"{title}:")
        part = training.open_run_directory(
            str(directory.path / title),
            config,
            experiment=directory.experiment,
            preset=directory.preset,
        )
        train = config.train
        if title == SPLINE:
            train = dataclasses.replace(train, learning_rate=config.model.spline_learning_rate)
        variables = trained[title] = fit(model, train, config, part)
        measured = measure(model, variables, config)
        kl = {}
        for name, log_normalizer in log_normalizers.items():
            kl[name] = measured[f"{name}/free_energy"] + log_normalizer
            found[f"kl_{name}_{title}"] = kl[name]
            size = measured[f"{name}/effective_sample_size"]
            found[f"effective_sample_size_{name}_{title}"] = size
        densities[titled(title)] = drawing.fitted(model, variables, kl)
        grids[f"grid, {titled(title)}"] = drawing.grids(model, variables)
    directory.write_model(trained, (2,))
    if training.is_first():
        # The deepest planar flow's, which is the last but the spline flow.
        last = list(grids)[-2 if len(grids) > 1 and config.model.spline_steps else -1]
        drawing.save(directory, "densities", densities | {last: grids[last]})
        drawing.save(directory, "grids", {"exact": densities["exact"], **grids})
    return common.Result(config.train.steps, found)


def preset(
    energies: tuple[str, ...], steps: int, yields: str, cost: str, **expected: float
) -> common.Preset:
    """A preset that differs from others in its densities and its length."""
    train = training.TrainConfig(
        steps=steps,
        batch_size=256,
        learning_rate=1e-2,
        schedule="cosine",
        ema_decay=0.0,
        scan_steps=500,
        log_every=100,
        checkpoint_every=5000,
    )
    return common.Preset(
        Config(ModelConfig(), train, energies),
        yields=yields,
        cost=cost,
        expected={
            name: common.Expected(value, "our run, seed 0") for name, value in expected.items()
        },
    )


PRESETS = {
    "all": preset(
        tuple(ENERGIES),
        20_000,
        "Planar flows of 2, 8 and 32 steps and a spline flow on all four densities.",
        "2 to 4 minutes on 2 CPU cores",
        kl_ring_planar_32=0.002,
        kl_wave_planar_32=0.001,
        kl_bulging_wave_planar_32=0.020,
        kl_forked_wave_planar_32=0.035,
    ),
    **{
        name: preset(
            (name,),
            5000,
            f"The same flows on the {name.replace('_', ' ')} alone, with fewer updates.",
            "a minute on 2 CPU cores",
        )
        for name in ENERGIES
    },
}

if __name__ == "__main__":
    common.main("planar_energies", PRESETS, run)
