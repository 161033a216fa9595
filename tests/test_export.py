"""From a run to a file of functions, by the command line."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import subprocess
import sys
import types
import zipfile

import jax
import numpy as np
import pytest

import vaeflow as vf
from experiments import _cli, _evaluation, export, glow_celeba
from vaeflow import sharing

ROOT = pathlib.Path(__file__).resolve().parents[1]
TINY = ["--model.levels", "1", "--model.steps", "2", "--model.width", "8", "--train.steps", "2"]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def process(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "experiments.export", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_a_run_is_exported_and_computes_as_its_model(tmp_path):
    options = ["--preset", "mnist", "--workdir", "run", *TINY]
    assert _cli.execute("glow_celeba", glow_celeba.PRESETS, glow_celeba.run, options) == 0
    out = tmp_path / "functions.zip"
    ended = process(str(tmp_path / "run"), "--out", str(out))
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == f"{out} holds log_prob, sample for cpu, cuda, tpu\n"

    described, variables = vf.load("run/model.safetensors")
    assert described == {
        **json.loads(pathlib.Path("run/config.json").read_text()),
        "shape": [28, 28, 1],
    }
    with zipfile.ZipFile(out) as archive:
        assert json.loads(archive.read("signature.json"))["config"] == described
    config = sharing.from_json(glow_celeba.Config, described["config"])
    assert config.model.dequantization == "variational"
    model = glow_celeba.build(config, tuple(described["shape"]))
    dataset = vf.data.open_dataset(config.data)
    # The model is the one that was measured: its bits/dim are those of the report.
    report = json.loads(pathlib.Path("run/report.json").read_text())
    bits = glow_celeba.bits_per_dim(model, variables, dataset.validation)
    assert bits == report["metrics"]["validation_bits_per_dim"]

    functions = sharing.load_exported(out)
    images = vf.data.stack(dataset.test, 5)["image"]
    index = np.arange(5)
    keys = _evaluation.example_keys({"index": index})
    numbers = np.asarray(jax.random.key_data(keys))
    expected = glow_celeba.log_prob(model, variables, {"image": images, "index": index})
    got = functions["log_prob"](images[:2], numbers[:2])
    np.testing.assert_allclose(got, expected[:2], rtol=1e-5)
    samples = functions["sample"](numbers[:2], np.float32(0.7))
    assert (samples.shape, samples.dtype) == ((2, 28, 28, 1), np.uint8)


def test_a_run_without_a_model_is_one_line(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    assert export.main([str(tmp_path / "run"), "--out", str(tmp_path / "out")]) == 1
    message = f"run {tmp_path}/run has no model.safetensors: it isn't finished, or no run"
    assert capsys.readouterr() == ("", f"error: {message}\n")
    assert not (tmp_path / "out").exists()


def test_experiments_that_cannot_be_imported_are_one_line(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    described = {"experiment": "elsewhere", "preset": "", "shape": [4, 4, 1], "config": {}}
    vf.save(tmp_path / "run" / "model.safetensors", described, {})
    assert export.main(["run", "--out", "out"]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("error: experiments.elsewhere can't be imported (No module ")
    assert shown.endswith(
        "; call this from the folder of a checkout, with vaeflow[experiments] installed\n"
    )
    assert shown.count("\n") == 1


def model_of(**described):
    pathlib.Path("run").mkdir()
    full = {"experiment": "toy", "preset": "", "shape": [2], "config": {}, **described}
    full = {key: value for key, value in full.items() if value is not None}
    vf.save("run/model.safetensors", full, {"w": np.float32([3])})


UNUSABLE = {
    "no experiment": (
        {"experiment": None},
        "wasn't written by an experiment: it has no experiment",
    ),
    "another module": ({"experiment": "os.path"}, "must be the name of a module of experiments/"),
    "no name": ({"experiment": 3}, "must be the name of a module of experiments/, got 3"),
    "unknown": ({"experiment": "nothing"}, "experiments.nothing can't be imported"),
    "no functions": ({"experiment": "_cli"}, "experiments._cli exports nothing"),
    "changed since": (
        {"experiment": "glow_celeba", "config": {"data": {}, "model": {"depth": 1}, "train": {}}},
        "config.model must have the fields of ModelConfig: levels,",
    ),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_a_run_that_cannot_be_exported_is_one_line(case, capsys):
    described, message = UNUSABLE[case]
    model_of(**described)
    assert export.main(["run", "--out", "out"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1
    assert not pathlib.Path("out").exists()


def test_a_damaged_model_and_an_unwritable_file_are_one_line(capsys, monkeypatch):
    def functions(config, shape):
        argument = sharing.ArgumentSpec(("b", *shape), np.float32, "numbers")
        return {"scale": sharing.FunctionSpec(lambda v, x: v["w"] * x, {"x": argument}, "numbers")}

    toy = types.ModuleType("experiments.toy")
    toy.Config, toy.functions = dataclasses.make_dataclass("Config", []), functions
    monkeypatch.setitem(sys.modules, "experiments.toy", toy)
    model_of()
    assert export.main(["run/", "--out", "out"]) == 0
    x = np.float32([[1, 2]])
    np.testing.assert_array_equal(sharing.load_exported("out")["scale"](x), 3 * x)
    assert export.main(["run", "--out", "nowhere/out"]) == 1
    path = pathlib.Path("run/model.safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    assert export.main(["run", "--out", "out"]) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("error: ")
    assert "nowhere/out" in first
    assert second.startswith("error: run/model.safetensors isn't a safetensors file, or is damaged")


def test_a_run_of_several_domains_is_exported_with_the_shape_of_each(monkeypatch):
    given = {}

    def functions(config, shape):
        given.update(shape)
        return {
            f"scale_{domain}": sharing.FunctionSpec(
                lambda v, x: v["w"] * x,
                {"x": sharing.ArgumentSpec(("b", *sizes), np.float32, "numbers")},
                "numbers",
            )
            for domain, sizes in shape.items()
        }

    toy = types.ModuleType("experiments.toy")
    toy.Config, toy.functions = dataclasses.make_dataclass("Config", []), functions
    monkeypatch.setitem(sys.modules, "experiments.toy", toy)
    model_of(shape={"a": (4, 4, 1), "b": (4, 4, 3)})
    assert export.open_run("run").shape == {"a": (4, 4, 1), "b": (4, 4, 3)}
    assert export.main(["run", "--out", "out"]) == 0
    assert given == {"a": (4, 4, 1), "b": (4, 4, 3)}
    loaded = sharing.load_exported("out")
    x = np.ones((2, 4, 4, 3), np.float32)
    np.testing.assert_array_equal(loaded["scale_b"](x), 3 * x)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: RUN, --out"),
        (["run"], "the following arguments are required: --out"),
        (["run", "--out", "x", "--fast"], "unrecognized arguments: --fast"),
        (["run", "--out"], "argument --out: expected one argument"),
    ],
)
def test_a_wrong_command_line_is_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        export.main(arguments)
    assert stop.value.code == 2
    assert capsys.readouterr() == ("", f"error: {message}; --help lists every option\n")
