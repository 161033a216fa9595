"""Disentanglement scores of representations whose scores are known."""

from __future__ import annotations

import functools
import itertools
import sys

import numpy as np
import pytest

from vaeflow import metrics
from vaeflow.data.sprites import Sprites

SIZES = (3, 4, 5)
# Every combination equally often: the factors are independent, exactly.
FACTORS = np.tile(np.array(list(itertools.product(*map(range, SIZES)))), (20, 1))
PERFECT = FACTORS.astype(np.float64)
NOISE = np.random.default_rng(0).normal(size=(len(FACTORS), 3))

SCORES = {
    "mutual_information_gap": metrics.mutual_information_gap,
    "modularity": metrics.modularity,
    "separated_attribute_predictability": metrics.separated_attribute_predictability,
    "dci": metrics.disentanglement_completeness_informativeness,
    "factor_vae_score": metrics.factor_vae_score,
    "beta_vae_score": metrics.beta_vae_score,
}


def scores(codes, factors=FACTORS, **settings):
    """All scores as one array, in the order of `NAMES`."""
    result = metrics.disentanglement_scores(codes, factors, **settings)
    assert list(result) == NAMES
    assert all(type(value) is float for value in result.values())
    return np.array(list(result.values()))


NAMES = [
    "mutual_information_gap",
    "modularity",
    "separated_attribute_predictability",
    "disentanglement",
    "completeness",
    "informativeness",
    "factor_vae_score",
    "beta_vae_score",
]


# Four factors, and latents that each mix them all alike.
EVEN = np.tile(np.array(list(itertools.product(range(5), repeat=4))), (2, 1))
HADAMARD = np.kron([[1, 1], [1, -1]], [[1, 1], [1, -1]]) / 2
ENTANGLED = EVEN @ HADAMARD


@pytest.mark.parametrize("dead", [False, True])
def test_perfect_representations_have_ones(dead):
    # In any order, unit and direction, and beside latents that are constant.
    codes = PERFECT[:, [2, 0, 1]] * [1e-3, -50, 1e6] + [7, 1e9, 0]
    if dead:
        codes = np.insert(codes, [0, 3], 0.3, axis=1)
    np.testing.assert_allclose(scores(codes), 1, atol=1e-9)
    assert metrics.factor_vae_score(PERFECT.astype(np.float32), FACTORS) == 1


def test_a_category_is_guessed_by_useless_latents():
    result = metrics.separated_attribute_predictability(PERFECT, FACTORS, categorical=[0])
    assert result == pytest.approx((1 - 1 / 3 + 1 + 1) / 3, abs=1e-9)
    # Its order means nothing, while that of numbers does.
    shuffled = np.array([1, 0, 2])[FACTORS[:, 0]].astype(float)
    codes = np.column_stack([shuffled, PERFECT[:, 1:]])
    again = metrics.separated_attribute_predictability(codes, FACTORS, categorical=[0])
    assert again == pytest.approx(result, abs=1e-9)
    ordered = metrics.separated_attribute_predictability(codes, FACTORS)
    assert ordered == pytest.approx((0.25 + 1 + 1) / 3, abs=1e-9)
    others = scores(codes, categorical=[0])
    np.testing.assert_allclose(np.delete(others, 2), 1, atol=1e-9)


def test_categories_are_balanced_and_learned_by_few_thresholds():
    predictability = functools.partial(metrics.separated_attribute_predictability, categorical=[0])
    # The latent is 1 for 18 of 90 and for 8 of 10: right in 4 of 5 cases of either value.
    factor = np.repeat([0, 1], [90, 10])[:, None]
    latent = np.repeat([0.0, 1.0, 0.0, 1.0], [72, 18, 2, 8])[:, None]
    assert predictability(latent, factor) == pytest.approx(0.8, abs=1e-9)
    assert predictability(NOISE[:, :1], FACTORS[:, :1]) == pytest.approx(1 / 3, abs=0.05)
    # A constant latent counts for nothing, though it guesses right in a third of the cases.
    dead = np.column_stack([PERFECT[:, 0], np.ones(len(FACTORS))])
    assert predictability(dead, FACTORS[:, :1]) == pytest.approx(1, abs=1e-9)


