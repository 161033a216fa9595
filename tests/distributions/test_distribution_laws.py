"""Laws of distributions: mass one, samples of the density, batches, precision, NaN."""

from __future__ import annotations

import functools
import inspect

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.distributions import test_discrete_laws as discrete
from tests.drawn import KEY, SHAPE, drawn, log_prob, made, sample
from vaeflow import bases, bijectors, distributions, metrics


def numbers(*shape, seed=0, scale=1.0):
    return scale * jax.random.normal(jax.random.key(seed), shape)


def full(*batch):
    factor = jnp.eye(2) + numbers(*batch, 2, 2, seed=1, scale=0.3)
    return distributions.FullGaussian(numbers(*batch, 2, seed=2), factor)


def one_dimensional(*batch):
    return distributions.FullGaussian(numbers(*batch, 1), 0.7 * jnp.ones((*batch, 1, 1)))


def mixture(*batch):
    components = distrax.Independent(
        distrax.Normal(numbers(*batch, 3, 2, seed=4), jnp.exp(numbers(*batch, 3, 2, scale=0.2))), 1
    )
    return distributions.Mixture(numbers(*batch, 3, seed=5), components)


def box(*batch):
    low = numbers(*batch, 2, seed=6)
    return distributions.UniformBox(low, low + 1 + numbers(*batch, 2, seed=7) ** 2)


def continuous_bernoulli(*batch):
    return distributions.ContinuousBernoulli(numbers(*batch, 2, seed=10), 1)


def histogram(*batch):
    weights = jnp.exp(numbers(*batch, 3, 2, seed=10)).at[..., 1, 0].set(0)
    return distributions.toy.Histogram(weights, [-2.4, -1.2], [1.2, 2.4])


def grouped(*batch):
    shift = numbers(*batch, 1, seed=12)
    parts = {
        "second": distrax.Independent(distrax.Normal(shift, jnp.ones((*batch, 1))), 1),
        "first": distributions.standard_normal((1,), batch, 0.5),
    }
    return distributions.Grouped(parts)


def normal(*batch):
    return distributions.standard_normal((2,), batch, 0.8)


def transformed(*batch):
    shift, log_scale = numbers(*batch, 2), numbers(*batch, 2, seed=8, scale=0.3)
    return distributions.Transformed(
        normal(*batch), bijectors.ElementwiseAffine(shift, log_scale, event_ndims=1)
    )


def around(factor, above):
    mean = factor * above
    return distrax.Independent(distrax.Normal(mean, jnp.full_like(mean, 0.5)), 1)


def top_down(*batch):
    below = jax.tree_util.Partial(around, jnp.full((*batch, 1), 0.7))
    return distributions.HierarchicalPrior(distributions.standard_normal((1,), batch), [below])


def learned(base):
    """A base with noise on its parameters."""

    def make(*batch):
        context = jnp.ones(batch, jnp.int32) if base.needs_labels else None
        variables = base.init(KEY, context=context)
        leaves, structure = jax.tree.flatten(variables)
        leaves = [leaf + 0.3 * numbers(*leaf.shape, seed=9) for leaf in leaves]
        return base.apply(jax.tree.unflatten(structure, leaves), context=context, batch_shape=batch)

    return make


REGISTRY = {
    "standard_normal": normal,
    "Transformed": transformed,
    "HierarchicalPrior": top_down,
    "FullGaussian": full,
    "FullGaussian one-dimension": one_dimensional,
    "Histogram": histogram,
    "Mixture": mixture,
    "UniformBox": box,
    "BoxBase": learned(bases.BoxBase((2,), low=-1.5, high=1)),
    "ContinuousBernoulli": continuous_bernoulli,
    "Grouped": grouped,
    "CorrelatedGaussianBase": learned(bases.CorrelatedGaussianBase((2,))),
    "DiagonalGaussianBase": learned(bases.DiagonalGaussianBase((2,))),
    "GaussianMixtureBase": learned(bases.GaussianMixtureBase((2,), num_components=3)),
    "ResampledBase": learned(bases.ResampledBase((2,), hidden_sizes=(8,), truncation=5)),
    "LabelledGaussianBase": learned(bases.LabelledGaussianBase((2,), num_classes=3)),
}
"""Distributions of vectors by name, each made for any batch shape."""

SAME = {
    "FullGaussian one-dimension",
    "BoxBase",
    "CorrelatedGaussianBase",
    "DiagonalGaussianBase",
    "GaussianMixtureBase",
    "LabelledGaussianBase",
}
"""Those of a class that others are of."""

every = pytest.mark.parametrize("make", REGISTRY.values(), ids=REGISTRY)
structural = pytest.mark.parametrize(
    "make",
    [
        pytest.param(make, id=name, marks=[pytest.mark.slow] if name in SAME else [])
        for name, make in REGISTRY.items()
    ],
)
"""Laws of a class, whatever the values of its parameters."""


def test_every_public_distribution_and_base_is_here():
    public = {
        name
        for name in distributions.__all__
        if inspect.isclass(getattr(distributions, name)) or name == "standard_normal"
    }
    public |= set(bases.__all__)
    here = {name.partition(" ")[0] for name in REGISTRY} | set(discrete.REGISTRY)
    # Concrete is on a simplex, see test_concrete.py; a VampPrior needs the encoder of a VAE.
    elsewhere = {"Base", "Concrete", "Resampled", "VampPrior"}
    assert public == here - {"Histogram"} | elsewhere  # which is in distributions.toy


