"""Functions with a derivative of their own, under every transformation."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaeflow import flows, models
from vaeflow._util.derivatives import CustomJVP


@functools.partial(CustomJVP, nondiff_argnums=(0,))
def root(power, number, scales):
    """The positive x with x^power = number, times the scales, by bisection."""
    lower, upper = jnp.zeros_like(number), jnp.maximum(number, 1.0)

    def halve(_, ends):
        middle = (ends[0] + ends[1]) / 2
        below = middle**power < number
        return jnp.where(below, middle, ends[0]), jnp.where(below, ends[1], middle)

    lower, upper = jax.lax.fori_loop(0, 40, halve, (lower, upper))
    return {"root": (lower + upper) / 2 * scales["scale"], "sign": scales["sign"]}


@root.defjvp
def _root_jvp(power, primals, tangents):
    number, scales = primals
    result = root(power, number, scales)
    x = result["root"] / scales["scale"]
    change = tangents[0] / (power * x ** (power - 1)) * scales["scale"]
    change = change + x * tangents[1]["scale"]
    return result, {"root": change, "sign": tangents[1]["sign"]}


def exact(number, scale):
    return jnp.cbrt(number) * scale


def approximate(number, scale):
    return root(3, number, {"scale": scale, "sign": jnp.int32(1)})["root"]


def in_a_scan(function):
    def value(number, scale):
        def step(carry, factor):
            return function(carry * factor + 1.0, scale), None

        return jax.lax.scan(step, number, jnp.array([0.5, 2.0]))[0]

    return value


@pytest.mark.parametrize("scanned", [False, True])
def test_derivatives_of_every_mode_and_order(scanned):
    wanted, got = (in_a_scan(f) if scanned else f for f in (exact, approximate))
    point = (jnp.float32(2.0), jnp.float32(0.7))
    both = (0, 1)
    transforms = {
        "value": lambda f: f,
        "backward": lambda f: jax.grad(f, both),
        "forward": lambda f: jax.jacfwd(f, both),
        "forward over backward": lambda f: jax.hessian(f, both),
        "backward over backward": lambda f: jax.jacrev(jax.grad(f, both), both),
        "forward over forward": lambda f: jax.jacfwd(jax.jacfwd(f, both), both),
    }
    found, expected = jax.jit(
        lambda *point: tuple(
            {name: transform(f)(*point) for name, transform in transforms.items()}
            for f in (got, wanted)
        )
    )(*point)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), found, expected
    )


def test_mapped_over_one_argument_and_differentiated():
    numbers, scale = jnp.linspace(0.5, 3.0, 5), jnp.float32(0.7)

    @jax.jit
    def derivatives(numbers, scale):
        return [
            jax.vmap(jax.value_and_grad(function, (0, 1)), (0, None))(numbers, scale)
            + jax.value_and_grad(
                lambda n, s, f=function: jnp.sum(jax.vmap(f, (0, None))(n, s)), (0, 1)
            )(numbers, scale)
            + jax.jvp(jax.vmap(function, (0, None)), (numbers, scale), (numbers, scale))
            for function in (approximate, exact)
        ]

    found, expected = derivatives(numbers, scale)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4), found, expected)


FLOWS = {
    "planar": flows.PlanarFlow((2,), num_steps=2),
    "real-nvp": flows.RealNVP((2,), num_steps=2, hidden_features=4),
    "masked": flows.MaskedAutoregressiveFlow((2,), num_steps=2, hidden_sizes=(4,)),
    "inverse-autoregressive": flows.InverseAutoregressiveFlow((2,), num_steps=2, hidden_sizes=(4,)),
    "spline": flows.NeuralSplineFlow((2,), num_steps=2, hidden_sizes=(4,)),
    "sylvester": flows.SylvesterFlow((2,), num_steps=2),
    "residual": flows.ResidualFlow((2,), num_steps=2, hidden_sizes=(4,)),
    "block": flows.BlockAutoregressiveFlow((2,), num_steps=2),
    "gaussianization": flows.GaussianizationFlow((2,), num_steps=2),
    "glow": flows.Glow((2, 2, 2), num_levels=1, num_steps=2, hidden_features=4),
}


@pytest.mark.parametrize(
    "name", ["planar", *(pytest.param(name, marks=pytest.mark.slow) for name in list(FLOWS)[1:])]
)
def test_hessian_of_a_log_density(name):
    model = models.FlowModel(FLOWS[name])
    generator = np.random.default_rng(0)
    shape = FLOWS[name].event_shape
    data = jnp.asarray(generator.normal(size=(4, *shape)), jnp.float32)
    variables = jax.jit(model.init)(jax.random.key(0), data)

    def moved(leaf):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        return leaf + 0.03 * jnp.asarray(generator.normal(size=leaf.shape), leaf.dtype)

    variables = jax.tree.map(moved, variables)
    point = jnp.asarray(0.5 * generator.normal(size=shape), jnp.float32)

    @jax.jit
    def derivatives(variables, point):
        def log_prob(x):
            return model.apply(variables).log_prob(x)

        size, step = point.size, 5e-3
        moves = step * jnp.eye(size).reshape(size, *shape)
        ends = jax.vmap(jax.grad(log_prob))(jnp.concatenate([point + moves, point - moves]))
        ends = ends.reshape(2, size, size)
        hessian = jax.hessian(log_prob)(point).reshape(size, size)
        forward = jax.jacfwd(log_prob)(point)
        return hessian, (ends[0] - ends[1]) / (2 * step), forward, jax.grad(log_prob)(point)

    hessian, differences, forward, backward = derivatives(variables, point)
    np.testing.assert_allclose(forward, backward, rtol=1e-3, atol=1e-4)
    size = np.linalg.norm(differences)
    assert np.linalg.norm(hessian - hessian.T) <= 1e-3 * size + 1e-3
    assert np.linalg.norm(hessian - differences) <= 0.05 * size + 0.02, (hessian, differences)
