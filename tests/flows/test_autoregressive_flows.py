"""Masked and inverse autoregressive flows, and autoregressive neural spline flows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.makers import flow as make_flow
from tests.variables import noisy
from vaeflow import bijectors, flows

KINDS = {
    "masked": flows.MaskedAutoregressiveFlow,
    "inverse": flows.InverseAutoregressiveFlow,
}


def small(kind, channels=3, **options):
    return kind((channels,), **({"num_steps": 2, "hidden_sizes": (8,)} | options))


def initialised(module, data, context=None):
    variables = module.init(jax.random.key(0), context=context, data=data)
    return variables, module.apply(variables, context=context)


def test_masked_flow_initially_standardises_the_first_batch():
    data = 3 + 2 * jax.random.normal(jax.random.key(1), (50, 3))
    _, bijector = initialised(small(flows.MaskedAutoregressiveFlow), data)
    noise, _ = bijector.inverse_and_log_det(data)
    expected = (data - data.mean(0)) / data.std(0)
    np.testing.assert_allclose(noise, expected, atol=1e-4)


def test_inverse_flow_starts_as_the_identity():
    data = 3 + 2 * jax.random.normal(jax.random.key(1), (50, 3))
    _, bijector = initialised(small(flows.InverseAutoregressiveFlow), data)
    x, log_det = bijector.forward_and_log_det(data)
    np.testing.assert_array_equal(x, data)
    np.testing.assert_array_equal(log_det, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_each_flow_is_cheap_in_its_direction(kind):
    module = small(KINDS[kind], scan=False)
    bijector = make_flow(module)(jax.random.key(0))

    def loops(direction):
        function = jax.jit(getattr(bijector, direction))
        return function.lower(jnp.zeros((5, 3))).as_text().count("stablehlo.while")

    cheap, dear = ("inverse", "forward") if kind == "masked" else ("forward", "inverse")
    assert loops(dear) > loops(cheap)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "transformer",
    [None, pytest.param(bijectors.SplineTransformer(num_bins=3), marks=pytest.mark.slow)],
)
def test_density_depends_on_the_label_in_one_dimension(kind, transformer):
    options = {} if transformer is None else {"transformer": transformer}
    module = small(KINDS[kind], 1, num_classes=2, **options)
    labels = jnp.array([0, 1, 0, 1])
    data = jnp.linspace(-1, 1, 4)[:, None]
    grid = np.linspace(-300, 300, 600_001, dtype=np.float32)[:, None]

    @jax.jit
    def run(grid):
        variables = noisy(module.init(jax.random.key(0), context=labels, data=data), 0.3)
        bijector = module.apply(variables, context=labels)
        x = bijector.forward(jnp.ones((4, 1)))
        of_first = module.apply(variables, context=jnp.zeros(len(grid), int))
        return x, bijector.inverse(x), of_first.inverse_and_log_det(grid)

    x, back, (noise, log_det) = jax.device_get(run(grid))
    np.testing.assert_allclose(back, 1, atol=1e-4)
    np.testing.assert_allclose(x[:2], x[2:], atol=1e-6)
    assert np.abs(x[0] - x[1]) > 1e-3
    density = np.exp(-0.5 * noise[:, 0] ** 2 + log_det) / np.sqrt(2 * np.pi)
    assert np.trapezoid(density, grid[:, 0]) == pytest.approx(1, abs=1e-3)


@pytest.mark.slow
def test_one_channel_suits_autoregressive_splines_and_not_couplings():
    options = {"num_steps": 2, "num_bins": 3, "hidden_sizes": (4,)}
    module = flows.NeuralSplineFlow((1,), autoregressive=True, **options)
    bijector = make_flow(module)(jax.random.key(0))
    x = jnp.linspace(-2, 2, 5)[:, None]
    np.testing.assert_allclose(bijector.forward(bijector.inverse(x)), x, atol=1e-5)
    with pytest.raises(ValueError, match=r"at least 2 channels, got \(1,\)"):
        flows.NeuralSplineFlow((1,), **options).init(jax.random.key(0))


@pytest.mark.parametrize(
    "make",
    [
        flows.MaskedAutoregressiveFlow,
        flows.InverseAutoregressiveFlow,
        functools.partial(flows.NeuralSplineFlow, autoregressive=True),
    ],
)
def test_default_networks_are_wide_enough_to_read_every_dimension_before(make):
    for channels, width in ((3, 64), (100, 100)):
        flow = make((channels,), num_steps=1)
        shapes = jax.eval_shape(flow.init, jax.random.key(0))["params"]
        kernels = {
            jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape[-2:]
            for path, leaf in jax.tree_util.tree_leaves_with_path(shapes)
        }
        found = [shape for name, shape in kernels.items() if name.endswith("network/kernel_1")]
        assert found == [(width, width)]
