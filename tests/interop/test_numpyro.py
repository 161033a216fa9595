"""Distributions and transforms in NumPyro: shapes, supports, densities, samples, models."""

from __future__ import annotations

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.stats
from numpyro.distributions import constraints
from numpyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from numpyro.infer.util import log_density

import vaeflow as vf
from tests import linear_gaussian
from tests.interop.targets import Linear, Passes
from vaeflow import bijectors
from vaeflow.interop.numpyro import as_distribution, as_transform

MEAN = np.float32([1.0, -2.0])
FACTOR = np.float32([[1.5, 0.0], [0.7, 0.4]])
EXACT = scipy.stats.multivariate_normal(MEAN, FACTOR @ FACTOR.T)
VALUES = np.float32(np.random.RandomState(0).normal(size=(5, 2)))
NORMAL = vf.distributions.standard_normal((2,))


def test_a_gaussian_has_its_shapes_density_and_moments():
    wrapped = as_distribution(vf.distributions.FullGaussian(MEAN, FACTOR))
    assert wrapped.batch_shape == ()
    assert wrapped.event_shape == (2,)
    assert wrapped.has_rsample
    assert wrapped.support == constraints.real_vector
    for key in (jax.random.key(0), jax.random.PRNGKey(0)):
        samples = wrapped.sample(key, (100, 200))
        assert samples.shape == (100, 200, 2)
        np.testing.assert_allclose(np.mean(samples, (0, 1)), MEAN, atol=0.05)
        covariance = np.cov(samples.reshape(-1, 2).T)
        np.testing.assert_allclose(covariance, FACTOR @ FACTOR.T, atol=0.08)
    np.testing.assert_allclose(wrapped.log_prob(VALUES), EXACT.logpdf(VALUES), rtol=1e-5)
    np.testing.assert_array_equal(wrapped.mean, MEAN)
    np.testing.assert_allclose(wrapped.variance, np.diag(FACTOR @ FACTOR.T), rtol=1e-6)


def test_plates_expand_and_broadcast_batch_axes():
    shifts = np.float32([[0.0], [3.0]])  # batch axes [2, 1]
    factors = np.broadcast_to(FACTOR, (2, 1, 2, 2))
    batch = vf.distributions.FullGaussian(MEAN + shifts[..., None], factors)

    def model(values):
        with numpyro.plate("group", 2, dim=-2), numpyro.plate("row", 5, dim=-1):
            numpyro.sample("x", as_distribution(batch), obs=values)

    def drawn():
        with numpyro.plate("group", 2, dim=-2), numpyro.plate("row", 5, dim=-1):
            return numpyro.sample("x", as_distribution(batch))

    assert as_distribution(batch).batch_shape == (2, 1)
    samples = numpyro.handlers.seed(drawn, 0)()
    assert samples.shape == (2, 5, 2)
    np.testing.assert_allclose(np.mean(samples[1] - samples[0]), 3, atol=1.5)
    nats, _ = log_density(model, (samples,), {}, {})
    exact = [EXACT.logpdf(samples[group] - shifts[group]).sum() for group in (0, 1)]
    np.testing.assert_allclose(nats, sum(exact), rtol=1e-5)


