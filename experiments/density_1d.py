"""Flows on the line: the change of variables in one dimension, the preset `one-d` of `density_2d`.

Fits a flow of any kind to a mixture of Gaussians by maximum likelihood, on samples that are fresh
at every step. Reports KL(p || q) by quadrature, and plots the map with the densities on both of its
sides, and the density after each step.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import distrax
import jax
import jax.numpy as jnp
import numpy as np

import vaeflow as vf
from experiments import _cli, _figures
from vaeflow import bijectors, distributions, flows, losses, metrics, plotting, training

ENDS = (-4.5, 4.5)
"""The part of the line that is plotted."""
FAR = 12.0
"""Half the length of the interval of integrals."""

PyTree = Any


# Configuration


def _widths(flow: Callable[..., Any], layers: int = 2, **options: Any) -> Callable[..., Any]:
    def make(shape: tuple[int], steps: int, width: int) -> Any:
        return flow(shape, num_steps=steps, hidden_sizes=(width,) * layers, **options)

    return make


def _steps(flow: Callable[..., Any]) -> Callable[..., Any]:
    return lambda shape, steps, width: flow(shape, num_steps=steps)


# As in all runs so far: with tighter bounds, those with larger scales would have other densities.
LOG_SCALE = bijectors.BoundedLogScale(-math.inf, math.inf)
AFFINE = bijectors.AffineTransformer(LOG_SCALE)

FLOWS: dict[str, Callable[..., Any]] = {
    "planar": _steps(flows.PlanarFlow),
    "radial": _steps(flows.RadialFlow),
    "sylvester": _steps(flows.SylvesterFlow),
    "nice": _widths(flows.NICE),
    "real-nvp": lambda shape, steps, width: flows.RealNVP(
        shape, num_steps=steps, hidden_features=width, log_scale=LOG_SCALE
    ),
    "maf": _widths(flows.MaskedAutoregressiveFlow, transformer=AFFINE),
    "iaf": _widths(flows.InverseAutoregressiveFlow, transformer=AFFINE),
    "spline-coupling": _widths(flows.NeuralSplineFlow),
    "spline-autoregressive": _widths(flows.NeuralSplineFlow, autoregressive=True),
    "block-autoregressive": _widths(flows.BlockAutoregressiveFlow, layers=1),
    "gaussianization": _steps(flows.GaussianizationFlow),
    "residual": _widths(flows.ResidualFlow),
    "continuous": _widths(flows.ContinuousFlow),
}
"""Makes each flow from a shape, a number of steps and the width of its networks, if any."""

FlowName = Literal[tuple(FLOWS)]


@dataclasses.dataclass(frozen=True)
class FlowConfig:
    """Which flow."""

    flow: FlowName = "spline-autoregressive"
    """Its kind."""
    steps: int = 4
    """Number of steps K, of differential equations for continuous; with an even number both axes
    are treated the same where a step exchanges them."""
    width: int = 64
    """Hidden units of the networks, for each dimension in block-autoregressive; planar, radial,
    sylvester and gaussianization have none."""

    def __post_init__(self) -> None:
        _cli.check_least(self, "model.", steps=1, width=1)


@dataclasses.dataclass(frozen=True)
class Config:
    """A run."""

    model: FlowConfig
    train: training.TrainConfig
    weights: tuple[float, ...] = (0.3, 0.45, 0.25)
    """Weights of the Gaussians of the mixture, up to a factor."""
    means: tuple[float, ...] = (-2.4, 0.2, 2.6)
    """Their means."""
    deviations: tuple[float, ...] = (0.5, 0.7, 0.35)
    """Their standard deviations."""

    def __post_init__(self) -> None:
        parameters = (self.weights, self.means, self.deviations)
        _cli.check(
            len(set(map(len, parameters))) == 1
            and len(self.means) > 0
            and min(*self.weights, *self.deviations) > 0,
            "weights, means and deviations must be as many, weights and deviations above 0, got "
            "{}, {} and {}".format(*parameters),
        )


PRESET = _cli.Preset(
    Config(
        FlowConfig("planar", steps=9, width=16),
        training.TrainConfig(
            steps=3000,
            batch_size=512,
            learning_rate=1e-2,
            schedule="cosine",
            ema_decay=0.0,
            scan_steps=100,
            log_every=100,
            checkpoint_every=3000,
        ),
    ),
    yields="The change of variables in one dimension: planar maps on a mixture of three "
    "Gaussians, with plots of the densities on both sides of the map, and after each step.",
    cost="half a minute on 2 CPU cores",
    expected={"kl": _cli.Expected(0.006, "our run, seed 0")},
)


# Model


def build_flow(config: FlowConfig, shape: tuple[int]) -> vf.models.FlowModel:
    """Builds a density model of vectors."""
    return vf.models.FlowModel(FLOWS[config.flow](shape, config.steps, config.width))


def mixture(config: Config) -> distributions.Mixture:
    """Builds the target over vectors of one dimension."""
    means, deviations = (
        jnp.asarray(values, jnp.float32)[:, None] for values in (config.means, config.deviations)
    )
    components = distrax.Independent(distrax.Normal(means, deviations), 1)
    return distributions.Mixture(jnp.log(jnp.asarray(config.weights)), components)


# Run


def negative_log_likelihood(model, variables, batch, rng, *, target, axis=vf.LOCAL, train=True):
    """Computes that of samples of the target, one from the key of each row."""
    rows = vf.row_keys(rng, len(batch["index"]))
    points = jax.vmap(lambda key: target.sample(seed=key))(rows)
    return losses.negative_log_likelihood(
        model, variables, {"image": points}, rows, axis=axis, train=train
    )


def states_of(model, variables: PyTree, noise: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Computes values after each step of the flow, noise first, and the densities at them.

    Args:
      model: A model of vectors of one dimension.
      variables: Its variables.
      noise: Values of shape ``[point]``.

    Returns:
      Values and densities, shape ``[step, point]``.
    """
    distribution = model.apply(variables)

    def states(x: jax.Array) -> jax.Array:
        return vf.bijectors.trajectory(distribution.bijector, x[None])[:, 0]

    values = jax.vmap(states, out_axes=1)(noise)
    slopes = jax.vmap(jax.jacrev(states), out_axes=1)(noise)
    density = jnp.exp(distribution.distribution.log_prob(noise[:, None]))
    return values, density / jnp.abs(slopes)


