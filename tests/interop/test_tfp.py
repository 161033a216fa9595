"""TFP on JAX, both ways: densities, shapes, composition, and compilation."""

from __future__ import annotations

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from tensorflow_probability.substrates import jax as tfp

import vaeflow as vf
from tests.interop.targets import Linear, Passes
from vaeflow import bijectors
from vaeflow.interop.tfp import as_bijector, as_distribution, from_distribution

tfb, tfd = tfp.bijectors, tfp.distributions
MEAN = np.float32([1.0, -2.0])
FACTOR = np.float32([[1.5, 0.0], [0.7, 0.4]])
EXACT = scipy.stats.multivariate_normal(MEAN, FACTOR @ FACTOR.T)
VALUES = jnp.asarray(np.random.RandomState(0).normal(size=(5, 2)), jnp.float32)
NORMAL = vf.distributions.standard_normal((2,))


def of_tfp(mean=(0.0, 0.0)):
    return tfd.MultivariateNormalDiag(jnp.asarray(mean, jnp.float32), jnp.ones(2))


def test_a_bijector_works_in_distributions_and_compositions_of_tfp():
    passes = Passes()
    linear = as_bijector(Linear(MEAN, FACTOR, passes))
    transformed = tfd.TransformedDistribution(of_tfp(), linear)
    assert (transformed.batch_shape, transformed.event_shape) == ((), (2,))
    passes.forward = passes.inverse = 0
    np.testing.assert_allclose(transformed.log_prob(VALUES), EXACT.logpdf(VALUES), rtol=1e-5)
    assert (passes.forward, passes.inverse) == (0, 1)
    samples = transformed.sample((3, 4), seed=jax.random.key(0))
    assert samples.shape == (3, 4, 2)
    assert (passes.forward, passes.inverse) == (1, 1)
    # In a chain with one of TFP, and inverted: log-normals.
    chained = tfd.TransformedDistribution(of_tfp(), tfb.Chain([tfb.Exp(), linear]))
    positive = jnp.exp(VALUES)
    expected = EXACT.logpdf(VALUES) - np.sum(VALUES, -1)
    np.testing.assert_allclose(chained.log_prob(positive), expected, rtol=1e-5)
    inverted = tfb.Invert(linear)
    np.testing.assert_allclose(inverted.forward(linear.forward(VALUES)), VALUES, atol=1e-5)
    log_det = inverted.forward_log_det_jacobian(VALUES, 1)
    np.testing.assert_allclose(log_det, np.full(5, -np.log(0.6)), rtol=1e-5)
    # Of new ones, since TFP keeps log-determinants too.
    for sign, method in ((1, "forward_log_det_jacobian"), (-1, "inverse_log_det_jacobian")):
        log_det = getattr(as_bijector(Linear(MEAN, FACTOR)), method)(VALUES, 1)
        np.testing.assert_allclose(log_det, np.full(5, sign * np.log(0.6)), rtol=1e-5)
    # Of another point, it isn't the one that was kept.
    exp = as_bijector(bijectors.Exp())
    exp.forward(VALUES)
    np.testing.assert_allclose(
        exp.forward_log_det_jacobian(2 * VALUES, 1), 2 * np.sum(VALUES, 1), rtol=1e-5
    )


def test_a_bijector_tells_its_shapes():
    reshape = as_bijector(bijectors.Reshape((4,), (2, 2)))
    assert (reshape.forward_min_event_ndims, reshape.inverse_min_event_ndims) == (1, 2)
    assert reshape.forward_event_shape((4,)) == (2, 2)
    assert reshape.inverse_event_shape((2, 2)) == (4,)
    np.testing.assert_array_equal(reshape.forward_event_shape_tensor((4,)), (2, 2))
    np.testing.assert_array_equal(reshape.inverse_event_shape_tensor((2, 2)), (4,))
    base = tfd.MultivariateNormalDiag(jnp.zeros((3, 4)), jnp.ones(4))
    transformed = tfd.TransformedDistribution(base, reshape)
    assert (transformed.batch_shape, transformed.event_shape) == ((3,), (2, 2))