@pytest.mark.parametrize(
    ("distribution", "expected"),
    [
        (distrax.Normal(0.0, 1.0), constraints.real),
        (distrax.Gamma(1.0, 1.0), constraints.positive),
        (distrax.Beta(jnp.ones(3), 2.0), constraints.unit_interval),
        (distrax.Uniform(-1.0, 2.0), constraints.interval(-1.0, 2.0)),
        (
            vf.distributions.UniformBox(np.float32([0, 0]), np.float32([2, 2])),
            constraints.independent(constraints.interval(0.0, 2.0), 1),
        ),
        (distrax.Bernoulli(0.0), constraints.boolean),
        (distrax.Categorical(jnp.zeros(4)), constraints.integer_interval(0, 3)),
        (distrax.Dirichlet(jnp.ones(3)), constraints.simplex),
        (
            distrax.Independent(distrax.Bernoulli(jnp.zeros(3)), 1),
            constraints.independent(constraints.boolean, 1),
        ),
        (
            distrax.MultivariateNormalDiag(jnp.zeros(2), jnp.ones(2)),
            constraints.real_vector,
        ),
        (
            distrax.MixtureSameFamily(
                distrax.Categorical(jnp.zeros(2)), distrax.Beta(jnp.ones(2), 1.0)
            ),
            constraints.unit_interval,
        ),
        *(
            (vf.distributions.Transformed(NORMAL, bijector), constraints.independent(base, 1))
            for bijector, base in [
                (bijectors.Reverse(), constraints.real),
                (bijectors.Exp(), constraints.positive),
                (bijectors.Softplus(), constraints.positive),
                (bijectors.Sigmoid(-1, 5), constraints.interval(-1.0, 5.0)),
                (distrax.Block(distrax.Tanh(), 1), constraints.interval(-1.0, 1.0)),
                (
                    bijectors.Chain([bijectors.Reverse(), bijectors.Sigmoid()]),
                    constraints.unit_interval,
                ),
                (
                    distrax.Chain([bijectors.Sigmoid(0, 2), distrax.Inverse(bijectors.Reverse())]),
                    constraints.interval(0.0, 2.0),
                ),
                (
                    bijectors.Chain([bijectors.Logit(0, 2), bijectors.Sigmoid(0, 2)]),
                    constraints.real,
                ),
            ]
        ),
    ],
    # Their texts hold addresses, which differ from one process to another.
    ids=lambda value: type(value).__name__,
)
def test_supports_follow_from_classes(distribution, expected):
    wrapped = as_distribution(distribution)
    assert wrapped.support == expected
    value = wrapped.sample(jax.random.key(0), (20,))
    assert np.all(wrapped.support(value))


def test_an_interval_moves_with_an_affine_map():
    affine = bijectors.ElementwiseAffine(np.float32([1, -1]), np.log(np.float32([2, 3])))
    moved = bijectors.Chain([affine, bijectors.Sigmoid(0, 1)])
    support = as_distribution(vf.distributions.Transformed(NORMAL, moved)).support
    np.testing.assert_allclose(support.base_constraint.lower_bound, [1, -1])
    np.testing.assert_allclose(support.base_constraint.upper_bound, [3, 2], rtol=1e-6)
    half = bijectors.Chain([affine, bijectors.Exp()])
    support = as_distribution(vf.distributions.Transformed(NORMAL, half)).support
    np.testing.assert_allclose(support.base_constraint.lower_bound, [1, -1])


@pytest.mark.parametrize(
    "bijector",
    [
        Linear(MEAN, FACTOR),  # any class of others
        bijectors.Logit(0, 2),  # of a normal
        bijectors.FactorOut(
            bijectors.Chain([bijectors.Reshape((1, 1, 1), (1,)), bijectors.Exp(3)]), (1, 1, 2), 1
        ),
        bijectors.Chain([bijectors.Reverse(), bijectors.Sigmoid(0, 1), bijectors.Sigmoid(0, 1)]),
    ],
    ids=lambda bijector: bijector.name,
)
def test_an_unknown_support_must_be_given(bijector):
    shape = (1, 1, 2) if isinstance(bijector, bijectors.FactorOut) else (2,)
    base = vf.distributions.standard_normal(shape)
    transformed = vf.distributions.Transformed(base, bijector)
    with pytest.raises(ValueError, match="support must be given for Transformed"):
        as_distribution(transformed)
    given = as_distribution(transformed, support=constraints.real_vector)
    assert given.support == constraints.real_vector
    assert jax.jit(lambda each: each)(given).support == constraints.real_vector
    # One that is given comes before that of the class.
    normal = as_distribution(distrax.Normal(0.0, 1.0), support=constraints.positive)
    assert normal.support == constraints.positive


