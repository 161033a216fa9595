"""`vaeflow.fit`: data of every kind, standardisation, contexts, ensembles, runs and files."""

from __future__ import annotations

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas
import polars
import pytest

import vaeflow as vf
from vaeflow.fitting.arrays import ArrayBatches, as_numpy

QUIET = {"steps": 60, "learning_rate": 1e-2, "batch_size": 64}
MATRIX = np.array([[2.0, 0.3], [-0.5, 0.7]])


def rows(count=400, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 2)) @ MATRIX + [3.0, -1.0]


def small_flow(dimension=2, **options):
    return vf.flows.MaskedAutoregressiveFlow(
        (dimension,), num_steps=1, hidden_sizes=(8,), **options
    )


@pytest.fixture(scope="module")
def fitted():
    return vf.fit(small_flow(), rows(), validation=0.25, **QUIET)


def exact_log_prob(x):
    covariance = MATRIX.T @ MATRIX
    centered = x - [3.0, -1.0]
    square = np.einsum("ni,ij,nj->n", centered, np.linalg.inv(covariance), centered)
    return -0.5 * (square + 2 * math.log(2 * math.pi) + np.log(np.linalg.det(covariance)))


def test_a_gaussian_is_found_in_the_units_of_the_data(fitted):
    """One affine autoregressive step is a Gaussian: what is left is the error of 300 rows."""
    test = rows(1000, seed=1)
    difference = fitted.log_prob(test) - exact_log_prob(test)
    assert abs(difference.mean()) < 0.05
    sample = fitted.sample(4000, seed=2)
    assert sample.shape == (4000, 2)
    np.testing.assert_allclose(sample.mean(0), [3.0, -1.0], atol=0.3)
    np.testing.assert_allclose(np.cov(sample.T), MATRIX.T @ MATRIX, atol=0.8)


def test_what_was_done_is_said(fitted):
    assert repr(fitted).startswith(
        "Fitted(MaskedAutoregressiveFlow of [2]; data are standardized; 300 examples, 100 to "
        f"validate; step {fitted.summary['step']} of 60; validation_negative_log_likelihood "
    )
    steps = [record["step"] for record in fitted.history]
    assert steps == [1, 50, 60]
    name = "validation_negative_log_likelihood"
    assert fitted.summary["metrics"][name] == min(r[name] for r in fitted.history if name in r)
    figure = fitted.plot_history()
    assert figure.axes[0].get_ylabel() == "negative log likelihood"
    figures = {
        vf.plotting.LIGHT: figure,
        vf.plotting.DARK: fitted.plot_history(style=vf.plotting.DARK),
    }
    for style, shown in figures.items():
        assert shown.axes[0].lines[0].get_color() == style.palette[0]


def test_the_same_seed_gives_the_same_fit(fitted):
    again = vf.fit(small_flow(), rows(), validation=0.25, **QUIET)
    jax.tree.map(np.testing.assert_array_equal, again.variables, fitted.variables)


@pytest.mark.slow
def test_units_change_the_density_by_their_jacobian(fitted):
    """Standardised, the flow trains on the same numbers up to rounding."""
    scaled = vf.fit(small_flow(), 1024 * rows(), validation=0.25, **QUIET)
    test = rows(50, seed=1)
    expected = fitted.log_prob(test) - 2 * math.log(1024)
    np.testing.assert_allclose(scaled.log_prob(1024 * test), expected, atol=1e-2)


def test_the_distribution_has_the_densities(fitted):
    test = rows(20, seed=3)
    density = fitted.distribution()
    np.testing.assert_allclose(
        density.log_prob(jnp.asarray(test, jnp.float32)), fitted.log_prob(test), rtol=1e-5
    )
    cold = fitted.distribution(temperature=1e-3).sample(seed=jax.random.key(0), sample_shape=50)
    assert np.std(cold, axis=0).max() < 0.1


