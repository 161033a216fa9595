"""Masked autoregressive maps against inversion by one full pass for each dimension."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.makers_autoregressive import masked_autoregressive, network
from vaeflow import bijectors, nn

AFFINE = bijectors.AffineTransformer()
SPLINE = bijectors.SplineTransformer(num_bins=3)


def naive_inverse(bijector, y):
    """One full pass for each dimension."""
    x = jnp.zeros_like(y)
    for entry in range(y.shape[-1]):
        inverted = bijector.transformer(bijector.conditioner(x)).inverse(y)
        x = x.at[..., entry].set(inverted[..., entry])
    return x, bijector.transformer(bijector.conditioner(x)).inverse_and_log_det(y)[1]


class Step:
    """One layer of a deep stack, with the reversal between layers."""

    module = nn.MaskedMLP(43, num_parameters=2, hidden_sizes=(100, 100), parent=None)

    def __call__(self, variables, context):
        conditioner = bijectors.Conditioner(self.module, variables, context)
        step = bijectors.MaskedAutoregressive(conditioner, AFFINE)
        return bijectors.Chain([bijectors.Reverse(), step])


def deep_variables(depth=5):
    """Initial kernels, and small normal numbers for the last layers, which start at zero."""
    keys = jax.random.split(jax.random.key(0), depth)
    variables = jax.vmap(lambda key: Step.module.init(key, jnp.zeros((1, 43))))(keys)
    parameters = dict(variables["params"])
    shape = parameters["kernel_2"].shape
    parameters["kernel_2"] = 0.02 * jax.random.normal(keys[0], shape)
    parameters["bias_2"] = 0.1 * jax.random.normal(keys[1], parameters["bias_2"].shape)
    return {"params": parameters}


@pytest.mark.slow
def test_deep_wide_stack_inverts_like_full_passes():
    variables = jax.device_get(jax.jit(deep_variables)())
    stack = bijectors.Scan(Step(), variables)
    x = np.random.default_rng(1).normal(size=(64, 43)).astype(np.float32)
    y, log_det = jax.jit(stack.forward_and_log_det)(x)
    back, inverse_log_det = jax.jit(stack.inverse_and_log_det)(y)
    assert np.std(y - x[:, ::-1]) > 0.1
    np.testing.assert_allclose(back, x, atol=1e-5)
    np.testing.assert_allclose(inverse_log_det, -log_det, atol=1e-4)

    @jax.jit
    def naive(value, layer):
        return naive_inverse(Step()(layer, None).bijectors[1], value[..., ::-1])[0]

    for index in reversed(range(5)):
        y = naive(y, jax.tree.map(lambda leaf, index=index: leaf[index], variables))
    np.testing.assert_allclose(back, y, atol=1e-5)


@pytest.mark.parametrize(
    ("transformer", "entries", "hidden", "features"),
    [
        (AFFINE, 5, (7, 9), None),
        (SPLINE, 4, (16, 5), 2),
        pytest.param(AFFINE, 9, (3, 20, 11), 2, marks=pytest.mark.slow),
        (AFFINE, 1, (4,), None),
        (AFFINE, 1, (4, 4), 2),
    ],
)
def test_inverse_and_gradient_equal_full_passes(transformer, entries, hidden, features):
    keys = jax.random.split(jax.random.key(entries), 4)
    y = 2 * jax.random.normal(keys[0], (4, entries))
    context = None if features is None else jax.random.normal(keys[1], (4, features))
    conditioner = network(keys[2], entries, transformer.num_parameters, context, hidden)
    bijector = bijectors.MaskedAutoregressive(conditioner, transformer)
    weights = jax.random.normal(keys[3], y.shape)

    @functools.partial(jax.jit, static_argnums=0)
    @functools.partial(jax.value_and_grad, argnums=(1, 2), has_aux=True)
    def gradient(invert, bijector, y):
        x, log_det = invert(bijector, y)
        return jnp.sum(weights * x) + jnp.sum(weights[:, 0] * log_det), (x, log_det)

    got = gradient(bijectors.MaskedAutoregressive.inverse_and_log_det, bijector, y)
    expected = gradient(naive_inverse, bijector, y)
    for ours, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("direction", ["forward_and_log_det", "inverse_and_log_det"])
def test_jacobian_is_triangular(direction):
    bijector = masked_autoregressive(5, SPLINE)(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (5,))
    jacobian = jax.jit(jax.jacobian(lambda x: getattr(bijector, direction)(x)[0]))(x)
    assert (jacobian[np.triu_indices(5, 1)] == 0).all()
    assert (jacobian[np.tril_indices(5)] != 0).all()


@pytest.mark.parametrize("direction", ["forward_and_log_det", "inverse_and_log_det"])
@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_nonfinite_row_is_isolated(direction, bad):
    bijector = masked_autoregressive(4, AFFINE)(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (3, 4))
    run = jax.jit(getattr(bijector, direction))
    value, log_det = jax.device_get(run(x.at[1, 1].set(bad)))
    expected, expected_log_det = jax.device_get(run(x))
    assert not np.isfinite(value[1]).all()
    for row in (0, 2):
        np.testing.assert_array_equal(value[row], expected[row])
        np.testing.assert_array_equal(log_det[row], expected_log_det[row])


@pytest.mark.slow
def test_bfloat16_network_round_trips_to_its_own_precision():
    conditioner = network(jax.random.key(2), 6, 2, hidden_sizes=(16, 16))
    module = conditioner.module.clone(dtype=jnp.bfloat16)
    rough = bijectors.Conditioner(module, conditioner.variables)
    bijector = bijectors.MaskedAutoregressive(rough, AFFINE)
    x = jax.random.normal(jax.random.key(3), (200, 6))
    y, _ = jax.jit(bijector.forward_and_log_det)(x)
    back, log_det = jax.jit(bijector.inverse_and_log_det)(y)
    assert back.dtype == log_det.dtype == jnp.float32
    error = jnp.abs(back - x)
    # A sum may be rounded to another neighbour, where it was added up in another order.
    assert jnp.median(error) < 1e-6
    assert error.max() < 0.05
    gradient = jax.jit(jax.grad(lambda y: jnp.sum(bijector.inverse(y) ** 2)))(y)
    assert jnp.isfinite(gradient).all()


def test_context_broadcasts_to_leading_batch_axes():
    context = jax.random.normal(jax.random.key(4), (3, 2))
    bijector = masked_autoregressive(4, AFFINE)(jax.random.key(5), context)
    y = jax.random.normal(jax.random.key(6), (2, 3, 4))

    @jax.jit
    def inverted(y):
        x, log_det = bijector.inverse_and_log_det(y)
        return x, log_det, bijector.inverse(y[1]), bijector.forward(x)

    x, log_det, second, back = inverted(y)
    np.testing.assert_allclose(x[1], second, atol=1e-6)
    np.testing.assert_allclose(back, y, atol=1e-5)
    assert log_det.shape == (2, 3)
    with pytest.raises(ValueError, match=r"\(3, 2\).*\(5,\).*\(5, 4\)"):
        bijector.inverse(jnp.zeros((5, 4)))


def test_empty_batches_are_inverted():
    bijector = masked_autoregressive(4, AFFINE)(jax.random.key(0))
    x, log_det = jax.jit(bijector.inverse_and_log_det)(jnp.zeros((0, 4)))
    assert x.shape == (0, 4)
    assert log_det.shape == (0,)


def test_wrong_number_of_parameters_raises():
    conditioner = network(jax.random.key(0), 4, 3)
    with pytest.raises(ValueError, match=r"must return 2 parameters.*AffineTransformer.*got 3"):
        bijectors.MaskedAutoregressive(conditioner, AFFINE)


@pytest.mark.parametrize("transformer", [AFFINE, SPLINE])
def test_families_are_the_identity_at_zero(transformer):
    x = np.linspace(-6, 6, 25, dtype=np.float32)
    parameters = np.zeros((25, transformer.num_parameters), np.float32)
    run = jax.jit(lambda parameters, x: transformer(parameters).forward_and_log_det(x))
    y, log_det = run(parameters, x)
    np.testing.assert_allclose(y, x, atol=1e-6)
    np.testing.assert_allclose(log_det, 0, atol=1e-5)
    assert hash(transformer) == hash(type(transformer)(*vars(transformer).values()))
