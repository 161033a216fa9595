"""Planar flows fitted to four densities on the plane.

Trains planar flows of several depths, and for comparison a spline flow, to densities known up to a
constant (Rezende & Mohamed 2015, "Variational inference with normalizing flows", figure 3), by
reverse KL with annealing. Reports KL(q || p) and the effective sample size of each, and plots the
densities next to the exact ones.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

import vaeflow as vf
from experiments import _cli, _figures
from vaeflow import distributions, losses, metrics, plotting, training

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ENERGIES = {
    "ring": distributions.toy.ring_energy,
    "wave": distributions.toy.wave_energy,
    "bulging_wave": distributions.toy.bulging_wave_energy,
    "forked_wave": distributions.toy.forked_wave_energy,
}
BOUND = 5.2
"""Half the side of the squares that are plotted; that of the integrals is 10."""

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

    def __post_init__(self) -> None:
        _cli.check_least(self, "model.", depths=1, spline_steps=0, spline_width=1)
        _cli.check(
            self.spline_learning_rate > 0,
            f"model.spline_learning_rate must be above 0, got {self.spline_learning_rate}",
        )
        _cli.check(
            bool(self.depths or self.spline_steps),
            "model.depths must hold a depth where there is no spline flow, got ()",
        )


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
    """Points along each side of a density that is plotted."""

    def __post_init__(self) -> None:
        _cli.check(0 <= self.annealing <= 1, f"annealing must be in [0, 1], got {self.annealing}")
        _cli.check_least(self, "", samples=1, points=1)
        _cli.check(
            len(set(self.energies)) == len(self.energies) > 0,
            f"energies must be different names, one or more, got {self.energies}",
        )


def preset(
    energies: tuple[str, ...], steps: int, yields: str, cost: str, **expected: float
) -> _cli.Preset:
    """Makes a preset from its densities and its number of updates."""
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
    return _cli.Preset(
        Config(ModelConfig(), train, energies),
        yields=yields,
        cost=cost,
        expected={
            name: _cli.Expected(value, "our run, seed 0") for name, value in expected.items()
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


def build_flows(config: ModelConfig) -> dict[str, vf.models.FlowModel]:
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


def energy_of(names: tuple[str, ...], number: jax.Array, z: jax.Array) -> jax.Array:
    """Computes the energy of one of the densities, by its number."""
    return jax.lax.switch(number, [ENERGIES[name] for name in names], z)


def every_reverse_kl(
    model, variables, batch, rng, *, names: tuple[str, ...], axis=vf.LOCAL, train=True, beta=1.0
):
    """Computes the reverse KL of one model for each density.

    The variables are stacked along their first axis. As a sum of losses without common parameters
    it trains each model as by itself.
    """
    rows = vf.row_keys(rng, len(batch["index"]))

    def one(variables: PyTree, number: jax.Array):
        keys = jax.vmap(jax.random.fold_in, (0, None))(rows, number)
        energy = functools.partial(energy_of, names, number)
        return losses.reverse_kl(
            model, variables, batch, keys, axis=axis, train=train, energy=energy, beta=beta
        )

    values, aux = jax.vmap(one)(variables, jnp.arange(len(names)))
    terms = {
        f"{name}/{metric}": value[number]
        for metric, value in aux.metrics.items()
        for number, name in enumerate(names)
    }
    return jnp.sum(values), losses.Aux(terms, {})


def fit(
    model, train: training.TrainConfig, config: Config, directory: training.RunDirectory
) -> PyTree:
    """Trains one model on all densities; returns its variables, stacked."""
    rise = max(config.annealing * train.steps, 1)

    @jax.jit
    def initialize() -> PyTree:
        keys = jax.random.split(jax.random.key(train.seed), len(config.energies))
        return jax.vmap(model.init)(keys)

    return training.train(
        model,
        functools.partial(every_reverse_kl, names=config.energies),
        training.IndexBatches(train.batch_size),
        train,
        directory,
        initialize=initialize,
        weights={"beta": lambda step: jnp.minimum(1.0, 0.01 + step / rise)},
    ).variables


def measure(model, variables: PyTree, config: Config) -> dict[str, float]:
    """Estimates the metrics of `losses.reverse_kl` for each density from many samples."""
    batch = {"index": np.arange(config.samples)}
    loss = functools.partial(every_reverse_kl, model, names=config.energies)
    _, aux = jax.jit(loss)(variables, batch, jax.random.key(1))
    return {name: float(value) for name, value in aux.metrics.items()}


def exact_densities(
    config: Config, points: np.ndarray, log_normalizers: Mapping[str, float]
) -> list[plotting.Density]:
    """Returns the densities themselves."""
    return [
        plotting.Density(np.exp(-np.asarray(ENERGIES[name](points)) - log_normalizers[name]))
        for name in config.energies
    ]


def fitted_densities(
    config: Config, model, variables: PyTree, points: np.ndarray, kl: Mapping[str, float]
) -> list[plotting.Density]:
    """Returns a model's densities, with their KL."""
    log_prob = functools.partial(model.apply, method="log_prob")
    log_densities = jax.jit(jax.vmap(log_prob, (0, None)))(variables, points)
    return [
        plotting.Density(np.exp(values), f"KL {kl[name]:.3f}")
        for name, values in zip(config.energies, np.asarray(log_densities), strict=True)
    ]


