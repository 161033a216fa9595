"""Log-likelihoods of latent-variable models by annealed importance sampling (Wu et al. 2017)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from vaeflow._util.arrays import row_keys
from vaeflow.distributions import Concrete
from vaeflow.distributions.grouped import groups_of
from vaeflow.metrics.likelihood import numbered_keys

_ACCEPTANCE = 0.65
_FIRST_STEP_SIZE = 0.5
# Change of the log of the step size for each unit of acceptance too much.
_ADAPTATION = 0.1
# Factors of the step size, sampled for each trajectory: trajectories of one length may return to
# their start.
_STEP_SIZES = 0.7, 1.3
# Steepness of the temperatures' sigmoid.
_STEEPNESS = 4.0

# From latents to log p(z) and log p(x | z), [chain, batch] each.
Densities = Callable[[Array], tuple[Array, Array]]


class _State(NamedTuple):
    z: Float[Array, "chain batch latent"]
    log_likelihood: Float[Array, "chain batch"]
    log_weights: Float[Array, "chain batch"]
    log_step_size: Float[Array, " batch"]


def annealed_importance_log_likelihood(
    model: nn.Module,
    variables: dict[str, Any],
    images: UInt8[Array, "batch height width channel"],
    rng: Array,
    *,
    num_chains: int = 16,
    num_temperatures: int = 1000,
    num_leapfrog_steps: int = 10,
    context: Array | None = None,
) -> Float[Array, " batch"]:
    r"""Estimates log p(x) of each image by annealed importance sampling (AIS).

    Chains start at samples of the prior and pass the densities f_t(z) = p(z) p(x | z)^(b_t) by
    Hamiltonian Monte Carlo, the temperatures b_t rising from 0 to 1 along a sigmoid. A chain has
    the log-weight sum_t (b_t - b_(t-1)) log p(x | z_(t-1)), and the estimate is log mean w. With
    one temperature it is importance sampling from the prior.

    The path starts at the prior and not at q(z | x), though Wu et al. allow both: the prior covers
    the posterior, while a q that misses some of it gives weights of a heavy tail, and an estimate
    without the encoder can evaluate bounds that have one. q needs no density.

    The step size of an image adapts to an acceptance of 0.65, by a further chain that has no part
    in the estimate. If chains adapted to their past, their kernels would depend on their
    states and no longer leave f_t invariant. Given the further chain, every kernel leaves its f_t
    invariant, so that the mean of w is p(x), whatever the step sizes. The estimate is a
    lower bound on average, which rises with the number of chains.

    An image is observed once, so one that is binarised is the same for all chains. Pure, for use
    within compiled functions. It takes (num_chains + 1) num_temperatures
    (num_leapfrog_steps + 1) gradients of the decoder an image; memory grows with the chains alone.

    Source: Neal 2001, "Annealed importance sampling"; Wu, Burda, Salakhutdinov & Grosse 2017, "On
    the quantitative analysis of decoder-based generative models", section 3.

    Args:
      model: A `vaeflow.models.VAE`, or a module with its `observe`, `prior` and `likelihood`, whose
        latents are continuous and whose prior has samples and a density of which there are
        gradients.
      variables: The model's variables.
      images: Images of dtype uint8.
      rng: A typed key, or one for each row.
      num_chains: Number of chains of each image.
      num_temperatures: Number of steps from 0 to 1; some hundreds at least, for a step size to
        settle.
      num_leapfrog_steps: Steps of each Hamiltonian trajectory.
      context: Labels ``[batch]``, or None.

    Returns:
      Nats of each image, ``[batch]``; divided by -D log 2 they are bits/dim.

    Raises:
      ValueError: If a number isn't positive, or there are `vaeflow.distributions.Concrete` latents.
    """
    if min(num_chains, num_temperatures, num_leapfrog_steps) < 1:
        raise ValueError(
            "num_chains, num_temperatures and num_leapfrog_steps must be at least 1, got "
            f"{num_chains}, {num_temperatures} and {num_leapfrog_steps}"
        )
    keys = row_keys(rng, images.shape[0])
    values, log_det = model.apply(variables, images, numbered_keys(keys, 0), method="observe")
    prior = model.apply(variables, context=context, method="prior")
    if any(isinstance(part, Concrete) for part in groups_of(prior).values()):
        raise ValueError("latents must be continuous for AIS, got Concrete ones")

    def start(key: Array, label: Array | None) -> Array:
        of_row = model.apply(variables, context=label, method="prior")
        return of_row.sample(seed=key, sample_shape=num_chains + 1)

    def densities(z: Array) -> tuple[Array, Array]:
        likelihood = model.apply(variables, z, context=context, method="likelihood")
        return prior.log_prob(z), likelihood.log_prob(values)

    def anneal(state: _State, now: tuple[Array, Array, Array]) -> tuple[_State, None]:
        number, beta, rise = now
        log_weights = state.log_weights + rise * state.log_likelihood
        z, log_likelihood, acceptance = _transition(
            densities,
            state.z,
            numbered_keys(keys, number),
            beta,
            jnp.exp(state.log_step_size),
            num_leapfrog_steps,
        )
        # By the first chain, which isn't counted.
        change = _ADAPTATION * (acceptance[0] - _ACCEPTANCE)
        return _State(z, log_likelihood, log_weights, state.log_step_size + change), None

    z = jax.vmap(start, out_axes=1)(numbered_keys(keys, 1), context)
    log_likelihood = densities(z)[1]
    first = _State(
        z,
        log_likelihood,
        jnp.zeros_like(log_likelihood),
        jnp.full(images.shape[0], math.log(_FIRST_STEP_SIZE), jnp.float32),
    )
    betas = _temperatures(num_temperatures)
    numbers = jnp.arange(2, num_temperatures + 2)
    schedule = numbers, jnp.float32(betas[1:]), jnp.float32(np.diff(betas))
    last = jax.lax.scan(anneal, first, schedule)[0]
    total = jax.nn.logsumexp(last.log_weights[1:], axis=0)
    return total - math.log(num_chains) + log_det


def _temperatures(count: int) -> Float[np.ndarray, " temperature"]:
    """Values from 0 to 1 along a sigmoid, closest together at both ends."""
    raw = 1 / (1 + np.exp(-_STEEPNESS * np.linspace(-1, 1, count + 1)))
    return (raw - raw[0]) / (raw[-1] - raw[0])


def _transition(
    densities: Densities, z: Array, keys: Array, beta: Array, step_size: Array, steps: int
) -> tuple[Array, Array, Array]:
    """One trajectory of Hamiltonian Monte Carlo that leaves p(z) p(x | z)^beta invariant.

    Returns:
      The latents, their log p(x | z), and the probability with which the end was accepted, 0 where
      the energy isn't a number.
    """

    def log_target(z: Array) -> tuple[Array, tuple[Array, Array]]:
        log_prior, log_likelihood = densities(z)
        value = log_prior + beta * log_likelihood
        return jnp.sum(value), (value, log_likelihood)

    def leap(carry: tuple, _: None) -> tuple[tuple, None]:
        z, momentum, (gradient, _) = carry
        momentum = momentum + 0.5 * size * gradient
        z = z + size * momentum
        evaluated = evaluate(z)
        return (z, momentum + 0.5 * size * evaluated[0], evaluated), None

    def sample_noise(key: Array) -> tuple[Array, Array, Array]:
        first, second, third = jax.random.split(key, 3)
        chains, _, latents = z.shape
        return (
            jax.random.normal(first, (chains, latents), z.dtype),
            jax.random.uniform(second, (chains,), jnp.float32),
            jax.random.uniform(third, (chains, 1), z.dtype, *_STEP_SIZES),
        )

    evaluate = jax.grad(log_target, has_aux=True)
    momentum, uniform, factor = jax.vmap(sample_noise, out_axes=1)(keys)
    size = factor * step_size[:, None].astype(z.dtype)
    begin = evaluate(z)
    (moved, end_momentum, end), _ = jax.lax.scan(leap, (z, momentum, begin), length=steps)
    log_ratio = end[1][0] - begin[1][0] + 0.5 * jnp.sum(momentum**2 - end_momentum**2, axis=-1)
    acceptance = jnp.nan_to_num(jnp.exp(jnp.minimum(log_ratio, 0)), nan=0.0)
    accepted = uniform < acceptance
    return (
        jnp.where(accepted[..., None], moved, z),
        jnp.where(accepted, end[1][1], begin[1][1]),
        acceptance,
    )
