"""Maps by differential equations against equations with known solutions."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from tests.makers_continuous import continuous, velocity
from vaeflow import bijectors

A = np.array([[0.3, -1.2, 0.4], [0.9, -0.5, 0.2], [-0.3, 0.6, 0.7]], np.float32)
B = np.array([1.0, -1.0, 2.0], np.float32)


@dataclasses.dataclass(frozen=True)
class Linear:
    """dx/dt = A x + t b + context."""

    dimension: int = 3

    def apply(self, variables, x, time, context):
        velocity = x @ variables.T + time[:, None] * B
        return velocity if context is None else velocity + context


@dataclasses.dataclass(frozen=True)
class Stiff:
    """Turns vectors at the rate of the square of their length."""

    dimension: int = 2

    def apply(self, variables, x, time, context):
        rate = variables * jnp.sum(x**2, axis=1, keepdims=True)
        return rate * jnp.stack([-x[:, 1], x[:, 0]], axis=1)


def linear(context=None, **options):
    return bijectors.Continuous(
        bijectors.Conditioner(Linear(), jnp.asarray(A), context),
        **{"rtol": 1e-6, "atol": 1e-6} | options,
    )


def exact(x, a=A, expm=scipy.linalg.expm):
    """The solution at time 1 without context: that of an autonomous equation in (x, t, 1)."""
    clock = np.zeros((2, 5), np.float32)
    clock[0, 4] = 1
    above = jnp.concatenate([a, B[:, None], np.zeros((3, 1), np.float32)], axis=1)
    solution = expm(jnp.concatenate([above, clock]))
    return x @ solution[:3, :3].T + solution[:3, 4]


def rows(count, entries=3, seed=0):
    return np.random.default_rng(seed).normal(size=(count, entries)).astype(np.float32)


both = jax.jit(lambda bijector, x: bijector.forward_and_log_det(x))


def changed(x, index, value):
    x = np.array(x)
    x[index] = value
    return x


def test_linear_equation_has_its_exact_solution():
    x = rows(4)
    y, log_det = both(linear(), x)
    np.testing.assert_allclose(y, exact(x), atol=1e-5)
    np.testing.assert_allclose(log_det, np.trace(A), atol=5e-6)
    back, back_log_det = both(bijectors.Inverse(linear()), exact(x))
    np.testing.assert_allclose(back, x, atol=1e-5)
    np.testing.assert_allclose(back_log_det, -np.trace(A), atol=5e-6)


def test_tolerances_bound_the_error():
    x = rows(16)
    errors = [
        float(jnp.max(jnp.abs(both(linear(rtol=tolerance, atol=tolerance), x)[0] - exact(x))))
        for tolerance in (1e-2, 1e-6)
    ]
    assert 1e-5 < errors[0] < 5e-2
    assert errors[1] < 1e-5


def test_gradients_are_those_of_the_solution():
    x, weights = rows(4), rows(4, seed=1)

    def by_solver(a, x):
        bijector = dataclasses.replace(linear().conditioner, variables=a)
        bijector = bijectors.Continuous(bijector, rtol=1e-6, atol=1e-6)
        y, log_det = bijector.forward_and_log_det(x)
        return jnp.sum(weights * y) + jnp.sum(weights[:, 0] * log_det)

    def exactly(a, x):
        y = exact(x, a, jax.scipy.linalg.expm)
        return jnp.sum(weights * y) + jnp.sum(weights[:, 0]) * jnp.trace(a)

    got = jax.jit(jax.grad(by_solver, (0, 1)))(jnp.asarray(A), x)
    expected = jax.jit(jax.grad(exactly, (0, 1)))(jnp.asarray(A), x)
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


@pytest.mark.parametrize("probes", [1, 4])
@pytest.mark.slow
def test_probes_estimate_the_trace_without_bias(probes):
    count = 4096
    x = np.broadcast_to(rows(1)[0], (count, 3))
    bijector = linear(probe_key=jax.random.key(3), probes=probes, rtol=1e-4, atol=1e-4)
    y, log_det = both(bijector, x)
    np.testing.assert_allclose(y, exact(x), atol=1e-3)
    # Var(e . A e) = sum over i < j of (a_ij + a_ji)^2 for signs e.
    symmetric = A + A.T
    deviation = np.sqrt(np.sum(np.triu(symmetric, 1) ** 2) / probes)
    np.testing.assert_allclose(np.std(log_det), deviation, rtol=0.1)
    assert abs(np.mean(log_det) - np.trace(A)) < 4 * deviation / np.sqrt(count)
    # The same signs on the way back, and others for another key.
    back_log_det = both(bijectors.Inverse(bijector), y)[1]
    np.testing.assert_allclose(back_log_det, -log_det, atol=1e-3)
    other = both(linear(probe_key=jax.random.key(4), probes=probes), x)[1]
    assert np.mean(np.abs(other - log_det) > 0.01) > 0.3


def test_too_many_steps_make_only_their_example_nan():
    bijector = bijectors.Continuous(bijectors.Conditioner(Stiff(), np.float32(1)), max_steps=12)
    x = np.array([[0.5, 0.2], [40.0, 3.0], [-0.3, 0.6]], np.float32)
    y, log_det = map(np.asarray, both(bijector, x))
    calm, calm_log_det = map(np.asarray, both(bijector, changed(x, 1, 0.1)))
    assert np.all(np.isnan(y[1]))
    assert np.isnan(log_det[1])
    np.testing.assert_array_equal(y[::2], calm[::2])
    np.testing.assert_array_equal(log_det[::2], calm_log_det[::2])
    assert np.all(np.isfinite(calm))

    def others(rate, x):
        turned = bijectors.Continuous(bijectors.Conditioner(Stiff(), rate), max_steps=12)
        return jnp.sum(turned.forward(x)[::2])

    gradient = jax.jit(jax.grad(others, (0, 1)))
    for spoilt, clean in zip(
        gradient(np.float32(1), x), gradient(np.float32(1), changed(x, 1, 0.1)), strict=True
    ):
        np.testing.assert_array_equal(spoilt, clean)


@pytest.mark.parametrize("bad", [np.nan, np.inf, pytest.param(-np.inf, marks=pytest.mark.slow)])
def test_nonfinite_row_is_isolated(bad):
    x, context = rows(4), rows(4, seed=2)

    def run(x, context):
        def outputs(context, x, a):
            network = dataclasses.replace(linear(context).conditioner, variables=a)
            return bijectors.Continuous(network).forward_and_log_det(x)

        def chosen(context, x, a):
            return sum(jnp.sum(value[::3]) for value in outputs(context, x, a))

        arguments = (context, x, jnp.asarray(A))
        return outputs(*arguments), jax.grad(chosen, (0, 1, 2))(*arguments)

    run = jax.jit(run)
    (y, log_det), clean = jax.device_get(run(x, context))
    (spoilt, spoilt_log_det), gradients = jax.device_get(
        run(changed(x, (1, 2), bad), changed(context, (2, 0), bad))
    )
    assert np.all(np.isnan(spoilt[1:3]))
    assert np.all(np.isnan(spoilt_log_det[1:3]))
    np.testing.assert_array_equal(spoilt[::3], y[::3])
    np.testing.assert_array_equal(spoilt_log_det[::3], log_det[::3])
    jax.tree.map(np.testing.assert_array_equal, gradients, clean)


def test_nan_parameters_end_the_solver():
    bijector = dataclasses.replace(linear().conditioner, variables=jnp.full((3, 3), np.nan))
    bijector = bijectors.Continuous(bijector, max_steps=10_000_000)
    y, log_det = both(bijector, rows(2))
    assert np.all(np.isnan(y))
    assert np.all(np.isnan(log_det))


@pytest.mark.slow
def test_forward_and_inverse_compute_no_trace():
    bijector = bijectors.Chain([bijectors.Inverse(continuous(3)(jax.random.key(0)))])
    x = rows(3)
    for alone, together in (
        (bijector.forward, bijector.forward_and_log_det),
        (bijector.inverse, bijector.inverse_and_log_det),
    ):
        # The lowered program: a jaxpr doesn't show the inside of the solver's primitive.
        products = [jax.jit(f).lower(x).as_text().count("dot_general") for f in (alone, together)]
        assert 0 < products[0] < products[1]
    y, (expected, _) = jax.jit(lambda x: (bijector.forward(x), bijector.forward_and_log_det(x)))(x)
    np.testing.assert_allclose(y, expected, atol=1e-4)


@pytest.mark.slow
def test_trace_estimate_is_exportable():
    conditioner = velocity(jax.random.key(0), 2)

    def log_det(numbers, x):
        key = jax.random.wrap_key_data(numbers)
        return bijectors.Continuous(conditioner, key).forward_log_det_jacobian(x)

    numbers, x = jax.random.key_data(jax.random.key(5)), rows(5, 2)
    (batch,) = jax.export.symbolic_shape("b")
    shapes = (
        jax.ShapeDtypeStruct(numbers.shape, numbers.dtype),
        jax.ShapeDtypeStruct((batch, 2), x.dtype),
    )
    exported = jax.export.export(jax.jit(log_det), platforms=("cpu", "cuda", "tpu"))(*shapes)
    loaded = jax.export.deserialize(exported.serialize())
    np.testing.assert_allclose(loaded.call(numbers, x), jax.jit(log_det)(numbers, x), atol=1e-5)


def test_wrong_arguments_raise(monkeypatch):
    with pytest.raises(ValueError, match="probes must be at least 1, got 0"):
        linear(probe_key=jax.random.key(0), probes=0)
    for name in ("rtol", "atol", "max_steps"):
        with pytest.raises(ValueError, match=f"{name} must be positive, got 0"):
            linear(**{name: 0})
    monkeypatch.setitem(sys.modules, "diffrax", None)
    with pytest.raises(ValueError, match=r"Continuous: .* diffrax; .*'vaeflow\[continuous\]'"):
        linear()


def test_the_package_loads_without_diffrax():
    code = "import sys; sys.modules['diffrax'] = None; import vaeflow"
    subprocess.run([sys.executable, "-c", code], check=True)