def warped_grids(model, variables: PyTree) -> list[plotting.WarpedGrid]:
    """Maps straight lines in the noise through a model."""
    decode = functools.partial(model.apply, method="decode")
    lines = jax.jit(jax.vmap(decode, (0, None)))(variables, plotting.grid_lines(2.5))
    return [plotting.WarpedGrid(warped) for warped in np.asarray(lines)]


def table_of(config: Config, columns: Mapping[str, list]) -> Figure:
    """Plots a table of columns by title, a row for each density."""
    panels = list(zip(*columns.values(), strict=True))
    labels = [name.replace("_", " ") for name in config.energies]
    return plotting.plane_table(panels, BOUND, labels, list(columns))


def title_of(name: str) -> str:
    """Returns the name of a model in figures."""
    kind, _, depth = name.partition("_")
    return f"{kind}, K = {depth}" if depth else kind


def run(config: Config, directory: training.RunDirectory) -> _cli.Result:
    """Trains, measures and plots."""
    log_normalizers = {
        name: metrics.log_integral(lambda z, name=name: -ENERGIES[name](z), [-10] * 2, [10] * 2)
        for name in config.energies
    }
    points = plotting.plane_points(BOUND, config.points)
    densities, grids = {"exact": exact_densities(config, points, log_normalizers)}, {}
    results = {f"log_normalizer_{name}": value for name, value in log_normalizers.items()}
    trained = {}
    for title, model in build_flows(config.model).items():
        _cli.announce(f"{title}:")
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
            results[f"kl_{name}_{title}"] = kl[name]
            size = measured[f"{name}/effective_sample_size"]
            results[f"effective_sample_size_{name}_{title}"] = size
        densities[title_of(title)] = fitted_densities(config, model, variables, points, kl)
        grids[f"grid, {title_of(title)}"] = warped_grids(model, variables)
    directory.write_model(trained, (2,))
    if training.is_first():
        # The deepest planar flow's, which is the last but the spline flow.
        last = list(grids)[-2 if len(grids) > 1 and config.model.spline_steps else -1]
        _figures.save(directory, "densities", table_of(config, densities | {last: grids[last]}))
        grids = table_of(config, {"exact": densities["exact"], **grids})
        _figures.save(directory, "grids", grids)
    return _cli.Result(config.train.steps, results)


if __name__ == "__main__":
    _cli.main("planar_energies", PRESETS, run)
