"""BlackJAX, and other samplers of log-densities: the pullback of a log-density through a flow.

::

    pullback = pull_back(log_density, flow)
    chains = nuts(pullback, variables, key, num_samples=1000)
    chains.samples      # in data space, [chain, draw, *event]

With z = noise and x = f(z), the pullback of log p is log p(f(z)) + log|det df/dz|. The better the
flow fits p, the closer it is to a standard normal, in which samplers move with ease. It is needed
up to a constant only.

`pull_back` needs JAX alone; `nuts` needs BlackJAX, from the extra ``vaeflow[interop]``.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow._util.checks import as_array, check_count, check_keys, check_number, check_part
from vaeflow._util.files import optional_import
from vaeflow.models.preprocessing import FLOW_ATTRIBUTES

__all__ = ["Chains", "Evaluation", "Pullback", "nuts", "pull_back"]

PyTree = Any
LogDensity = Callable[[Array], Array]


class Evaluation(NamedTuple):
    """A pullback at one point.

    Attributes:
      value: The log-density of the noise in nats, up to the constant of the log-density of data.
      gradient: Its gradient with respect to the noise, ``[*noise]``.
      position: The point in data space, ``[*event]``.
    """

    value: Float[Array, ""]
    gradient: Float[Array, " *noise"]
    position: Float[Array, " *event"]


@dataclasses.dataclass(frozen=True)
class Pullback:
    """The pullback of a log-density through a flow; `pull_back` builds it.

    Methods are compiled, for one point; `jax.vmap` gives those of several. The variables are an
    argument: others of the same shapes don't compile again, and pullbacks of equal flows and the
    same log-density share what was compiled.

    Attributes:
      log_density: log p, a pure function from one point of data space ``[*event]`` to nats.
      flow: The flow.
    """

    log_density: LogDensity
    flow: nn.Module

    @functools.partial(jax.jit, static_argnums=0)
    def __call__(
        self, variables: PyTree, noise: Float[Array, " *noise"], context: Array | None = None
    ) -> Float[Array, ""]:
        """Computes log p(f(z)) + log|det df/dz| in nats.

        Args:
          variables: The variables of the flow.
          noise: z, one point.
          context: One context, without batch axes, or None.
        """
        return self._with_position(variables, noise, context)[0]

    @functools.partial(jax.jit, static_argnums=0)
    def value_and_gradient(
        self, variables: PyTree, noise: Float[Array, " *noise"], context: Array | None = None
    ) -> Evaluation:
        """Computes the value, its gradient with respect to the noise, and the position in data.

        All come from one pass through the flow and back, which is all that a sampler with a loop of
        its own needs at a point. Arguments as in a call.
        """

        def of_noise(noise: Array) -> tuple[Array, Array]:
            return self._with_position(variables, noise, context)

        (value, position), gradient = jax.value_and_grad(of_noise, has_aux=True)(noise)
        return Evaluation(value, gradient, position)

    @functools.partial(jax.jit, static_argnums=0)
    def to_data(
        self,
        variables: PyTree,
        noise: Float[Array, "*batch_and_noise"],
        context: Array | None = None,
    ) -> Float[Array, "*batch_and_event"]:
        """Maps noise to data, with any number of batch axes."""
        return self.flow.apply(variables, context=context).forward(noise)

    @functools.partial(jax.jit, static_argnums=0)
    def to_noise(
        self,
        variables: PyTree,
        data: Float[Array, "*batch_and_event"],
        context: Array | None = None,
    ) -> Float[Array, "*batch_and_noise"]:
        """Maps data to noise, with any number of batch axes."""
        return self.flow.apply(variables, context=context).inverse(data)

    def _with_position(self, variables: PyTree, noise: Array, context: Array | None):
        bijector = self.flow.apply(variables, context=context)
        position, log_det = bijector.forward_and_log_det(noise)
        value = self.log_density(position)
        if jnp.shape(value) != ():
            raise ValueError(
                f"log_density must return a scalar for one point of shape {position.shape}, got "
                f"shape {jnp.shape(value)}"
            )
        return value + log_det, position


def pull_back(log_density: LogDensity, flow: nn.Module) -> Pullback:
    """Builds the pullback of a log-density through a flow: z to log p(f(z)) + log|det df/dz|.

    Source: Parno & Marzouk 2018, "Transport map accelerated Markov chain Monte Carlo"; Hoffman et
    al. 2019, "NeuTra-lizing bad geometry in Hamiltonian Monte Carlo using neural transport".

    Args:
      log_density: log p up to a constant, a pure function from one point ``[*event]`` to nats.
      flow: A module of `vaeflow.flows`. Its forward direction is passed at each evaluation.

    Raises:
      ValueError: If the log-density isn't a function, or the flow isn't one.
    """
    if not callable(log_density):
        raise ValueError(
            f"log_density must be a function of one point, got a {type(log_density).__name__}"
        )
    check_part("flow", flow, "a flow", FLOW_ATTRIBUTES)
    return Pullback(log_density, flow)


class Chains(NamedTuple):
    """Chains of a sampler; every array is ``[chain, draw, ...]``, but for those of the adaptation.

    Attributes:
      samples: Positions in data space, ``[chain, draw, *event]``.
      noise: The same positions in the flow's space, ``[chain, draw, *noise]``.
      statistics: Of each draw, by the names that ArviZ knows: "diverging", "acceptance_rate",
        "n_steps" (gradients of its trajectory), "tree_depth", "energy" and "lp" (the pullback, in
        nats).
      step_size: Of each chain after the adaptation, ``[chain]``.
      inverse_mass_matrix: Its diagonal, ``[chain, dimension]``.
    """

    samples: Float[Array, "chain draw *event"]
    noise: Float[Array, "chain draw *noise"]
    statistics: dict[str, Array]
    step_size: Float[Array, " chain"]
    inverse_mass_matrix: Float[Array, "chain dimension"]


def nuts(
    pullback: Pullback,
    variables: PyTree,
    rng: Array,
    *,
    num_samples: int = 1000,
    num_warmup: int = 1000,
    num_chains: int = 4,
    target_acceptance_rate: float = 0.8,
    initial: Float[Array, "chain *event"] | None = None,
    context: Array | None = None,
) -> Chains:
    """Samples a density by NUTS in the space of a flow's noise, and maps the samples to data space.

    Each chain adapts its step size and a diagonal mass matrix in windows, then samples with both
    fixed. All chains run in step, in one compiled program, which is used again for other variables
    of the same shapes.

    Source: Hoffman & Gelman 2014, "The no-U-turn sampler".

    Args:
      pullback: Of the density, by `pull_back`.
      variables: The variables of the flow.
      rng: A typed key.
      num_samples: Number of draws of each chain after the adaptation.
      num_warmup: Number of steps of the adaptation, which aren't returned.
      num_chains: Number of chains.
      target_acceptance_rate: Acceptance rate that the step size is adapted to.
      initial: Points in data space to start from; None to start from standard normal noise, which
        are samples of the flow.
      context: One context for all, without batch axes, or None.

    Raises:
      ValueError: If BlackJAX isn't installed, the key isn't typed, a number is out of range, or the
        initial points aren't one a chain.
    """
    optional_import("blackjax", "vaeflow.interop.blackjax.nuts", extra="interop")
    rng = check_keys(rng)
    for name, count in (("num_samples", num_samples), ("num_chains", num_chains)):
        check_count(name, count)
    check_count("num_warmup", num_warmup, 20)
    if not 0 < check_number("target_acceptance_rate", target_acceptance_rate) < 1:
        raise ValueError(
            f"target_acceptance_rate must be between 0 and 1, got {target_acceptance_rate}"
        )
    if initial is not None:
        initial = as_array("initial", initial)
        expected = (num_chains, *pullback.flow.event_shape)
        if initial.shape != expected:
            raise ValueError(
                f"initial must have shape {expected}, one point a chain, got {initial.shape}"
            )
    return _run(
        pullback,
        (num_samples, num_warmup, num_chains),
        variables,
        rng,
        target_acceptance_rate,
        initial,
        context,
    )


@functools.partial(jax.jit, static_argnums=(0, 1))
def _run(
    pullback: Pullback,
    counts: tuple[int, int, int],
    variables: PyTree,
    rng: Array,
    target_acceptance_rate: Array,
    initial: Array | None,
    context: Array | None,
) -> Chains:
    import blackjax

    num_samples, num_warmup, num_chains = counts
    key, *keys = jax.random.split(rng, num_chains + 1)
    if initial is None:
        start = jax.random.normal(key, (num_chains, *pullback.flow.noise_shape))
    else:
        start = pullback.to_noise(variables, initial, context)

    def log_density(noise: Array) -> Array:
        return pullback(variables, noise, context)

    def chain(key: Array, noise: Array) -> tuple[Array, dict[str, Array], Array, Array]:
        adapting, sampling = jax.random.split(key)
        adaptation = blackjax.window_adaptation(
            blackjax.nuts,
            log_density,
            target_acceptance_rate=target_acceptance_rate,
            # Everything else of each step would be kept: trajectories, momenta.
            adaptation_info_fn=lambda state, info, adaptation: None,
        )
        (state, parameters), _ = adaptation.run(adapting, noise, num_warmup)
        step = blackjax.nuts(log_density, **parameters).step

        def body(state: Any, key: Array) -> tuple[Any, tuple[Array, dict[str, Array]]]:
            state, info = step(key, state)
            return state, (state.position, _statistics(state, info))

        _, (noise, statistics) = jax.lax.scan(body, state, jax.random.split(sampling, num_samples))
        return noise, statistics, parameters["step_size"], parameters["inverse_mass_matrix"]

    noise, statistics, step_size, inverse_mass_matrix = jax.vmap(chain)(jnp.stack(keys), start)
    samples = pullback.to_data(variables, noise, context)
    return Chains(samples, noise, statistics, step_size, inverse_mass_matrix)


def _statistics(state: Any, info: Any) -> dict[str, Array]:
    return {
        "acceptance_rate": info.acceptance_rate,
        "diverging": info.is_divergent,
        "energy": info.energy,
        "lp": state.logdensity,
        "n_steps": info.num_integration_steps,
        "tree_depth": info.num_trajectory_expansions,
    }
