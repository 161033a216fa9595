"""Residual maps: solutions, their gradients and their failures; estimates of log-determinants."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaeflow import bijectors, nn
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


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def network_of(channels, hidden_sizes, lipschitz):
    """A module, and the shapes of its variables."""
    module = nn.LipschitzMLP(channels, hidden_sizes, lipschitz, parent=None)
    return module, jax.eval_shape(module.init, KEY, jnp.zeros((1, channels)))["params"]


@functools.partial(jax.jit, static_argnums=(0, 1))
def strong(channels, lipschitz=0.98):
    """Orthogonal kernels far above their bounds, so that every layer keeps all the bound allows."""
    module = network_of(channels, (16, 16), lipschitz)[0]
    variables = module.init(KEY, jnp.zeros((1, channels)))["params"]
    last = jax.nn.initializers.orthogonal()(jax.random.key(1), variables["kernel_2"].shape)
    variables = {
        **{name: 100 * leaf if leaf.ndim == 2 else leaf + 0.3 for name, leaf in variables.items()},
        "kernel_2": -100 * last,
    }
    return bijectors.Residual(bijectors.Conditioner(module, {"params": variables}))


@pytest.mark.parametrize(
    "channels", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 6))]
)
def test_round_trip_near_the_lipschitz_bound(channels):
    x = (
        normal(0, 64, channels)
        * np.float32(10) ** np.linspace(-2, 2, 64, dtype=np.float32)[:, None]
    )

    @jax.jit
    def run(x):
        bijector = strong(channels)
        y, log_det = bijector.forward_and_log_det(x)
        back, back_log_det = bijector.inverse_and_log_det(y)
        return y, log_det, back, back_log_det, bijector.forward(back)

    y, log_det, back, back_log_det, again = jax.device_get(run(x))
    scale = 1 + np.abs(y).max(axis=-1, keepdims=True)
    assert np.abs((again - y) / scale).max() < 2e-6
    assert np.abs((back - x) / scale).max() < 1e-4
    np.testing.assert_allclose(back_log_det, -log_det, atol=1e-4)
    assert np.abs(log_det).max() > 0.1  # it isn't all but the identity


@pytest.mark.slow
def test_gradients_of_the_inverse_are_those_of_its_unrolled_iteration():
    y, weight = normal(0, 2, 5, 2)

    def solved(network, y):
        return jnp.sum(weight * bijectors.Residual(network).inverse(y))

    def unrolled(network, y):
        module = network.module
        normalized = module.normalized(network.variables)

        def refine(x, _):
            return y - module.apply_normalized(normalized, x, None), None

        x = jax.lax.scan(refine, y, None, length=150)[0]
        return jnp.sum(weight * x)

    @jax.jit
    def run(y):
        network = strong(2, 0.8).network
        return jax.grad(solved, (0, 1))(network, y), jax.grad(unrolled, (0, 1))(network, y)

    got, expected = jax.device_get(run(y))
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5 * np.abs(other).max())


def test_divergence_makes_only_its_example_nan():
    run = jax.jit(lambda slopes, y: linear(slopes, Leaky()).inverse_and_log_det(y))
    y = np.float32([[3.0], [-3.0], [0.25], [1e6]])
    # With a slope of -1.5 iterations run away, with -1 there is no solution.
    for slope in (-1.5, -1.0):
        x, log_det = jax.device_get(run(np.float32([0.5, slope]), y))
        assert np.isnan(x[1]).all()
        assert np.isnan(log_det[1])
        good = np.array([0, 2, 3])
        np.testing.assert_allclose(x[good], y[good] / 1.5, rtol=2e-6)
        assert np.isfinite(log_det[good]).all()


def test_slow_example_changes_no_other():
    inverse = jax.jit(lambda y: linear([0.5, -0.95], Leaky()).inverse(y))
    y = np.linspace(0.1, 9, 40, dtype=np.float32)[:, None]
    slow = y.copy()
    slow[0] = -5
    np.testing.assert_array_equal(jax.device_get(inverse(slow))[1:], jax.device_get(inverse(y))[1:])


@pytest.mark.parametrize("lipschitz", [0.9, 0.99])
def test_converges_despite_rounding_errors(lipschitz):
    y = normal(0, 500, 1) * np.float32(10) ** np.linspace(-3, 6, 500, dtype=np.float32)[:, None]
    module, shapes = network_of(1, (64, 64), lipschitz)
    variables = {name: np.ones(leaf.shape, np.float32) for name, leaf in shapes.items()}

    @jax.jit
    def run(variables, y):
        network = bijectors.Conditioner(module, {"params": variables})
        bijector = bijectors.Residual(network)
        x, pull_back = jax.vjp(bijector.inverse, y)
        slopes = jnp.exp(-bijector.forward_log_det_jacobian(x))[:, None]
        return x, bijector.forward(x), slopes, pull_back(jnp.ones_like(y))[0]

    # Slopes near the bound, all of one sign: iterations swing, or creep.
    for sign in (1, -1):
        signed = variables | {"kernel_2": sign * variables["kernel_2"]}
        x, again, slopes, pulled_back = jax.device_get(run(signed, y))
        largest = 1 + np.maximum(np.abs(x), np.abs(y))
        assert np.max(np.abs(again - y) / largest) < 1e-5
        np.testing.assert_allclose(pulled_back, slopes, rtol=2e-3)


COUNTING = Counting()


@jax.jit
def counted_inverse(y):
    inverse = linear([[0.2, 0.1], [-0.1, 0.3]], COUNTING).inverse
    values, pull_back = jax.vjp(inverse, y)
    return values, pull_back(jnp.ones_like(y))[0]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nonfinite_row_is_isolated_and_costs_no_iterations(bad):
    y = normal(0, 4, 2)
    spoilt = y.copy()
    spoilt[2, 1] = bad

    def count(y):
        COUNTING.calls.clear()
        values, gradient = jax.device_get(counted_inverse(y))
        jax.effects_barrier()
        return values, gradient, len(COUNTING.calls)

    clean, clean_gradient, calls = count(y)
    values, gradient, spoilt_calls = count(spoilt)
    others = np.array([0, 1, 3])
    np.testing.assert_array_equal(values[others], clean[others])
    np.testing.assert_array_equal(gradient[others], clean_gradient[others])
    assert np.isnan(values[2]).all()
    assert 0 < spoilt_calls <= calls < 60


def test_divergent_cotangent_is_nan():
    # At the solution 0 the slope is that of the other side, where the iteration wouldn't converge.
    def total(y):
        return jnp.sum(linear([0.5, -1.0], Leaky()).inverse(y))

    gradient = jax.device_get(jax.jit(jax.grad(total))(np.float32([[3.0], [0.0]])))
    np.testing.assert_allclose(gradient[0], 1 / 1.5, rtol=1e-6)
    assert np.isnan(gradient[1]).all()


# Estimates.


def draws(count, *shape):
    random = np.random.default_rng(0)
    probes = random.choice(np.float32([-1, 1]), (count, 1, *shape))
    return probes, random.uniform(size=count).astype(np.float32)


def assert_unbiased(estimates, expected, largest_error):
    """The mean is right to 4.5 standard errors, of which none exceeds `largest_error`."""
    estimates = np.asarray(estimates, np.float64)
    error = estimates.std(axis=0) / np.sqrt(len(estimates))
    assert np.all(error < largest_error)
    assert np.all(np.abs(estimates.mean(axis=0) - expected) < 4.5 * error + 1e-6)


def test_estimate_has_the_mean_of_the_exact_log_det():
    # Eigenvalues of 0.5 and -0.7: the series alternates in part, and terms past 10 still count.
    turn = np.float32([[0.8, -0.6], [0.6, 0.8]])
    matrix = turn @ np.float32([[0.5, 0.2], [0.0, -0.7]]) @ turn.T
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


@pytest.mark.slow
def test_estimate_and_gradients_of_a_network_have_the_means_of_the_exact():
    x = normal(0, 2, 3)

    def log_dets(network, x, *noise):
        log_det = bijectors.Residual(network, *noise).forward_log_det_jacobian(x)
        return jnp.sum(log_det * jnp.array([1.0, -0.5])), log_det

    gradient = jax.grad(log_dets, (0, 1), has_aux=True)

    @jax.jit
    def run(x, probes, roulette):
        network = strong(3, 0.8).network
        estimated = jax.vmap(gradient, (None, None, 0, 0))(network, x, probes, roulette)
        return estimated, gradient(network, x)

    estimated, exact = jax.device_get(run(x, *draws(20_000, 2, 3)))
    leaves, expected = jax.tree.leaves(estimated), jax.tree.leaves(exact)
    assert np.abs(expected[-1]).max() > 0.1
    for one, other in zip(leaves, expected, strict=True):
        assert_unbiased(one, other, 0.01)


def test_number_of_terms_is_bounded():
    @jax.jit
    def run(roulette):
        network = bijectors.Conditioner(Linear(1), jnp.array([[0.98]]))
        noisy = bijectors.Residual(network, jnp.ones((1, 1)), roulette)
        return noisy.forward_log_det_jacobian(jnp.ones(1))

    numbers = np.arange(1, 60)
    terms = -((-0.98) ** numbers) / numbers
    sure, q = residual_log_det.SURE_TERMS, residual_log_det.CONTINUATION
    weights = q ** -np.maximum(numbers - sure, 0.0)
    for roulette, count in ((0.999, sure), (q + 1e-3, sure), (q - 1e-3, sure + 1), (0.0, 44)):
        expected = np.sum((weights * terms)[:count])
        np.testing.assert_allclose(run(np.float32(roulette)), expected, rtol=1e-5)


def test_probes_belong_to_rows_and_to_both_directions():
    probes, roulette = draws(1, 4, 3)
    x = normal(0, 5, 4, 3)

    @jax.jit
    def run(x):
        network = strong(3).network
        noisy = bijectors.Residual(network, probes[0], roulette[0])
        y, log_det = noisy.forward_and_log_det(x)
        leading = bijectors.Residual(network, probes[0].repeat(2, axis=0), roulette[0])
        alone = bijectors.Residual(network, probes[0, :, 2], roulette[0])
        return (
            log_det,
            noisy.inverse_log_det_jacobian(y),
            leading.forward_log_det_jacobian(x),
            alone.forward_log_det_jacobian(x[1, 2]),
        )

    log_det, back_log_det, leading, alone = jax.device_get(run(x))
    np.testing.assert_allclose(back_log_det, -log_det, atol=1e-3)
    np.testing.assert_allclose(leading, log_det, rtol=1e-4)
    np.testing.assert_allclose(alone, log_det[1, 2], rtol=1e-4)
    network = strong(3).network
    with pytest.raises(ValueError, match=r"probes of shape \(1, 4, 3\) .* shape \(2, 3\)"):
        jax.eval_shape(bijectors.Residual(network, probes[0], roulette[0]).forward, x[0, :2])
    with pytest.raises(ValueError, match="together, got probes alone"):
        bijectors.Residual(network, probes[0])
