"""The flow model: initialisation, likelihood, samples, contexts."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from tests.variables import noisy
from vaeflow import flows, models

IMAGES = np.random.RandomState(0).randint(0, 256, (6, 4, 4, 1)).astype(np.uint8)
KEY = jax.random.key(1)


def glow(levels=2, **options):
    flow = flows.Glow((4, 4, 1), num_levels=levels, num_steps=2, hidden_features=8, **options)
    return models.FlowModel(flow, models.UniformDequantizer())


def perturb(variables, scale=0.03):
    return variables | {"params": noisy(variables["params"], scale)}


perturbed = jax.jit(perturb)


@functools.cache
def initial_of(**options):
    return jax.jit(glow(**options).init)(KEY, IMAGES)


@pytest.fixture(scope="module")
def initial():
    return initial_of()


@functools.cache
def figures():
    """Of a fresh model and of one that has moved, in one program."""
    model = glow()
    row = np.random.RandomState(2).uniform(-0.5, 0.5, (4, 4, 1)).astype(np.float32)

    @jax.jit
    def compute(variables):
        moved = perturb(variables)
        keys = jax.random.split(KEY, len(IMAGES))
        values, log_det = model.dequantizer.apply({}, IMAGES, keys)
        distribution = model.apply(moved)
        assert distribution.event_shape == (4, 4, 1)
        assert distribution.batch_shape == ()
        by_model, changed = model.apply(moved, IMAGES, KEY, method="log_prob", mutable=True)
        noise = model.apply(moved, IMAGES, KEY, method="encode")
        inverse = distribution.bijector.inverse
        x, log_prob = distribution.sample_and_log_prob(seed=KEY, sample_shape=(2, 3))
        every = jnp.concatenate([values, row[None], x.reshape(6, 4, 4, 1)])
        found = distribution.log_prob(every)
        return {
            "moved": moved,
            "changed": dict(changed),
            "log_prob": by_model,
            "of values": found[:6] + log_det,
            "density": found[6],
            "noise": inverse(row),
            "jacobian": jax.jacrev(inverse)(row),
            "decoded": model.apply(moved, noise, method="decode"),
            "encoded first": model.apply(variables, IMAGES, jax.random.key(1), method="encode"),
            "sampled": (x, log_prob, found[7:].reshape(2, 3)),
            "images": model.apply(variables, KEY, 5, method="sample"),
        }

    return jax.device_get(compute(initial_of()))


def test_every_level_is_standardised_on_the_first_batch():
    noise = figures()["encoded first"]
    # The key of init's own dequantization differs, so the match isn't exact.
    np.testing.assert_allclose(np.mean(noise), 0, atol=0.1)
    np.testing.assert_allclose(np.std(noise), 1, atol=0.2)

    @jax.jit
    def without_data():
        model = glow()
        return model.apply(model.init(KEY), IMAGES, jax.random.key(1), method="encode")

    assert abs(np.std(without_data()) - 1) > 0.3


def test_apply_changes_no_variables(initial):
    again = jax.jit(glow().init)(KEY, IMAGES)
    jax.tree.map(np.testing.assert_array_equal, initial, again)
    jax.tree.map(np.testing.assert_array_equal, figures()["changed"], figures()["moved"])


def test_log_prob_of_images_is_that_of_the_dequantized_values():
    got = figures()["log_prob"]
    np.testing.assert_allclose(got, figures()["of values"], rtol=1e-5)
    assert got.shape == (len(IMAGES),)
    assert got.dtype == np.float32


def test_density_by_change_of_variables_from_first_principles():
    found = figures()
    expected = -np.sum(found["noise"] ** 2) / 2 - 8 * math.log(2 * math.pi)
    expected += np.linalg.slogdet(found["jacobian"].reshape(16, 16))[1]
    np.testing.assert_allclose(found["density"], expected, rtol=1e-4)


def test_decode_undoes_encode_exactly():
    decoded = figures()["decoded"]
    np.testing.assert_array_equal(decoded, IMAGES)
    assert decoded.dtype == np.uint8


def test_temperature_scales_the_noise(initial):
    model = glow()

    @jax.jit
    def run(variables):
        draw = lambda t: model.apply(variables, temperature=t).sample(seed=KEY, sample_shape=64)  # noqa: E731
        samples = jax.vmap(draw)(np.array([0.0, 0.5, 1.0], np.float32))
        return samples[0], jax.vmap(model.apply(variables).bijector.inverse)(samples[1:])

    cold, (half, full) = jax.device_get(run(initial))
    np.testing.assert_allclose(half, full / 2, atol=1e-3)
    np.testing.assert_allclose(np.std(cold, axis=0), 0, atol=1e-6)


def test_samples_are_images():
    samples = figures()["images"]
    assert samples.shape == (5, 4, 4, 1)
    assert samples.dtype == np.uint8


def test_sample_and_log_prob_agree():
    x, log_prob, found = figures()["sampled"]
    assert x.shape == (2, 3, 4, 4, 1)
    assert log_prob.shape == (2, 3)
    np.testing.assert_allclose(found, log_prob, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("kind", ["labels", "vectors"])
@pytest.mark.slow
def test_context_conditions_the_density_and_the_samples(kind):
    if kind == "labels":
        model, context, other = glow(1, num_classes=3), np.arange(6) % 3, (np.arange(6) + 1) % 3
    else:
        model = glow(1)
        context = np.random.RandomState(1).normal(size=(6, 2)).astype(np.float32)
        other = context + 1
    x = np.random.RandomState(2).uniform(-0.5, 0.5, (5, 6, 4, 4, 1)).astype(np.float32)

    @jax.jit
    def run():
        variables = perturb(model.init(KEY, IMAGES, context=context), 0.05)
        find = functools.partial(model.apply, variables, IMAGES, KEY, method="log_prob")
        distribution = model.apply(variables, context=context)
        assert distribution.batch_shape == (6,)
        one = model.apply(variables, context=context[2]).log_prob(x[:, 2])
        samples = model.apply(variables, KEY, 5, context=context, method="sample")
        return (
            jax.vmap(lambda given: find(context=given))(np.stack([context, other])),
            samples,
            distribution.log_prob(x),
            one,
        )

    (log_prob, of_other), samples, every, one = jax.device_get(run())
    assert np.abs(of_other - log_prob).min() > 0
    assert samples.shape == (5, 6, 4, 4, 1)
    np.testing.assert_allclose(every[:, 2], one, rtol=1e-4, atol=1e-3)


def test_wrong_contexts_raise(initial):
    init = functools.partial(jax.eval_shape, glow(num_classes=3).init, KEY, IMAGES)
    with pytest.raises(ValueError, match="labels of 3 classes are needed"):
        init()
    with pytest.raises(
        ValueError, match=r"integer labels of 3 classes, got float32 of shape \(6, 3"
    ):
        init(context=np.ones((6, 3), np.float32))
    with pytest.raises(ValueError, match="context must be None, as in init"):
        jax.eval_shape(lambda: glow().apply(initial, context=np.arange(6)))
    with pytest.raises(ValueError, match="batch axis"):
        init(context=np.arange(4) % 3)


def test_another_backward_option_raises_with_the_allowed_ones():
    with pytest.raises(
        ValueError, match=r"one of \('plain', 'remat', 'reversible'\), got 'inverse'"
    ):
        jax.eval_shape(glow(backward="inverse").init, KEY, IMAGES)


def test_fields_after_the_event_shape_are_keyword_only():
    for flow in (flows.Glow, flows.RealNVP, flows.NICE, flows.ContinuousFlow):
        with pytest.raises(TypeError, match="positional argument"):
            flow((4, 4, 1), 2)


def test_wrong_data_raise(initial):
    with pytest.raises(ValueError, match="rng must be given"):
        glow().apply(initial, IMAGES, method="log_prob")
    with pytest.raises(ValueError, match=r"\(4, 4, 1\).*\(3, 8, 8, 1\)"):
        jax.eval_shape(lambda: glow().apply(initial).log_prob(jnp.zeros((3, 8, 8, 1))))
    model = models.FlowModel(flows.RealNVP((3,), num_steps=2, hidden_features=8))
    whole = np.zeros((5, 3), np.int32)
    with pytest.raises(ValueError, match="int32 need a model with a dequantizer"):
        jax.eval_shape(lambda: model.apply(model.init(KEY), whole, method="log_prob"))


def test_real_valued_data_need_no_key():
    model = models.FlowModel(flows.RealNVP((3,), num_steps=2, hidden_features=8))
    data = np.float32(5 + 2 * np.random.RandomState(0).normal(size=(500, 3)))

    @jax.jit
    def run(data):
        return model.apply(model.init(KEY, data), data, method="log_prob")

    # At first the flow is a diagonal Gaussian fitted to the batch.
    expected = -0.5 * ((data - data.mean(0)) / data.std(0)) ** 2 - np.log(data.std(0))
    expected = np.sum(expected - 0.5 * math.log(2 * math.pi), -1)
    np.testing.assert_allclose(np.mean(run(data)), np.mean(expected), atol=0.05)


@pytest.mark.parametrize("shape", [(1,), (2,), (3,)])
def test_density_integrates_to_one(shape):
    model = models.FlowModel(flows.RealNVP(shape, num_steps=3, hidden_features=8))
    # Importance sampling from a wide normal.
    proposal = np.float32(3 * np.random.RandomState(0).normal(size=(40_000, *shape)))
    log_q = stats.norm(scale=3).logpdf(proposal).sum(-1)

    @jax.jit
    def run(proposal):
        return model.apply(perturb(model.init(KEY), 0.1)).log_prob(proposal)

    mass = np.mean(np.exp(run(proposal) - log_q))
    np.testing.assert_allclose(mass, 1, atol=0.06)


@pytest.mark.slow
def test_bfloat16_networks_keep_float32_densities():
    model, exact = glow(dtype=jnp.bfloat16), figures()["log_prob"]

    @jax.jit
    def run(variables):
        noise = model.apply(variables, IMAGES, KEY, method="encode")
        decoded = model.apply(variables, noise, method="decode")
        return model.apply(variables, IMAGES, KEY, method="log_prob"), decoded

    log_prob, decoded = jax.device_get(run(figures()["moved"]))
    assert log_prob.dtype == np.float32
    np.testing.assert_allclose(log_prob, exact, rtol=0.02)
    assert (log_prob != exact).any()
    np.testing.assert_array_equal(decoded, IMAGES)


@functools.cache
def slopes(**options):
    """The mean log density and its gradient, of the variables that a model starts with."""
    model = glow(**options)
    variables = initial_of(plu=True) if "plu" in options else initial_of()

    def value(params):
        return model.apply(variables | {"params": params}, IMAGES, KEY, method="log_prob").mean()

    return jax.device_get(jax.jit(jax.value_and_grad(value))(variables["params"]))


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"scan": False}, marks=pytest.mark.slow),
        pytest.param({"backward": "remat"}, marks=pytest.mark.slow),
        pytest.param({"backward": "reversible"}, marks=pytest.mark.slow),
        pytest.param({"plu": True}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_options_change_the_cost_and_not_the_result(options):
    if "plu" in options:
        assert "constants" in initial_of(**options)
    expected, expected_gradient = slopes()
    got, gradient = slopes(**options)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    if "plu" not in options:
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3),
            gradient,
            expected_gradient,
        )


@pytest.mark.slow
def test_distribution_crosses_jit_without_retracing(initial):
    traces = []

    @jax.jit
    def log_prob(distribution, x):
        traces.append(1)
        return distribution.log_prob(x)

    x = np.zeros((2, 4, 4, 1), np.float32)
    for scale in (0.0, 0.1):
        distribution = jax.jit(glow().apply)(perturbed(initial, scale))
        assert distribution.event_shape == (4, 4, 1)
        found = log_prob(distribution, x)
    assert len(traces) == 1
    expected = jax.jit(lambda variables: glow().apply(variables).log_prob(x))
    np.testing.assert_allclose(found, expected(perturbed(initial, 0.1)), rtol=1e-5)