def test_useless_latents_are_at_chance():
    result = dict(zip(NAMES, scores(NOISE, categorical=[1]), strict=True))
    chance = {"factor_vae_score": 1 / 3, "beta_vae_score": 1 / 3}
    for name, value in result.items():
        if name not in ("modularity", "informativeness"):
            assert value == pytest.approx(chance.get(name, 0), abs=0.06), name
    # A predictor that learned noise is a little worse than a constant.
    assert -0.2 < result["informativeness"] < 0.02
    # Nor do many latents learn the groups that they are tested on.
    many = np.random.default_rng(6).normal(size=(len(FACTORS), 100))
    for score in (metrics.factor_vae_score, metrics.beta_vae_score):
        assert score(many, FACTORS) == pytest.approx(1 / 3, abs=0.06)


def test_constant_latents_are_at_chance_exactly():
    result = dict(zip(NAMES, scores(np.full((len(FACTORS), 2), 0.1)), strict=True))
    expected = dict.fromkeys(NAMES, 0) | {"factor_vae_score": 1 / 3, "beta_vae_score": 1 / 3}
    for name, value in result.items():
        assert value == pytest.approx(
            expected[name], abs=0.03 if name == "informativeness" else 1e-9
        ), name


def test_entangled_latents_score_low():
    result = dict(zip(NAMES, scores(ENTANGLED, EVEN), strict=True))
    nothing = {"mutual_information_gap", "separated_attribute_predictability", "modularity"}
    for name in nothing | {"disentanglement", "completeness"}:
        assert result[name] == pytest.approx(0, abs=0.05), name
    # At chance; below it, as halves of a whole grid have opposite errors.
    assert result["factor_vae_score"] < 0.3
    assert result["beta_vae_score"] < 0.3
    # All is still there.
    assert result["informativeness"] > 0.75
    # Differences give a rotation away that mixes factors in different ways.
    rotation = np.linalg.qr(np.random.default_rng(2).normal(size=(4, 4)))[0]
    assert metrics.beta_vae_score(EVEN @ rotation, EVEN) > 0.7


def test_fewer_latents_than_factors():
    result = dict(zip(NAMES, scores(PERFECT[:, :2]), strict=True))
    for name in ("mutual_information_gap", "separated_attribute_predictability"):
        assert result[name] == pytest.approx(2 / 3, abs=1e-9)
    assert result["modularity"] == pytest.approx(1, abs=1e-9)
    assert result["informativeness"] == pytest.approx(2 / 3, abs=0.05)
    # Groups of the missing factor vote for the others.
    assert result["factor_vae_score"] == pytest.approx(2 / 3, abs=1e-9)
    assert result["beta_vae_score"] > 0.95
    single = scores(PERFECT[:, :1])
    np.testing.assert_allclose(single[[0, 2]], 1 / 3, atol=1e-9)
    assert single[4] == 1


def test_two_latents_of_one_factor():
    codes = np.column_stack([PERFECT, PERFECT[:, 0]])
    result = dict(zip(NAMES, scores(codes), strict=True))
    for name in ("mutual_information_gap", "separated_attribute_predictability"):
        assert result[name] == pytest.approx(2 / 3, abs=1e-9)
    assert result["modularity"] == pytest.approx(1, abs=1e-9)
    assert result["disentanglement"] == pytest.approx(1, abs=1e-9)
    # Half the prediction by each: 1 - log 2 / log 4 of that factor.
    assert result["completeness"] == pytest.approx((0.5 + 1 + 1) / 3, abs=0.03)
    assert result["factor_vae_score"] == result["beta_vae_score"] == 1


def test_one_factor():
    result = scores(PERFECT, FACTORS[:, 1:2])
    np.testing.assert_allclose(result, 1, atol=1e-9)


