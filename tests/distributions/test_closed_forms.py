"""distrax's contract: closed forms against quadrature or sums, broadcasting, and absent ones."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from tests.distributions import test_discrete_laws as discrete
from tests.distributions import test_distribution_laws as laws
from tests.drawn import made
from tests.variables import noisy
from vaeflow import distributions, flows, models

MOMENTS = ("mean", "variance", "stddev", "mode", "median", "entropy")
ALL = {*MOMENTS, "cdf", "log_cdf", "kl_divergence", "cross_entropy"}
CDF = {"cdf", "log_cdf"}
KL = {"kl_divergence", "cross_entropy"}

HAS = {
    "standard_normal": ALL,
    "Transformed": {"mean", "mode", "entropy"},
    "HierarchicalPrior": set(),
    "FullGaussian": ALL - CDF,
    "FullGaussian one-dimension": ALL - CDF,
    "Histogram": ALL,
    "Mixture": {"mean", "variance", "stddev"} | CDF,
    "UniformBox": ALL,
    "BoxBase": ALL,
    "ContinuousBernoulli": ALL,
    "Grouped": ALL,
    "CorrelatedGaussianBase": ALL - CDF,
    "DiagonalGaussianBase": ALL,
    "GaussianMixtureBase": {"mean", "variance", "stddev"} | CDF,
    "ResampledBase": set(),
    "LabelledGaussianBase": ALL,
    "Bernoulli": ALL,
    "DiscretizedLogisticMixture": ALL,
    "PixelCategorical": ALL,
    "CodeMaps": set(),
}
"""The quantities that have a closed form, by the names in the two registries."""

MAKERS = laws.REGISTRY | {name: make for name, (make, _) in discrete.REGISTRY.items()}


def marked(*quick: str) -> pytest.MarkDecorator:
    """All names; those that aren't here are left to the slow tests."""
    names = [
        pytest.param(name, marks=[] if name in quick else [pytest.mark.slow]) for name in MAKERS
    ]
    return pytest.mark.parametrize("name", names)


def ends_of(distribution: distrax.Distribution) -> tuple[Any, Any]:
    """Ends of the support, or of nearly all of it."""
    if isinstance(distribution, distributions.UniformBox):
        middle, half = distribution.mean(), np.sqrt(3) * distribution.stddev()
        return middle - half, middle + half
    if isinstance(distribution, distributions.toy.Histogram):
        return (-2.4, -1.2), (1.2, 2.4)
    if isinstance(distribution, distributions.ContinuousBernoulli):
        return -0.5, 0.5
    return -9.0, 9.0


def test_every_distribution_has_an_entry():
    assert set(HAS) == set(MAKERS)


