"""Residual maps: solutions, their gradients and their failures; estimates of log-determinants."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.makers_residual import contraction
from vaeflow import bijectors
from vaeflow.bijectors import residual as residual_log_det

KEY = jax.random.key(0)


@dataclasses.dataclass(frozen=True)
class Linear:
    """g(x) = A x, whose contraction is up to its caller."""

    features: int = 2

    def normalized(self, variables):
        return variables

    def apply_normalized(self, normalized, x, context):
        return x @ normalized.T


@dataclasses.dataclass(frozen=True)
class Counting(Linear):
    """Counts how often it is applied."""

    calls: list = dataclasses.field(default_factory=list, compare=False)

    def apply_normalized(self, normalized, x, context):
        jax.debug.callback(lambda: self.calls.append(1))
        return x @ normalized.T


@dataclasses.dataclass(frozen=True)
class Leaky(Linear):
    """g(x) = x times one slope where x is positive, and another where it isn't."""

    features: int = 1

    def apply_normalized(self, normalized, x, context):
        return x * jnp.where(x > 0, *normalized)


def linear(matrix, module=Linear()):
    return bijectors.Residual(bijectors.Conditioner(module, jnp.asarray(matrix)))


def strong(channels, lipschitz=0.98):
    """Orthogonal kernels far above their bounds, so that every layer keeps all the bound allows."""
    network = contraction(KEY, channels, hidden_sizes=(16, 16), lipschitz=lipschitz)
    variables = network.module.init(KEY, jnp.zeros((1, channels)))["params"]
    last = jax.nn.initializers.orthogonal()(jax.random.key(1), variables["kernel_2"].shape)
    variables = {
        **{name: 100 * leaf if leaf.ndim == 2 else leaf + 0.3 for name, leaf in variables.items()},
        "kernel_2": -100 * last,
    }
    return bijectors.Residual(dataclasses.replace(network, variables={"params": variables}))


@pytest.mark.parametrize(
    "channels", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 6))]
)
def test_round_trip_near_the_lipschitz_bound(channels):
    bijector = strong(channels)
    x = jax.random.normal(KEY, (64, channels)) * 10.0 ** jnp.linspace(-2, 2, 64)[:, None]
    y, log_det = bijector.forward_and_log_det(x)
    back, back_log_det = jax.jit(bijector.inverse_and_log_det)(y)
    scale = 1 + np.abs(y).max(axis=-1, keepdims=True)
    assert np.abs(np.asarray(bijector.forward(back) - y) / scale).max() < 2e-6
    assert np.abs(np.asarray(back - x) / scale).max() < 1e-4
    np.testing.assert_allclose(back_log_det, -log_det, atol=1e-4)
    assert jnp.abs(log_det).max() > 0.1  # it isn't all but the identity


def test_gradients_of_the_inverse_are_those_of_its_unrolled_iteration():
    bijector = strong(2, 0.8)
    y = jax.random.normal(KEY, (5, 2))
    weight = jax.random.normal(jax.random.key(2), (5, 2))

    def solved(network, y):
        return jnp.sum(weight * bijectors.Residual(network).inverse(y))

    def unrolled(network, y):
        module = network.module
        normalized = module.normalized(network.variables)

        def refine(x, _):
            return y - module.apply_normalized(normalized, x, None), None

        x = jax.lax.scan(refine, y, None, length=150)[0]
        return jnp.sum(weight * x)

    got = jax.jit(jax.grad(solved, (0, 1)))(bijector.network, y)
    expected = jax.jit(jax.grad(unrolled, (0, 1)))(bijector.network, y)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5 * np.abs(other).max())


