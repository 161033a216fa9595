"""The loss of auto-encoders with codes, and the bound by priors over the codes."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.code_models import CODERS, IMAGES, code_model, every_coder, waved
from tests.variables import drawn_variables
from vaeflow import losses, models
from vaeflow._util.arrays import Axis
from vaeflow.losses.vq_vae import code_evidence

KEY = jax.random.key(0)
KEYS = jax.random.split(KEY, 8)
BATCH = {"image": IMAGES, "label": np.arange(8, dtype=np.int32) % 2}


@functools.cache
def variables_of(name):
    return drawn_variables(CODERS[name].init, IMAGES)


@functools.cache
def gradient(name):
    model, variables = CODERS[name], variables_of(name)
    own = {key: tree for key, tree in variables.items() if key != "params"}

    def loss(parameters):
        return losses.vq_vae(model, {"params": parameters, **own}, BATCH, KEYS)

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"])


@every_coder()
@pytest.mark.slow
def test_every_parameter_is_trained(name):
    (loss, aux), found = gradient(name)
    assert jnp.isfinite(loss)
    assert all(jnp.isfinite(value) for value in aux.metrics.values())
    flat = jax.tree_util.tree_leaves_with_path(found)
    # Blocks start as the identity: the first layer of each is not felt before the last has moved.
    still = [jax.tree_util.keystr(path) for path, leaf in flat if not jnp.any(leaf != 0)]
    assert all("ResidualBlock" in path and "Conv_0" in path for path in still), still


@pytest.mark.parametrize("name", ["learned", "lookup-free", "gumbel", "2 levels"])
def test_the_loss_is_the_weighted_sum_of_its_terms(name):
    weights = {"commitment": 0.5, "codebook": 2.0, "entropy": 3.0, "kl": 4.0}

    @jax.jit
    def run(variables):
        loss, aux = losses.vq_vae(CODERS[name], variables, BATCH, KEYS, **weights)
        found = code_evidence(CODERS[name], variables, BATCH, KEYS, train=True)
        return loss, aux.metrics, found.log_likelihood, [level.losses for level in found.levels]

    loss, metrics, log_likelihood, terms = jax.device_get(run(variables_of(name)))
    expected = -np.mean(log_likelihood)
    for level, (key, values) in itertools.product(terms, [*weights.items()]):
        if key in level:
            expected += values * np.mean(level[key])
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    nats = metrics["reconstruction"]
    np.testing.assert_allclose(nats, -np.mean(log_likelihood), rtol=1e-6)
    bits = 42 * math.log(2)
    np.testing.assert_allclose(metrics["reconstruction_per_dim"], nats / bits, rtol=1e-6)
    # 12 codes of the bottom, and 4 of the top.
    codes = {"2 levels": 4 * math.log(3) + 12 * math.log(4), "lookup-free": 12 * math.log(16)}
    uniform = codes.get(name, 12 * math.log(5))
    np.testing.assert_allclose(metrics["bits_per_dim"], (nats + uniform) / bits, rtol=1e-6)


@pytest.mark.parametrize("name", ["learned", "2 levels"])
def test_codes_are_learned_only_in_training(name):
    variables = variables_of(name)
    before = variables.get("codebook", {})
    run = jax.jit(functools.partial(losses.vq_vae, CODERS[name], train=False))
    state = run(variables, BATCH, KEYS)[1].state.get("codebook", {})
    jax.tree.map(np.testing.assert_array_equal, state, before)
    after = gradient(name)[0][1].state
    assert set(after) == set(variables) - {"params"}
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert np.any(np.asarray(old) != np.asarray(new))


@pytest.mark.parametrize("name", [pytest.param("lookup-free", marks=pytest.mark.slow), "2 levels"])
def test_a_divided_batch_trains_as_the_full_batch(name):
    @jax.jit
    def run(variables):
        parts = jax.tree.map(lambda leaf: leaf.reshape(4, 2, *leaf.shape[1:]), (BATCH, KEYS))

        @functools.partial(jax.vmap, axis_name="data")
        def divided(batch, keys):
            return losses.vq_vae(CODERS[name], variables, batch, keys, axis=Axis("data"))

        return divided(*parts)

    values, of_parts = jax.device_get(run(variables_of(name)))
    (whole, aux), _ = jax.device_get(gradient(name))
    np.testing.assert_allclose(np.mean(values), whole, rtol=1e-5)
    for key, value in aux.metrics.items():
        np.testing.assert_allclose(np.mean(of_parts.metrics[key]), value, rtol=1e-5)
    for leaf, expected in zip(
        jax.tree.leaves(of_parts.state), jax.tree.leaves(aux.state), strict=True
    ):
        for part in leaf:
            np.testing.assert_allclose(part, expected, atol=1e-5)


@pytest.mark.parametrize("levels", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_bound_is_one_term_of_the_likelihood(levels):
    """All codes of small maps are gone through: p(x) = sum_c P(c) p(x | c)."""
    model = code_model(levels)

    @jax.jit
    def run():
        variables = model.init(KEY, IMAGES)
        found = losses.code_bound(model, variables, BATCH, KEYS)
        coder, own = models.submodel(model, variables, "auto_encoder")
        codes = coder.apply(own, IMAGES, KEYS, method="encode")
        images = coder.apply(own, IMAGES, KEYS, method="observe").values

        def joint(last):
            """log P(c) p(x | c) of each image."""
            of_all = (*codes[:-1], last)
            latents = coder.apply(own, of_all, method="lookup")
            likelihood = coder.apply(own, latents, method="likelihood").log_prob(images)
            return likelihood + sum(model.apply(variables, of_all, method="log_prior"))

        # Those that differ in the first code of the last map are few enough to go through.
        others = [codes[-1].at[:, 0, 0].set(code) for code in range(4)]
        joints = jax.vmap(joint)(jnp.stack([codes[-1], *others]))
        return found.total(), found.log_prior, joints

    total, log_prior, joints = jax.device_get(run())
    np.testing.assert_allclose(total, joints[0], rtol=1e-6)
    assert len(log_prior) == levels
    assert np.all(total < np.logaddexp.reduce(joints[1:]))


@pytest.mark.slow
def test_labels_reach_the_priors_of_a_bound():
    model = code_model(2, num_classes=2)

    @jax.jit
    def run(labels):
        variables = model.init(KEY, IMAGES, context=labels[0])
        # Priors start alike for all labels: move them.
        moved = variables | {"params": waved(variables["params"])}
        find = lambda labels: losses.code_bound(model, moved, BATCH | {"label": labels}, KEYS)  # noqa: E731
        found = jax.vmap(find)(labels)
        return found.log_likelihood, found.log_prior

    log_likelihood, log_prior = run(np.stack([BATCH["label"], 1 - BATCH["label"]]))
    np.testing.assert_array_equal(*log_likelihood)
    for one, two in log_prior:
        assert np.all(np.abs(one - two) > 1e-4)


def test_a_bound_by_labels_needs_them():
    model = code_model(1, num_classes=2)
    variables = jax.eval_shape(model.init, KEY, IMAGES, context=BATCH["label"])
    with pytest.raises(ValueError, match=r"must hold 'label', got \['image"):
        losses.code_bound(model, variables, {"image": IMAGES}, KEYS)


def test_temperature_reaches_gumbel_codes_and_raises_for_others():
    def loss(parameters, temperature):
        own = {key: tree for key, tree in variables_of("gumbel").items() if key != "params"}
        variables = {"params": parameters, **own}
        return losses.vq_vae(CODERS["gumbel"], variables, BATCH, KEYS, temperature=temperature)[0]

    run = jax.jit(jax.vmap(jax.value_and_grad(loss), (None, 0)))
    values, found = run(variables_of("gumbel")["params"], np.array([0.2, 1.0], np.float32))
    np.testing.assert_allclose(values[1], gradient("gumbel")[0][0], rtol=1e-6)
    slopes = np.asarray(found["quantizer"]["logits"]["kernel"])
    assert np.abs(slopes[0] - slopes[1]).max() > 1e-3
    loss = functools.partial(losses.vq_vae, CODERS["average"], temperature=1.0)
    with pytest.raises(TypeError, match="temperature"):
        jax.eval_shape(loss, variables_of("average"), BATCH, KEYS)
