"""The change of variables in one dimension: the preset one-d of `density_2d`.

Fits a chain of steps to a mixture of Gaussians by maximum likelihood, on samples drawn anew at
every step. Reports KL(p || q) by quadrature; draws the map with the densities on both of its sides,
and the density after each step.
"""

from __future__ import annotations

import dataclasses
import functools

import distrax
import jax
import jax.numpy as jnp
import numpy as np

import vaeflow as vf
from experiments import common
from experiments.vector_flows import FlowConfig, build
from vaeflow import distributions, losses, metrics, plotting, training

ENDS = (-4.5, 4.5)
"""What is drawn of the line."""
FAR = 12.0
"""How far the integrals go to both sides."""


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
        """Refuses a mixture that isn't one.

        Raises:
          ValueError: Naming the fields, the values given and what is allowed.
        """
        sizes = {len(self.weights), len(self.means), len(self.deviations)}
        if len(sizes) != 1 or min(*self.weights, *self.deviations, 1) <= 0 or sizes == {0}:
            raise ValueError(
                "weights, means and deviations must be as many, weights and deviations above 0, "
                f"got {self.weights}, {self.means} and {self.deviations}"
            )


def mixture(config: Config) -> distributions.Mixture:
    """The target, over vectors of one entry."""
    means, deviations = (
        jnp.asarray(values, jnp.float32)[:, None] for values in (config.means, config.deviations)
    )
    components = distrax.Independent(distrax.Normal(means, deviations), 1)
    return distributions.Mixture(jnp.log(jnp.asarray(config.weights)), components)


def negative_log_likelihood(model, variables, batch, rng, *, target, axis=vf.LOCAL, train=True):
    """That of samples of the target, drawn from the keys of the rows."""
    rows = vf.row_keys(rng, len(batch["index"]))
    points = jax.vmap(lambda key: target.sample(seed=key))(rows)
    return losses.negative_log_likelihood(
        model, variables, {"image": points}, rows, axis=axis, train=train
    )


def steps_of(model, variables, noise: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Values after each step of the flow, noise first, and the densities at them.

    Args:
      model: A model of vectors of one entry.
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


def draw(config: Config, model, variables, directory: training.RunDirectory) -> None:
    """Saves the figures."""
    noise = jnp.linspace(-4.0, 4.0, 2001)
    found = jax.jit(functools.partial(steps_of, model))(variables, noise)
    pairs = list(zip(*map(np.asarray, found), strict=True))
    line = np.linspace(*ENDS, 1000, dtype=np.float32)
    exact = line, np.exp(np.asarray(mixture(config).log_prob(line[:, None])))
    edges = jax.scipy.stats.norm.ppf(jnp.arange(1, 16) / 16)
    plotting.save_figure(
        directory.figures / "change_of_volume.png",
        plotting.change_of_variables(pairs[0], pairs[-1], edges, exact),
    )
    titles = ["noise", *(f"after step {step}" for step in range(1, len(pairs)))]
    plotting.save_figure(
        directory.figures / "steps.png", plotting.densities_by_step(pairs, titles, exact)
    )


def run(config: Config, directory: training.RunDirectory) -> common.Result:
    """Trains, measures and draws."""
    target = mixture(config)
    model = build(config.model, (1,))
    train = config.train

    @jax.jit
    def initialize():
        keys = jax.random.split(jax.random.key(train.seed))
        return model.init(keys[0], target.sample(seed=keys[1], sample_shape=1000))

    variables = training.fit(
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
    found = {
        "kl": metrics.expectation(log_p, lambda x: log_p(x) - log_q(x), *ends, 10_000),
        "entropy": metrics.expectation(log_p, lambda x: -log_p(x), *ends, 10_000),
        "log_likelihood": metrics.expectation(log_p, log_q, *ends, 10_000),
        "mass": float(np.exp(metrics.log_integral(log_q, *ends, 10_000))),
    }
    if training.is_first():
        draw(config, model, variables, directory)
    return common.Result(train.steps, found)


PRESET = common.Preset(
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
    yields="The change of variables in one dimension: planar maps on a mixture of three Gaussians, "
    "drawn with the densities on both sides of the map, and after each step.",
    cost="half a minute on 2 CPU cores",
    expected={"kl": common.Expected(0.006, "our run, seed 0")},
)