def test_divergence_makes_only_its_example_nan():
    # With a slope of -1.5 iterations run away, with -1 there is no solution.
    for slope in (-1.5, -1.0):
        bijector = linear([0.5, slope], Leaky())
        y = jnp.array([[3.0], [-3.0], [0.25], [1e6]])
        x, log_det = jax.jit(bijector.inverse_and_log_det)(y)
        assert jnp.isnan(x[1]).all()
        assert jnp.isnan(log_det[1])
        good = np.array([0, 2, 3])
        np.testing.assert_allclose(x[good], y[good] / 1.5, rtol=2e-6)
        assert jnp.isfinite(log_det[good]).all()


def test_slow_example_changes_no_other():
    inverse = jax.jit(linear([0.5, -0.95], Leaky()).inverse)
    y = jnp.linspace(0.1, 9, 40)[:, None]
    np.testing.assert_array_equal(inverse(y.at[0].set(-5.0))[1:], inverse(y)[1:])


@pytest.mark.parametrize("lipschitz", [0.9, 0.99])
def test_converges_despite_rounding_errors(lipschitz):
    # Slopes near the bound, all of one sign: iterations swing, or creep.
    y = jax.random.normal(KEY, (500, 1)) * 10.0 ** jnp.linspace(-3, 6, 500)[:, None]
    network = contraction(KEY, 1, hidden_sizes=(64, 64), lipschitz=lipschitz)
    variables = jax.tree.map(jnp.ones_like, network.variables)["params"]
    for sign in (1, -1):
        signed = variables | {"kernel_2": sign * variables["kernel_2"]}
        bijector = bijectors.Residual(dataclasses.replace(network, variables={"params": signed}))
        x, pull_back = jax.vjp(bijector.inverse, y)
        largest = 1 + jnp.maximum(jnp.abs(x), jnp.abs(y))
        assert jnp.max(jnp.abs(bijector.forward(x) - y) / largest) < 1e-5
        slopes = jnp.exp(-bijector.forward_log_det_jacobian(x))[:, None]
        np.testing.assert_allclose(pull_back(jnp.ones_like(y))[0], slopes, rtol=2e-3)


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf])
def test_nonfinite_row_is_isolated_and_costs_no_iterations(bad):
    matrix = jnp.array([[0.2, 0.1], [-0.1, 0.3]])
    y = jax.random.normal(KEY, (4, 2))
    spoilt = y.at[2, 1].set(bad)
    weight = jnp.ones_like(y)

    def count(y):
        network = Counting()
        values, pull_back = jax.vjp(linear(matrix, network).inverse, y)
        (gradient,) = pull_back(weight)
        jax.block_until_ready((values, gradient))
        jax.effects_barrier()
        return values, gradient, len(network.calls)

    clean, clean_gradient, calls = count(y)
    values, gradient, spoilt_calls = count(spoilt)
    others = np.array([0, 1, 3])
    np.testing.assert_array_equal(values[others], clean[others])
    np.testing.assert_array_equal(gradient[others], clean_gradient[others])
    assert jnp.isnan(values[2]).all()
    assert spoilt_calls <= calls < 60


def test_divergent_cotangent_is_nan():
    # At the solution 0 the slope is that of the other side, where the iteration wouldn't converge.
    bijector = linear([0.5, -1.0], Leaky())
    gradient = jax.grad(lambda y: jnp.sum(bijector.inverse(y)))(jnp.array([[3.0], [0.0]]))
    np.testing.assert_allclose(gradient[0], 1 / 1.5, rtol=1e-6)
    assert jnp.isnan(gradient[1]).all()


# Estimates.


def draws(count, *shape):
    keys = jax.random.split(KEY)
    probes = jax.random.rademacher(keys[0], (count, 1, *shape), jnp.float32)
    return probes, jax.random.uniform(keys[1], (count,))


def assert_unbiased(estimates, expected, largest_error):
    """The mean is right to 4.5 standard errors, of which none exceeds `largest_error`."""
    estimates = np.asarray(estimates, np.float64)
    error = estimates.std(axis=0) / np.sqrt(len(estimates))
    assert np.all(error < largest_error)
    assert np.all(np.abs(estimates.mean(axis=0) - expected) < 4.5 * error + 1e-6)


