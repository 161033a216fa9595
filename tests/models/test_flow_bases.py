"""Flow models whose noise isn't standard normal."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

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
    variables = jax.jit(model.init)(KEY, context=context)
    leaves, structure = jax.tree.flatten(variables)
    keys = jax.random.split(KEY, len(leaves))
    return jax.tree.unflatten(
        structure,
        [
            leaf + 0.2 * jax.random.normal(k, leaf.shape)
            for leaf, k in zip(leaves, keys, strict=True)
        ],
    )


@pytest.mark.parametrize("name", BASES)
def test_density_is_that_of_the_base_at_the_noise(name):
    model = models.FlowModel(FLOW, base=BASES[name])
    variables = initial(model)
    x = model.apply(variables, KEY, 5, method="sample")
    noise = model.apply(variables, x, method="encode")
    base = model.apply(variables, method="noise")
    _, log_det = model.apply(variables).bijector.inverse_and_log_det(x)
    expected = base.log_prob(noise) + log_det
    np.testing.assert_allclose(
        model.apply(variables, x, method="log_prob"), expected, rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(model.apply(variables, noise, method="decode"), x, atol=1e-4)


@pytest.mark.parametrize("name", BASES)
def test_temperature_scales_deviations_from_the_mean(name):
    base = BASES[name]
    variables = base.init(KEY)
    cold, warm = (
        base.apply(variables, temperature=t).sample(seed=KEY, sample_shape=(50,)) for t in (0.5, 1)
    )
    mean = 0 if name == "resampled" else base.apply(variables).mean()
    if name == "mixture":  # each component about its own mean: the same one in both draws
        means = base.apply(variables).components_distribution.mean()
        shifts = (2 * cold - warm)[:, None] - means
        np.testing.assert_allclose(jnp.min(jnp.abs(shifts).sum(-1), axis=1), 0, atol=1e-5)
    else:
        np.testing.assert_allclose(cold - mean, 0.5 * (warm - mean), atol=1e-5)


def test_a_context_of_the_flow_gives_the_base_its_batch_axes():
    model = models.FlowModel(FLOW, base=BASES["mixture"])
    context = jax.random.normal(KEY, (4, 3))
    variables = initial(model, context)
    distribution = model.apply(variables, context=context)
    assert distribution.batch_shape == (4,)
    x, log_prob = distribution.sample_and_log_prob(seed=KEY, sample_shape=5)
    assert x.shape == (5, 4, 2)
    one = model.apply(variables, context=context[1]).log_prob(x[:, 1])
    np.testing.assert_allclose(log_prob[:, 1], one, rtol=1e-3, atol=1e-3)


def test_labels_reach_the_base_of_a_flow_without_classes():
    model = models.FlowModel(FLOW, base=bases.LabelledGaussianBase((2,), num_classes=3))
    labels = jnp.array([0, 2, 1])
    variables = initial(model, labels)
    x = jnp.ones((3, 2))
    by_label = model.apply(variables, x, None, labels, method="log_prob")
    assert len(set(np.asarray(by_label).tolist())) == 3
    noise, log_det = model.apply(variables, context=labels).bijector.inverse_and_log_det(x)
    base = variables["params"]["base"]
    scale = np.exp(base["log_scale"][labels])
    expected = -0.5 * ((noise - base["mean"][labels]) / scale) ** 2 - np.log(scale)
    expected = np.sum(expected - 0.5 * np.log(2 * np.pi), -1) + log_det
    np.testing.assert_allclose(by_label, expected, rtol=1e-4)
    both = models.FlowModel(
        FLOW.clone(num_classes=3), base=bases.LabelledGaussianBase((2,), num_classes=3)
    )
    assert both.apply(initial(both, labels), context=labels).batch_shape == (3,)


def test_labels_out_of_range_give_nan_in_their_row():
    base = bases.LabelledGaussianBase((2,), num_classes=3)
    labels = jnp.array([0, 3, -1, 2])
    log_prob = base.apply(base.init(KEY, labels), labels).log_prob(jnp.zeros((4, 2)))
    np.testing.assert_array_equal(jnp.isnan(log_prob), [False, True, True, False])


def test_a_mixture_learns_its_clusters():
    base = bases.GaussianMixtureBase((1,), num_components=2)
    labels = jnp.arange(300) % 3 == 0
    data = jnp.where(labels, -3.0, 2.0)[:, None] + 0.5 * jax.random.normal(KEY, (300, 1))
    variables = base.init(jax.random.key(4))
    optimizer = optax.adam(0.05)

    def update(carry, _):
        variables, state = carry
        gradient = jax.grad(lambda v: -jnp.mean(base.apply(v).log_prob(data)))(variables)
        change, state = optimizer.update(gradient, state)
        return (optax.apply_updates(variables, change), state), None

    start = (variables, optimizer.init(variables))
    (variables, _), _ = jax.jit(lambda start: jax.lax.scan(update, start, length=400))(start)
    mixture = base.apply(variables)
    result = mixture.component_of(data)
    assert jnp.mean(result == result[0]) == pytest.approx(1 / 3, abs=0.01)
    np.testing.assert_array_equal(result == result[0], labels)
    shares = jnp.sort(jax.nn.softmax(variables["params"]["logits"]))
    np.testing.assert_allclose(shares, [1 / 3, 2 / 3], atol=0.02)


@pytest.mark.parametrize("name", BASES)
def test_bases_ignore_the_context_and_the_encoder(name):
    base = BASES[name]
    variables = base.init(KEY)
    x = jnp.full((3, 2), 0.3)
    options = {"batch_shape": (3,), "encoder": lambda inputs: 1 / 0}
    log_prob = base.apply(variables, jnp.ones((3, 4)), **options).log_prob(x)
    np.testing.assert_array_equal(log_prob, base.apply(variables, batch_shape=(3,)).log_prob(x))


def test_a_vamp_prior_needs_an_encoder_and_takes_nothing_else():
    prior = bases.VampPrior(num_components=2, image_shape=(2, 2, 1))
    encoder = lambda inputs: bases.DiagonalGaussianBase((1,), parent=None).apply(  # noqa: E731
        {"params": {"mean": jnp.zeros(1), "log_scale": jnp.zeros(1)}}, batch_shape=(len(inputs),)
    )
    variables = prior.init(KEY, encoder=encoder)
    assert variables["params"]["inputs"].shape == (2, 2, 2, 1)
    log_prob = prior.apply(variables, encoder=encoder).log_prob(jnp.zeros(1))
    np.testing.assert_allclose(log_prob, -0.5 * np.log(2 * np.pi), rtol=1e-6)
    with pytest.raises(ValueError, match="needs the encoder of its VAE, got None"):
        prior.apply(variables)
    with pytest.raises(ValueError, match=r"batch_shape=\(\) and temperature=0.5"):
        prior.apply(variables, encoder=encoder, temperature=0.5)


def test_wrong_bases_raise():
    wide = models.FlowModel(FLOW, base=bases.DiagonalGaussianBase((3,)))
    with pytest.raises(ValueError, match=r"\(2,\).*\(3,\)"):
        wide.init(KEY)
    with pytest.raises(ValueError, match="integer labels of 3 classes, got None"):
        bases.LabelledGaussianBase((2,), num_classes=3).init(KEY, None)
    with pytest.raises(ValueError, match="low must be below high, got 1 and 1"):
        bases.BoxBase((2,), low=1, high=1).init(KEY)
    with pytest.raises(ValueError, match=r"\(dimension,\), got \(2, 2\)"):
        bases.CorrelatedGaussianBase((2, 2)).init(KEY)


def test_density_of_nonfinite_rows_is_nan_and_isolated():
    # Through a map onto an interval infinity would otherwise pass for its end.
    model = models.FlowModel(flows.BoundedFlow(FLOW, -1, 1))
    variables = model.init(KEY)
    rows = jax.random.uniform(jax.random.key(1), (4, 2), minval=-0.9, maxval=0.9)
    clean = model.apply(variables, rows, method="log_prob")
    for bad in (jnp.nan, jnp.inf, -jnp.inf):
        result = model.apply(variables, rows.at[1, 0].set(bad), method="log_prob")
        assert jnp.isnan(result[1])
        np.testing.assert_array_equal(result[jnp.array([0, 2, 3])], clean[jnp.array([0, 2, 3])])


def test_a_resampled_base_learns_a_hole():
    base = bases.ResampledBase((2,), hidden_sizes=(32, 32))
    angle = jax.random.uniform(KEY, (2000, 1), maxval=2 * jnp.pi)
    radius = 1.6 + 0.1 * jax.random.normal(jax.random.key(1), (2000, 1))
    data = radius * jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)
    variables = jax.jit(base.init)(KEY)
    log_likelihood = lambda variables: jnp.mean(base.apply(variables).log_prob(data))  # noqa: E731
    normal = jnp.mean(jax.scipy.stats.norm.logpdf(data).sum(-1))
    np.testing.assert_allclose(log_likelihood(variables), normal, rtol=1e-4)
    optimizer = optax.adam(1e-2)

    def update(carry, _):
        variables, state = carry
        gradient = jax.grad(lambda variables: -log_likelihood(variables))(variables)
        change, state = optimizer.update(gradient, state)
        return (optax.apply_updates(variables, change), state), None

    start = (variables, optimizer.init(variables))
    (variables, _), _ = jax.jit(lambda start: jax.lax.scan(update, start, length=300))(start)
    # The ring itself has log(2 pi 1.6) + log(0.1) + log(2 pi e) / 2 = 1.42 nats of entropy.
    assert normal + 0.7 < log_likelihood(variables) < -1.35
    samples = base.apply(variables).sample(seed=KEY, sample_shape=2000)
    lengths = np.linalg.norm(samples, axis=-1)
    assert np.mean((lengths > 1.2) & (lengths < 2)) > 0.55  # 0.35 of a standard normal
    with pytest.raises(ValueError, match="truncation must be at least 1, got 0"):
        bases.ResampledBase((2,), truncation=0).init(KEY)
    with pytest.raises(ValueError, match=r"\(dimension,\), got \(2, 2\)"):
        bases.ResampledBase((2, 2)).init(KEY)
