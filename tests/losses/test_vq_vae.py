"""The loss of auto-encoders with codes, and the bound by priors over the codes."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.code_models import CODERS, IMAGES, code_model, every_coder, waved
from vaeflow import losses, models
from vaeflow._util.arrays import Axis
from vaeflow.losses.vq_vae import code_evidence

KEY = jax.random.key(0)
KEYS = jax.random.split(KEY, 8)
BATCH = {"image": IMAGES, "label": np.arange(8, dtype=np.int32) % 2}


@functools.cache
def variables_of(name):
    return jax.jit(CODERS[name].init)(KEY, IMAGES)


@functools.cache
def gradient(name):
    model, variables = CODERS[name], variables_of(name)
    own = {key: tree for key, tree in variables.items() if key != "params"}

    def loss(parameters):
        return losses.vq_vae(model, {"params": parameters, **own}, BATCH, KEYS)

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"])


@every_coder()
def test_every_parameter_is_trained(name):
    (loss, aux), found = gradient(name)
    assert jnp.isfinite(loss)
    assert all(jnp.isfinite(value) for value in aux.metrics.values())
    flat = jax.tree_util.tree_leaves_with_path(found)
    # Blocks start as the identity: the first layer of each is not felt before the last has moved.
    still = [jax.tree_util.keystr(path) for path, leaf in flat if not jnp.any(leaf != 0)]
    assert all("ResidualBlock" in path and "Conv_0" in path for path in still), still


@pytest.mark.parametrize("name", ["average", "learned", "lookup-free", "gumbel", "2 levels"])
def test_the_loss_is_the_weighted_sum_of_its_terms(name):
    weights = {"commitment": 0.5, "codebook": 2.0, "entropy": 3.0, "kl": 4.0}
    loss, aux = losses.vq_vae(CODERS[name], variables_of(name), BATCH, KEYS, **weights)
    found = code_evidence(CODERS[name], variables_of(name), BATCH, KEYS, train=True)
    expected = -jnp.mean(found.log_likelihood)
    for level, (key, values) in itertools.product(found.levels, [*weights.items()]):
        if key in level.losses:
            expected += values * jnp.mean(level.losses[key])
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    nats = aux.metrics["reconstruction"]
    np.testing.assert_allclose(nats, -jnp.mean(found.log_likelihood), rtol=1e-6)
    bits = 42 * math.log(2)
    np.testing.assert_allclose(aux.metrics["reconstruction_per_dim"], nats / bits, rtol=1e-6)
    # 12 codes of the bottom, and 4 of the top.
    codes = {"2 levels": 4 * math.log(3) + 12 * math.log(4), "lookup-free": 12 * math.log(16)}
    uniform = codes.get(name, 12 * math.log(5))
    np.testing.assert_allclose(aux.metrics["bits_per_dim"], (nats + uniform) / bits, rtol=1e-6)


@pytest.mark.parametrize("name", ["average", "learned", "2 levels"])
def test_codes_are_learned_only_in_training(name):
    variables = variables_of(name)
    before = variables.get("codebook", {})
    run = functools.partial(losses.vq_vae, CODERS[name], variables, BATCH)
    state = run(KEYS, train=False)[1].state.get("codebook", {})
    jax.tree.map(np.testing.assert_array_equal, state, before)
    after = run(KEYS)[1].state
    assert set(after) == set(variables) - {"params"}
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert np.any(old != new)


@pytest.mark.parametrize("name", ["average", "lookup-free", "2 levels"])
def test_a_divided_batch_trains_as_the_full_batch(name):
    model, variables = CODERS[name], variables_of(name)
    whole, aux = losses.vq_vae(model, variables, BATCH, KEYS)
    parts = jax.tree.map(lambda leaf: leaf.reshape(4, 2, *leaf.shape[1:]), (BATCH, KEYS))

    @functools.partial(jax.vmap, axis_name="data")
    def divided(batch, keys):
        return losses.vq_vae(model, variables, batch, keys, axis=Axis("data"))

    values, of_parts = divided(*parts)
    np.testing.assert_allclose(jnp.mean(values), whole, rtol=1e-5)
    for key, value in aux.metrics.items():
        np.testing.assert_allclose(jnp.mean(of_parts.metrics[key]), value, rtol=1e-5)
    for leaf, expected in zip(
        jax.tree.leaves(of_parts.state), jax.tree.leaves(aux.state), strict=True
    ):
        for part in leaf:
            np.testing.assert_allclose(part, expected, atol=1e-5)


@pytest.mark.parametrize("levels", [1, 2])
def test_the_bound_is_one_term_of_the_likelihood(levels):
    """All codes of small maps are gone through: p(x) = sum_c P(c) p(x | c)."""
    model = code_model(levels)
    variables = jax.jit(model.init)(KEY, IMAGES)
    found = losses.code_bound(model, variables, BATCH, KEYS)
    coder, own = models.submodel(model, variables, "auto_encoder")
    codes = coder.apply(own, IMAGES, KEYS, method="encode")
    images = coder.apply(own, IMAGES, KEYS, method="observe").values

    def joint(codes):
        """log P(c) p(x | c) of each image."""
        latents = coder.apply(own, codes, method="lookup")
        likelihood = coder.apply(own, latents, method="likelihood").log_prob(images)
        return likelihood + sum(model.apply(variables, codes, method="log_prior"))

    np.testing.assert_allclose(found.total(), joint(codes), rtol=1e-6)
    assert len(found.log_prior) == levels
    # Those that differ in the first code of the last map are few enough to go through.
    others = [joint((*codes[:-1], codes[-1].at[:, 0, 0].set(code))) for code in range(4)]
    some = jax.nn.logsumexp(jnp.stack(others), axis=0)
    assert jnp.all(found.total() < some)


def test_labels_reach_the_priors_of_a_bound():
    model = code_model(2, num_classes=2)
    variables = jax.jit(model.init)(KEY, IMAGES, BATCH["label"])
    # Priors start alike for all labels: move them.
    moved = variables | {"params": waved(variables["params"])}
    found = losses.code_bound(model, moved, BATCH, KEYS)
    other = losses.code_bound(model, moved, BATCH | {"label": 1 - BATCH["label"]}, KEYS)
    np.testing.assert_array_equal(found.log_likelihood, other.log_likelihood)
    for one, two in zip(found.log_prior, other.log_prior, strict=True):
        assert jnp.all(jnp.abs(one - two) > 1e-4)


def test_a_bound_by_labels_needs_them():
    model = code_model(1, num_classes=2)
    variables = jax.eval_shape(model.init, KEY, IMAGES, BATCH["label"])
    with pytest.raises(ValueError, match=r"an entry 'label' for priors of 2 classes, got \['image"):
        losses.code_bound(model, variables, {"image": IMAGES}, KEYS)


def test_temperature_reaches_gumbel_codes_and_raises_for_others():
    run = functools.partial(losses.vq_vae, CODERS["gumbel"], variables_of("gumbel"), BATCH, KEYS)
    own = {key: tree for key, tree in variables_of("gumbel").items() if key != "params"}

    def gradient_at(temperature):
        def loss(parameters):
            variables = {"params": parameters, **own}
            return losses.vq_vae(CODERS["gumbel"], variables, BATCH, KEYS, temperature=temperature)[
                0
            ]

        found = jax.grad(loss)(variables_of("gumbel")["params"])
        return found["quantizer"]["logits"]["kernel"]

    np.testing.assert_allclose(run(temperature=1.0)[0], run()[0], rtol=1e-6)
    assert jnp.abs(gradient_at(0.2) - gradient_at(1.0)).max() > 1e-3
    with pytest.raises(TypeError, match="temperature"):
        losses.vq_vae(CODERS["average"], variables_of("average"), BATCH, KEYS, temperature=1.0)