def test_estimate_has_the_mean_of_the_exact_log_det():
    # Eigenvalues of 0.5 and -0.7: the series alternates in part, and terms past 10 still count.
    turn = jnp.array([[0.8, -0.6], [0.6, 0.8]])
    matrix = turn @ jnp.array([[0.5, 0.2], [0.0, -0.7]]) @ turn.T
    probes, roulette = draws(100_000, 2)

    def estimate(matrix, probes, roulette):
        network = bijectors.Conditioner(Linear(), matrix)
        residual = bijectors.Residual(network, probes, roulette)
        return residual.forward_log_det_jacobian(jnp.zeros(2))

    run = jax.jit(jax.vmap(jax.value_and_grad(estimate), (None, 0, 0)))
    estimates, gradients = run(matrix, probes, roulette)
    assert_unbiased(estimates, np.log(1.5 * 0.3), 0.006)
    expected = np.linalg.inv(np.eye(2) + np.float64(matrix)).T
    assert_unbiased(gradients, expected, 0.02)


def test_estimate_and_gradients_of_a_network_have_the_means_of_the_exact():
    network = strong(3, 0.8).network
    x = jax.random.normal(KEY, (2, 3))
    probes, roulette = draws(20_000, 2, 3)

    def log_dets(network, x, *noise):
        log_det = bijectors.Residual(network, *noise).forward_log_det_jacobian(x)
        return jnp.sum(log_det * jnp.array([1.0, -0.5])), log_det

    gradient = jax.grad(log_dets, (0, 1), has_aux=True)
    estimated = jax.jit(jax.vmap(gradient, (None, None, 0, 0)))(network, x, probes, roulette)
    exact = jax.jit(gradient)(network, x)
    leaves, expected = jax.tree.leaves(estimated), jax.tree.leaves(exact)
    assert jnp.abs(expected[-1]).max() > 0.1
    for one, other in zip(leaves, expected, strict=True):
        assert_unbiased(one, other, 0.01)


def test_number_of_terms_is_bounded():
    bijector = linear([[0.98]], Linear(1))
    numbers = np.arange(1, 60)
    terms = -((-0.98) ** numbers) / numbers
    sure, q = residual_log_det.SURE_TERMS, residual_log_det.CONTINUATION
    weights = q ** -np.maximum(numbers - sure, 0.0)
    for roulette, count in ((0.999, sure), (q + 1e-3, sure), (q - 1e-3, sure + 1), (0.0, 44)):
        noisy = bijectors.Residual(bijector.network, jnp.ones((1, 1)), jnp.float32(roulette))
        expected = np.sum((weights * terms)[:count])
        np.testing.assert_allclose(noisy.forward_log_det_jacobian(jnp.ones(1)), expected, rtol=1e-5)


def test_probes_belong_to_rows_and_to_both_directions():
    network = strong(3).network
    probes, roulette = draws(1, 4, 3)
    noisy = bijectors.Residual(network, probes[0], roulette[0])
    x = jax.random.normal(KEY, (5, 4, 3))
    y, log_det = noisy.forward_and_log_det(x)
    np.testing.assert_allclose(noisy.inverse_log_det_jacobian(y), -log_det, atol=1e-3)
    leading = bijectors.Residual(network, probes[0].repeat(2, axis=0), roulette[0])
    np.testing.assert_allclose(leading.forward_log_det_jacobian(x), log_det, rtol=1e-4)
    alone = bijectors.Residual(network, probes[0, :, 2], roulette[0])
    np.testing.assert_allclose(alone.forward_log_det_jacobian(x[1, 2]), log_det[1, 2], rtol=1e-4)
    with pytest.raises(ValueError, match=r"probes of shape \(1, 4, 3\) .* shape \(2, 3\)"):
        noisy.forward(x[0, :2])
    with pytest.raises(ValueError, match="together, got probes alone"):
        bijectors.Residual(network, probes[0])
