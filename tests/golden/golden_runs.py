"""Command lines of the stored runs, presets of the stored configurations, and exports."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib
import json
import math
import pathlib
import zipfile
from collections.abc import Callable
from typing import Any
from unittest import mock

import jax
import numpy as np

import vaeflow as vf
from experiments import _cli
from tests.golden import stored
from vaeflow import models, sharing
from vaeflow.training import checkpoint

PyTree = Any

MODULES = (
    "beta_vae_sprites",
    "density_2d",
    "glow_celeba",
    "hfvae_fashion",
    "hfvae_mnist",
    "image_classifier",
    "munit_digits",
    "munit_folders",
    "planar_energies",
    "tabular_density",
    "vae_faces",
    "vae_mnist",
    "vqvae2_celeba",
    "vqvae_mnist",
)
"""Experiments that are run with presets, by the names in the stored configurations."""


def module_of(experiment: str) -> Any:
    """Today's module of an experiment."""
    return importlib.import_module(f"experiments.{experiment}")


def presets(experiment: str) -> dict[str, _cli.Preset]:
    """Today's presets of an experiment."""
    return module_of(experiment).PRESETS


def read_config(experiment: str, preset: str, config: dict[str, Any]) -> Any:
    """A stored configuration as read by today's code."""
    return sharing.from_json(type(presets(experiment)[preset].config), config)


# Runs, as if killed half-way.


@dataclasses.dataclass(frozen=True)
class Run:
    """A run that is stored as if killed just after the checkpoint of its second step.

    Attributes:
      experiment: Its experiment.
      options: Its command line, but for the directory.
      folder: Where its checkpoints are, within the directory.
      later: Files and folders that it makes after its second step.
      slow_start: Whether getting to the checkpoint is left to the slow tests; going on is.
    """

    experiment: str
    options: tuple[str, ...]
    folder: str = ""
    later: tuple[str, ...] = ()
    slow_start: bool = False


def _train(*parts: str) -> tuple[str, ...]:
    """Four steps, each logged, and two checkpoints."""
    return tuple(
        option
        for part in parts
        for option in (
            *(f"--{part}.steps", "4", f"--{part}.batch-size", "8", f"--{part}.scan-steps", "1"),
            *(f"--{part}.checkpoint-every", "2", f"--{part}.log-every", "1"),
        )
    )


IMAGES = ("--data.source", "npz:images.npz")
CODES = (
    *IMAGES,
    *("--model.channels", "4", "--model.codes", "8", "--model.latents", "4", "--model.hidden", "4"),
    *("--prior.channels", "8", "--prior.blocks", "1", "--prior.residuals", "1"),
    *_train("train", "prior-train"),
    *("--train.evaluate-every", "2", "--prior-train.evaluate-every", "2"),
)
MUNIT = (
    *("--model.content-channels", "2", "4", "--model.blocks", "1"),
    *("--model.style-channels", "2", "4", "--model.style-size", "3", "--model.hidden", "4"),
    *("--model.discriminator-channels", "2", "--model.scales", "1"),
    *_train("train"),
)

RUNS = {
    "glow_celeba": Run(
        "glow_celeba",
        (
            *IMAGES,
            *("--model.levels", "1", "--model.steps", "2", "--model.width", "4"),
            *("--no-baselines", "--train.evaluate-every", "2"),
            *_train("train"),
        ),
    ),
    "vae_mnist": Run(
        "vae_mnist",
        (
            *("--data.source", "npz:tiny.npz", "--model.latents", "2"),
            *("--importance-samples", "100", "--train.evaluate-every", "2"),
            *("--train.ema-decay", "0"),
            *_train("train"),
        ),
    ),
    "vqvae_mnist": Run(
        "vqvae_mnist",
        CODES,
        later=("auto_encoder.safetensors", "codes.npz", "prior_codes"),
    ),
    "vqvae_mnist_prior": Run(
        "vqvae_mnist", CODES, folder="prior_codes", later=("prior_codes/prior.safetensors",)
    ),
    "munit_folders": Run(
        "munit_folders",
        ("--data.a", "npz:images.npz", "--data.b", "npz:coloured.npz", *MUNIT),
    ),
    "munit_digits": Run(
        "munit_digits",
        (
            *MUNIT,
            *_train("classifier-train"),
            *("--classifier-train.evaluate-every", "4"),
        ),
        later=("classifier_a", "classifier_b", "classifier_style"),
        slow_start=True,
    ),
    "tabular_density": Run(
        "tabular_density",
        (
            *("--data.source", "npz:table.npz", "--model.steps", "2", "--model.width", "4"),
            *("--model.bins", "3", "--no-baselines", "--train.evaluate-every", "2"),
            *_train("train"),
        ),
    ),
}