class Tensor:
    """As PyTorch's: an array by `__array__`, but not where it needs a gradient."""

    def __init__(self, values, needs_gradient=True):
        self.values, self.needs_gradient = values, needs_gradient

    def detach(self):
        return Tensor(self.values, needs_gradient=False)

    def __array__(self, dtype=None, copy=None):
        if self.needs_gradient:
            raise RuntimeError("can't call numpy() on a tensor that requires grad")
        return np.asarray(self.values, dtype)


ARRAYS = {
    "pandas": pandas.DataFrame,
    "Polars": polars.DataFrame,
    "NumPy": np.asarray,
    "JAX": jnp.asarray,
    "lists": lambda x: x.tolist(),
    "a tensor": Tensor,
    "a masked array": np.ma.masked_invalid,
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_of_any_library_are_taken(kind):
    array = as_numpy("data", ARRAYS[kind](rows(5)))
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, rows(5).astype(np.float32))


def test_types_of_numbers_are_kept_or_widened():
    assert as_numpy("x", np.ones(2, np.float16)).dtype == np.float32
    assert as_numpy("x", jnp.ones(2, jnp.bfloat16)).dtype == np.float32
    assert as_numpy("x", np.ones(2, np.uint8)).dtype == np.uint8
    assert as_numpy("x", np.ones(2, bool)).dtype == np.int32