def test_a_distribution_works_in_joint_distributions_mixtures_and_samples_of_tfp():
    gaussian = as_distribution(vf.distributions.FullGaussian(MEAN, FACTOR))
    assert (gaussian.batch_shape, gaussian.event_shape) == ((), (2,))
    assert gaussian.dtype == jnp.float32
    assert gaussian.reparameterization_type == tfd.FULLY_REPARAMETERIZED
    exact = EXACT.logpdf(VALUES)
    np.testing.assert_allclose(gaussian.log_prob(VALUES), exact, rtol=1e-5)
    samples, log_prob = gaussian.experimental_sample_and_log_prob((4, 500), seed=jax.random.key(0))
    np.testing.assert_allclose(log_prob, EXACT.logpdf(samples), rtol=1e-4)
    np.testing.assert_allclose(np.mean(samples, (0, 1)), MEAN, atol=0.15)
    np.testing.assert_allclose(gaussian.mean(), MEAN)
    np.testing.assert_allclose(gaussian.variance(), np.diag(FACTOR @ FACTOR.T), rtol=1e-6)
    np.testing.assert_allclose(gaussian.mode(), MEAN)
    np.testing.assert_allclose(gaussian.entropy(), EXACT.entropy(), rtol=1e-5)
    np.testing.assert_allclose(tfd.Sample(gaussian, 5).log_prob(VALUES), exact.sum(), rtol=1e-5)
    mixture = tfd.Mixture(tfd.Categorical(probs=[0.25, 0.75]), [gaussian, of_tfp()])
    standard = scipy.stats.multivariate_normal(np.zeros(2), np.eye(2)).logpdf(VALUES)
    np.testing.assert_allclose(
        mixture.log_prob(VALUES), np.log(0.25 * np.exp(exact) + 0.75 * np.exp(standard)), rtol=1e-5
    )
    joint = tfd.JointDistributionSequential([gaussian, lambda x: tfd.Normal(x[..., 0], 1.0)])
    nats = joint.log_prob([VALUES, VALUES[:, 1]])
    second = scipy.stats.norm(VALUES[:, 0], 1).logpdf(VALUES[:, 1])
    np.testing.assert_allclose(nats, exact + second, rtol=1e-5)
    batch = as_distribution(distrax.Normal(jnp.zeros((3, 2)), 1.0))
    assert batch.batch_shape == (3, 2)
    np.testing.assert_array_equal(batch.batch_shape_tensor(), (3, 2))
    assert batch.event_shape_tensor().shape == (0,)
    mixture = distrax.MixtureSameFamily(
        distrax.Categorical(jnp.zeros(2)), distrax.Normal(jnp.zeros(2), 1.0)
    )
    assert as_distribution(mixture).reparameterization_type == tfd.NOT_REPARAMETERIZED