def support(name: str) -> tuple[np.ndarray, np.ndarray, float]:
    """Points that carry the mass, the width of their cells, and the volume of one."""
    distribution = made(MAKERS[name])
    if name in discrete.REGISTRY:
        _, levels = discrete.REGISTRY[name]
        return discrete.pairs(levels, distribution), np.zeros(2), 1.0
    (size,) = distribution.event_shape
    low, high = (np.broadcast_to(end, (size,)) for end in ends_of(distribution))
    cells = 360
    width = (high - low) / cells
    axes = [a + w * (np.arange(cells) + 0.5) for a, w in zip(low, width, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, size)
    return grid.astype(np.float32), width, float(np.prod(width))


def available(
    distribution: distrax.Distribution, other: distrax.Distribution, value: Any
) -> tuple[dict[str, Any], dict[str, str]]:
    """All quantities that a distribution has, and the messages of those that it lacks."""
    calls = {name: getattr(distribution, name) for name in MOMENTS}
    calls |= {name: functools.partial(getattr(distribution, name), value) for name in CDF}
    calls |= {name: functools.partial(getattr(distribution, name), other) for name in KL}
    found, messages = {}, {}
    for name, call in calls.items():
        try:
            found[name] = call()
        except NotImplementedError as error:
            messages[name] = str(error)
    return found, messages


@marked(
    "FullGaussian",
    "Histogram",
    "ContinuousBernoulli",
    "DiscretizedLogisticMixture",
)
def test_closed_forms_are_those_of_the_density(name):
    points, width, volume = support(name)
    one, messages = made(MAKERS[name]), {}
    event = one.event_shape
    # Corners of cells.
    places = [0, len(points) // 3, len(points) // 2, -1]
    corners = (points[places] + width.reshape(-1) / 2).astype(points.dtype)

    @jax.jit
    def facts(points, corners):
        others = MAKERS[name](3)
        found, absent = available(one, others, corners)
        messages.update(absent)
        if not found:
            return {}, None, None, None, None
        own = one.log_prob(points)
        theirs = others.log_prob(jnp.expand_dims(points, 1)) if "kl_divergence" in found else None
        at_mode = one.log_prob(found["mode"]) if "mode" in found else None
        itself = one.kl_divergence(one) if "kl_divergence" in found else None
        return found, own, theirs, at_mode, itself

    found, own, theirs, at_mode, itself = jax.device_get(facts(points, corners))
    assert set(found) == HAS[name]
    assert set(messages) == ALL - HAS[name]
    for message in messages.values():
        assert type(one).__name__ in message
        assert len(message.split()) > 3
    shapes = {"entropy": (), "cdf": (4,), "log_cdf": (4,), "kl_divergence": (3,)}
    for quantity, value in found.items():
        expected = (3,) if quantity == "cross_entropy" else shapes.get(quantity, event)
        assert np.shape(value) == expected, quantity
        assert value.dtype == np.float32, quantity

    if not found:
        return
    own, flat = np.float64(own), np.float64(points).reshape(len(points), -1)
    weights = np.exp(own) * volume
    weights /= weights.sum()
    close = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=2e-4)
    mean = weights @ flat
    variance = weights @ (flat - mean) ** 2
    if "mean" in found:
        close(found["mean"].ravel(), mean)
    if "variance" in found:
        close(found["variance"].ravel(), variance)
        close(found["stddev"].ravel(), np.sqrt(variance))
    some = weights > 0
    if "entropy" in found:
        close(found["entropy"], -weights[some] @ own[some])
    if "mode" in found:
        assert at_mode >= own.max() - 1e-4
    if "median" in found:
        for column, median, cell in zip(flat.T, found["median"].ravel(), width, strict=True):
            assert weights @ (column < median - cell - 1e-6) <= 0.5 + 1e-6
            assert weights @ (column <= median + cell + 1e-6) >= 0.5 - 1e-6
    if "cdf" in found:
        below = np.all(flat[:, None] <= np.float64(corners).reshape(4, -1) + 1e-6, axis=-1)
        close(found["cdf"], weights @ below)
        np.testing.assert_allclose(np.exp(found["log_cdf"]), found["cdf"], rtol=1e-5)
    if "kl_divergence" in found:
        with np.errstate(invalid="ignore"):
            terms = weights[some] @ (own[some, None] - np.float64(theirs)[some])
        close(found["kl_divergence"], terms)
        close(found["cross_entropy"], terms - weights[some] @ own[some])
        np.testing.assert_allclose(itself, 0, atol=1e-5)


SHAPES = ((), (1,), (2,), (3, 1), (1, 2), (3, 2), (4, 1, 1), (4, 3, 2))
"""Batch axes of values that broadcast against those of a distribution, (3, 2)."""


@marked("Transformed")
def test_values_broadcast_against_the_batch(name):
    if name in discrete.REGISTRY:
        _, levels = discrete.REGISTRY[name]
        pairs = discrete.pairs(levels, made(MAKERS[name], 3, 2))
        values = pairs[np.arange(24) % len(pairs)]
    else:
        (size,) = made(MAKERS[name], 3, 2).event_shape
        values = 0.3 * np.random.default_rng(2).normal(size=(24, size)).astype(np.float32)
    event = values.shape[1:]

    def part(array: Any, shape: tuple[int, ...]) -> Any:
        """The first of the axes 4, 3 and 2 that a shape lacks or has one of."""
        sizes = (1,) * (3 - len(shape)) + shape
        array = array.reshape(4, 3, 2, *array.shape[1:])
        return array[tuple(slice(size) for size in sizes)]

    @jax.jit
    def densities(values):
        distribution, found = MAKERS[name](3, 2), {}
        for method in ["log_prob", *(CDF & HAS[name])]:
            density = getattr(distribution, method)
            each = density(jnp.broadcast_to(values[:, None, None], (24, 3, 2, *event)))
            found[method] = each, [density(part(values, s).reshape(*s, *event)) for s in SHAPES]
        return found

    for each, found in jax.device_get(densities(values)).values():
        for shape, density in zip(SHAPES, found, strict=True):
            whole = np.broadcast_shapes(shape, (3, 2))
            assert density.shape == whole
            rows, columns = np.indices((3, 2))
            chosen = part(np.arange(24), shape).reshape(shape)
            expected = each[np.broadcast_to(chosen, whole), rows, columns]
            np.testing.assert_allclose(density, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "make", [flows.MaskedAutoregressiveFlow, pytest.param(flows.RealNVP, marks=pytest.mark.slow)]
)
def test_one_value_has_the_density_of_each_context(make):
    model = models.FlowModel(make((3,), num_steps=1))
    random = np.random.default_rng(3)
    data = random.normal(size=(16, 3)).astype(np.float32)
    contexts = random.normal(size=(16, 2)).astype(np.float32)

    @jax.jit
    def densities(data, contexts):
        variables = noisy(model.init(jax.random.key(0), data, context=contexts), 0.1)
        density = model.apply(variables, context=contexts).log_prob
        repeated = jnp.broadcast_to(data[:4, None], (4, 16, 3))
        return density(data[0]), density(data[:4, None]), density(repeated)

    one, several, expected = jax.device_get(densities(data, contexts))
    np.testing.assert_allclose(several, expected, rtol=1e-5)
    np.testing.assert_allclose(one, expected[0], rtol=1e-5)
    assert np.ptp(one) > 0.01


@marked("Mixture")
def test_closed_forms_have_the_axes_of_the_batch(name):
    distribution = made(MAKERS[name], 3, 2)
    for quantity in HAS[name] & set(MOMENTS):
        found = jax.eval_shape(lambda one, q=quantity: getattr(one, q)(), distribution)
        event = () if quantity == "entropy" else distribution.event_shape
        assert found.shape == (3, 2, *event), quantity
    if "kl_divergence" in HAS[name]:
        one = made(MAKERS[name])
        for p, q in ((one, distribution), (distribution, one), (distribution, distribution)):
            found = jax.eval_shape(lambda p, q: p.kl_divergence(q), p, q)
            assert found.shape == (3, 2)


def test_gaussians_with_and_without_correlations():
    full = laws.full()

    @jax.jit
    def facts():
        diagonal = distrax.Independent(distrax.Normal(jnp.array([0.3, -1.0]), jnp.full(2, 0.7)), 1)
        same = distributions.FullGaussian(jnp.array([0.3, -1.0]), 0.7 * jnp.eye(2))
        pairs = [(diagonal, full), (same, full), (full, diagonal), (full, same)]
        return [p.kl_divergence(q) for p, q in pairs]

    first, expected, second, again = jax.device_get(facts())
    np.testing.assert_allclose([first, second], [expected, again], rtol=1e-5)
    bernoulli = distrax.Independent(distrax.Bernoulli(jnp.zeros(2)), 1)
    with pytest.raises(NotImplementedError, match="FullGaussian and Bernoullis has no closed"):
        full.kl_divergence(bernoulli)


def test_kl_of_supports_that_hold_each_other():
    @jax.jit
    def facts():
        box = distributions.UniformBox(jnp.zeros(2), jnp.ones(2))
        around = distributions.UniformBox(jnp.full(2, -1.0), jnp.full(2, 3.0))
        weights = jnp.array([[1.0, 0, 2], [3, 4, 1]])
        inner = distributions.toy.Histogram(weights, [0.0, 0], [1.5, 1])
        outer = distributions.toy.Histogram(jnp.arange(1.0, 21).reshape(4, 5), [-1.0, -1], [3, 2])
        pairs = [(box, around), (around, box), (inner, outer), (outer, inner)]
        grid = jnp.stack(jnp.meshgrid(jnp.linspace(0, 1.5, 301), jnp.linspace(0, 1, 201)), -1)
        points = (grid[1:, 1:] + grid[:-1, :-1]) / 2
        own, other = inner.log_prob(points), outer.log_prob(points)
        mass = jnp.exp(own)
        by_sum = jnp.sum(jnp.where(mass > 0, mass * (own - other), 0)) / jnp.sum(mass)
        return [p.kl_divergence(q) for p, q in pairs], by_sum

    (inside, outside, finer, beyond), by_sum = jax.device_get(facts())
    assert inside == pytest.approx(np.log(16), rel=1e-6)
    assert finer == pytest.approx(by_sum, abs=2e-3)
    assert outside == beyond == np.inf


def test_discretized_intensities_at_narrow_and_wide_scales():
    """Masses of a cell, of all of them, and beyond the ends."""
    levels = (np.arange(16) + 0.5) / 16 - 0.5
    shape = (2, 5, 1)
    location = jnp.linspace(-0.7, 0.7, 5).reshape(1, 5, 1) + jnp.zeros(shape)
    scale = jnp.array([1e-4, 1.0]).reshape(2, 1, 1) + jnp.zeros(shape)

    @jax.jit
    def facts():
        found = distributions.DiscretizedLogisticMixture(jnp.zeros(shape), location, scale, 0, 4)
        other = distributions.PixelCategorical(jnp.linspace(0, 2, 160).reshape(2, 5, 16), 0)
        masses = jnp.exp(found.log_prob(levels[:, None, None].astype(jnp.float32)))
        log_q = other.log_prob(levels[:, None, None].astype(jnp.float32))
        return found.mean(), found.variance(), found.kl_divergence(other), masses, log_q

    mean, variance, kl, masses, log_q = jax.device_get(facts())
    masses = np.float64(masses)
    column = levels[:, None, None]
    exact = (masses * column).sum(0)
    np.testing.assert_allclose(mean, exact, atol=1e-5)
    np.testing.assert_allclose(variance, (masses * (column - exact) ** 2).sum(0), atol=1e-5)
    log_p = np.log(np.maximum(masses, 1e-300))
    np.testing.assert_allclose(kl, (masses * (log_p - log_q)).sum(0), rtol=1e-4, atol=1e-5)


def test_means_of_discretized_logistics_are_exact_at_any_scale():
    places = np.random.default_rng(0).uniform(-0.7, 0.7, 200)
    location = np.float32([*places, 0, -0.5, 0.5, -1e3, 1e3])[:, None, None]
    scale = np.float32([1e-30, 1e-3, *np.geomspace(0.4, 4, 12) / 256, 0.05, 0.99, 1.01, 1e4, 1e30])
    location, scale = np.broadcast_arrays(location, scale[:, None])
    edges = np.arange(1, 256) / 256 - 0.5
    at_edges = special.expit((edges - np.float64(location)) / np.float64(scale))
    slopes = (at_edges * (1 - at_edges) / scale).mean(-1) * 255 / 256

    @jax.jit
    def facts(location, scale):
        def mean(location, scale):
            zeros = jnp.zeros(location.shape)
            return distributions.DiscretizedLogisticMixture(zeros, location, scale, 0).mean()

        gradients = jax.grad(lambda *args: mean(*args).sum(), (0, 1))(location, scale)
        return mean(location, scale), *gradients

    mean, by_location, by_scale = jax.device_get(facts(location, scale))
    np.testing.assert_allclose(mean, 0.5 - (at_edges.sum(-1) + 0.5) / 256, atol=3e-7)
    # Nearly steps have no slopes that numbers could tell.
    np.testing.assert_allclose(by_location[:, 1:, 0], slopes[:, 1:], rtol=1e-4, atol=1e-5)
    assert np.all(np.isfinite(by_scale))


def test_kl_of_different_kinds_raises_with_both():
    small, wide = distributions.standard_normal((2,)), distributions.standard_normal((3,))
    pairs = [
        (distributions.FullGaussian(np.zeros(2), np.eye(2)), wide, r"\(2,\).*\(3,\)"),
        (
            distributions.PixelCategorical(np.zeros((2, 4), np.float32), 1),
            distributions.PixelCategorical(np.zeros((2, 8), np.float32), 1),
            "4 and 8",
        ),
        (
            distributions.Grouped({"a": small}),
            distributions.Grouped({"b": small}),
            r"'a': \(2,\).*'b': \(2,\)",
        ),
        (
            distributions.Bernoulli(np.zeros(2, np.float32), 1),
            distributions.Bernoulli(np.zeros(3, np.float32), 1),
            r"\(2,\).*\(3,\)",
        ),
    ]
    for p, q, message in pairs:
        with pytest.raises(ValueError, match=message):
            p.kl_divergence(q)
    with pytest.raises(NotImplementedError, match=r"Bernoulli.*ContinuousBernoulli"):
        pairs[-1][0].kl_divergence(distributions.ContinuousBernoulli(np.zeros(2, np.float32), 1))


def test_a_concrete_variable_has_a_mode_below_a_temperature_and_no_other_closed_form():
    logits = np.log(np.float32([0.2, 0.5, 0.3]))

    @jax.jit
    def densities(points):
        return distributions.Concrete(logits, 0.66).log_prob(points)

    relaxed = distributions.Concrete(logits, 0.66)
    corners = 1e-4 + (1 - 3e-4) * np.eye(3)
    middles = np.array(list(itertools.product(np.arange(0.05, 1, 0.05), repeat=2)))
    middles = middles[middles.sum(1) < 0.96]
    inside = np.concatenate([middles, 1 - middles.sum(1, keepdims=True)], axis=1)
    found = np.asarray(densities(np.float32(np.concatenate([corners, inside]))))
    assert np.argmax(found) == np.argmax(relaxed.mode()) == 1
    for name in ("mean", "variance", "median", "entropy"):
        with pytest.raises(NotImplementedError, match=f"Concrete` does not implement `{name}`"):
            getattr(relaxed, name)()
    with pytest.raises(NotImplementedError, match=r"closed form at a temperature of 2\.5"):
        distributions.Concrete(logits, 2.5).mode()
