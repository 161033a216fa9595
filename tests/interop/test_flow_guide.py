"""Guides whose posterior is a flow: the evidence by SVI, NeuTra, and one pass for each gradient."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
import scipy.stats
from numpyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from numpyro.infer.reparam import NeuTraReparam
from numpyro.infer.util import potential_energy

import vaeflow as vf
from tests.interop.targets import FUNNEL_DEVIATION, Linear, LinearFlow, Passes
from vaeflow.interop.numpyro import FlowGuide

WEIGHTS = np.float32([[1.0, 0.5], [-0.3, 0.8], [0.2, -1.0]])
NOISE = 0.5
OBSERVED = np.float32([0.7, -1.2, 0.4])
PRECISION = np.eye(2) + WEIGHTS.T @ WEIGHTS / NOISE**2
COVARIANCE = np.linalg.inv(PRECISION)
MEAN = COVARIANCE @ WEIGHTS.T @ OBSERVED / NOISE**2
EVIDENCE = scipy.stats.multivariate_normal(
    np.zeros(3), WEIGHTS @ WEIGHTS.T + NOISE**2 * np.eye(3)
).logpdf(OBSERVED)


def linear_model():
    """x = W z + noise e for standard normal z, of two sites, and e."""
    first = numpyro.sample("first", dist.Normal())
    second = numpyro.sample("second", dist.Normal())
    mean = WEIGHTS @ jnp.stack([first, second])
    numpyro.sample("x", dist.Normal(mean, NOISE).to_event(1), obs=OBSERVED)


def exact_params():
    """Parameters of a `LinearFlow` whose samples are the posterior."""
    factor = np.linalg.cholesky(COVARIANCE)
    logarithms = 1 + np.log(np.diagonal(factor))
    params = {"mean": MEAN, "factor": np.tril(factor, -1) + np.diag(logarithms)}
    return {"auto_flow$params": jax.tree.map(jnp.float32, params)}


def test_the_bound_of_the_exact_flow_is_the_evidence():
    passes = Passes()
    guide = FlowGuide(linear_model, LinearFlow((2,), passes))
    svi = SVI(linear_model, guide, numpyro.optim.Adam(0.03), Trace_ELBO())
    state = svi.init(jax.random.key(0))
    state = state._replace(optim_state=svi.optim.init(exact_params()))
    passes.forward = passes.inverse = 0
    # Every sample gives the evidence, so that one is enough.
    np.testing.assert_allclose(-svi.evaluate(state), EVIDENCE, rtol=1e-4)
    assert (passes.forward, passes.inverse) == (1, 0)


@pytest.mark.slow
def test_svi_reaches_the_exact_evidence():
    guide = FlowGuide(linear_model, LinearFlow((2,)))
    rate = optax.cosine_decay_schedule(0.05, 1000)
    svi = SVI(linear_model, guide, optax.adam(rate), Trace_ELBO(num_particles=8))
    result = svi.run(jax.random.key(0), 1000, progress_bar=False)
    assert result.losses[0] > -EVIDENCE + 1
    np.testing.assert_allclose(np.mean(result.losses[-50:]), -EVIDENCE, atol=0.005)
    samples = guide.sample_posterior(jax.random.key(1), result.params, sample_shape=(4000,))
    latents = np.stack([samples["first"], samples["second"]])
    np.testing.assert_allclose(latents.mean(1), MEAN, atol=0.05)
    np.testing.assert_allclose(np.cov(latents), COVARIANCE, atol=0.05)


def test_neutra_of_the_exact_posterior_is_a_standard_normal_by_one_pass():
    passes = Passes()
    guide = FlowGuide(linear_model, LinearFlow((2,), passes))
    numpyro.handlers.seed(guide, 0)()
    neutra = NeuTraReparam(guide, exact_params())
    model = neutra.reparam(linear_model)
    points = np.float32([[0, 0], [1, 0], [-0.5, 2]])
    passes.forward = passes.inverse = 0
    potentials = [
        potential_energy(model, (), {}, {"auto_shared_latent": jnp.asarray(point)})
        for point in points
    ]
    assert (passes.forward, passes.inverse) == (3, 0)
    expected = 0.5 * np.sum(points**2, 1) + np.log(2 * np.pi) - EVIDENCE
    np.testing.assert_allclose(potentials, expected, rtol=1e-4)
    moved = neutra.transform_sample(points)
    factor = np.linalg.cholesky(COVARIANCE)
    latents = np.stack([moved["first"], moved["second"]], 1)
    np.testing.assert_allclose(latents, points @ factor.T + MEAN, rtol=1e-4)


def test_latents_of_bounded_sites_and_shapes_are_unpacked():
    def model():
        numpyro.sample("share", dist.Beta(2, 2))
        with numpyro.plate("row", 3):
            numpyro.sample("scale", dist.Exponential(1.0))

    guide = FlowGuide(model, LinearFlow((4,)), prefix="named")
    svi = SVI(model, guide, numpyro.optim.Adam(0.03), Trace_ELBO())
    params = svi.get_params(svi.init(jax.random.key(0)))
    assert list(params) == ["named_flow$params"]
    samples = guide.sample_posterior(jax.random.key(0), params, sample_shape=(50,))
    assert samples["scale"].shape == (50, 3)
    assert np.all(samples["scale"] > 0)
    assert np.all((samples["share"] > 0) & (samples["share"] < 1))
    # Standard normal latents: the logit of the share and the logarithm of the scale.
    np.testing.assert_allclose(np.mean(np.log(samples["scale"])), 0, atol=0.3)


class Signed(LinearFlow):
    """A `LinearFlow` of noise with signs that are integer constants drawn by `init`."""

    @nn.compact
    def __call__(self, *, context=None, data=None):
        def signs():
            drawn = jax.random.bernoulli(self.make_rng("params"), shape=self.event_shape)
            return 2 * drawn.astype(jnp.int8) - 1

        signs = self.variable("constants", "signs", signs).value
        signed = Linear(jnp.zeros(self.event_shape), jnp.diag(signs.astype(jnp.float32)))
        return vf.bijectors.Chain([super().__call__(), signed])


def test_constants_follow_from_the_seed_and_arent_trained():
    def model():
        numpyro.sample("z", dist.Normal(jnp.zeros(8), 1).to_event(1))

    one, two, other = (FlowGuide(model, Signed((8,)), seed=seed) for seed in (0, 0, 5))
    svi = SVI(model, one, numpyro.optim.Adam(0.03), Trace_ELBO())

    @jax.jit  # the guide is traced when it is first called
    def updated(key):
        state, loss = svi.update(svi.init(key))
        return svi.get_params(state), loss

    params, loss = updated(jax.random.key(0))
    assert np.isfinite(loss)
    assert set(params["auto_flow$params"]) == {"mean", "factor"}
    assert np.all(params["auto_flow$params"]["mean"] != 0)
    moved = []
    for guide in (one, two, other):
        numpyro.handlers.seed(guide, 3)()
        moved.append(guide.get_transform(params)(jnp.ones(8)))
    np.testing.assert_array_equal(moved[0], moved[1])
    assert np.max(np.abs(moved[0] - moved[2])) > 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FlowGuide(linear_model, lambda: None), "flow must be a flow"),
        (
            lambda: FlowGuide(linear_model, vf.flows.RealNVP((2,), num_classes=3)),
            "flow must be one without a context, got num_classes=3",
        ),
        (
            lambda: numpyro.handlers.seed(FlowGuide(linear_model, LinearFlow((3,))), 0)(),
            r"flow must have event_shape=\(2,\), that of the model's unconstrained latents",
        ),
    ],
)
def test_flows_that_dont_fit_are_rejected(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.slow
def test_neutra_samples_the_funnel():
    """Neal's funnel of three dimensions: v ~ N(0, 9), and two N(0, exp(v)) given v."""

    def model():
        v = numpyro.sample("v", dist.Normal(0, FUNNEL_DEVIATION))
        numpyro.sample("x", dist.Normal(jnp.zeros(2), jnp.exp(v / 2)).to_event(1))

    flow = vf.flows.InverseAutoregressiveFlow((3,), num_steps=2, hidden_sizes=(32,))
    guide = FlowGuide(model, flow)
    svi = SVI(model, guide, numpyro.optim.Adam(5e-3), Trace_ELBO(num_particles=64))
    result = svi.run(jax.random.key(0), 2000, progress_bar=False)
    assert np.mean(result.losses[-100:]) < 0.1  # log Z = 0
    neutra = NeuTraReparam(guide, result.params)
    mcmc = MCMC(
        NUTS(neutra.reparam(model)),
        num_warmup=500,
        num_samples=2000,
        num_chains=2,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(jax.random.key(1))
    samples = neutra.transform_sample(mcmc.get_samples()["auto_shared_latent"])
    v, x = np.asarray(samples["v"]), np.asarray(samples["x"])
    standard = x / np.exp(v / 2)[:, None]
    moments = v.mean() / 3, v.std() / 3, standard.mean(), standard.std()
    np.testing.assert_allclose(moments, (0, 1, 0, 1), atol=0.1)