@pytest.mark.parametrize(
    ("bijector", "low", "high"),
    [
        (bijectors.Reverse(), -np.inf, np.inf),
        (bijectors.Exp(), 0, np.inf),
        (bijectors.Sigmoid(-1, 3), -1, 3),
        (Linear(MEAN, FACTOR), None, None),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_the_bijector_onto_a_support_is_known_for_intervals(bijector, low, high):
    wrapped = as_distribution(vf.distributions.Transformed(NORMAL, bijector))
    onto = wrapped.experimental_default_event_space_bijector()
    if low is None:
        assert onto is None
        return
    ends = onto.forward(jnp.float32([-30, 30]))
    np.testing.assert_allclose(ends, [max(low, -30), min(high, 30)], atol=1e-4)


def test_all_are_pytrees_that_compile_once_and_leave_compiled_functions():
    traces = []

    @jax.jit
    def evaluate(transformed, wrapped, ours, values):
        traces.append(1)
        nats = [each.log_prob(values) for each in (transformed, wrapped, ours)]
        return transformed, wrapped, ours, nats

    for shift in (0.0, 1.0, 2.0):
        linear = Linear(MEAN + shift, FACTOR)
        transformed = tfd.TransformedDistribution(of_tfp(), as_bijector(linear))
        wrapped = as_distribution(vf.distributions.FullGaussian(MEAN + shift, FACTOR))
        ours = vf.distributions.Transformed(
            from_distribution(of_tfp((shift, shift))), Linear(MEAN, jnp.eye(2))
        )
        *returned, nats = evaluate(transformed, wrapped, ours, VALUES)
        exact = EXACT.logpdf(VALUES - shift)
        standard = scipy.stats.multivariate_normal(MEAN + shift, np.eye(2)).logpdf(VALUES)
        for each, of_each, expected in zip(returned, nats, (exact, exact, standard), strict=True):
            np.testing.assert_allclose(of_each, expected, rtol=1e-5)
            np.testing.assert_allclose(each.log_prob(VALUES), expected, rtol=1e-5)
    assert len(traces) == 1


def test_a_distribution_of_tfp_is_a_base_and_has_its_moments():
    laplace = tfd.Independent(tfd.Laplace(MEAN, jnp.ones(2)), 1)
    base = from_distribution(laplace)
    assert (base.batch_shape, base.event_shape, base.dtype) == ((), (2,), jnp.float32)
    transformed = vf.distributions.Transformed(base, bijectors.Exp())
    exact = scipy.stats.laplace(MEAN).logpdf(VALUES).sum(1) - np.sum(VALUES, 1)
    np.testing.assert_allclose(transformed.log_prob(jnp.exp(VALUES)), exact, rtol=1e-5)
    samples, log_prob = transformed.sample_and_log_prob(seed=jax.random.key(0), sample_shape=(3, 4))
    assert samples.shape == (3, 4, 2)
    np.testing.assert_allclose(log_prob, transformed.log_prob(samples), rtol=1e-4)
    normal = from_distribution(tfd.Normal(2.0, 3.0))
    figures = normal.mean(), normal.variance(), normal.stddev(), normal.mode(), normal.median()
    np.testing.assert_allclose(figures, (2, 9, 3, 2, 2), rtol=1e-6)
    np.testing.assert_allclose(normal.entropy(), scipy.stats.norm(2, 3).entropy(), rtol=1e-6)
    np.testing.assert_allclose(normal.log_cdf(0.5), scipy.stats.norm(2, 3).logcdf(0.5), rtol=1e-5)
    assert normal.name == "Normal"


def test_a_bijector_of_tfp_works_in_a_chain_and_a_transformed_distribution():
    traces = []

    @jax.jit
    def evaluate(distribution, values):
        traces.append(1)
        return distribution.log_prob(values)

    for scale in (1.0, 2.0):
        parts = [
            distrax.Block(distrax.as_bijector(tfb.Exp()), 1),
            Linear(MEAN, FACTOR),
            distrax.as_bijector(tfb.ScaleMatvecTriL(scale * jnp.eye(2))),
        ]
        distribution = vf.distributions.Transformed(NORMAL, bijectors.Chain(parts))
        nats = evaluate(distribution, jnp.exp(VALUES))
        exact = scipy.stats.multivariate_normal(MEAN, scale**2 * FACTOR @ FACTOR.T)
        np.testing.assert_allclose(nats, exact.logpdf(VALUES) - np.sum(VALUES, 1), rtol=1e-5)
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: as_bijector(jnp.exp), "bijector must be one of distrax or vaeflow"),
        (lambda: as_distribution(of_tfp()), "distribution must be one of distrax or vaeflow"),
        (lambda: from_distribution(NORMAL), "distribution must be one of tensorflow_probability"),
        (
            lambda: from_distribution(
                tfd.JointDistributionSequential([tfd.Normal(0.0, 1.0), tfd.Normal(0.0, 1.0)])
            ),
            "distribution must be of one array",
        ),
    ],
)
def test_other_objects_are_rejected(call, message):
    with pytest.raises(ValueError, match=message):
        call()
