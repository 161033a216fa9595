"""Made what is in `version_1`, once, with vaeflow 0.1.0.

    python -m tests.golden.make_golden_version_1

Not to be run again: the files stand for those that people keep. The outputs of
"vqvae-finite-scalar" alone are newer, of the same parameters: channels of two levels used one.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import pathlib
import shutil
import tempfile

from tests import conftest  # noqa: F401 (sets how JAX compiles, and comes before it)

import jax  # isort: skip

import vaeflow as vf  # isort: skip
from tests.golden import golden_runs, models, orders, stored  # isort: skip
from vaeflow import training  # isort: skip


def make_models(folder: pathlib.Path) -> None:
    """A file of each model, what it computes, and digests of all variables."""
    folder.mkdir()
    digests, outputs = {}, {}
    for name, golden in models.MODELS.items():
        variables = stored.perturbed(jax.jit(golden.init)())
        vf.save(folder / f"{name}.safetensors", {"model": name}, variables)
        digests[name] = stored.digest(variables)
        compute = jax.jit(lambda own, golden=golden: golden.outputs(golden.build(), own))
        outputs[name] = jax.device_get(compute(variables))
    write_json(folder / "digests.json", digests)
    stored.write_arrays(folder / "outputs.npz", outputs)


def make_configs(folder: pathlib.Path) -> None:
    """The `config.json` of a run of each preset."""
    folder.mkdir()
    for experiment in golden_runs.MODULES:
        written = {}
        for preset, of_preset in golden_runs.presets(experiment).items():
            with tempfile.TemporaryDirectory() as run:
                training.open_run_directory(
                    run, of_preset.config, experiment=experiment, preset=preset
                )
                written[preset] = json.loads(pathlib.Path(run, "config.json").read_text())
        write_json(folder / f"{experiment}.json", written)


def make_runs(folder: pathlib.Path) -> None:
    """Runs as if killed half-way, and what each logged to its end."""
    folder.mkdir()
    digests, lines = {}, {}
    for name, run in golden_runs.RUNS.items():
        with tempfile.TemporaryDirectory() as place:
            root = pathlib.Path(place)
            golden_runs.write_data(root)
            assert golden_runs.execute(run, root) == 0
            at = root / "run" / run.folder
            lines[name] = golden_runs.read_lines(at / "metrics.jsonl")
            keep_half(root / "run", at, run)
            shutil.copytree(root / "run", folder / name)
            digests[name] = golden_runs.digests_of(golden_runs.restored(run, root))
    write_json(folder / "digests.json", digests)
    write_json(folder / "lines.json", lines)


def keep_half(directory: pathlib.Path, at: pathlib.Path, run: golden_runs.Run) -> None:
    """Leaves what a run has that was killed just after the checkpoint of step 2."""
    drawn = [directory.glob(f"**/{name}") for name in ("tensorboard", "figures")]
    later = [directory / name for name in ("report.json", "model.safetensors", *run.later)]
    for path in [*itertools.chain(*drawn), *later]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for checkpoints in [*directory.glob("**/checkpoints")]:
        kept = 2 if checkpoints.parent == at else 4
        for path in checkpoints.iterdir():
            if path.name != str(kept):
                shutil.rmtree(path)
    (directory / "lock").unlink()
    for path in directory.glob("**/commit_success.txt"):  # which names this machine's folder
        path.write_text(path.read_text().replace(f"{directory.resolve()}/", ""))
    lines = (at / "metrics.jsonl").read_text().splitlines()
    lines = [line for line in lines if json.loads(line)["step"] <= 2]
    (at / "metrics.jsonl").write_text("".join(line + "\n" for line in lines))


def make_exports(folder: pathlib.Path) -> None:
    """A zip of each family, and what its functions compute."""
    folder.mkdir()
    outputs = {}
    for name, exported in golden_runs.EXPORTS.items():
        golden = models.MODELS[name]
        variables = stored.perturbed(jax.jit(golden.init)())
        functions, own = exported.of(golden.build(), variables)
        path = folder / f"{name}.zip"
        vf.sharing.save_exported(path, functions, own, {"model": name})
        loaded = vf.sharing.load_exported(path)
        for function, arguments in golden_runs.arguments_of(path).items():
            found = jax.device_get(loaded[function](*arguments))
            outputs.setdefault(name, {})[function] = found
    stored.write_arrays(folder / "outputs.npz", outputs)


def write_json(path: pathlib.Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n")


if __name__ == "__main__":
    assert not stored.FILES.exists(), f"{stored.FILES} is there, and must stay as it is"
    assert importlib.metadata.version("vaeflow") == "0.1.0"
    stored.FILES.mkdir()
    make_models(stored.FILES / "models")
    make_configs(stored.FILES / "configs")
    make_exports(stored.FILES / "exports")
    make_runs(stored.FILES / "runs")
    with tempfile.TemporaryDirectory() as place:
        golden_runs.write_data(pathlib.Path(place))
        found = orders.orders(pathlib.Path(place))
    stored.write_arrays(stored.FILES / "orders.npz", {"order": found})