def write_data(folder: pathlib.Path) -> None:
    """Writes the data of all runs."""
    random = np.random.RandomState(0)

    def images(*shape: int) -> np.ndarray:
        return random.randint(0, 256, (60, *shape)).astype(np.uint8)

    np.savez(folder / "images.npz", image=images(8, 8, 1))
    np.savez(folder / "coloured.npz", image=images(8, 8, 3))
    np.savez(folder / "tiny.npz", image=images(4, 4, 1))
    rows = random.normal(size=(80, 3)).astype(np.float32)
    np.savez(folder / "table.npz", train=rows[:50], validation=rows[50:65], test=rows[65:])


def execute(run: Run, root: pathlib.Path) -> int | str:
    """Runs, or resumes, in the folder `run` next to the data."""
    module = module_of(run.experiment)
    stages = getattr(module, "STAGES", ())
    with contextlib.chdir(root):
        arguments = ["--workdir", "run", *run.options]
        return _cli.execute(run.experiment, module.PRESETS, module.run, arguments, stages)


class Restored(Exception):
    """Ends a run as soon as its checkpoint is read."""

    def __init__(self, found: checkpoint.Checkpoint) -> None:
        super().__init__("a checkpoint is read")
        self.found = found


def restored(run: Run, root: pathlib.Path) -> checkpoint.Checkpoint:
    """The state that a run resumes from: its checkpoint as read into the trees of today's model."""
    restore = checkpoint.Checkpoints.restore_latest

    def restore_latest(self: Any, abstract: PyTree) -> Any:
        found, complaints = restore(self, abstract)
        if self.path.parent != (root / "run" / run.folder).resolve():
            return found, complaints
        assert not complaints
        assert found is not None
        raise Restored(found)

    with mock.patch.object(checkpoint.Checkpoints, "restore_latest", restore_latest):
        try:
            execute(run, root)
        except Restored as end:
            return end.found
    raise AssertionError("no checkpoint was read")


def digests_of(found: checkpoint.Checkpoint) -> dict[str, str]:
    """Digests of a checkpoint: of the parameters with their paths, and of the bits of all leaves.

    The latter whatever the order, so that the state of training may get other names.
    """
    players = found.tree["state"].players
    parameters = {name: player.parameters for name, player in players.items()}
    leaves = sorted(
        hashlib.sha256(_as_it_was(np.asarray(leaf)).tobytes()).hexdigest()
        for leaf in jax.tree.leaves(found.tree)
    )
    return {
        "parameters": stored.digest(parameters),
        "leaves": hashlib.sha256(json.dumps(leaves).encode()).hexdigest(),
    }


def _as_it_was(leaf: np.ndarray) -> np.ndarray:
    """Permutations and signs, integers today, as the floats that they were."""
    return leaf.astype(np.float32) if leaf.dtype == np.int8 else leaf


def read_lines(path: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl` without what they took."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [
        {name: value for name, value in line.items() if "seconds" not in name} for line in lines
    ]


# Exports.


@dataclasses.dataclass(frozen=True)
class Exported:
    """Functions of a stored model.

    Attributes:
      functions: Lists them.
      player: Which part of the model they are of; all of it where empty.
    """

    functions: Callable[[Any], dict[str, sharing.FunctionSpec]]
    player: str = ""

    def of(self, model: Any, variables: PyTree) -> tuple[dict[str, sharing.FunctionSpec], PyTree]:
        """The functions, and the variables of their part of the model."""
        if self.player:
            model, variables = models.submodel(model, variables, self.player)
        return self.functions(model), variables


EXPORTS = {
    "glow": Exported(vf.sharing.export_functions),
    "maf": Exported(vf.sharing.export_functions),
    "vae": Exported(vf.sharing.export_functions),
    "auto-encoder": Exported(vf.sharing.export_functions),
    "codes-snail": Exported(vf.sharing.export_functions),
    "munit": Exported(vf.sharing.export_functions, "generator"),
}


def arguments_of(path: pathlib.Path) -> dict[str, list[np.ndarray]]:
    """Arguments of three rows for every function of a file, by its own signature."""
    with zipfile.ZipFile(path) as archive:
        functions = json.loads(archive.read("signature.json"))["functions"]
    return {
        name: [
            _argument(argument["name"], argument["dtype"], argument["shape"])
            for argument in function["arguments"]
        ]
        for name, function in functions.items()
    }


def _argument(name: str, dtype: str, shape: list[Any]) -> np.ndarray:
    sizes = [3 if size == "b" else size for size in shape]
    if name == "keys":
        return np.asarray(jax.random.key_data(jax.random.split(jax.random.key(9), 3)))
    if name == "temperature":
        return np.float32(0.7)
    random = np.random.RandomState(8)
    if dtype == "uint8":
        return random.randint(0, 256, sizes).astype(np.uint8)
    if dtype == "int32":
        return (np.arange(math.prod(sizes)).reshape(sizes) % 2).astype(np.int32)
    return random.normal(size=sizes).astype(dtype)