def test_a_distribution_and_a_transform_are_pytrees_that_compile_once():
    traces = []

    @jax.jit
    def evaluate(wrapped, transform, values):
        traces.append(1)
        y = transform(values)
        log_det = transform.log_abs_det_jacobian(values, y)
        return wrapped, transform, wrapped.log_prob(values), log_det

    for scale in (1.0, 2.0):
        gaussian = vf.distributions.FullGaussian(MEAN, scale * FACTOR)
        affine = bijectors.ElementwiseAffine(MEAN, jnp.log(jnp.float32([scale, 3 * scale])))
        wrapped, transform, nats, log_det = evaluate(
            as_distribution(gaussian), as_transform(affine), VALUES
        )
        exact = scipy.stats.multivariate_normal(MEAN, scale**2 * FACTOR @ FACTOR.T)
        np.testing.assert_allclose(nats, exact.logpdf(VALUES), rtol=1e-5)
        np.testing.assert_allclose(wrapped.log_prob(VALUES), exact.logpdf(VALUES), rtol=1e-5)
        np.testing.assert_allclose(log_det, np.full(5, np.log(3 * scale**2)), rtol=1e-5)
        np.testing.assert_allclose(transform(VALUES), affine.forward(VALUES))
    assert len(traces) == 1


def test_samples_bring_their_log_density_without_an_inverse():
    passes = Passes()
    transformed = vf.distributions.Transformed(NORMAL, Linear(MEAN, FACTOR, passes))
    wrapped = as_distribution(transformed, support=constraints.real_vector)
    value, kept = wrapped.expand((7,)).sample_with_intermediates(jax.random.key(0), (3,))
    nats = wrapped.expand((7,)).log_prob(value, kept)
    assert (passes.forward, passes.inverse) == (1, 0)
    np.testing.assert_allclose(nats, EXACT.logpdf(value), rtol=1e-4)


def test_a_transform_passes_once_in_either_direction():
    passes = Passes()
    transform = as_transform(
        Linear(MEAN, FACTOR, passes),
        domain=constraints.real_vector,
        codomain=constraints.real_vector,
    )
    values = jnp.asarray(VALUES)
    log_det = np.full(5, np.log(1.5 * 0.4))
    y = transform(values)
    np.testing.assert_allclose(transform.log_abs_det_jacobian(values, y), log_det, rtol=1e-5)
    assert (passes.forward, passes.inverse) == (1, 0)
    transformed = dist.TransformedDistribution(dist.Normal(jnp.zeros(2), 1).to_event(1), transform)
    nats = transformed.log_prob(values)
    np.testing.assert_allclose(nats, EXACT.logpdf(VALUES), rtol=1e-5)
    assert (passes.forward, passes.inverse) == (1, 1)
    # Of another point, it isn't the one that was kept.
    squares = as_transform(bijectors.Exp())
    squares(values)
    np.testing.assert_allclose(
        squares.log_abs_det_jacobian(2 * values, jnp.exp(2 * values)), 2 * VALUES.sum(1), rtol=1e-5
    )
    np.testing.assert_allclose(transform.inv(transform(values)), values, atol=1e-5)