@every
def test_the_density_integrates_to_one_and_has_the_moments_of_the_samples(make):
    distribution, grids = made(make), []

    def remembered(points):
        grids.append((np.float64(points), np.asarray(log_prob(distribution, points))))
        return grids[0][1]

    cells = 900 if isinstance(distribution, distributions.UniformBox) else 360
    ends = [-9.0] * distribution.event_shape[0], [9.0] * distribution.event_shape[0]
    mass = np.exp(metrics.log_integral(remembered, *ends, num_cells=cells))
    # A border of a box is off by half a cell at most; other borders are borders of cells.
    # What is accepted of a resampled one is an average over points.
    tolerances = {"UniformBox": 2e-2, "ContinuousBernoulli": 2e-2, "Resampled": 1e-3}
    assert mass == pytest.approx(1, abs=tolerances.get(type(distribution).__name__, 1e-4))

    ((grid, density),) = grids
    weights = np.exp(np.float64(density))
    weights /= weights.sum()
    mean = weights @ grid
    covariance = (weights[:, None] * (grid - mean)).T @ (grid - mean)
    # The number of draws of a resampled one makes little difference.
    fine = isinstance(distribution, distributions.Resampled)
    samples = np.asarray(sample(distribution, (160_000 if fine else 40_000,)))
    np.testing.assert_allclose(samples.mean(0), mean, atol=0.04)
    found = np.cov(samples.T).reshape(covariance.shape)
    np.testing.assert_allclose(found, covariance, atol=0.011 if fine else 0.06)


@every
def test_samples_and_their_density_agree_in_every_batch_shape(make):
    for batch in ((), (3, 2)):
        distribution, samples, density, again = drawn(make, *batch)
        assert distribution.batch_shape == batch
        assert samples.shape == (*SHAPE, *batch, *distribution.event_shape)
        assert density.shape == (*SHAPE, *batch)
        np.testing.assert_allclose(density, again, rtol=1e-4, atol=1e-4)
        assert density.dtype == samples.dtype == np.float32
    distribution, samples, *_ = drawn(make)
    alone = sample(distribution, SHAPE)
    np.testing.assert_allclose(alone, samples, rtol=1e-6, atol=1e-6)


@structural
def test_batches_equal_single_distributions(make):
    shape = (3, *made(make).event_shape)
    values = 0.3 * np.random.default_rng(11).normal(size=shape).astype(np.float32)

    @jax.jit
    def run(values):
        distribution = make(3)
        if isinstance(distribution, distributions.Resampled):  # one for the whole batch
            expected = make().log_prob(values)
        else:
            expected = jax.vmap(lambda one, value: one.log_prob(value))(distribution, values)
        return distribution, distribution.log_prob(values), expected

    distribution, together, expected = run(values)
    assert distribution.batch_shape == (3,)
    np.testing.assert_allclose(together, expected, rtol=1e-5)


@structural
def test_jit_takes_the_distribution_as_an_argument_and_compiles_once(make):
    distribution, samples, density, _ = drawn(make)
    traces = []

    @jax.jit
    def log_prob(distribution, value):
        traces.append(None)
        return distribution.log_prob(value)

    for _ in range(2):
        np.testing.assert_allclose(
            log_prob(distribution, samples[0, 0]), density[0, 0], rtol=1e-5, atol=1e-6
        )
        distribution = jax.tree.map(lambda leaf: leaf, distribution)
    assert len(traces) == 1


@structural
@pytest.mark.slow
def test_tracers_do_not_leak(make):
    with jax.check_tracer_leaks():
        jax.jit(lambda key: make().sample_and_log_prob(seed=key)).trace(KEY)


@structural
def test_nonfinite_row_is_isolated(make):
    distribution, samples, *_ = drawn(make)
    rows = np.stack([samples[:, 0]] * 3)
    rows[:, 1, 0] = [np.nan, np.inf, -np.inf]
    density = np.asarray(log_prob(distribution, rows))
    np.testing.assert_array_equal(np.isfinite(density), [[True, False, True, True]] * 3)
    assert np.isnan(density[0, 1])


@jax.jit
def gradients(distribution, value):
    gradient = jax.grad(lambda distribution, value: distribution.log_prob(value), argnums=(0, 1))
    return gradient(distribution, value)


@structural
def test_precision_is_float32_and_gradients_are_finite_far_out(make):
    distribution = made(make)
    half = jax.ShapeDtypeStruct(distribution.event_shape, jnp.bfloat16)
    assert jax.eval_shape(log_prob, distribution, half).dtype == jnp.float32
    for edge in (0.0, 1e-30, 1e3, -1e6):
        value = np.full(distribution.event_shape, edge, np.float32)
        leaves = jax.tree.leaves(jax.device_get(gradients(distribution, value)))
        assert all(np.all(np.isfinite(leaf)) for leaf in leaves)


WRONG = {
    "factor": functools.partial(distributions.FullGaussian, np.zeros(3), np.eye(2)),
    "corners": functools.partial(distributions.UniformBox, np.zeros(3), np.ones(2)),
    "logits": lambda: distributions.Mixture(np.zeros(2), made(normal, 3)),
    "event of a Gaussian": lambda: made(full).log_prob(np.zeros((4, 3))),
    "event of a box": lambda: made(box).log_prob(np.zeros((4, 3))),
}


@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG)
def test_wrong_shapes_raise_quoting_both(call):
    with pytest.raises(ValueError, match=r"\(.*\).*\(.*\)"):
        call()
