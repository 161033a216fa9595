"""Files made by version 0.1.0 are read for ever, and mean what they meant then."""

from __future__ import annotations

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

import vaeflow as vf
from tests.golden import golden_runs, models, orders, stored
from vaeflow._util.reading import read_json

MODELS = stored.FILES / "models"
CONFIGS = stored.FILES / "configs"
EXPORTS = stored.FILES / "exports"
RUNS = stored.FILES / "runs"
DIGESTS = json.loads((MODELS / "digests.json").read_text())
OUTPUTS = stored.read_arrays(MODELS / "outputs.npz")
EXPORTED = stored.read_arrays(EXPORTS / "outputs.npz")
PRESETS = {path.stem: json.loads(path.read_text()) for path in sorted(CONFIGS.glob("*.json"))}
QUICK = {"glow", "maf", "base-mixture", "vae-vamp", "vqvae-average"}
"""Models whose outputs are computed by the tests that aren't slow."""
SLOW_EXPORTS = {"maf", "codes-snail", "munit"}


def marked(name, slow):
    return pytest.param(name, marks=[pytest.mark.slow] if slow else [])


def test_every_file_is_read_by_a_test():
    assert {path.stem for path in MODELS.glob("*.safetensors")} == set(DIGESTS) == set(OUTPUTS)
    assert set(DIGESTS) == set(models.MODELS)
    assert set(PRESETS) == set(golden_runs.MODULES)
    assert {path.stem for path in EXPORTS.glob("*.zip")} == set(EXPORTED)
    assert set(EXPORTED) == set(golden_runs.EXPORTS)
    assert {path.name for path in RUNS.iterdir() if path.is_dir()} == set(golden_runs.RUNS)


@pytest.mark.parametrize(
    "name", [marked(name, golden.slow) for name, golden in models.MODELS.items()]
)
def test_models_have_the_parameters_that_are_stored(name):
    described, variables = vf.load(MODELS / f"{name}.safetensors")
    assert described == {"model": name}
    assert stored.digest(variables) == DIGESTS[name]
    today = stored.described(jax.eval_shape(models.MODELS[name].init))
    for path, (shape, dtype) in today.items():
        # Permutations and signs were floats, which optimisers could move.
        if path.startswith("constants/") and dtype == "int8":
            today[path] = (shape, "float32")
    assert today == stored.described(variables)


@pytest.mark.parametrize("name", [marked(name, name not in QUICK) for name in models.MODELS])
def test_stored_models_reproduce_their_outputs(name):
    golden = models.MODELS[name]
    variables = vf.load(MODELS / f"{name}.safetensors")[1]
    found = jax.jit(lambda own: golden.outputs(golden.build(), own))(variables)
    stored.assert_same_outputs(found, OUTPUTS[name])


@pytest.mark.parametrize(
    ("experiment", "preset"),
    [(experiment, preset) for experiment, written in PRESETS.items() for preset in written],
)
def test_stored_configurations_are_those_of_the_presets(experiment, preset):
    written = PRESETS[experiment][preset]
    assert (written["experiment"], written["preset"]) == (experiment, preset)
    today = golden_runs.presets(experiment)[preset].config
    assert golden_runs.read_config(experiment, preset, written["config"]) == today


def copied(name, tmp_path):
    """A stored run next to its data."""
    golden_runs.write_data(tmp_path)
    shutil.copytree(RUNS / name, tmp_path / "run")
    return golden_runs.RUNS[name]


@pytest.mark.parametrize(
    "name", [marked(name, run.slow_start) for name, run in golden_runs.RUNS.items()]
)
def test_checkpoints_come_back_bit_for_bit(name, tmp_path):
    run = copied(name, tmp_path)
    found = golden_runs.restored(run, tmp_path)
    assert int(found.tree["state"].step) == 2
    assert golden_runs.digests_of(found) == json.loads((RUNS / "digests.json").read_text())[name]


def assert_same_lines(path, expected):
    """Compares what was logged at each step, to rounding."""
    found = golden_runs.read_lines(path)
    assert [sorted(line) for line in found] == [sorted(line) for line in expected]
    for line, of_step in zip(found, expected, strict=True):
        assert line == pytest.approx(of_step, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("name", golden_runs.RUNS)
@pytest.mark.slow
def test_stored_runs_go_on_to_where_they_would_have_got(name, tmp_path):
    run = copied(name, tmp_path)
    assert golden_runs.execute(run, tmp_path) == 0
    assert read_json(tmp_path / "run" / "report.json")["experiment"] == run.experiment
    expected = json.loads((RUNS / "lines.json").read_text())[name]
    assert_same_lines(tmp_path / "run" / run.folder / "metrics.jsonl", expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", golden_runs.RUNS)
def test_the_same_command_makes_the_same_steps_from_the_start(name, tmp_path):
    """The order of batches, the noise of each step and row, and first parameters are as before."""
    golden_runs.write_data(tmp_path)
    run = golden_runs.RUNS[name]
    assert golden_runs.execute(run, tmp_path) == 0
    expected = json.loads((RUNS / "lines.json").read_text())[name]
    assert_same_lines(tmp_path / "run" / run.folder / "metrics.jsonl", expected)


@pytest.mark.parametrize(
    "name", [marked(name, name in SLOW_EXPORTS) for name in golden_runs.EXPORTS]
)
def test_exported_functions_reproduce_their_outputs(name):
    path = EXPORTS / f"{name}.zip"
    functions = vf.sharing.load_exported(path)
    arguments = golden_runs.arguments_of(path)
    found = {function: call(*arguments[function]) for function, call in functions.items()}
    stored.assert_same_outputs(found, EXPORTED[name])


def test_seeds_reproduce_their_samples(tmp_path):
    golden_runs.write_data(tmp_path)
    expected = stored.read_arrays(stored.FILES / "orders.npz")["order"]
    found = orders.orders(tmp_path)
    assert sorted(found) == sorted(expected)
    for name, value in expected.items():
        if name == "noise":
            np.testing.assert_allclose(found[name], value, rtol=1e-6)
        else:
            np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_stored_files_name_no_place_of_the_machine_that_made_them():
    for path in stored.FILES.rglob("*"):
        if path.suffix in (".json", ".jsonl", ".txt") or path.name.startswith("_"):
            text = path.read_text(errors="replace")
            for word in ("/home/", "/tmp/", "/root/", str(pathlib.Path.cwd())):
                assert word not in text, path
