"""Backpropagation by inversion: exact enough, and cheap in memory whatever the depth."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests import makers
from vaeflow import flows

SHAPE = (8, 8, 3)
AS_USERS_COMPILE = (pytest.mark.slow, pytest.mark.optimized)


def images(key, count=4):
    """Smooth images with a little noise, so that there is something to learn."""
    coarse = jax.random.normal(key, (count, 2, 2, 3))
    smooth = jax.image.resize(coarse, (count, *SHAPE), "linear")
    return smooth + 0.1 * jax.random.normal(jax.random.fold_in(key, 1), smooth.shape)


IMAGES = np.asarray(jax.jit(images)(jax.random.key(0)))


def glow(steps, **options):
    return flows.Glow(SHAPE, num_levels=1, num_steps=steps, hidden_features=16, **options)


def negative_log_likelihood(flow, variables, x):
    noise, log_det = flow.apply(variables).inverse_and_log_det(x)
    return jnp.mean(jnp.sum(noise**2, -1) / 2 - log_det) / noise.shape[-1]


def sampled_energy(flow, variables, noise):
    x, log_det = flow.apply(variables).forward_and_log_det(noise)
    return jnp.mean(jnp.sum(jnp.sin(x), (1, 2, 3)) + log_det) / noise.shape[-1]


@functools.cache
def trained(steps):
    """Parameters after a few updates, when no layer is at its initial value any more."""
    flow = glow(steps)
    optimizer = optax.adam(1e-3)

    @jax.jit
    def train(x):
        variables = flow.init(jax.random.key(1), data=x)

        def update(carry, key):
            variables, state = carry
            objective = functools.partial(negative_log_likelihood, flow)
            gradient = jax.grad(objective)(variables, images(key))
            updates, state = optimizer.update(gradient, state)
            return (optax.apply_updates(variables, updates), state), None

        keys = jax.random.split(jax.random.key(2), 100)
        return jax.lax.scan(update, (variables, optimizer.init(variables)), keys)[0][0]

    return train(IMAGES)


def gradient(flow, objective, variables, x):
    return jax.jit(jax.grad(functools.partial(objective, flow)))(variables, x)


def norm(tree):
    return np.sqrt(sum(np.sum(np.square(np.float64(leaf))) for leaf in jax.tree.leaves(tree)))


def distance(a, b):
    """Norm of the difference of two gradients over the norm of the second."""
    return norm(jax.tree.map(lambda a, b: np.float64(a) - b, a, b)) / norm(b)


@pytest.mark.parametrize(
    ("direction", "scale"),
    [
        ("density", 2.0),
        pytest.param("density", 1.0, marks=AS_USERS_COMPILE),
        pytest.param("density", 2.0, marks=AS_USERS_COMPILE, id="density-2.0-optimized"),
        pytest.param("sample", 1.0, marks=AS_USERS_COMPILE),
    ],
)
def test_gradient_is_as_exact_as_plain_backpropagation(scale, direction):
    variables = jax.tree.map(lambda leaf: leaf, trained(32))
    networks = variables["params"]["level_0"]["steps"]["coupling"]
    networks = {
        name: layer | {"kernel": scale * layer["kernel"]} for name, layer in networks.items()
    }
    variables["params"]["level_0"]["steps"]["coupling"] = networks
    objective, x = negative_log_likelihood, IMAGES
    if direction == "sample":
        objective = sampled_energy
        x = jax.jit(lambda variables, x: glow(32).apply(variables).inverse(x))(variables, IMAGES)
    plain = gradient(glow(32), objective, variables, x)
    reversible = gradient(glow(32, backward="reversible"), objective, variables, x)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), (variables, x))
        exact = gradient(glow(32, dtype=jnp.float64), objective, *wide)
        exact = jax.tree.map(np.asarray, exact)
    assert jax.tree.leaves(exact)[0].dtype == np.float64
    own_error = distance(plain, exact)
    assert 0 < own_error < 1e-2
    assert distance(reversible, exact) <= 2 * own_error


def temporaries(steps, **options):
    flow = flows.Glow((32, 32, 3), num_levels=1, num_steps=steps, hidden_features=128, **options)
    images = jax.ShapeDtypeStruct((16, 32, 32, 3), jnp.float32)
    variables = jax.eval_shape(lambda x: flow.init(jax.random.key(0), data=x), images)
    step = jax.jit(jax.grad(functools.partial(negative_log_likelihood, flow)))
    return step.lower(variables, images).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.slow
@pytest.mark.optimized
def test_temporary_memory_hardly_grows_with_depth():
    assert temporaries(32, backward="reversible") <= 1.25 * temporaries(8, backward="reversible")
    plain = temporaries(16)
    assert temporaries(16, backward="reversible") <= plain / 5
    assert temporaries(16, backward="remat") <= plain / 2


@pytest.mark.slow
def test_program_does_not_grow_with_depth():
    def sizes(steps, *options):
        variables = jax.eval_shape(lambda: glow(steps).init(jax.random.key(0), data=IMAGES))
        for option in options:
            objective = functools.partial(negative_log_likelihood, glow(steps, **option))
            yield len(jax.jit(jax.grad(objective)).lower(variables, IMAGES).as_text().splitlines())

    plain, reversible, unrolled = sizes(8, {}, {"backward": "reversible"}, {"scan": False})
    assert list(sizes(32, {}, {"backward": "reversible"})) == [plain, reversible]
    assert unrolled > 1.5 * plain


@functools.cache
def gradients_with_context(steps):
    """Gradients by parameters and context, plain and reversible; permutations are integers."""
    pair = glow(steps, plu=True), glow(steps, plu=True, backward="reversible")

    def loss(parameters, constants, context, flow):
        variables = {"params": parameters, "constants": constants}
        noise, log_det = flow.apply(variables, context=context).inverse_and_log_det(IMAGES)
        return jnp.mean(jnp.sum(noise**2, -1) / 2 - log_det)

    @jax.jit
    def gradients(context):
        variables = pair[0].init(jax.random.key(1), context=context, data=IMAGES)
        parameters = jax.tree.map(lambda leaf: leaf + 0.01, variables["params"])
        arguments = (parameters, variables["constants"], context)
        return [jax.grad(loss, (0, 2))(*arguments, flow) for flow in pair]

    context = np.random.default_rng(2).normal(size=(4, 2)).astype(np.float32)
    return jax.device_get(gradients(context))


@pytest.mark.parametrize(
    "steps", [*(pytest.param(n, marks=pytest.mark.slow) for n in (1, 3, 8)), 11]
)
def test_any_depth_with_context_and_its_cotangent(steps):
    plain, reversible = gradients_with_context(steps)
    assert norm(plain[1]) > 1e-3
    assert distance(reversible[0], plain[0]) < 1e-4
    assert distance(reversible[1], plain[1]) < 1e-4


def stack_and_point(**options):
    """A sum of sines of a stack's outputs, and its arguments: the stack and an input."""

    def value(bijector, x):
        return sum(jnp.sum(jnp.sin(part)) for part in bijector.forward_and_log_det(x))

    return value, makers.scan(**options)(jax.random.key(3)), makers.numbers(jax.random.key(4), 4)