def test_mutual_information_by_hand():
    # Two binary factors in one latent, one of them in another, with an error of 1 in 4.
    factors = np.array(list(itertools.product((0, 1), (0, 1), range(4))))
    codes = np.column_stack(
        [2.0 * factors[:, 0] + factors[:, 1], factors[:, 0] ^ (factors[:, 2] == 0)]
    )
    noisy = np.log(2) + 0.25 * np.log(0.25) + 0.75 * np.log(0.75)
    result = metrics.mutual_information_matrix(codes, factors[:, :2])
    np.testing.assert_allclose(result, [[np.log(2), np.log(2)], [noisy, 0]], atol=1e-12)
    gap = metrics.mutual_information_gap(codes, factors[:, :2])
    assert gap == pytest.approx((1 - noisy / np.log(2) + 1) / 2, abs=1e-12)
    # The first latent tells equally of all factors, the second of one.
    assert metrics.modularity(codes, factors[:, :2]) == pytest.approx(0.5, abs=1e-12)
    # The second within the first: a quarter of the cases wrong, squared.
    both = 2.0 * factors[:, :1] + (factors[:, 1:2] ^ (factors[:, 2:] == 0))
    expected = 1 - (noisy / np.log(2)) ** 2
    assert metrics.modularity(both, factors[:, :2]) == pytest.approx(expected, abs=1e-12)
    # Of three factors it tells of two, half of the largest deviation.
    three = np.column_stack([factors[:, :2], factors[:, 2] // 2])
    assert metrics.modularity(codes[:, :1], three) == pytest.approx(0.5, abs=1e-12)


def test_bins_are_of_equal_width():
    factors = np.repeat(np.arange(40), 3)[:, None]
    gap = functools.partial(metrics.mutual_information_gap, factors=factors)
    assert gap(factors * 0.1) == pytest.approx(np.log(20) / np.log(40), abs=1e-12)
    assert gap(factors * 0.1, num_bins=4) == pytest.approx(np.log(4) / np.log(40), abs=1e-12)
    # One far away leaves all others in a single bin; of equal frequency bins would tell them apart.
    far = np.where(factors == 39, 1e308, -1e308 + factors)
    one = -(np.log(1 / 40) + 39 * np.log(39 / 40)) / 40
    assert gap(far) == pytest.approx(one / np.log(40), abs=1e-12)


def test_shares_of_importance_make_disentanglement_and_completeness():
    codes = PERFECT @ [[1, 1, 0, 1], [1, -1, 1, 2], [0, 1, 2, 0]] + 0.1 * NOISE[:, :1]
    result = metrics.disentanglement_completeness_informativeness(codes, FACTORS)
    importance = result.importance
    assert importance.shape == (4, 3)
    np.testing.assert_allclose(importance.sum(0), 1)

    def entropy(shares):
        shares = shares / shares.sum()
        return -np.sum(shares * np.log(shares)) / np.log(len(shares))

    weights = importance.sum(1) / importance.sum()
    expected = sum(w * (1 - entropy(row)) for w, row in zip(weights, importance, strict=True))
    assert result.disentanglement == pytest.approx(expected, abs=1e-9)
    expected = np.mean([1 - entropy(column) for column in importance.T])
    assert result.completeness == pytest.approx(expected, abs=1e-9)


def test_informativeness_is_one_less_the_error_of_the_best_constant_guess():
    # Known but for noise of a quarter of the variance; and a category that is right half the time.
    random = np.random.default_rng(5)
    signal = random.integers(-50, 51, 6000)
    spread = np.round(signal + np.std(signal) / np.sqrt(3) * random.normal(size=6000)).astype(int)
    codes = signal[:, None].astype(float)
    score = metrics.disentanglement_completeness_informativeness
    assert score(codes, spread[:, None]).informativeness == pytest.approx(0.75, abs=0.03)
    guessed = np.where(random.random(6000) < 0.5, signal > 0, random.integers(0, 2, 6000))
    result = score(codes, guessed[:, None].astype(int), categorical=[0])
    assert result.informativeness == pytest.approx(0.5, abs=0.08)


def test_votes_are_of_normalised_variances():
    # Each latent follows its factor with noise; beside it a tiny latent, and one that is dead.
    codes = np.column_stack([np.zeros(len(FACTORS)), 1e-6 * NOISE[:, 0], PERFECT + 0.1 * NOISE])
    assert metrics.factor_vae_score(codes, FACTORS) == 1
    assert metrics.beta_vae_score(codes, FACTORS) > 0.99
    assert metrics.beta_vae_score(1e-4 * codes, FACTORS) > 0.99


def test_values_that_occur_once_are_not_fixed():
    alone, random = np.arange(len(FACTORS)), np.random.default_rng(4).integers(0, 9, len(FACTORS))
    once = np.column_stack([FACTORS, np.where(alone < 100, -1 - alone, random)])
    assert metrics.factor_vae_score(once.astype(float), once) == 1
    unique = np.column_stack([FACTORS, alone])
    for score in (metrics.factor_vae_score, metrics.beta_vae_score):
        with pytest.raises(ValueError, match="column of 600 values, once each"):
            score(PERFECT, unique)


def test_seeds_choose_the_samples():
    score = functools.partial(metrics.disentanglement_scores, NOISE[:200], FACTORS[:200])
    assert score() == score(seed=0)
    assert score() != score(seed=1)


def test_scores_of_sprite_images():
    # Area and centre of what is drawn, in place of an encoder.
    sprites = Sprites(16)
    codes = sprites.codes(np.random.default_rng(0).integers(0, len(sprites), 2000))
    images = sprites.render(codes)[..., 0].astype(np.float64)
    area, (rows, columns) = images.sum((1, 2)), np.indices((16, 16))
    latents = np.stack(
        [area, (columns * images).sum((1, 2)) / area, (rows * images).sum((1, 2)) / area], axis=1
    )
    result = dict(zip(NAMES, scores(latents, codes[:, [1, 3, 4]]), strict=True))
    assert min(result.values()) > 0.4
    assert result["factor_vae_score"] > 0.9
    assert result["disentanglement"] > 0.9
    whole = dict(zip(NAMES, scores(latents, codes, categorical=[0]), strict=True))
    assert whole["informativeness"] < result["informativeness"] - 0.2


@pytest.mark.parametrize("name", SCORES)
def test_unfit_input_raises(name):
    score = SCORES[name]
    shapes = r"same 2 examples or more, got "
    with pytest.raises(ValueError, match=shapes + r"\(1200,\) and \(1200, 3\)"):
        score(PERFECT[:, 0], FACTORS)
    with pytest.raises(ValueError, match=shapes + r"\(1200, 3\) and \(1199, 3\)"):
        score(PERFECT, FACTORS[1:])
    with pytest.raises(ValueError, match=shapes + r"\(1, 3\) and \(1, 3\)"):
        score(PERFECT[:1], FACTORS[:1])
    with pytest.raises(ValueError, match=shapes + r"\(1200, 0\) and \(1200, 3\)"):
        score(PERFECT[:, :0], FACTORS)
    with pytest.raises(ValueError, match="factors must be integers, got float64"):
        score(PERFECT, PERFECT)
    with pytest.raises(ValueError, match="codes must be finite, got 2 that aren't"):
        score(np.where(np.arange(len(FACTORS))[:, None] < 2, [1, np.nan, 1], PERFECT), FACTORS)
    with pytest.raises(ValueError, match="columns that vary, got a constant one, 1"):
        score(PERFECT, FACTORS * [1, 0, 1])


def test_unfit_settings_raise():
    with pytest.raises(ValueError, match="bins must be at least 2, got 1"):
        metrics.mutual_information_matrix(PERFECT, FACTORS, num_bins=1)
    for name in ("separated_attribute_predictability", "dci"):
        with pytest.raises(ValueError, match=r"columns of the 3 factors, got \[3\]"):
            SCORES[name](PERFECT, FACTORS, categorical=[3])


@pytest.mark.parametrize(
    ("module", "name"), [("ensemble", "dci"), ("linear_model", "beta_vae_score")]
)
def test_scikit_learn_may_be_missing(module, name, monkeypatch):
    monkeypatch.setitem(sys.modules, f"sklearn.{module}", None)
    with pytest.raises(ValueError, match=r"needs the package scikit-learn; pip install 'vaeflow"):
        SCORES[name](PERFECT, FACTORS)
