"""NUTS on Neal's funnel and a banana, by NumPyro and by BlackJAX, with and without a flow.

With a flow, NUTS moves in the space of its noise: by `NeuTraReparam` of a `FlowGuide` that SVI
trained, or by the pullback of the log-density through a flow trained by `reverse_kl`. Both train
the same RealNVP with the same number of steps and samples. Chains run in step,
and every program is compiled by a call before the one that is timed.
"""

from __future__ import annotations

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import arviz
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import tyro
from numpyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from numpyro.infer.reparam import NeuTraReparam

import vaeflow as vf
from benchmarks.report import machine, table
from vaeflow import interop

FUNNEL_DEVIATION = 3.0
SPREAD, CURVATURE = 2.0, 0.5
COLUMNS = (
    *("target", "sampler", "flow", "KL, nats", "training, s", "compiling, s", "sampling, s"),
    *("gradients a draw", "diverging", "largest R-hat", "least ESS", "ESS a second"),
    *("first: mean", "deviation", "second: mean", "deviation"),
)


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the benchmark."""

    targets: tuple[Literal["funnel", "banana"], ...] = ("funnel", "banana")
    """Densities. funnel: v ~ N(0, 9), the others N(0, exp(v)) given v. banana: x_1 ~ N(0, 4), and
    x_2 ~ N((x_1^2 - 4) / 2, 1) given x_1."""
    samplers: tuple[Literal["numpyro", "blackjax"], ...] = ("numpyro", "blackjax")
    """Libraries of NUTS."""
    dimension: int = 10
    """Dimensions of the funnel."""
    chains: int = 4
    """Chains of a run."""
    warmup: int = 500
    """Steps of the adaptation of a chain."""
    draws: int = 1000
    """Draws of a chain."""
    acceptance: float = 0.8
    """Acceptance rate that step sizes are adapted to."""
    steps: int = 6
    """Steps of the flow, affine couplings."""
    width: int = 64
    """Units of the hidden layer of each coupling network."""
    updates: int = 3000
    """Training steps of the flow."""
    batch_size: int = 128
    """Samples in a training step."""
    learning_rate: float = 5e-3
    """Largest learning rate, which follows a cosine to zero."""
    seeds: int = 3
    """Number of seeds."""

    def optimizer(self) -> optax.GradientTransformation:
        """Builds the optimiser."""
        rate = optax.cosine_decay_schedule(self.learning_rate, self.updates)
        return optax.chain(optax.clip_by_global_norm(10.0), optax.adam(rate))

    def flow(self, dimension: int) -> nn.Module:
        """Builds the flow."""
        return vf.flows.RealNVP(
            (dimension,), num_steps=self.steps, hidden_features=self.width, num_blocks=1
        )


class Target(NamedTuple):
    """A density in both forms, and two figures of a point with their means and deviations."""

    model: Callable[[], None]
    log_density: Callable[[jax.Array], jax.Array]
    dimension: int
    figures: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    means: tuple[float, float]
    deviations: tuple[float, float]


class Run(NamedTuple):
    """Chains ``[chain, draw, dimension]``, and what they took."""

    samples: np.ndarray
    diverging: np.ndarray
    gradients: float
    compiling: float
    sampling: float


class Identity(nn.Module):
    """The flow that leaves noise as it is."""

    event_shape: tuple[int, ...]
    num_classes: int | None = None
    context_ndims: int = 1

    @property
    def noise_shape(self) -> tuple[int, ...]:
        return self.event_shape

    def __call__(self, *, context: Any = None, data: Any = None) -> vf.bijectors.Bijector:
        zeros = jnp.zeros(self.event_shape)
        return vf.bijectors.ElementwiseAffine(zeros, zeros)


def funnel(dimension: int) -> Target:
    """Neal's funnel, normalised."""
    first = dist.Normal(0, FUNNEL_DEVIATION)

    def rest(v: jax.Array) -> dist.Distribution:
        return dist.Normal(jnp.zeros(dimension - 1), jnp.exp(v / 2)).to_event(1)

    def model() -> None:
        numpyro.sample("rest", rest(numpyro.sample("first", first)))

    def log_density(x: jax.Array) -> jax.Array:
        return first.log_prob(x[0]) + rest(x[0]).log_prob(x[1:])

    def figures(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # The deviation of x itself is that of values which no chain of this length visits.
        return samples[..., 0], np.log(np.abs(samples[..., -1]))

    # log|x| = v / 2 + log|e| for standard normal e.
    mean = -0.5 * (np.euler_gamma + np.log(2))
    deviation = np.sqrt(FUNNEL_DEVIATION**2 / 4 + np.pi**2 / 8)
    deviations = FUNNEL_DEVIATION, deviation
    return Target(model, log_density, dimension, figures, (0.0, mean), deviations)


def banana() -> Target:
    """The banana, normalised."""
    first = dist.Normal(0, SPREAD)

    def rest(x: jax.Array) -> dist.Distribution:
        return dist.Normal(CURVATURE * (x**2 - SPREAD**2), 1)

    def model() -> None:
        numpyro.sample("rest", rest(numpyro.sample("first", first)))

    def log_density(x: jax.Array) -> jax.Array:
        return first.log_prob(x[0]) + rest(x[0]).log_prob(x[1])

    def figures(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return samples[..., 0], samples[..., 1]

    deviations = SPREAD, np.sqrt(1 + 2 * CURVATURE**2 * SPREAD**4)
    return Target(model, log_density, 2, figures, (0.0, 0.0), deviations)


def twice(run: Callable[[jax.Array], Any], seed: int) -> tuple[Any, float, float]:
    """Calls a function that compiles, and again; returns the second result and both times."""
    seconds = []
    for number in (100, 200):
        began = time.perf_counter()
        result = jax.block_until_ready(run(jax.random.key(number + seed)))
        seconds.append(time.perf_counter() - began)
    return result, seconds[0] - seconds[1], seconds[1]


def by_numpyro(
    config: Config, target: Target, seed: int
) -> Iterator[tuple[str, float, float, Run]]:
    """Runs NumPyro's NUTS without and with a flow."""

    def sampled(model: Callable[[], None], unpack: Callable[[Any], Any]) -> Run:
        mcmc = MCMC(
            NUTS(model, target_accept_prob=config.acceptance),
            num_warmup=config.warmup,
            num_samples=config.draws,
            num_chains=config.chains,
            chain_method="vectorized",
            progress_bar=False,
        )

        @jax.jit  # `MCMC.run` compiles at every call
        def run(key: jax.Array) -> tuple[Any, Any]:
            mcmc.run(key, extra_fields=("diverging", "num_steps"))
            return mcmc.get_samples(group_by_chain=True), mcmc.get_extra_fields(group_by_chain=True)

        (samples, extra), compiling, sampling = twice(run, seed)
        sites = unpack(samples)
        rest = jnp.reshape(sites["rest"], (*sites["first"].shape, -1))
        samples = np.concatenate([sites["first"][..., None], rest], -1)
        gradients = float(np.mean(extra["num_steps"]))
        return Run(samples, np.asarray(extra["diverging"]), gradients, compiling, sampling)

    yield "no", np.nan, 0.0, sampled(target.model, lambda samples: samples)
    guide = interop.numpyro.FlowGuide(target.model, config.flow(target.dimension), seed=seed)
    bound = Trace_ELBO(num_particles=config.batch_size)
    svi = SVI(target.model, guide, config.optimizer(), bound)
    began = time.perf_counter()
    result = svi.run(jax.random.key(seed), config.updates, progress_bar=False)
    divergence = float(jnp.mean(result.losses[-200:]))
    training = time.perf_counter() - began
    neutra = NeuTraReparam(guide, result.params)
    run = sampled(
        neutra.reparam(target.model),
        lambda samples: neutra.transform_sample(samples["auto_shared_latent"]),
    )
    yield "yes", divergence, training, run


def by_blackjax(
    config: Config, target: Target, seed: int
) -> Iterator[tuple[str, float, float, Run]]:
    """Runs BlackJAX's NUTS without and with a flow."""

    def sampled(flow: nn.Module, variables: Any) -> Run:
        pullback = interop.blackjax.pull_back(target.log_density, flow)
        run = functools.partial(
            interop.blackjax.nuts,
            pullback,
            variables,
            num_samples=config.draws,
            num_warmup=config.warmup,
            num_chains=config.chains,
            target_acceptance_rate=config.acceptance,
        )
        chains, compiling, sampling = twice(run, seed)
        found = chains.statistics
        diverging, gradients = np.asarray(found["diverging"]), float(jnp.mean(found["n_steps"]))
        return Run(np.asarray(chains.samples), diverging, gradients, compiling, sampling)

    yield "no", np.nan, 0.0, sampled(Identity((target.dimension,)), {})
    flow, optimizer = config.flow(target.dimension), config.optimizer()
    model = vf.models.FlowModel(flow)

    @jax.jit
    def trained(key: jax.Array) -> tuple[vf.training.TrainState, jax.Array]:
        loss = functools.partial(
            vf.losses.reverse_kl, energy=lambda x: -jax.vmap(target.log_density)(x)
        )
        update = vf.training.make_update(model, loss, optimizer)
        state = vf.training.create_train_state(model.init(key), optimizer)
        batch = {"row": jnp.zeros(config.batch_size)}

        def step(state: vf.training.TrainState, key: jax.Array):
            state, metrics = update(state, batch, key)
            return state, metrics["free_energy"]

        return jax.lax.scan(step, state, jax.random.split(key, config.updates))

    began = time.perf_counter()
    state, free_energies = jax.block_until_ready(trained(jax.random.key(seed)))
    training = time.perf_counter() - began
    variables = {"params": vf.training.variables_of(state)["params"]["flow"]}
    divergence = float(jnp.mean(free_energies[-200:]))
    yield "yes", divergence, training, sampled(flow, variables)


def cells(results: list[tuple[float, float, Run]], target: Target) -> Iterator[str]:
    """Cells of a row: means over seeds, and the least and the largest of effective samples."""
    divergences, trainings, runs = zip(*results, strict=True)
    sizes, factors = [], []
    for run in runs:
        data = interop.arviz.from_chains(run.samples)
        sizes.append(float(np.min(arviz.ess(data)["x"].values)))
        factors.append(float(np.max(arviz.rhat(data)["x"].values)))
    rates = [size / run.sampling for size, run in zip(sizes, runs, strict=True)]
    yield "" if np.isnan(divergences[0]) else f"{statistics.mean(divergences):.3f}"
    yield f"{statistics.mean(trainings):.1f}"
    # Programs that take the flow's variables as an argument are compiled for the first seed alone.
    yield f"{max(run.compiling for run in runs):.1f}"
    for name in ("sampling", "gradients"):
        yield f"{statistics.mean(getattr(run, name) for run in runs):.1f}"
    yield f"{np.mean([run.diverging for run in runs]):.2%}"
    yield f"{max(factors):.3f}"
    yield f"{statistics.mean(sizes):.0f} ({min(sizes):.0f} to {max(sizes):.0f})"
    yield f"{statistics.mean(rates):.0f} ({min(rates):.0f} to {max(rates):.0f})"
    for place, (mean, deviation) in enumerate(zip(target.means, target.deviations, strict=True)):
        values = [target.figures(run.samples)[place] for run in runs]
        yield f"{np.mean(values):.2f} ({mean:.2f})"
        found = statistics.mean(float(np.std(each)) for each in values)
        yield f"{found:.2f} ({deviation:.2f})"


def main(config: Config) -> None:
    """Measures, and prints the table."""
    machine("jax", "flax", "numpy", "numpyro", "blackjax", "arviz")
    print(
        f"\n{config.chains} chains of {config.warmup} + {config.draws} steps; the flow has "
        f"{config.steps} steps, hidden {config.width}, {config.updates} updates of "
        f"{config.batch_size} samples; {config.seeds} seeds"
    )
    samplers = {"numpyro": by_numpyro, "blackjax": by_blackjax}

    def rows() -> Iterator[tuple[str, ...]]:
        for name in config.targets:
            for sampler in config.samplers:
                results: dict[str, list[tuple[float, float, Run]]] = {"no": [], "yes": []}
                target = funnel(config.dimension) if name == "funnel" else banana()
                for seed in range(config.seeds):
                    for flow, *result in samplers[sampler](config, target, seed):
                        results[flow].append(tuple(result))
                for flow, of_flow in results.items():
                    yield name, sampler, flow, *cells(of_flow, target)

    table(COLUMNS, rows())
    print(
        "ESS: bulk effective samples of the worst dimension, of all chains; a second of warm-up "
        "and draws together, compiled; in brackets the least and the largest of the seeds. Mean "
        "and deviation, with the truth in brackets: of v and log|x| of the funnel, of both "
        "dimensions of the banana."
    )


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
