"""The flow model: initialisation, likelihood, samples, contexts."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaeflow import flows, models

IMAGES = jax.random.randint(jax.random.key(0), (6, 4, 4, 1), 0, 256).astype(jnp.uint8)
KEY = jax.random.key(1)


def glow(**options):
    flow = flows.Glow((4, 4, 1), num_levels=2, num_steps=2, hidden_features=8, **options)
    return models.FlowModel(flow, models.UniformDequantizer())


def perturbed(variables, scale=0.03):
    leaves, structure = jax.tree.flatten(variables["params"])
    keys = jax.random.split(jax.random.key(7), len(leaves))
    leaves = [
        leaf + scale * jax.random.normal(key, leaf.shape)
        for leaf, key in zip(leaves, keys, strict=True)
    ]
    return variables | {"params": jax.tree.unflatten(structure, leaves)}


@pytest.fixture(scope="module")
def initial():
    return glow().init(KEY, IMAGES)


def test_every_level_is_standardised_on_the_first_batch(initial):
    model = glow()
    noise = model.apply(initial, IMAGES, jax.random.key(1), method="encode")
    # The key of init's own dequantization differs, so the match isn't exact.
    np.testing.assert_allclose(jnp.mean(noise), 0, atol=0.1)
    np.testing.assert_allclose(jnp.std(noise), 1, atol=0.2)
    raw = glow().init(KEY)
    without_data = model.apply(raw, IMAGES, jax.random.key(1), method="encode")
    assert abs(float(jnp.std(without_data)) - 1) > 0.3


def test_apply_changes_no_variables(initial):
    model = glow()
    again = model.init(KEY, IMAGES)
    jax.tree.map(np.testing.assert_array_equal, initial, again)
    _, changed = model.apply(initial, IMAGES // 2, KEY, method="log_prob", mutable=True)
    jax.tree.map(np.testing.assert_array_equal, dict(changed), initial)


def test_log_prob_of_images_is_that_of_the_dequantized_values(initial):
    model = glow()
    variables = perturbed(initial)
    keys = jax.random.split(KEY, len(IMAGES))
    values, log_det = model.dequantizer.apply({}, IMAGES, keys)
    expected = model.apply(variables).log_prob(values) + log_det
    got = model.apply(variables, IMAGES, KEY, method="log_prob")
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    assert got.shape == (len(IMAGES),)
    assert got.dtype == jnp.float32


def test_density_by_change_of_variables_from_first_principles(initial):
    distribution = glow().apply(perturbed(initial))
    x = jax.random.uniform(KEY, (4, 4, 1)) - 0.5
    noise = distribution.bijector.inverse(x)
    jacobian = jax.jacrev(lambda x: distribution.bijector.inverse(x))(x).reshape(16, 16)
    expected = -jnp.sum(noise**2) / 2 - 8 * math.log(2 * math.pi)
    expected += jnp.linalg.slogdet(jacobian)[1]
    np.testing.assert_allclose(distribution.log_prob(x), expected, rtol=1e-4)


def test_decode_undoes_encode_exactly(initial):
    model = glow()
    variables = perturbed(initial)
    noise = model.apply(variables, IMAGES, KEY, method="encode")
    decoded = model.apply(variables, noise, method="decode")
    np.testing.assert_array_equal(decoded, IMAGES)
    assert decoded.dtype == jnp.uint8


def test_temperature_scales_the_noise(initial):
    model = glow()
    samples = [
        model.apply(initial, temperature=t).sample(seed=KEY, sample_shape=64) for t in (0.0, 0.5, 1)
    ]
    encode = model.apply(initial).bijector.inverse
    half, full = encode(samples[1]), encode(samples[2])
    np.testing.assert_allclose(half, full / 2, atol=1e-3)
    np.testing.assert_allclose(jnp.std(samples[0], axis=0), 0, atol=1e-6)


def test_samples_are_images(initial):
    samples = glow().apply(initial, KEY, 5, method="sample")
    assert samples.shape == (5, 4, 4, 1)
    assert samples.dtype == jnp.uint8


def test_sample_and_log_prob_agree(initial):
    distribution = glow().apply(perturbed(initial))
    x, log_prob = distribution.sample_and_log_prob(seed=KEY, sample_shape=(2, 3))
    assert x.shape == (2, 3, 4, 4, 1)
    assert log_prob.shape == (2, 3)
    np.testing.assert_allclose(distribution.log_prob(x), log_prob, rtol=1e-3, atol=1e-2)
    assert distribution.event_shape == (4, 4, 1)
    assert distribution.batch_shape == ()


@pytest.mark.parametrize("kind", ["labels", "vectors"])
def test_context_conditions_the_density_and_the_samples(kind):
    if kind == "labels":
        model, context, other = glow(num_classes=3), jnp.arange(6) % 3, (jnp.arange(6) + 1) % 3
    else:
        model = glow()
        context = jax.random.normal(KEY, (6, 2))
        other = context + 1
    variables = perturbed(model.init(KEY, IMAGES, context), 0.05)
    log_prob = model.apply(variables, IMAGES, KEY, context, method="log_prob")
    assert (
        jnp.abs(model.apply(variables, IMAGES, KEY, other, method="log_prob") - log_prob).min() > 0
    )
    samples = model.apply(variables, KEY, 5, context, method="sample")
    assert samples.shape == (5, 6, 4, 4, 1)
    distribution = model.apply(variables, context=context)
    assert distribution.batch_shape == (6,)
    x = jax.random.uniform(KEY, (5, 6, 4, 4, 1)) - 0.5
    one = model.apply(variables, context=context[2]).log_prob(x[:, 2])
    np.testing.assert_allclose(distribution.log_prob(x)[:, 2], one, rtol=1e-4, atol=1e-3)


def test_wrong_contexts_raise(initial):
    model = glow(num_classes=3)
    with pytest.raises(ValueError, match="labels of 3 classes are needed"):
        model.init(KEY, IMAGES)
    with pytest.raises(ValueError, match="integer labels where num_classes is given"):
        model.init(KEY, IMAGES, jnp.ones((6, 3)))
    with pytest.raises(ValueError, match="integer labels where num_classes is given"):
        glow().apply(initial, context=jnp.arange(6))
    with pytest.raises(ValueError, match="batch axis"):
        model.init(KEY, IMAGES, jnp.arange(4) % 3)


def test_another_backward_option_raises_with_the_allowed_ones():
    with pytest.raises(
        ValueError, match=r"one of \('plain', 'remat', 'reversible'\), got 'inverse'"
    ):
        glow(backward="inverse").init(KEY, IMAGES)


def test_fields_after_the_event_shape_are_keyword_only():
    for flow in (flows.Glow, flows.RealNVP, flows.NICE, flows.ContinuousFlow):
        with pytest.raises(TypeError, match="positional argument"):
            flow((4, 4, 1), 2)


def test_wrong_data_raise(initial):
    with pytest.raises(ValueError, match="rng must be given"):
        glow().apply(initial, IMAGES, method="log_prob")
    with pytest.raises(ValueError, match=r"\(4, 4, 1\).*\(3, 8, 8, 1\)"):
        glow().apply(initial).log_prob(jnp.zeros((3, 8, 8, 1)))
    model = models.FlowModel(flows.RealNVP((3,), num_steps=2, hidden_features=8))
    with pytest.raises(ValueError, match="int32 need a model with a dequantizer"):
        model.apply(model.init(KEY), jnp.zeros((5, 3), jnp.int32), method="log_prob")


def test_real_valued_data_need_no_key():
    model = models.FlowModel(flows.RealNVP((3,), num_steps=2, hidden_features=8))
    data = 5 + 2 * jax.random.normal(KEY, (500, 3))
    variables = model.init(KEY, data)
    log_prob = model.apply(variables, data, method="log_prob")
    # At first the flow is a diagonal Gaussian fitted to the batch.
    expected = -0.5 * ((data - data.mean(0)) / data.std(0)) ** 2 - jnp.log(data.std(0))
    expected = jnp.sum(expected - 0.5 * math.log(2 * math.pi), -1)
    np.testing.assert_allclose(jnp.mean(log_prob), jnp.mean(expected), atol=0.05)


@pytest.mark.parametrize("shape", [(1,), (2,), (3,)])
def test_density_integrates_to_one(shape):
    model = models.FlowModel(flows.RealNVP(shape, num_steps=3, hidden_features=8))
    variables = perturbed(model.init(KEY), 0.2)
    distribution = model.apply(variables)
    # Importance sampling from a wide normal.
    proposal = 3 * jax.random.normal(KEY, (40_000, *shape))
    log_q = -jnp.sum((proposal / 3) ** 2, -1) / 2 - shape[0] * (
        math.log(3) + 0.5 * math.log(2 * math.pi)
    )
    mass = jnp.mean(jnp.exp(distribution.log_prob(proposal) - log_q))
    np.testing.assert_allclose(mass, 1, atol=0.06)


def test_bfloat16_networks_keep_float32_densities(initial):
    variables = perturbed(initial)
    model = glow(dtype=jnp.bfloat16)
    log_prob = model.apply(variables, IMAGES, KEY, method="log_prob")
    assert log_prob.dtype == jnp.float32
    exact = glow().apply(variables, IMAGES, KEY, method="log_prob")
    np.testing.assert_allclose(log_prob, exact, rtol=0.02)
    assert (log_prob != exact).any()
    noise = model.apply(variables, IMAGES, KEY, method="encode")
    np.testing.assert_array_equal(model.apply(variables, noise, method="decode"), IMAGES)


@pytest.mark.parametrize(
    "options",
    [{"scan": False}, {"backward": "remat"}, {"backward": "reversible"}, {"plu": True}],
    ids=str,
)
def test_options_change_the_cost_and_not_the_result(initial, options):
    model = glow(**options)
    if "plu" in options:
        variables = model.init(KEY, IMAGES)
        assert "constants" in variables
        initial = glow().init(KEY, IMAGES)
    else:
        variables = initial

    def loss(model, variables):
        value = lambda p: model.apply(  # noqa: E731
            variables | {"params": p}, IMAGES, KEY, method="log_prob"
        ).mean()
        return jax.jit(jax.value_and_grad(value))(variables["params"])

    expected, expected_gradient = loss(glow(), initial)
    got, gradient = loss(model, variables)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    if "plu" not in options:
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3),
            gradient,
            expected_gradient,
        )


def test_distribution_crosses_jit_without_retracing(initial):
    traces = []

    @jax.jit
    def log_prob(distribution, x):
        traces.append(1)
        return distribution.log_prob(x)

    x = jnp.zeros((2, 4, 4, 1))
    for scale in (0.0, 0.1):
        distribution = glow().apply(perturbed(initial, scale))
        assert distribution.event_shape == (4, 4, 1)
        log_prob(distribution, x)
    assert len(traces) == 1
    returned = jax.jit(glow().apply)(initial)
    np.testing.assert_allclose(returned.log_prob(x), glow().apply(initial).log_prob(x), rtol=1e-5)