def test_a_transform_changes_shapes_and_compares_by_its_arrays():
    reshape = as_transform(bijectors.Reshape((4,), (2, 2)))
    assert reshape.forward_shape((3, 4)) == (3, 2, 2)
    assert reshape.inverse_shape((3, 2, 2)) == (3, 4)
    assert (reshape.domain.event_dim, reshape.codomain.event_dim) == (1, 2)
    base = dist.Normal(jnp.zeros((3, 4)), 1).to_event(1)
    transformed = dist.TransformedDistribution(base, reshape)
    assert (transformed.batch_shape, transformed.event_shape) == ((3,), (2, 2))
    logit = as_transform(bijectors.Logit(1, 3))
    assert logit.domain == constraints.independent(constraints.interval(1.0, 3.0), 1)
    assert logit.codomain == constraints.real_vector
    shift = jnp.ones(2)
    one, same, other = (
        as_transform(bijectors.ElementwiseAffine(each, jnp.zeros(2)))
        for each in (shift, shift + 0, shift + 1)
    )
    assert one.eq(same)
    assert not one.eq(other)
    assert not one.eq(reshape)
    assert one == one
    with pytest.raises(ValueError, match="domain and codomain must be given together"):
        as_transform(bijectors.Exp(), domain=constraints.real_vector)
    with pytest.raises(ValueError, match="domain and codomain must be given for Linear"):
        as_transform(Linear(MEAN, FACTOR))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: as_distribution(dist.Normal()), "distribution must be one of distrax or vaeflow"),
        (lambda: as_transform(jnp.exp), "bijector must be one of distrax or vaeflow"),
    ],
)
def test_other_objects_are_rejected(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_mixture_isnt_reparameterized():
    mixture = distrax.MixtureSameFamily(
        distrax.Categorical(jnp.zeros(2)), distrax.Normal(jnp.zeros(2), 1.0)
    )
    assert not as_distribution(mixture).has_rsample
    with pytest.raises(NotImplementedError, match="aren't reparameterised"):
        as_distribution(mixture).rsample(jax.random.key(0))


WEIGHTS, OFFSET = np.float32(linear_gaussian.WEIGHTS), np.float32(linear_gaussian.OFFSET)
OBSERVED = linear_gaussian.DATA[0].reshape(-1)
POSTERIOR_MEAN = np.float32(
    linear_gaussian.COVARIANCE @ WEIGHTS @ (OBSERVED - OFFSET) / linear_gaussian.NOISE**2
)
POSTERIOR_FACTOR = np.float32(np.linalg.cholesky(linear_gaussian.COVARIANCE))
EVIDENCE = scipy.stats.multivariate_normal(
    OFFSET, WEIGHTS.T @ WEIGHTS + linear_gaussian.NOISE**2 * np.eye(len(OFFSET))
).logpdf(OBSERVED)


def linear_model():
    """x = z W + b + noise e, with a prior of this package."""
    z = numpyro.sample("z", as_distribution(NORMAL))
    mean = z @ WEIGHTS + OFFSET
    numpyro.sample("x", dist.Normal(mean, linear_gaussian.NOISE).to_event(1), obs=OBSERVED)


def test_the_bound_at_the_exact_posterior_is_the_evidence():
    def guide():
        posterior = vf.distributions.FullGaussian(POSTERIOR_MEAN, POSTERIOR_FACTOR)
        numpyro.sample("z", as_distribution(posterior))

    svi = SVI(linear_model, guide, numpyro.optim.Adam(1e-3), Trace_ELBO())
    # Every sample gives the evidence, so that one is enough.
    loss = svi.evaluate(svi.init(jax.random.key(0)))
    np.testing.assert_allclose(-loss, EVIDENCE, rtol=1e-4)


@pytest.mark.slow
def test_nuts_on_a_bounded_prior_reaches_the_conjugate_posterior():
    """7 of 10 successes with a Beta(2, 2) prior have the posterior Beta(9, 5)."""

    def model():
        share = numpyro.sample("share", as_distribution(distrax.Beta(2.0, 2.0)))
        numpyro.sample("successes", dist.Binomial(10, share), obs=7)

    mcmc = MCMC(NUTS(model), num_warmup=500, num_samples=4000, progress_bar=False)
    mcmc.run(jax.random.key(0))
    share = np.asarray(mcmc.get_samples()["share"])
    exact = scipy.stats.beta(9, 5)
    np.testing.assert_allclose(share.mean(), exact.mean(), atol=0.015)
    np.testing.assert_allclose(share.std(), exact.std(), atol=0.01)