FORWARD = {
    "jvp": lambda f, x: jax.jvp(f, (x,), (x,)),
    "jvp of compiled": lambda f, x: jax.jvp(jax.jit(f), (x,), (x,)),
    "jacfwd": lambda f, x: jax.jacfwd(f)(x),
    "in a scan": lambda f, x: jax.jvp(
        lambda x: jax.lax.scan(lambda x, _: (x * f(x), None), x, length=2)[0], (x,), (x,)
    ),
    "gradient of jvp": lambda f, x: jax.grad(lambda x: jax.jvp(f, (x,), (x,))[1])(x),
    "linearize": lambda f, x: jax.linearize(f, x)[1](x),
}


REFUSED = '^Scan: backward="reversible" has no forward-mode derivatives'


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", FORWARD)
def test_forward_mode_raises(name, compiled):
    value, bijector, x = stack_and_point(backward="reversible")
    differentiate = functools.partial(FORWARD[name], functools.partial(value, bijector))
    with pytest.raises(TypeError, match=REFUSED):
        (jax.jit(differentiate) if compiled else differentiate)(x)


def test_forward_mode_by_parameters_raises():
    value, bijector, x = stack_and_point(backward="reversible")
    change = jax.tree.map(jnp.ones_like, bijector)
    with pytest.raises(TypeError, match=REFUSED):
        jax.jit(lambda b: jax.jvp(lambda b: value(b, x), (b,), (change,)))(bijector)


@pytest.mark.slow
def test_derivatives_of_gradients_and_of_batches_equal_plain_ones():
    def derivatives(x):
        for options in ({}, {"backward": "reversible", "segment": 2}):
            value, bijector, _ = stack_and_point(**options)
            of_x = functools.partial(value, bijector)
            mapped = jax.vmap(jax.jit(of_x))
            yield (
                jax.hessian(of_x)(x),
                jax.jvp(jax.grad(lambda b, v=value: v(b, x)), (bijector,), (bijector,))[1],
                jax.grad(lambda x, f=of_x: jnp.sum(jax.grad(f)(x) ** 2))(x),
                jax.grad(lambda x, f=mapped: jnp.sum(f(jnp.stack([x, 2 * x]))))(x),
                jax.vmap(jax.grad(of_x))(jnp.stack([x, 2 * x])),
            )

    plain, reversible = (
        jax.tree.leaves(each)
        for each in jax.jit(lambda x: list(derivatives(x)))(stack_and_point()[2])
    )
    for found, expected in zip(reversible, plain, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
