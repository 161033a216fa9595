"""Both sides of the comparison of MUNITs make the same steps; needs the extra bench."""

from __future__ import annotations

import dataclasses
import functools
import itertools

import jax
import numpy as np
import pytest
from flax import traverse_util

import vaeflow as vf
from benchmarks import munit_ours
from benchmarks.munit_size import SHAPES, MunitSize
from experiments import munit_folders
from vaeflow._util.arrays import row_keys
from vaeflow.losses.munit import NOISE

torch = pytest.importorskip("torch")
from benchmarks import munit_torch  # noqa: E402

# Discriminators halve 7 to 4, and so add one row more below than above.
TINY = MunitSize((4, 6, 8), 1, (3, 5), 2, 5, (3, 4, 5), 2, batch_size=2)
PLAYERS = ("discriminator", "generator")
NAMES = {"kernel": "weight", "scale": "weight", "bias": "bias", "shift": "bias"}
STEPS = 3
"""The first compares losses, the second gradients, the third averages of gradients."""


def game(size: MunitSize) -> vf.models.MUNITGame:
    """Both players of ours."""
    return munit_folders.build_game(munit_ours.model_config(size), SHAPES)


@functools.cache
def paths() -> dict[str, list[tuple[str, ...]]]:
    """Where each player has its parameters, in the order of the calls that make them."""
    found = {}

    def initialize(key, *images):
        parameters = game(TINY).init(key, *images)["params"]  # what leaves a trace is sorted
        found.update({name: list(traverse_util.flatten_dict(parameters[name])) for name in PLAYERS})

    images = (np.zeros((1, *shape), np.uint8) for shape in SHAPES.values())
    jax.eval_shape(initialize, jax.random.key(0), *images)
    return found


def matched(network: torch.nn.Module, player: str) -> dict[tuple[str, ...], torch.Tensor]:
    """The parameters of a player of torch, by where ours has them."""
    ours = itertools.groupby(paths()[player], lambda path: path[:-1])
    theirs = (m for m in network.get_submodule(player).modules() if list(m.parameters(False)))
    return {
        path: getattr(layer, NAMES[path[-1]])
        for (_, of_layer), layer in zip(ours, theirs, strict=True)
        for path in of_layer
    }


def as_torch(path: tuple[str, ...], value: jax.Array) -> torch.Tensor:
    """Kernels with features first, then what they are made of."""
    if path[-1] == "kernel":
        value = np.moveaxis(value, (-1, -2), (0, 1))
    return torch.from_numpy(np.array(value))


def styles_of(side: munit_ours.Ours, step: int, player: str) -> dict[str, torch.Tensor]:
    """The styles that ours draws."""
    keys = row_keys(jax.random.fold_in(jax.random.key(TINY.seed), step), TINY.batch_size)
    if player == "generator":
        keys = jax.vmap(jax.random.fold_in, (0, None))(keys, 1)
    drawn = {}
    for number, domain in enumerate(SHAPES):
        own = jax.vmap(jax.random.fold_in, (0, None))(keys, NOISE + number)
        arguments = ({}, own, TINY.batch_size, domain)
        styles = side.game.generator.apply(*arguments, method="draw_styles")
        drawn[domain] = torch.from_numpy(np.array(styles))
    return drawn


@pytest.fixture(scope="module")
def both():
    """Both sides, with the same parameters, none of them zero."""
    ours = munit_ours.make(**dataclasses.asdict(TINY))
    theirs = munit_torch.make(**dataclasses.asdict(TINY))
    ours.initialize()
    theirs.initialize()
    generator = np.random.default_rng(0)
    players = {
        name: player.replace(
            parameters=jax.tree.map(
                lambda leaf: leaf + generator.normal(0, 0.1, leaf.shape).astype(np.float32),
                player.parameters,
            )
        )
        for name, player in ours.state.players.items()
    }
    ours.state = ours.state.replace(players=players)
    for name in PLAYERS:
        values = traverse_util.flatten_dict(players[name].parameters)
        with torch.no_grad():
            for path, parameter in matched(theirs.network, name).items():
                parameter.copy_(as_torch(path, values[path]))
    return ours, theirs


@pytest.mark.parametrize("player", PLAYERS)
def test_as_many_parameters(player):
    size = MunitSize()
    images = (np.zeros((1, *shape), np.uint8) for shape in SHAPES.values())
    ours = jax.eval_shape(game(size).init, jax.random.key(0), *images)["params"]
    theirs = munit_torch.Network(size).get_submodule(player)
    assert sum(leaf.size for leaf in jax.tree.leaves(ours[player])) == sum(
        leaf.numel() for leaf in theirs.parameters()
    )


def test_every_term_of_both_losses_step_by_step(both, monkeypatch):
    ours, theirs = both
    for step in range(STEPS):
        drawn = iter([styles_of(ours, step, player) for player in PLAYERS])
        monkeypatch.setattr(theirs, "_draw_styles", lambda drawn=drawn: next(drawn))
        ours.run()
        theirs.run()
        for player in PLAYERS:
            found = {f"{player}/{name}": float(v) for name, v in theirs.terms[player].items()}
            found[f"{player}/loss"] = float(munit_torch.total(theirs.terms[player]))
            own = {name: float(v) for name, v in ours.metrics.items() if name.startswith(player)}
            del own[f"{player}/gradient_norm"]
            assert found == pytest.approx(own, rel=3e-5)
        assert theirs.loss() == pytest.approx(ours.loss(), rel=3e-5)
