"""Laws of every quantizer: shapes, lookup, gradients, rows, NaN, axes."""

from __future__ import annotations

import functools

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

import vaeflow as vf
from tests.quantizers import quantizer_registry as registry
from tests.quantizers.quantizer_registry import ENTRIES, FEATURES, KEY, numbers

every = pytest.mark.parametrize(
    "entry",
    [pytest.param(e, id=e.name, marks=[pytest.mark.slow] if e.slow else []) for e in ENTRIES],
)
structural = pytest.mark.parametrize(
    "entry",
    [
        pytest.param(e, id=e.name, marks=[] if e in registry.FIRST else [pytest.mark.slow])
        for e in ENTRIES
    ],
)
"""Of laws that follow the code of a class and compile programs of their own: once a class."""
RNG = jax.random.key(8)
LEFT_OUT = -1


def assert_same(first, second, tolerance=1e-5):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance),
        first,
        second,
    )


def test_every_public_quantizer_is_here():
    assert registry.missing() == set()


@every
def test_results_have_their_shapes_and_types(entry):
    codes, codebooks = entry.quantizer.num_codes, entry.quantizer.code_shape
    for features in (FEATURES, FEATURES[:, 0, 0]):
        result = entry.evaluate(entry.variables, features)
        assert result.values.shape == features.shape
        assert result.indices.shape == (*features.shape[:-1], *codebooks)
        assert result.counts.shape == (*codebooks, codes)
        assert all(loss.shape == (len(features),) for loss in result.losses.values())
        assert result.values.dtype == jnp.float32
        assert result.indices.dtype == result.counts.dtype == jnp.int32
        assert all(loss.dtype == jnp.float32 for loss in result.losses.values())
        assert np.all(result.indices >= 0)
        assert np.all(result.indices < codes)
    trained, _ = entry.train(entry.variables, FEATURES, RNG)
    for result in (entry.evaluate(entry.variables, FEATURES), trained):
        flat = np.reshape(result.indices, (-1, *codebooks))
        for book in np.ndindex(codebooks):
            column = flat[(slice(None), *book)]
            expected = np.bincount(column[column != LEFT_OUT], minlength=codes)
            np.testing.assert_array_equal(result.counts[book], expected)


@every
def test_indices_can_be_looked_up(entry):
    infinite = np.array(FEATURES)
    infinite[2, 1, 0, 3] = np.inf
    evaluated = entry.evaluate(entry.variables, FEATURES)
    trained, _ = entry.train(entry.variables, FEATURES, RNG)
    bad = entry.evaluate(entry.variables, infinite)
    for result in (evaluated, bad, *([trained] if entry.exact else [])):
        values = entry.lookup(entry.variables, result.indices)
        np.testing.assert_allclose(values, result.values, rtol=1e-6, atol=1e-6)
    first = np.asarray(evaluated.indices)[0, 0, 0]
    assert entry.lookup(entry.variables, first).shape == (4,)
    beyond = entry.lookup(entry.variables, np.full_like(first, entry.quantizer.num_codes))
    assert np.all(np.isnan(beyond))


@pytest.mark.parametrize("entry", [e for e in ENTRIES if e.idempotent], ids=lambda e: e.name)
def test_values_are_their_own_codes_where_that_holds(entry):
    result = entry.evaluate(entry.variables, FEATURES)
    again = entry.evaluate(entry.variables, result.values)
    np.testing.assert_array_equal(result.indices, again.indices)
    assert_same(again.values, result.values, 1e-6)
    np.testing.assert_allclose(again.losses["commitment"], 0, atol=1e-10)


@every
def test_the_gradient_is_that_of_its_rule(entry):
    cotangent = np.asarray(numbers(*FEATURES.shape, seed=3))
    _, pull = jax.vjp(lambda x: entry.evaluate(entry.variables, x).values, FEATURES)
    expected = entry.pullback(entry, np.asarray(FEATURES, np.float64), cotangent)
    np.testing.assert_allclose(pull(jnp.asarray(cotangent))[0], expected, rtol=2e-4, atol=2e-5)


@structural
def test_half_precision_is_computed_in_float32(entry):
    half = (30 + 0.2 * FEATURES).astype(jnp.bfloat16)
    variables = jax.jit(entry.quantizer.init)(KEY, half)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
    result = entry.evaluate(variables, half)
    assert_same(result, entry.evaluate(variables, half.astype(jnp.float32)), 0)
    assert result.values.dtype == jnp.float32


@every
def test_rows_do_not_depend_on_each_other_in_evaluation(entry):
    others = (
        np.asarray(FEATURES)[[1, 2, 1, 3, 1]] + np.float32([0, 0, 1, 1, 1])[:, None, None, None]
    )
    expected, found = (
        jax.device_get(entry.evaluate(entry.variables, x)) for x in (FEATURES, others)
    )
    np.testing.assert_array_equal(found.indices[:2], expected.indices[1:3])
    assert_same(found.values[:2], expected.values[1:3])
    for name in set(expected.losses) - set(entry.coupled):
        assert_same(found.losses[name][:2], expected.losses[name][1:3])


@structural
def test_vmap_and_jit_change_nothing(entry):
    stack = numbers(2, 3, 2, 4, seed=4)
    result = jax.jit(jax.vmap(entry.quantizer.apply, (None, 0)))(entry.variables, stack)
    for index in range(2):
        one = jax.tree.map(lambda leaf, i=index: leaf[i], result)
        assert_same(one, entry.evaluate(entry.variables, stack[index]))
    with jax.check_tracer_leaks():
        jax.jit(entry.quantizer.apply).lower(entry.variables, stack[0])


