"""Flow models whose noise isn't standard normal."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from tests.variables import noisy
from vaeflow import bases, flows, models

KEY = jax.random.key(0)
FLOW = flows.RealNVP((2,), num_steps=1, hidden_features=4, num_blocks=1)
BASES = {
    "diagonal": bases.DiagonalGaussianBase((2,)),
    "correlated": bases.CorrelatedGaussianBase((2,)),
    "mixture": bases.GaussianMixtureBase((2,), num_components=3),
    "box": bases.BoxBase((2,), low=-2, high=3),
    "resampled": bases.ResampledBase((2,), hidden_sizes=(8,)),
}


def initial(model, context=None):
    """Variables away from their initial values."""
    variables = model.init(KEY, context=context)
    return noisy(variables, 0.2)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in ("mixture", "resampled") else [pytest.mark.slow])
        for name in BASES
    ],
)
def test_density_is_that_of_the_base_at_the_noise(name):
    model = models.FlowModel(FLOW, base=BASES[name])

    @jax.jit
    def run():
        apply = functools.partial(model.apply, initial(model))
        x = apply(KEY, 5, method="sample")
        noise = apply(x, method="encode")
        _, log_det = apply().bijector.inverse_and_log_det(x)
        expected = apply(method="noise").log_prob(noise) + log_det
        return x, apply(noise, method="decode"), apply(x, method="log_prob"), expected

    x, again, log_prob, expected = run()
    np.testing.assert_allclose(log_prob, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(again, x, atol=1e-4)


@pytest.mark.parametrize("name", BASES)
def test_temperature_scales_deviations_from_the_mean(name):
    base = BASES[name]

    @jax.jit
    def run():
        variables = base.init(KEY)
        draw = lambda t: base.apply(variables, temperature=t).sample(seed=KEY, sample_shape=(50,))  # noqa: E731
        distribution = base.apply(variables)
        if name == "mixture":
            return draw(0.5), draw(1), distribution.components_distribution.mean()
        return draw(0.5), draw(1), 0.0 if name == "resampled" else distribution.mean()

    cold, warm, mean = jax.device_get(run())
    if name == "mixture":  # each component about its own mean: the same one in both draws
        shifts = (2 * cold - warm)[:, None] - mean
        np.testing.assert_allclose(np.min(np.abs(shifts).sum(-1), axis=1), 0, atol=1e-5)
    else:
        np.testing.assert_allclose(cold - mean, 0.5 * (warm - mean), atol=1e-5)


@pytest.mark.slow
def test_a_context_of_the_flow_gives_the_base_its_batch_axes():
    model = models.FlowModel(FLOW, base=BASES["mixture"])
    context = np.random.RandomState(0).normal(size=(4, 3)).astype(np.float32)

    @jax.jit
    def run():
        variables = initial(model, context)
        distribution = model.apply(variables, context=context)
        assert distribution.batch_shape == (4,)
        x, log_prob = distribution.sample_and_log_prob(seed=KEY, sample_shape=5)
        return x, log_prob, model.apply(variables, context=context[1]).log_prob(x[:, 1])

    x, log_prob, one = jax.device_get(run())
    assert x.shape == (5, 4, 2)
    np.testing.assert_allclose(log_prob[:, 1], one, rtol=1e-3, atol=1e-3)


def test_labels_reach_the_base_of_a_flow_without_classes():
    model = models.FlowModel(FLOW, base=bases.LabelledGaussianBase((2,), num_classes=3))
    labels = np.array([0, 2, 1])
    x = np.ones((3, 2), np.float32)

    @jax.jit
    def run():
        variables = initial(model, labels)
        by_label = model.apply(variables, x, None, context=labels, method="log_prob")
        bijector = model.apply(variables, context=labels).bijector
        return by_label, bijector.inverse_and_log_det(x), variables["params"]["base"]

    by_label, (noise, log_det), base = jax.device_get(run())
    assert len(set(by_label.tolist())) == 3
    scale = np.exp(base["log_scale"][labels])
    expected = -0.5 * ((noise - base["mean"][labels]) / scale) ** 2 - np.log(scale)
    expected = np.sum(expected - 0.5 * np.log(2 * np.pi), -1) + log_det
    np.testing.assert_allclose(by_label, expected, rtol=1e-4)
    both = models.FlowModel(
        FLOW.clone(num_classes=3), base=bases.LabelledGaussianBase((2,), num_classes=3)
    )
    by_both = lambda: both.apply(initial(both, labels), context=labels).log_prob(x)  # noqa: E731
    assert jax.eval_shape(by_both).shape == (3,)


def test_labels_out_of_range_give_nan_in_their_row():
    base = bases.LabelledGaussianBase((2,), num_classes=3)
    labels = np.array([0, 3, -1, 2])

    variables = base.init(KEY, context=labels[:1])

    @jax.jit
    def run(labels):
        return base.apply(variables, context=labels).log_prob(jnp.zeros((4, 2)))

    np.testing.assert_array_equal(np.isnan(run(labels)), [False, True, True, False])
    with pytest.raises(ValueError, match=r"labels 0, \.\.\., 2, got 3, and 2 of 4 labels"):
        base.apply(variables, context=labels)


def test_a_mixture_learns_its_clusters():
    base = bases.GaussianMixtureBase((1,), num_components=2)
    labels = np.arange(300) % 3 == 0
    noise = np.random.RandomState(0).normal(size=(300, 1))
    data = np.float32(np.where(labels, -3.0, 2.0)[:, None] + 0.5 * noise)
    optimizer = optax.adam(0.05)

    def update(carry, _):
        variables, state = carry
        gradient = jax.grad(lambda v: -jnp.mean(base.apply(v).log_prob(data)))(variables)
        change, state = optimizer.update(gradient, state)
        return (optax.apply_updates(variables, change), state), None

    @jax.jit
    def run():
        variables = base.init(jax.random.key(4))
        start = (variables, optimizer.init(variables))
        (variables, _), _ = jax.lax.scan(update, start, length=400)
        shares = jax.nn.softmax(variables["params"]["logits"])
        return base.apply(variables).component_of(data), shares

    result, shares = jax.device_get(run())
    assert np.mean(result == result[0]) == pytest.approx(1 / 3, abs=0.01)
    np.testing.assert_array_equal(result == result[0], labels)
    np.testing.assert_allclose(np.sort(shares), [1 / 3, 2 / 3], atol=0.02)


@pytest.mark.parametrize("name", BASES)
def test_bases_ignore_the_context_and_the_encoder(name):
    base = BASES[name]
    x = np.full((3, 2), 0.3, np.float32)
    options = {"batch_shape": (3,), "encoder": lambda inputs: 1 / 0}

    @jax.jit
    def run():
        variables = base.init(KEY)
        given = base.apply(variables, context=jnp.ones((3, 4)), **options).log_prob(x)
        return given, base.apply(variables, batch_shape=(3,)).log_prob(x)

    np.testing.assert_array_equal(*run())


def test_a_vamp_prior_needs_an_encoder_and_takes_nothing_else():
    prior = bases.VampPrior(num_components=2, image_shape=(2, 2, 1))
    encoder = lambda inputs: bases.DiagonalGaussianBase((1,), parent=None).apply(  # noqa: E731
        {"params": {"mean": jnp.zeros(1), "log_scale": jnp.zeros(1)}}, batch_shape=(len(inputs),)
    )

    @jax.jit
    def run():
        variables = prior.init(KEY, encoder=encoder)
        return variables, prior.apply(variables, encoder=encoder).log_prob(jnp.zeros(1))

    variables, log_prob = run()
    assert variables["params"]["inputs"].shape == (2, 2, 2, 1)
    np.testing.assert_allclose(log_prob, -0.5 * np.log(2 * np.pi), rtol=1e-6)
    with pytest.raises(ValueError, match="needs the encoder of its VAE, got None"):
        prior.apply(variables)
    with pytest.raises(ValueError, match=r"batch_shape=\(\) and temperature=0.5"):
        prior.apply(variables, encoder=encoder, temperature=0.5)


def test_wrong_bases_raise():
    with pytest.raises(ValueError, match=r"\(2,\).*\(3,\)"):
        models.FlowModel(FLOW, base=bases.DiagonalGaussianBase((3,)))
    with pytest.raises(ValueError, match="integer labels of 3 classes, got None"):
        bases.LabelledGaussianBase((2,), num_classes=3).init(KEY, context=None)
    with pytest.raises(ValueError, match="low must be below high, got 1 and 1"):
        bases.BoxBase((2,), low=1, high=1).init(KEY)
    with pytest.raises(ValueError, match=r"\(dimension,\), got \(2, 2\)"):
        bases.CorrelatedGaussianBase((2, 2)).init(KEY)


def test_density_of_nonfinite_rows_is_nan_and_isolated():
    # Through a map onto an interval infinity would otherwise pass for its end.
    model = models.FlowModel(flows.BoundedFlow(FLOW, -1, 1))
    rows = np.random.RandomState(1).uniform(-0.9, 0.9, (4, 2)).astype(np.float32)
    batches = np.stack([rows] * 4)
    batches[1:, 1, 0] = np.nan, np.inf, -np.inf

    @jax.jit
    def run(batches):
        variables = model.init(KEY)
        return jax.vmap(lambda rows: model.apply(variables, rows, method="log_prob"))(batches)

    clean, *others = np.asarray(run(batches))
    for result in others:
        assert np.isnan(result[1])
        np.testing.assert_array_equal(result[[0, 2, 3]], clean[[0, 2, 3]])


@pytest.mark.slow
def test_a_resampled_base_learns_a_hole():
    base = bases.ResampledBase((2,), hidden_sizes=(32, 32))
    random = np.random.RandomState(0)
    angle = random.uniform(0, 2 * np.pi, (2000, 1))
    radius = 1.6 + 0.1 * random.normal(size=(2000, 1))
    data = np.float32(radius * np.concatenate([np.cos(angle), np.sin(angle)], axis=-1))
    log_likelihood = lambda variables: jnp.mean(base.apply(variables).log_prob(data))  # noqa: E731
    optimizer = optax.adam(1e-2)

    def update(carry, _):
        variables, state = carry
        value, gradient = jax.value_and_grad(lambda v: -log_likelihood(v))(variables)
        change, state = optimizer.update(gradient, state)
        return (optax.apply_updates(variables, change), state), -value

    @jax.jit
    def run():
        variables = base.init(KEY)
        start = (variables, optimizer.init(variables))
        (variables, _), history = jax.lax.scan(update, start, length=300)
        samples = base.apply(variables).sample(seed=KEY, sample_shape=2000)
        return history[0], log_likelihood(variables), samples

    first, last, samples = jax.device_get(run())
    normal = stats.norm.logpdf(data).sum(-1).mean()
    np.testing.assert_allclose(first, normal, rtol=1e-4)
    # The ring itself has log(2 pi 1.6) + log(0.1) + log(2 pi e) / 2 = 1.42 nats of entropy.
    assert normal + 0.7 < last < -1.35
    lengths = np.linalg.norm(samples, axis=-1)
    assert np.mean((lengths > 1.2) & (lengths < 2)) > 0.55  # 0.35 of a standard normal
    with pytest.raises(ValueError, match="truncation must be at least 1, got 0"):
        bases.ResampledBase((2,), truncation=0).init(KEY)
    with pytest.raises(ValueError, match=r"\(dimension,\), got \(2, 2\)"):
        bases.ResampledBase((2, 2)).init(KEY)
