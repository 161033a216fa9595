"""Both objectives of MUNIT: each term against a plain computation, and where gradients go."""

from __future__ import annotations

import functools
import inspect

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import linear_gaussian
from tests.munit_game import BATCH, IMAGES, ROWS, SHAPES, game
from vaeflow import encoders, losses, models

GAME = game(encoders.DiagonalGaussianPosterior)
"""So that styles are drawn: those of a point are as their mean."""
KEY = jax.random.key(5)
KEYS = jax.random.split(KEY, ROWS)
DOMAINS = ("a", "b")
OTHER = {"a": "b", "b": "a"}
WEIGHTS = {"reconstruction": 3.0, "content": 5.0, "style": 7.0, "cycle": 11.0}
NAMES = {
    f"{term}_{domain}"
    for term in ("adversarial", "reconstruction", "content", "style")
    for domain in DOMAINS
}
CONSTANT = {
    fill: {
        domain: {"image": np.full((ROWS, *shape), fill, np.uint8)}
        for domain, shape in SHAPES.items()
    }
    for fill in (0, 255)
}


@functools.cache
def compiled(name):
    """A loss with traced weights, and its gradient by all parameters of both players."""
    loss = getattr(losses, name)

    def value(params, batch, keys, weights):
        return loss(GAME, {"params": params}, batch, keys, **weights)

    return jax.jit(jax.value_and_grad(value, has_aux=True))


@functools.cache
def variables():
    """Of a game, drawn: what it starts with is for tests of the model."""
    shapes = jax.eval_shape(GAME.init, KEY, IMAGES["a"], IMAGES["b"])
    random = np.random.RandomState(1)
    return jax.tree.map(lambda leaf: np.float32(random.normal(0, 0.3, leaf.shape)), shapes)


def evaluated(name, batch=BATCH):
    """The loss, its metrics and the gradient of each player."""
    weights = WEIGHTS if name == "munit" else {}
    (value, aux), gradient = compiled(name)(variables()["params"], batch, KEYS, weights)
    assert aux.state == {}
    return jax.device_get((value, aux.metrics, gradient))


@functools.cache
def plainly():
    """Every term of both losses, one row and one network after another."""
    own = models.submodel(GAME, variables(), "generator")[1]
    judge = models.submodel(GAME, variables(), "discriminator")[1]

    def apply(method, *arguments):
        return GAME.generator.apply(own, *arguments, method=method)

    def squares(values, domain, target):
        maps = GAME.discriminator.apply(judge, values, domain)
        return sum(jnp.mean((judgements - target) ** 2) for judgements in maps)

    def distance(first, second):
        return jnp.mean(jnp.abs(first - second))

    @jax.jit
    def of_row(images, key):
        folded = [jax.random.fold_in(key, 16 + number) for number in range(4)]
        x = {d: (jnp.float32(images[d][None]) + 0.5) / 128 - 1 for d in DOMAINS}
        content, style, drawn, terms = {}, {}, {}, {}
        for number, d in enumerate(DOMAINS):
            content[d], posterior = apply("encode_values", x[d], d)
            row = jax.tree.map(lambda leaf: leaf[0], posterior)
            style[d] = row.sample(seed=folded[2 + number], sample_shape=1)
            drawn[d] = apply("draw_styles", folded[number][None], 1, d)
        for d in DOMAINS:
            translated = apply("decode_values", content[OTHER[d]], drawn[d], d)
            recovered, posterior = apply("encode_values", translated, d)
            again = apply("decode_values", content[d], style[d], d)
            back = apply("decode_values", recovered, style[OTHER[d]], OTHER[d])
            terms |= {
                f"adversarial_{d}": squares(translated, d, 1.0),
                f"reconstruction_{d}": distance(again, x[d]),
                f"content_{OTHER[d]}": distance(recovered, content[OTHER[d]]),
                f"style_{d}": distance(posterior.mean(), drawn[d]),
                f"cycle_{OTHER[d]}": distance(back, x[OTHER[d]]),
                f"real_{d}": squares(x[d], d, 1.0),
                f"translated_{d}": squares(translated, d, 0.0),
            }
        return terms

    keys = [KEYS[row] for row in range(ROWS)]
    rows = [of_row({d: BATCH[d]["image"][row] for d in DOMAINS}, keys[row]) for row in range(ROWS)]
    return {name: np.mean([np.float64(row[name]) for row in rows]) for name in rows[0]}


def assert_terms(found, expected):
    for name, value in found.items():
        assert value.shape == ()
        np.testing.assert_allclose(value, expected[name], rtol=1e-4, err_msg=name)


def test_generator_loss_equals_a_plain_computation():
    value, metrics, _ = evaluated("munit")
    # A traced weight may be anything, so its term is there.
    assert set(metrics) == NAMES | {"cycle_a", "cycle_b"}
    assert_terms(metrics, plainly())
    weights = {"adversarial": 1.0, **WEIGHTS}
    expected = sum(weights[name[:-2]] * term for name, term in metrics.items())
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_discriminator_loss_equals_a_plain_computation():
    value, metrics, _ = evaluated("munit_discriminator")
    assert set(metrics) == {f"{what}_{d}" for what in ("real", "translated") for d in DOMAINS}
    assert_terms(metrics, plainly())
    np.testing.assert_allclose(value, sum(metrics.values()), rtol=1e-6)


