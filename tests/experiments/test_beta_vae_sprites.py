"""Disentangling objectives on sprites end to end, at a tiny size."""

from __future__ import annotations

import json
import math
import pathlib

import jax
import numpy as np
import pytest
from PIL import Image

from benchmarks import sprites
from experiments import _cli, export
from experiments import beta_vae_sprites as experiment
from vaeflow import data, sharing, training

TINY = [
    *("--train.steps", "2", "--train.scan-steps", "1", "--train.batch-size", "8"),
    *("--data.image-size", "16", "--examples", "40", "--test-examples", "200"),
    *("--model.hidden", "8", "--model.latents", "2"),
]
SCORES = {"mutual_information_gap", "modularity", "disentanglement", "factor_vae_score"}


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def execute(*arguments):
    return _cli.execute("beta_vae_sprites", experiment.PRESETS, experiment.run, arguments)


def read(path):
    return json.loads(pathlib.Path(path).read_text())


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(["--preset", "factor-vae"], marks=pytest.mark.figures),
        pytest.param(["--preset", "hfvae"], marks=pytest.mark.slow),
    ],
    ids=lambda options: options[1],
)
def test_a_preset_is_trained_measured_and_plotted(options):
    options = [*options, "--model.groups", "1", *TINY]
    assert execute("--workdir", "run", *options) == 0
    found = read("run/report.json")["metrics"]
    assert set(found) >= SCORES
    assert all(math.isfinite(value) for value in found.values())
    assert found["negative_elbo"] == pytest.approx(found["reconstruction"] + found["kl"], rel=1e-5)
    assert found["active_units"] + found["collapsed_units"] == 2
    for name in ("samples", "reconstructions", "traversals", "training_curve"):
        assert pathlib.Path(f"run/figures/{name}.png").exists()
        if options[1] == "factor-vae":
            with Image.open(f"run/figures/{name}.png") as image:
                assert np.asarray(image).std() > 1
    # The auto-encoder alone is saved and exported.
    described, variables = sharing.load("run/model.safetensors")
    assert set(variables["params"]) == {"encoder", "decoder"}
    assert set(export.functions_of(export.open_run("run"))) >= {"encode"}
    assert described["shape"] == [16, 16, 1]


def compiled(function, *arguments):
    return jax.jit(function)(*arguments)


@pytest.mark.parametrize(
    "compute", [jax.eval_shape, pytest.param(compiled, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("name", experiment.PRESETS)
def test_every_preset_takes_a_step(name, compute):
    """In shapes; the slow tests compute it."""
    config = experiment.PRESETS[name].config
    vae = experiment.build(config, (16, 16, 1))
    assert vae.num_latents == 10
    players = experiment.make_players(config.objective, vae, config.train)
    images = np.random.RandomState(0).randint(0, 256, (8, 16, 16, 1)).astype(np.uint8)
    batch = {"image": images, "index": np.arange(8, dtype=np.int32)}
    options = {"weights": players.weights}
    update = training.make_update(players.model, players.losses, players.optimizers, **options)

    def step(key):
        variables = players.model.init(key, images)
        state = training.create_train_state(variables, players.optimizers)
        state, found = update(state, batch, jax.random.split(key, 8))
        own = players.vae_variables(training.variables_of(state))
        return state.finite, found, vae.apply(own, images, key, method="encode")

    finite, found, latents = compute(step, jax.random.key(0))
    assert f"{players.prefix}negative_elbo" in found
    assert latents.shape == (8, 10)
    if compute is compiled:
        assert bool(finite)
        assert np.isfinite(latents).all()


def test_the_subset_holds_the_rendered_images_of_its_rows():
    config = experiment.PRESETS["vae"].config
    whole = data.open_dataset(config.data)
    subset = experiment.open_subset(
        experiment.Config(config.data, config.model, config.objective, config.train, 7, 10)
    )
    assert [len(subset.train), len(subset.validation), len(subset.test)] == [7, 2, 10]
    found = subset.train.gather(np.array([3, 0, 6]))
    expected = whole.train.gather(np.array([3, 0, 6]))
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)


def test_the_benchmark_runs_every_objective_and_writes_one_table(capsys, monkeypatch):
    ran = []

    def run(config, directory):
        ran.append((config.objective, config.train.seed))
        # Other figures for each objective and seed, as real ones would be.
        value = 10 * config.objective.weight + config.train.seed
        return _cli.Result(1, dict.fromkeys(sprites.COLUMNS, value))

    monkeypatch.setattr(experiment, "run", run)
    steps = ("--train.steps", "7")
    sprites.main(sprites.Config(("beta",), 1, "all"), steps)
    sprites.main(sprites.Config(("vae", "beta"), 2, "all"), steps)
    seeds = [(objective.weight, seed) for objective, seed in ran]
    assert seeds == [(4.0, 0), (1.0, 0), (1.0, 1), (4.0, 1)]  # finished runs aren't repeated
    assert read("all/vae-1/config.json")["config"]["train"]["steps"] == 7

    sprites.main(sprites.Config(("vae",), 3, "all"), steps)
    table = read("all/scores.json")
    assert [(row["objective"], row["runs"]) for row in table] == [("vae", 3), ("beta", 2)]
    assert table[0]["mean"]["kl"] == 11.0
    assert table[0]["deviation"]["kl"] == 1.0
    shown = pathlib.Path("all/scores.md").read_text()
    assert "| vae | 3 | 11.00 ± 1.00 |" in shown
    assert "| beta | 2 | 40.50 ± 0.71 |" in shown
    assert shown in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--objective.weight", "-1"], "objective.weight must be at least 0, got -1.0"),
        (["--objective.rising", "2"], "objective.rising must be in [0, 1], got 2.0"),
        (["--model.groups", "3"], "divisible by model.groups, got 10 and 3"),
        (["--examples", "0"], "examples must be at least 1 and test_examples at least 5, got 0"),
    ],
)
def test_bad_options_of_the_sprites_are_one_clear_line(options, message, capfd):
    with pytest.raises(SystemExit) as stop:
        execute("--workdir", "run", *options)
    assert stop.value.code == 2
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]


def test_data_without_factors_are_an_error(capfd):
    options = ["--data.source", "embedded:digits", "--data.image-size", "None"]
    assert execute("--workdir", "run", *options) == 1
    assert "data.source must be embedded:sprites, got embedded:digits" in capfd.readouterr().err