def make_figures(config: Config, model, variables: PyTree) -> _figures.Named:
    """Yields the map with the densities on both of its sides, and the density after each step."""
    noise = jnp.linspace(-4.0, 4.0, 2001)
    states = jax.jit(functools.partial(states_of, model))(variables, noise)
    pairs = list(zip(*map(np.asarray, states), strict=True))
    line = np.linspace(*ENDS, 1000, dtype=np.float32)
    exact = line, np.exp(np.asarray(mixture(config).log_prob(line[:, None])))
    edges = jax.scipy.stats.norm.ppf(jnp.arange(1, 16) / 16)
    yield "change_of_volume", plotting.change_of_variables(pairs[0], pairs[-1], edges, exact)
    titles = ["noise", *(f"after step {step}" for step in range(1, len(pairs)))]
    yield "steps", plotting.densities_by_step(pairs, titles, exact)


def run(config: Config, directory: training.RunDirectory) -> _cli.Result:
    """Trains, measures and plots."""
    target, train = mixture(config), config.train
    model = build_flow(config.model, (1,))

    @jax.jit
    def initialize() -> PyTree:
        keys = jax.random.split(jax.random.key(train.seed))
        return model.init(keys[0], target.sample(seed=keys[1], sample_shape=1000))

    variables = training.train(
        model,
        functools.partial(negative_log_likelihood, target=target),
        training.IndexBatches(train.batch_size),
        train,
        directory,
        initialize=initialize,
    ).variables
    directory.write_model(variables, (1,))
    log_p = jax.jit(target.log_prob)
    log_q = jax.jit(functools.partial(model.apply, variables, method="log_prob"))
    ends = [-FAR], [FAR]
    results = {
        "kl": metrics.expectation(log_p, lambda x: log_p(x) - log_q(x), *ends, 10_000),
        "entropy": metrics.expectation(log_p, lambda x: -log_p(x), *ends, 10_000),
        "log_likelihood": metrics.expectation(log_p, log_q, *ends, 10_000),
        "mass": float(np.exp(metrics.log_integral(log_q, *ends, 10_000))),
    }
    if training.is_first():
        _figures.save_all(directory, make_figures(config, model, variables))
    return _cli.Result(train.steps, results)
