"""The command line: errors in one line, exit codes, and expected figures."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import pathlib
import signal
import subprocess
import sys
import warnings

import jax
import numpy as np
import pytest

from experiments import _cli
from vaeflow.training import HostsConfig, Interrupted, LogConfig, TrainConfig, open_run_directory

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOY = ROOT / "tests" / "training" / "toy_experiment.py"


@dataclasses.dataclass(frozen=True)
class Config:
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    width: int = 3
    """Width of the network."""


PRESETS = {
    "small": _cli.Preset(
        Config(),
        yields="A small one.",
        cost="a second",
        expected={"bits": _cli.Expected(1.5, "table 2")},
    ),
    "large": _cli.Preset(
        Config(TrainConfig(steps=9), width=30), yields="A large one.", cost="a day"
    ),
}


STAGES = ("first", "last")


def run(config, directory):
    return _cli.Result(config.train.steps, {"bits": 1.25, "other": float("nan")})


def execute(*arguments, run=run, presets=PRESETS):
    return _cli.execute("toy", presets, run, arguments)


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_options_start_from_a_preset():
    line = _cli.parse("toy", PRESETS, ["--train.batch-size", "5"])
    assert line == (
        "small",
        "",
        HostsConfig(),
        LogConfig(),
        "all",
        Config(TrainConfig(batch_size=5)),
    )
    arguments = ["--width", "4", "--preset", "large", "--workdir", "there"]
    arguments += ["--hosts.coordinator", "there:80", "--hosts.count", "2"]
    line = _cli.parse("toy", PRESETS, arguments)
    assert line[:3] == ("large", "there", HostsConfig("there:80", 2, 0))
    assert line.config == Config(TrainConfig(steps=9), width=4)
    assert _cli.parse("toy", PRESETS, ["--preset=large"])[-1].width == 30


def test_the_last_stage_finishes_a_run(capsys):
    seen = []

    def staged(config, directory, stage):
        seen.append(stage)
        return None if stage == "first" else run(config, directory)

    def staged_execute(*arguments):
        return _cli.execute("toy", PRESETS, staged, ["--workdir", "run", *arguments], STAGES)

    assert staged_execute("--stage", "first") == 0
    assert "stage first is done; the run is kept in run" in capsys.readouterr().err
    assert not pathlib.Path("run/report.json").exists()
    assert staged_execute("--stage", "last") == 0
    assert "bits: 1.25" in capsys.readouterr().out
    assert staged_execute() == 0
    assert "is finished; nothing to do" in capsys.readouterr().err
    assert seen == ["first", "last"]
    assert _cli.parse("toy", PRESETS, [], STAGES).stage == "all"
    with pytest.raises(SystemExit):
        staged_execute("--stage", "middle")
    line = "error: invalid choice 'middle' for argument '--stage'. Expected one of"
    assert capsys.readouterr().err.startswith(f"{line} ('all', 'first', 'last'); --help")
    with pytest.raises(SystemExit):  # where there are none, there is no such option
        execute("--stage", "first")


def test_options_of_a_later_stage_may_be_corrected_until_it_begins(capsys):
    def staged(config, directory, stage):
        folder = directory.path / ("first" if config.width < 5 else "second")
        folder.mkdir(exist_ok=True)
        line = json.dumps({"step": 1, "wall_seconds": 1.0})
        (folder / "metrics.jsonl").write_text(f"{line}\n")

    def corrected(*arguments):
        later = {"width": "second/metrics.jsonl"}
        words = ["--workdir", "run", *arguments]
        return _cli.execute("toy", PRESETS, staged, words, STAGES, later)

    assert corrected("--stage", "first") == 0
    assert corrected("--stage", "first", "--train.seed", "1") == 1
    assert "train.seed: 0 there, 1 here" in capsys.readouterr().err
    assert corrected("--stage", "first", "--width", "4") == 0
    assert json.loads(pathlib.Path("run/config.json").read_text())["config"]["width"] == 4
    assert corrected("--stage", "last", "--width", "5") == 0
    assert corrected("--stage", "last", "--width", "4") == 1
    assert "(width: 5 there, 4 here)" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["report.json", "config.json"])
def test_a_damaged_file_is_one_line_that_names_it(name, capsys):
    assert execute("--workdir", "run") == 0
    pathlib.Path("run", name).write_text("[]")
    capsys.readouterr()
    assert execute("--workdir", "run") == 1
    path = pathlib.Path("run", name).resolve()
    assert capsys.readouterr().err == f"error: {path} must hold a JSON object, got []\n"


def test_an_error_of_memory_or_of_the_device_is_one_line(capsys):
    for kind in (MemoryError, OverflowError, jax.errors.JaxRuntimeError):

        def fails(config, directory, kind=kind):
            raise kind("out of memory " * 200)

        assert execute(run=fails) == 1
        line = capsys.readouterr().err.splitlines()[-1]
        assert line.startswith("error: out of memory")
        assert len(line) < 1100


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("gs://bucket/run", "needs a package that isn't installed: pip install gcsfs"),
        ("s3://bucket/run", "needs a package that isn't installed: pip install s3fs"),
        ("http://host/run", "must be a local path or one of gs://, s3://, az://, got http://"),
        ("other://host/run", "must be a local path or one of gs://, s3://, az://, got other://"),
    ],
)
def test_stores_without_their_package_are_one_line(path, message, capsys, monkeypatch):
    for package in ("gcsfs", "s3fs"):  # whether they are there or not
        monkeypatch.setitem(sys.modules, package, None)
    assert execute("--workdir", path) == 1
    assert capsys.readouterr().err == f"error: workdir {path} {message}\n"


@pytest.mark.usefixtures("heeded_signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_before_training_exits_with_one_line(number, capsys):
    def signalled(config, directory):
        os.kill(os.getpid(), number)
        for _ in range(1000):
            pass
        raise AssertionError

    before = signal.getsignal(number)
    assert execute(run=signalled) == 128 + number
    assert signal.getsignal(number) is before
    assert capsys.readouterr().err.splitlines()[1:] == [
        "stopped; the same command goes on from the last checkpoint"
    ]


def test_help_lists_yields_and_cost_of_presets(capsys):
    with pytest.raises(SystemExit) as stop:
        execute("--preset", "large", "--help")
    assert stop.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "small: A small one. Costs a second. Expected: bits 1.5 (table 2)." in shown
    assert "large: A large one. Costs a day." in shown
    assert "train options" in shown
    assert "--train.strategy {jit,pmap}" in shown
    assert "Width of the network. (default: 30)" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--train.step", "3"], "Unrecognized options: --train.step, 3; perhaps "),
        (["--train.steps", "many"], "--train.steps: invalid literal for int() with base 10"),
        (["--train.steps", "0"], "train.steps must be at least 1, got 0"),
        (["--preset", "huge"], "invalid choice 'huge' for argument '--preset'"),
        (["--preset"], "Missing value for argument '--preset'"),
        (["--train.strategy", "magic"], "invalid choice 'magic'"),
        (["stray"], "Unrecognized options: stray"),
        (["--train.steps", str(2**31)], f"train.steps must be below 2^31, got {2**31}"),
        (["--train.seed", str(2**63)], f"train.seed must be below 2^63, got {2**63}"),
        (["--train.learning-rate", "inf"], "train.learning_rate must be finite, got inf"),
        (["--train.clip-norm", "nan"], "train.clip_norm must be finite, got nan"),
        (["--width", str(10**30)], f"width must be of at most 64 bits, got {10**30}"),
    ],
)
def test_a_wrong_command_line_is_one_line(arguments, message, capfd):
    with pytest.raises(SystemExit) as stop:
        execute(*arguments)
    assert stop.value.code == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert not pathlib.Path("runs").exists()


def test_a_finished_run_prints_its_report_again(capsys):
    assert execute() == 0
    report = json.loads(pathlib.Path("runs/toy-small/report.json").read_text())
    assert report["metrics"] == {"bits": 1.25, "other": None}
    expected = {"value": 1.5, "source": "table 2", "condition": {"train.steps": 1000}}
    assert report["expected"] == {"bits": expected}
    assert (report["experiment"], report["preset"], report["step"]) == ("toy", "small", 1000)
    out = capsys.readouterr().out
    assert "bits: 1.25 (expected 1.5, table 2)\nother: not finite\n" in out

    def fails(config, directory):
        raise AssertionError

    assert execute(run=fails) == 0
    out, err = capsys.readouterr()
    assert err == "runs/toy-small is finished; nothing to do\n"
    assert "bits: 1.25" in out


@dataclasses.dataclass(frozen=True)
class DataConfig:
    source: str = "tfds:celeb_a"
    image_size: int | None = 64
    crop: str | None = "celeba"
    flip: bool = True


@dataclasses.dataclass(frozen=True)
class ImageConfig:
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)


IMAGES = {
    "celeba": _cli.Preset(
        ImageConfig(), "Faces.", "days", expected={"bits": _cli.Expected(3.02, "table 4")}
    ),
    "digits": _cli.Preset(
        ImageConfig(DataConfig("embedded:digits")),
        "Digits.",
        "days",
        expected={"bits": _cli.Expected(1.1, "our run on all of MNIST", _cli.MNIST)},
    ),
}


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ([], True),
        (["--train.learning-rate", "0.1", "--train.seed", "3"], True),
        (["--data.source", "npz:faces.npz"], False),
        (["--data.image-size", "32"], False),
        (["--data.crop", "None"], False),
        (["--train.steps", "4"], False),
        (["--preset", "digits"], False),
        (["--preset", "digits", "--data.source", "npz:/data/mnist.npz"], True),
        (["--preset", "digits", "--data.source", "npz:fashion-mnist.npz"], False),
        (["--preset", "digits", "--data.source", "tfds:mnist", "--train.steps", "4"], False),
    ],
)
def test_expected_figures_are_shown_for_the_data_and_steps_they_hold_for(options, shown, capsys):
    assert execute("--workdir", "run", *options, presets=IMAGES) == 0
    report = json.loads(pathlib.Path("run/report.json").read_text())
    assert ("(expected " in capsys.readouterr().out) == shown
    assert set(report["expected"]) == ({"bits"} if shown else set())
    if shown:
        condition = report["expected"]["bits"]["condition"]
        source = list(_cli.MNIST) if "digits" in options else "tfds:celeb_a"
        names = ("data.source", "data.image_size", "data.crop", "train.steps")
        assert condition == dict(zip(names, (source, 64, "celeba", 1000), strict=True))


@pytest.mark.parametrize("kind", [ValueError, OSError, FileNotFoundError, FloatingPointError])
def test_an_error_of_a_run_is_one_line_with_its_traceback_in_a_file(kind, capsys):
    def fails(config, directory):
        raise kind("data.source: no such\n  thing")

    assert execute(run=fails) == 1
    err = capsys.readouterr().err.splitlines()
    assert err[-1] == "error: data.source: no such thing"
    assert len(err) == 2
    kept = pathlib.Path("runs/toy-small/traceback.txt")
    assert "in fails" in kept.read_text()
    assert execute("--width", "5") == 0  # the mistake mended, in the same directory
    assert not kept.exists()


def test_other_exceptions_propagate():
    def fails(config, directory):
        raise KeyError("latent")

    with pytest.raises(KeyError):
        execute(run=fails)


def test_another_configuration_or_an_unusable_directory_is_one_line(capsys):
    assert execute() == 0
    capsys.readouterr()
    assert execute("--width", "4") == 1
    err = capsys.readouterr().err
    assert "error: workdir runs/toy-small holds a run of another configuration" in err
    assert "(width: 3 there, 4 here)" in err
    pathlib.Path("file").touch()
    assert execute("--workdir", "file/run") == 1
    err = capsys.readouterr().err
    assert err == "error: workdir file/run can't be used: Not a directory\n"


def test_control_c_exits_with_one_line(capsys):
    def interrupted(config, directory):
        raise KeyboardInterrupt

    assert execute(run=interrupted) == 130
    assert capsys.readouterr().err.splitlines()[1:] == [
        "stopped; the same command goes on from the last checkpoint"
    ]


def test_quieten_keeps_our_own_warnings(caplog):
    loggers = [logging.getLogger(name) for name in ("jax", "orbax", "grain", "absl", "asyncio")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        _cli.quieten()
        for module in ("orbax.checkpoint", "vaeflow.flows", "experiments.glow", "jax"):
            warnings.warn_explicit(module, UserWarning, f"{module}.py", 1, module=module)
    assert [str(warning.message) for warning in shown] == ["vaeflow.flows", "experiments.glow"]
    for logger, level in zip(loggers, levels, strict=True):
        logger.warning("chatter")
        logger.error("trouble")
        logger.setLevel(level)
    shown = [(record.name, record.getMessage()) for record in caplog.records]
    assert shown == [("jax", "trouble"), ("orbax", "trouble"), ("grain", "trouble")]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_exits_with_one_line_and_the_saved_step(number, capsys):
    def stopped(config, directory):
        raise Interrupted(12, number)

    assert execute(run=stopped) == 128 + number
    assert capsys.readouterr().err.splitlines()[1:] == [
        "stopped at step 12, which is saved; the same command goes on from there"
    ]


def process(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, str(TOY), *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
        check=False,
    )


def quiet(shown):
    """Whether there is nothing but a progress bar."""
    parts = [part for part in shown.replace("\r", "\n").split("\n") if part.strip()]
    return all(part.startswith(("compiling: ", "training: ")) for part in parts)


def arrays(workdir, config):
    """The last checkpoint, as it lies on the disk."""
    import orbax.checkpoint as ocp

    directory = open_run_directory(workdir, config, experiment="toy", preset="small")
    with ocp.CheckpointManager(directory.checkpoints) as manager:
        restored = manager.restore(20, args=ocp.args.Composite(tree=ocp.args.StandardRestore()))
    lines = [{**line, "wall_seconds": 0} for line in directory.read_metrics()]
    return restored["tree"], lines


@pytest.mark.slow
def test_a_killed_process_resumes_bit_for_bit(capfd):
    """The parameters are the same, and the terminal shows only our own lines."""
    sys.path.insert(0, str(TOY.parent))
    try:
        import toy_experiment
    finally:
        sys.path.remove(str(TOY.parent))

    arguments = ["--workdir", "straight"]
    assert _cli.execute("toy", toy_experiment.PRESETS, toy_experiment.run, arguments) == 0
    capfd.readouterr()
    expected = arrays("straight", toy_experiment.Config())

    options = ["--workdir", "killed", "--kill-at", "12"]
    killed = process(*options)
    assert killed.returncode == -signal.SIGKILL
    resumed = process(*options)
    assert resumed.returncode == 0, resumed.stderr
    first, bar = resumed.stderr.split("\n", 1)
    assert first == "toy, preset small: a second; the run is kept in killed"
    assert quiet(bar)
    assert resumed.stdout.splitlines()[-1].endswith("figures and report.json are in killed")
    tree, lines = arrays("killed", toy_experiment.Config(kill_at=12))
    assert lines == expected[1]
    jax.tree.map(np.testing.assert_array_equal, tree, expected[0])
    assert _cli.execute("toy", toy_experiment.PRESETS, toy_experiment.run, options) == 0
    assert capfd.readouterr().err == "killed is finished; nothing to do\n"