def test_weights_are_those_of_the_paper_and_cycles_are_left_out():
    # Any weights multiply their terms, see above: these are the ones that are given to none.
    parameters = inspect.signature(losses.munit).parameters
    paper = {"reconstruction": 10, "content": 1, "style": 1, "cycle": 0}
    assert {name: parameters[name].default for name in WEIGHTS} == paper
    for weights, cycles in (
        ({}, False),
        ({"cycle": 0}, False),
        ({"cycle": np.float32(0)}, False),
        ({"cycle": 2.0}, True),
    ):
        loss = functools.partial(losses.munit, GAME, **weights)
        found = jax.eval_shape(loss, variables(), BATCH, KEY)[1].metrics
        assert set(found) == (NAMES | {"cycle_a", "cycle_b"} if cycles else NAMES)


def test_discriminators_loss_moves_only_the_discriminators():
    gradient = evaluated("munit_discriminator")[2]
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(gradient["generator"]))
    assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(gradient["discriminator"]))


@pytest.mark.slow
def test_the_generators_loss_reaches_every_part_of_both_auto_encoders():
    gradient = evaluated("munit")[2]
    assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(gradient["generator"]))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("part", ["content", "style", "decoder"])
@pytest.mark.slow
def test_gradients_of_the_generator_are_slopes_of_its_loss(domain, part):
    params = variables()["params"]
    slope = evaluated("munit")[2]["generator"][domain][part]
    length = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(slope)))

    def moved(step):
        generator = params["generator"]
        own = jax.tree.map(
            lambda p, s: np.float32(p + step * s / length), generator[domain][part], slope
        )
        coder = {**generator[domain], part: own}
        players = {**params, "generator": {**generator, domain: coder}}
        return float(compiled("munit")(players, BATCH, KEYS, WEIGHTS)[0][0])

    # So near that few slopes of absolute values turn on the way.
    np.testing.assert_allclose((moved(1e-4) - moved(-1e-4)) / 2e-4, length, rtol=0.03)


@pytest.mark.parametrize("fill", CONSTANT)
@pytest.mark.parametrize(
    "name", [pytest.param("munit", marks=pytest.mark.slow), "munit_discriminator"]
)
def test_white_and_black_images_have_finite_losses_and_gradients(name, fill):
    value, metrics, gradient = evaluated(name, batch=CONSTANT[fill])
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((metrics, gradient)))
    mixed = jax.tree.map(np.copy, BATCH)
    for domain in DOMAINS:
        mixed[domain]["image"][0] = fill
    _, _, gradient = evaluated(name, batch=mixed)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.slow
def test_noise_follows_the_keys():
    loss = jax.jit(lambda variables, keys: losses.munit(GAME, variables, BATCH, keys)[1].metrics)
    metrics = loss(variables(), KEYS)
    other = loss(variables(), jax.random.split(jax.random.key(6), ROWS))
    for name in NAMES:
        assert metrics[name] != other[name], name


@pytest.mark.parametrize("loss", [losses.munit, losses.munit_discriminator])
def test_mismatched_batches_raise(loss):
    vae = linear_gaussian.model(encoders.DiagonalGaussianPosterior(2))
    with pytest.raises(ValueError, match=r"among \['decoder', 'encoder'\], got 'generator'"):
        loss(vae, {"params": {"encoder": {}, "decoder": {}}}, BATCH, KEY)
    run = functools.partial(jax.eval_shape, functools.partial(loss, GAME), variables())
    small = BATCH | {"b": {"image": BATCH["b"]["image"][:, :8]}}
    with pytest.raises(ValueError, match=r"\*\(9, 8, 3\)\], got shape \(3, 8, 8, 3\)"):
        run(small, KEY)
    reals = BATCH | {"a": {"image": np.float32(BATCH["a"]["image"])}}
    with pytest.raises(ValueError, match="images must be uint8"):
        run(reals, KEY)
    fewer = BATCH | {"b": {"image": BATCH["b"]["image"][:2]}}
    with pytest.raises(ValueError, match="as many images of a as of b, got 3 and 2"):
        run(fewer, KEY)


def keys_of_styles(*calls):
    """Data of the keys that pairs of a loss and a key draw styles by."""

    @jax.jit
    def find():
        found = []

        def record(call, arguments, keywords, context):
            if context.method_name == "draw_styles":
                found.append(jax.random.key_data(arguments[0]))
            return call(*arguments, **keywords)

        with nn.intercept_methods(record):
            for loss, keys in calls:
                loss(GAME, variables(), BATCH, keys)
        return found

    return np.concatenate(find())


def test_no_key_is_used_twice_by_both_players():
    """A step gives the second player its keys folded by 1 (`vaeflow.training.make_update`)."""
    of_generator = jax.vmap(jax.random.fold_in, (0, None))(KEYS, 1)
    drawn = keys_of_styles((losses.munit_discriminator, KEYS), (losses.munit, of_generator))
    keys = np.concatenate([drawn, *map(jax.random.key_data, (KEYS, of_generator))])
    assert len(keys) == 6 * ROWS
    assert len(np.unique(keys, axis=0)) == len(keys)


def test_one_key_is_split_over_the_rows():
    both = (losses.munit_discriminator, losses.munit)
    by_key, by_keys = (keys_of_styles(*((loss, rng) for loss in both)) for rng in (KEY, KEYS))
    np.testing.assert_array_equal(by_key, by_keys)
