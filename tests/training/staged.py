"""Experiments whose runs have two stages, or two players, for `random_kills.py`.

Both evaluate, keep the variables of the best evaluation, plot figures, write a model and report.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import _cli, _figures
from tests.training import toy
from vaeflow import plotting, training
from vaeflow.losses import Aux

FEATURES = 24
"""Values of an image of the toy."""


@dataclasses.dataclass(frozen=True)
class Config:
    """A run."""

    train: training.TrainConfig = dataclasses.field(
        default_factory=lambda: training.TrainConfig(
            steps=10, batch_size=8, log_every=1, evaluate_every=3, checkpoint_every=2
        )
    )
    """How to train each stage, or the players."""


def evaluate(step: int, variables) -> dict[str, float]:
    """A distance that is least in the midst of a run, and another figure."""
    size = float(optax.tree.norm(variables["params"]))
    return {"distance": abs(step - 6.0), "size": size}


def run_fit(model, losses, initialize, config: Config, directory) -> training.TrainResult:
    """Trains a model, with all that a run may have."""

    def figures(step: int, variables) -> None:
        leaves = [np.ravel(leaf) for leaf in jax.tree.leaves(variables["params"])]
        pixels = np.resize(np.concatenate(leaves), (4, 4, 4, 1)) * 255
        grid = plotting.image_grid(np.abs(pixels).clip(0, 255).astype(np.uint8), 2)
        _figures.save(directory, f"samples_step_{step:07d}", grid)

    return training.train(
        model,
        losses,
        toy.batches(config.train),
        config.train,
        directory,
        initialize=initialize,
        evaluate=evaluate,
        figures=figures,
        best="distance",
    )


def run_stages(config: Config, directory: training.RunDirectory) -> _cli.Result:
    """Trains the toy, then again in a folder from where the first stage ended."""
    file = directory.path / "first.safetensors"
    if file.exists():
        first = _cli.read_part(file)
    else:
        fitted = run_fit(toy.Model(), toy.loss, toy.initialize, config, directory)
        first = _cli.write_part(file, directory, fitted)
    folder = directory.path / "second"
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    inner = dataclasses.replace(directory, path=folder)
    start = jax.device_get(first.variables)
    fitted = run_fit(toy.Model(), toy.loss, lambda: jax.tree.map(jnp.asarray, start), config, inner)
    directory.write_model({"first": first.variables, "second": fitted.variables}, (4, 6, 1))
    return _cli.Result(first.step + fitted.step, fitted.metrics)


def player_loss(player: str, other: str):
    """Each player moves towards the images, and away from the other player or towards it."""

    def loss(model, variables, batch, rng, *, axis, train):
        own, theirs = variables["params"][player], variables["params"][other]
        images = batch["image"].reshape(len(batch["image"]), -1) / 255.0
        error = jnp.mean((images + own["kernel"]) ** 2)
        sign = -0.1 if player == "first" else 0.1
        return error + sign * jnp.mean((own["kernel"] - theirs["kernel"]) ** 2), Aux(
            {"error": error}, {}
        )

    return loss


def initialize_players() -> dict:
    """A vector for each of two players."""
    keys = jax.random.split(jax.random.key(3))
    names = ("first", "second")
    return {
        "params": {
            name: {"kernel": jax.random.normal(key, (FEATURES,))}
            for name, key in zip(names, keys, strict=True)
        }
    }


def run_players(config: Config, directory: training.RunDirectory) -> _cli.Result:
    """Trains two players."""
    losses = {"first": player_loss("first", "second"), "second": player_loss("second", "first")}
    fitted = run_fit(None, losses, initialize_players, config, directory)
    directory.write_model(fitted.variables, (4, 6, 1))
    return _cli.Result(fitted.step, fitted.metrics)


RUNS = {"stages": run_stages, "players": run_players}
PRESETS = {"only": _cli.Preset(Config(), yields="A toy.", cost="seconds")}