@structural
def test_evaluation_is_exported_for_batches_of_any_size(entry):
    shape = jax.export.symbolic_shape("batch, 3, 2, 4")
    symbolic = jax.ShapeDtypeStruct(shape, jnp.float32)
    evaluate = jax.jit(lambda *arguments: entry.quantizer.apply(*arguments)[:2])
    exported = jax.export.export(evaluate)(entry.variables, symbolic)
    result = exported.call(entry.variables, FEATURES)
    assert_same(result, entry.evaluate(entry.variables, FEATURES)[:2])
    lookup = jax.jit(lambda *arguments: entry.quantizer.apply(*arguments, method="lookup"))
    shape = (*shape[:-1], *entry.quantizer.code_shape)
    symbolic = jax.ShapeDtypeStruct(shape, jnp.int32)
    exported = jax.export.export(lookup)(entry.variables, symbolic)
    assert_same(exported.call(entry.variables, result[1]), result[0])


@every
def test_nan_latent_is_isolated(entry):
    bad = np.array(FEATURES)
    bad[1, 2, 0, 0] = np.nan
    clean, result = (jax.device_get(entry.evaluate(entry.variables, x)) for x in (FEATURES, bad))
    here = np.zeros(FEATURES.shape[:-1], bool)
    here[1, 2, 0] = True
    np.testing.assert_array_equal(result.values[~here], clean.values[~here])
    np.testing.assert_array_equal(result.indices[~here], clean.indices[~here])
    # Of groups, one alone is bad.
    assert np.isnan(result.values[here][0, 0])
    assert np.all(result.indices[here].reshape(-1)[0] == LEFT_OUT)
    missing = clean.counts.sum() - result.counts.sum()
    groups = getattr(entry.quantizer, "num_groups", 1)
    assert missing == np.prod(entry.quantizer.code_shape, dtype=int) // groups
    for name, loss in result.losses.items():
        np.testing.assert_array_equal(np.isnan(loss), np.arange(5) == 1)
        if name not in entry.coupled:
            others = np.arange(5) != 1
            assert_same(loss[others], clean.losses[name][others])


@every
def test_nan_example_changes_no_code(entry):
    """The averages and gradients are those without its bad latents."""
    bad = np.array(FEATURES)
    bad[1] = np.nan
    _, state = entry.train(entry.variables, bad, RNG)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state))

    gradients = entry.gradient(entry.variables, bad)[1]
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradients))


@every
def test_values_and_gradients_are_finite_far_out(entry):
    for edge in (0.0, 1e-30, 1e3, -1e6):
        features = np.full(FEATURES.shape, edge, np.float32)
        result = entry.gradient(entry.variables, features)
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(result)), edge


@structural
def test_a_divided_batch_equals_the_full_batch(entry):
    """Learned codes, and terms that couple rows, under a named axis."""
    features, keys = numbers(6, 3, 2, 4, seed=9), jax.random.split(RNG, 6)
    features = features.at[4, 0, 0].set(jnp.nan)
    expected, state = entry.train(entry.variables, features, keys)

    def part(features, keys):
        axis = vf.Axis("data")
        result, state = entry.quantizer.apply(
            entry.variables, features, keys, axis=axis, train=True, mutable=["codebook"]
        )
        return result, axis.sum(result.counts), state

    parts = jax.tree.map(lambda leaf: leaf.reshape(3, 2, *leaf.shape[1:]), (features, keys))
    result, counts, states = jax.jit(jax.vmap(part, axis_name="data"))(*parts)
    joined = jax.tree.map(
        lambda leaf: leaf.reshape(6, *leaf.shape[2:]), result._replace(counts=None)
    )
    assert_same(joined, expected._replace(counts=None))
    for index in range(3):
        np.testing.assert_array_equal(counts[index], expected.counts)
        assert_same(jax.tree.map(lambda leaf, i=index: leaf[i], states), state)


@every
def test_evaluation_neither_learns_nor_samples(entry):
    evaluate = functools.partial(entry.quantizer.apply, mutable=["codebook"])
    first, kept = jax.jit(evaluate)(entry.variables, FEATURES, KEY)
    second = entry.evaluate(entry.variables, FEATURES)
    assert_same(first, second)
    before = entry.variables.get("codebook", {})
    jax.tree.map(np.testing.assert_array_equal, kept.get("codebook", {}), before)
    _, after = entry.train(entry.variables, FEATURES, RNG)
    changed = [
        not np.array_equal(a, b)
        for a, b in zip(
            jax.tree.leaves(before), jax.tree.leaves(after.get("codebook", {})), strict=True
        )
    ]
    assert all(changed)


@every
def test_variables_are_kept_in_files(entry, tmp_path):
    vf.save(tmp_path / "model", {}, entry.variables)
    _, variables = vf.load(tmp_path / "model")
    assert jax.tree.structure(variables) == jax.tree.structure(dict(entry.variables))
    result = entry.evaluate(variables, FEATURES)
    assert_same(result, entry.evaluate(entry.variables, FEATURES), 0)


@every
def test_wrong_shapes_raise_with_both_named(entry):
    wrong = r"shape.*(\(5, 4\).*\(5, 3\)|\(5, 3\))"
    if entry.public is not registry.GroupedQuantizer:
        wrong = r"expected features of shape \(5, 4\), got \(5, 3\)"
    with pytest.raises(ValueError, match=wrong):
        entry.quantizer.apply(entry.variables, jnp.zeros((5, 3)))
    with pytest.raises(ValueError, match=r"\(4,\)"):
        entry.quantizer.apply(entry.variables, jnp.zeros(4))
    if entry.quantizer.code_shape:
        with pytest.raises(ValueError, match=r"expected indices of shape .*, got \(5, 4\)"):
            entry.quantizer.apply(entry.variables, jnp.zeros((5, 4), int), method="lookup")
