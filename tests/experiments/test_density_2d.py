"""Densities of the plane end to end, at a tiny size, and errors for bad input."""

from __future__ import annotations

import json
import math
import pathlib

import jax
import numpy as np
import pytest
from PIL import Image

from experiments import _cli, density_1d, density_2d
from vaeflow import distributions

TINY = ["--train.steps", "4", "--train.scan-steps", "2", "--train.batch-size", "8"]
SMALL = [*TINY, "--samples", "200", "--points", "12", "--model.steps", "2"]


def execute(*arguments):
    return _cli.execute("density_2d", density_2d.PRESETS, density_2d.run, arguments)


def report(workdir="run"):
    return json.loads((pathlib.Path(workdir) / "report.json").read_text())["metrics"]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Coarser than users have them, which is enough for densities as smooth as these.
    monkeypatch.setattr(density_2d, "CELLS", 150)
    monkeypatch.setattr(density_2d, "FRAMES", 6)


def save_image(pixels, path="image.png"):
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)


@pytest.mark.figures
def test_flows_are_trained_measured_and_plotted(capsys):
    save_image([[0, 255], [255, 0]])
    options = ["--workdir", "run", *SMALL, "--model.width", "8"]
    options += ["--data.density", "two_moons", "image", "--data.image", "image.png"]
    assert execute(*options) == 0
    found = report()
    assert all(math.isfinite(value) for value in found.values())
    assert found["entropy_image"] == pytest.approx(math.log(32), abs=1e-3)
    assert found["kl_image"] > 0
    # The density is uniform where it isn't 0.
    gap = -found["log_likelihood_image"] - found["entropy_image"]
    assert found["kl_image"] == pytest.approx(gap, abs=1e-3)
    assert "kl_two_moons" not in found
    for name in ("two_moons", "image"):
        assert found[f"mass_{name}"] == pytest.approx(1, abs=1e-3)
    with Image.open("run/figures/densities.png") as image:
        assert np.asarray(image).std() > 10
    with Image.open("run/figures/path.gif") as image:
        assert image.n_frames == 7
    assert "kl_image: " in capsys.readouterr().out


@pytest.mark.slow
def test_a_longer_training_comes_closer():
    options = [*SMALL, "--preset", "planar", "--data.density", "eight_gaussians"]
    for steps in ("2", "300"):
        length = ["--train.steps", steps, "--train.batch-size", "64"]
        assert execute("--workdir", steps, *options, *length) == 0
    assert report("300")["kl_eight_gaussians"] < 0.7 * report("2")["kl_eight_gaussians"]


@pytest.mark.figures
def test_one_dimension_is_fitted_and_plotted():
    options = ["--preset", "one-d", "--workdir", "run", *TINY, "--train.steps", "200"]
    assert execute(*options, "--train.batch-size", "64", "--model.steps", "3") == 0
    found = report()
    assert found["mass"] == pytest.approx(1, abs=1e-3)
    assert 0 < found["kl"] < 0.5
    assert found["kl"] == pytest.approx(-found["log_likelihood"] - found["entropy"], abs=1e-4)
    for figure in ("change_of_volume", "steps"):
        with Image.open(f"run/figures/{figure}.png") as image:
            assert np.asarray(image).std() > 10


def test_densities_after_each_step_follow_the_change_of_variables():
    model = density_1d.build_flow(density_1d.FlowConfig("sylvester", steps=3), (1,))
    noise = np.linspace(-4, 4, 400, dtype=np.float32)

    @jax.jit
    def states():
        variables = jax.tree.map(lambda leaf: leaf + 0.3, model.init(jax.random.key(0)))
        values, densities = density_1d.states_of(model, variables, noise)
        return values, densities, model.apply(variables, values[-1][:, None], method="log_prob")

    values, densities, log_prob = jax.device_get(states())
    assert values.shape == densities.shape == (4, 400)
    np.testing.assert_array_equal(values[0], noise)
    np.testing.assert_allclose(densities[-1], np.exp(log_prob), rtol=1e-3)
    for y, density in zip(values, densities, strict=True):
        assert np.trapezoid(density, y) == pytest.approx(1, abs=1e-3)


DEAR = {
    *("block-autoregressive", "continuous", "gaussianization", "residual"),
    *("spline-autoregressive", "spline-coupling"),
}
"""Flows whose paths are computed by the slow tests; others look at their shapes."""


def compiled(function, *arguments):
    return jax.jit(function)(*arguments)


@pytest.mark.parametrize(
    ("flow", "compute"),
    [
        *((flow, jax.eval_shape) for flow in density_1d.FLOWS if flow in DEAR),
        *(
            pytest.param(flow, compiled, marks=[pytest.mark.slow] if flow in DEAR else [])
            for flow in density_1d.FLOWS
        ),
    ],
)
def test_every_flow_has_a_preset_and_a_path_that_ends_in_its_samples(flow, compute):
    assert density_2d.PRESETS[flow].config.model.flow == flow
    model = density_1d.build_flow(density_1d.FlowConfig(flow, steps=2, width=4), (2,))
    noise = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)

    def both(key, noise):
        points = distributions.toy.two_moons(key, (50,))
        variables = model.init(key, points)
        samples = model.apply(variables, noise, method="decode")
        return density_2d.path(model, variables, noise), samples

    states, samples = compute(both, jax.random.key(0), noise)
    assert states.shape[0] >= 3
    assert states.shape[1:] == samples.shape == (20, 2)
    if compute is compiled:
        np.testing.assert_array_equal(states[0], noise)
        np.testing.assert_allclose(states[-1], samples, rtol=1e-4, atol=1e-4)


def broken():
    pathlib.Path("there.png").write_bytes(b"no image")


BAD_IMAGES = {
    "missing": (lambda: None, "there.png is missing"),
    "broken": (broken, "there.png can't be read"),
    "black": (lambda: save_image(np.zeros((4, 5)), "there.png"), "somewhere above 0"),
}


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_bad_images_are_one_clear_line(case, capfd):
    make, message = BAD_IMAGES[case]
    make()
    options = ["--data.density", "image", "--data.image", "there.png"]
    assert execute("--workdir", "run", *options, *SMALL) == 1
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert "data.image='there.png'" in errors[0]


def test_a_flow_without_one_dimension_is_one_clear_line(capfd):
    options = ["--preset", "one-d", "--workdir", "run", *TINY, "--model.flow", "spline-coupling"]
    assert execute(*options) == 1
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "at least 2 channels, got (1,)" in errors[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data.density", "elephants"], "elephants"),
        (["--data.density", "two_moons", "two_moons"], "data.density must be different names"),
        (["--model.flow", "glow"], "glow"),
        (["--model.steps", "0"], "model.steps must be at least 1, got 0"),
        (["--model.width", "-3"], "model.width must be at least 1, got -3"),
        (["--samples", "0"], "samples must be at least 2, got 0"),
        (["--points", "1"], "points must be at least 2, got 1"),
        (["--preset", "one-d", "--weights", "1", "2"], "weights, means and deviations must be as"),
        (["--preset", "one-d", "--deviations", "1", "2", "0"], "above 0, got"),
    ],
)
def test_values_out_of_range_are_one_line(options, message, capsys):
    with pytest.raises(SystemExit) as caught:
        execute("--workdir", "run", *options)
    assert caught.value.code == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]


def test_help_lists_yields_and_cost_of_presets(capsys):
    with pytest.raises(SystemExit) as caught:
        execute("--help")
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for name, preset in density_2d.PRESETS.items():
        assert f"{name}: {preset.yields[:20]}" in " ".join(text.split())
        assert preset.yields
        assert preset.cost