FLOW = small_flow()
REFUSED = {
    r"data must have shape \[example, 2\], got \(10, 3\)": {"data": np.ones((10, 3))},
    r"data must hold numbers alone, got the columns name": {
        "data": pandas.DataFrame({"size": [1.0, 2.0], "name": ["a", "b"]})
    },
    r"data must hold numbers alone, got the columns kind": {
        "data": polars.DataFrame({"size": [1.0, 2.0], "kind": ["a", "b"]})
    },
    r"data must hold numbers": {"data": np.array([["a", "b"]] * 10)},
    r"data must hold numbers alone, got a list of objects": {"data": [[1.0, None]] * 10},
    r"data must be an array, got a list: .*inhomogeneous": {"data": [[1.0, 2.0], [3.0]]},
    r"data must not have masked entries": {"data": np.ma.masked_less(rows(10), 3.0)},
    r"data must be finite, got nan in row 3, column 1; 1 of 10 rows aren't": {
        "data": np.where(np.arange(20).reshape(10, 2) == 7, np.nan, rows(10))
    },
    r"context must have a row for each of the 10 examples, got shape \(9, 1\)": {
        "context": np.ones((9, 1))
    },
    r"validation must be a share in \[0, 1\), or examples, got 1": {"validation": 1},
    r"validation must be a pair of examples and contexts": {
        "context": np.ones((10, 1)),
        "validation": rows(5),
    },
    r"steps must be an integer of at least 1, got 0": {"steps": 0},
    r"ensemble must be an integer of at least 1, got 0": {"ensemble": 0},
    r"loss must be given for a MLP, got None": {"model": vf.nn.MLP(2)},
    r"standardize must be False for a BoundedFlow": {
        "model": vf.flows.BoundedFlow(FLOW, -9, 9),
        "standardize": True,
    },
    r"steps must be given for an iterable of batches, got None": {"data": iter([rows(10)])},
    r"data must yield batches for all steps, ended after 0": {"data": iter([]), "steps": 3},
    r"train.learning_rate must be above 0, got -1": {"learning_rate": -1.0},
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_does_not_fit_is_named_before_training(message):
    given = {"model": FLOW, "data": rows(10), **REFUSED[message]}
    with pytest.raises(ValueError, match=message):
        vf.fit(given.pop("model"), given.pop("data"), **given)


def test_batches_are_epochs_of_permutations_by_seed_and_step():
    arrays = {"vector": np.arange(10.0)[:, None]}
    batches = ArrayBatches(arrays, 4, seed=3)
    stream = batches.stream(0)
    seen = np.concatenate([next(stream)["index"] for _ in range(10)])
    for epoch in range(4):
        assert sorted(seen[10 * epoch : 10 * epoch + 10]) == list(range(10))
    assert len({tuple(seen[10 * epoch : 10 * epoch + 10]) for epoch in range(4)}) == 4
    later = next(batches.stream(7))
    np.testing.assert_array_equal(later["index"], seen[28:32])
    np.testing.assert_array_equal(later["vector"][:, 0], seen[28:32])
    parts = [next(batches.plan(7, shard, 2))["index"] for shard in range(2)]
    np.testing.assert_array_equal(np.concatenate(parts), seen[28:32])
    other = ArrayBatches(arrays, 4, seed=4)
    assert not np.array_equal(next(other.stream(7))["index"], seen[28:32])


@pytest.mark.slow
def test_conditional_densities_follow_their_contexts():
    generator = np.random.default_rng(0)
    context = generator.uniform(100.0, 300.0, size=(600, 1))
    data = np.sin(context / 50.0) + 0.1 * generator.normal(size=(600, 1))
    posterior = vf.fit(small_flow(1), data, context=context, **{**QUIET, "steps": 150})
    assert "data and contexts are standardized" in repr(posterior)
    at = np.array([[150.0], [250.0]])
    samples = posterior.sample(500, context=at)
    assert samples.shape == (500, 2, 1)
    np.testing.assert_allclose(samples.mean((0, 2)), np.sin(at[:, 0] / 50.0), atol=0.3)
    assert posterior.sample(7, context=at[0]).shape == (7, 1)
    each = posterior.log_prob(data[:3], context=context[:3])
    for same in (context[0], context[0, 0]):
        one = posterior.log_prob(data[:1], context=same)
        np.testing.assert_allclose(each[:1], one, rtol=1e-5)
    flat = posterior.log_prob(data[:3], context=context[:3, 0])
    np.testing.assert_array_equal(flat, each)
    assert posterior.sample(7, context=150).shape == (7, 1)
    with pytest.raises(ValueError, match="context must have a row for each of the 3 examples"):
        posterior.log_prob(data[:3], context=context[:2])
    with pytest.raises(ValueError, match="context"):
        posterior.log_prob(data[:3])
    with pytest.raises(ValueError, match=r"context must have shape \[\*batch, 1\]"):
        posterior.sample(3, context=np.ones((1, 2)))


@pytest.mark.slow
def test_labels_are_contexts_of_flows_with_classes():
    label = np.arange(400) % 2
    data = rows() + 20.0 * label[:, None]
    density = vf.fit(small_flow(num_classes=2), data, context=label, validation=0.0, **QUIET)
    assert density.summary["context"] == "labels"
    assert density.summary["validation_examples"] == 0
    means = density.sample(100, context=np.array([0, 1])).mean(0)
    assert (means[1] - means[0] > 5.0).all()
    log_prob = density.log_prob(data[:4], context=np.int64(0))
    np.testing.assert_allclose(log_prob[::2], density.log_prob(data[:4], context=label[:4])[::2])


@pytest.mark.slow
def test_an_ensemble_is_the_mixture_of_models_that_were_trained_alone():
    options = {**QUIET, "optimizer": optax.adam(1e-2), "patience": 0}
    together = vf.fit(small_flow(), rows(), ensemble=3, **options)
    assert together.num_members == 3
    assert repr(together).startswith("Fitted(ensemble of 3; ")
    test = rows(30, seed=4)
    terms = together.member_log_probs(test)
    assert terms.shape == (3, 30)
    assert (terms.std(0) > 0).all()
    mixture = np.log(np.exp(terms).mean(0))
    np.testing.assert_allclose(together.log_prob(test), mixture, rtol=1e-4)
    density = together.distribution()
    np.testing.assert_allclose(density.log_prob(jnp.float32(test)), mixture, rtol=1e-4)
    assert density.event_shape == (2,)
    assert density.batch_shape == ()
    assert len(density.members()) == 3
    own = together.member(1)
    np.testing.assert_allclose(own.log_prob(test), terms[1], rtol=1e-4)
    sample = together.sample(2000)
    assert sample.shape == (2000, 2)
    np.testing.assert_allclose(sample.mean(0), [3.0, -1.0], atol=0.3)
    draws = density.sample(seed=jax.random.key(0), sample_shape=2000)
    np.testing.assert_allclose(draws.mean(0), [3.0, -1.0], atol=0.3)
    with pytest.raises(ValueError, match="index must be from 0 to 2, got 3"):
        together.member(3)


def test_files_hold_all_that_is_needed(fitted, tmp_path):
    fitted.save(tmp_path / "flow.safetensors")
    loaded = vf.load_fitted(tmp_path / "flow.safetensors")
    assert loaded.model == fitted.model
    assert repr(loaded) == repr(fitted)
    assert list(loaded.history) == [dict(record) for record in fitted.history]
    np.testing.assert_array_equal(loaded.log_prob(rows(9)), fitted.log_prob(rows(9)))
    vf.save(tmp_path / "plain.safetensors", fitted.model, fitted.variables)
    with pytest.raises(ValueError, match=r"holds no fitted model: read it with vaeflow\.load"):
        vf.load_fitted(tmp_path / "plain.safetensors")


def test_pretrained_folders_have_a_card_that_says_how_to_load_them(fitted, tmp_path):
    folder = tmp_path / "hub" / "two-gaussians"
    fitted.save_pretrained(folder, description="Two *correlated* columns.", license="apache-2.0")
    assert {path.name for path in folder.iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
    }
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0\nlibrary_name: vaeflow\n")
    assert "Two *correlated* columns." in card
    assert "300 examples of 2 dimensions to train on, 100 to choose" in card
    code = card.split("```python\n")[1].split("```")[0].replace("PATH/OF/THIS/FOLDER", str(folder))
    found = {}
    exec(code, found)
    np.testing.assert_array_equal(found["samples"], fitted.sample(16))
    config = json.loads((folder / "config.json").read_text())
    assert config["model"]["class"] == "models.FlowModel"


@pytest.mark.slow
def test_batches_of_an_iterable_are_trained_on_as_they_come():
    def batches():
        for seed in range(30):
            yield rows(64, seed)

    density = vf.fit(small_flow(), batches(), validation=0, steps=30, learning_rate=1e-2)
    assert density.summary["last_step"] == 30
    assert abs((density.log_prob(rows(500, 99)) - exact_log_prob(rows(500, 99))).mean()) < 3.0
    with pytest.raises(ValueError, match="ended after 2"):
        vf.fit(small_flow(), iter([rows(64), rows(64)]), validation=0, steps=5)


def test_a_quiet_fit_writes_nothing(capfd):
    vf.fit(small_flow(), rows(), patience=1, progress=False, **QUIET)
    assert capfd.readouterr() == ("", "")


def test_a_directory_makes_it_a_run_that_ends_once(fitted, tmp_path, capsys):
    place = str(tmp_path / "run")
    run = vf.fit(small_flow(), rows(), validation=0.25, directory=place, **QUIET)
    jax.tree.map(np.testing.assert_array_equal, run.variables, fitted.variables)
    again = vf.fit(small_flow(), rows(), validation=0.25, directory=place, **QUIET)
    assert "has ended already" in capsys.readouterr().err
    jax.tree.map(np.testing.assert_array_equal, again.variables, fitted.variables)
    assert [record["step"] for record in again.history] == [1, 50, 60]
    with pytest.raises(ValueError, match="another"):
        vf.fit(small_flow(), rows(seed=5), validation=0.25, directory=place, **QUIET)


def test_tiny_data_and_single_columns_are_fitted():
    tiny = vf.fit(small_flow(1), rows(3)[:, 0], validation=0.0, steps=2)
    assert tiny.log_prob(rows(3)[:, 0]).shape == (3,)
    assert tiny.log_prob(np.zeros((0, 1))).shape == (0,)
    assert tiny.sample(0).shape == (0, 1)


@pytest.mark.slow
def test_one_context_of_as_many_dimensions_as_there_are_examples_is_one_for_all():
    generator = np.random.default_rng(0)
    context = generator.normal(size=(200, 2))
    data = context + 0.1 * generator.normal(size=(200, 2))
    posterior = vf.fit(small_flow(), data, context=context, **QUIET)
    shared = posterior.log_prob(data[:2], context=context[0])
    each = posterior.log_prob(data[:2], context=context[[0, 0]])
    np.testing.assert_allclose(shared, each, rtol=1e-5)
