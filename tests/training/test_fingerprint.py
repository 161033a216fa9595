"""Runs know what they are of: data, model, losses and options; another is refused."""

from __future__ import annotations

import dataclasses
import functools
import json

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

import vaeflow as vf
from vaeflow import data, training
from vaeflow.data.dataset import array_part
from vaeflow.training.fingerprint import describe, describe_batches, difference

CONFIG = training.TrainConfig(steps=2, batch_size=8)
IMAGES = np.random.default_rng(0).integers(0, 256, (40, 4, 6, 1), dtype=np.uint8)


def source(images=IMAGES, labels=None, rows=None, offset=0):
    part = array_part(images, labels)
    return data.Source(part.read, np.arange(len(images)) if rows is None else rows, offset)


def changed(images):
    """The images, one value of which is another."""
    images = images.copy()
    images[0, 1, 2, 0] ^= 1
    return images


@dataclasses.dataclass(frozen=True)
class Odd:
    """A dataclass with defaults of all kinds."""

    width: int
    depth: int = 2
    sizes: tuple[int, ...] = (1, 2)
    names: dict = dataclasses.field(default_factory=dict)


class Module(nn.Module):
    features: int = 4
    activation: object = nn.relu
    inner: nn.Module | None = None


class Stream:
    """Batches of a class that isn't ours."""

    def __init__(self, images):
        self.images = images

    def stream(self, start_step, shard=0, shards=1):
        yield {"image": self.images[:8], "index": np.arange(8)}


def noise(loc=0.0):
    return distrax.Normal(jnp.full(2, loc), jnp.ones(2))


APART = {
    "a field": (lambda: Module(), lambda: Module(5)),
    "a function": (lambda: Module(activation=nn.relu), lambda: Module(activation=nn.tanh)),
    "a part": (lambda: Module(inner=Module(2)), lambda: Module(inner=Module(3))),
    "the type": (lambda: nn.Dense(3), lambda: nn.DenseGeneral(3)),
    "an argument": (
        lambda: functools.partial(toy.loss, weight=1.0),
        lambda: functools.partial(toy.loss, weight=2.0),
    ),
    "a distribution": (noise, lambda: noise(1.0)),
    "an array": (lambda: np.arange(3), lambda: np.arange(1, 4)),
    "a type of numbers": (lambda: np.zeros(3, np.float32), lambda: np.zeros(3, np.int32)),
    "a key": (lambda: jax.random.key(0), lambda: jax.random.key(1)),
    "a size": (source, lambda: source(IMAGES[:39])),
    "a shape": (source, lambda: source(IMAGES.reshape(40, 6, 4, 1))),
    "an image": (source, lambda: source(changed(IMAGES))),
    "labels": (source, lambda: source(labels=np.zeros(40, np.int32))),
    "an order": (source, lambda: source(rows=np.arange(40)[::-1])),
    "a domain": (
        lambda: training.UnpairedBatches(source(), source(), 8, 0),
        lambda: training.UnpairedBatches(source(), source(changed(IMAGES)), 8, 0),
    ),
    "flips": (
        lambda: training.Batches(source(), 8, 0),
        lambda: training.Batches(source(), 8, 0, flip=True),
    ),
    "a flow": (
        lambda: vf.models.FlowModel(vf.flows.RealNVP((2,), num_steps=2)),
        lambda: vf.models.FlowModel(vf.flows.RealNVP((2,), num_steps=3)),
    ),
}


@pytest.mark.parametrize("name", APART)
def test_descriptions_tell_apart_and_are_the_same_again(name):
    first, second = (json.dumps(describe(make())) for make in APART[name])
    assert first != second
    assert first == json.dumps(describe(APART[name][0]()))
    assert "0x" not in first


def test_fields_at_their_defaults_are_left_out():
    assert describe(Odd(3)) == {"type": "Odd", "width": 3}
    assert describe(Odd(3, sizes=(1,), names={"a": None})) == {
        "type": "Odd",
        "width": 3,
        "sizes": [1],
        "names": {"a": None},
    }
    assert describe(Module(name="other")) == {"type": "Module"}
    assert describe([float("inf"), True, 1.5]) == ["inf", True, 1.5]


def test_unknown_batches_are_told_apart_by_the_first():
    first = describe_batches(Stream(IMAGES))
    assert first == describe_batches(Stream(IMAGES))
    assert first != describe_batches(Stream(changed(IMAGES)))


def test_differences_are_short():
    old, new = {"a": {str(n): n for n in range(9)}}, {"a": {}, "b": "x" * 500}
    text = difference(old, new)
    assert text.startswith("a.0: 0 there, nothing here, a.1: 1 there")
    assert text.endswith(", and 7 more")
    assert len(difference({"b": "x" * 500}, {"b": 1})) < 120


def fit(path, config=CONFIG, loss=toy.loss, model=None, batches=None, **options):
    directory = training.open_run_directory(str(path), training.TrainConfig())
    options = {"initialize": toy.initialize, **options}
    batches = batches or toy.batches(config)
    return training.train(model or toy.Model(), loss, batches, config, directory, **options)


def initialize_wider():
    images = jnp.zeros((1, 4, 6, 1))
    variables = toy.Model().init(jax.random.key(0), images, images)
    return {**variables, "more": {"array": jnp.zeros(3)}}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("finished")
    return path, fit(path)


OTHERS = {
    "data": ({"batches": training.Batches(source(), 8, 0, True)}, "data.source.examples: 30 there"),
    "model": ({"model": nn.Dense(3)}, 'model.type: "Model" there, "Dense" here'),
    "loss": (
        {"loss": functools.partial(toy.loss, weight=2.0)},
        'losses: "loss" there, nothing here, losses.type',
    ),
    "steps": ({"config": dataclasses.replace(CONFIG, steps=3)}, "options.steps: 2 there, 3 here"),
    "arrays": ({"initialize": initialize_wider}, "arrays.state/state/more/array: nothing there"),
    "best": (
        {"evaluate": lambda step, variables: {"a": 1.0}, "best": "a"},
        "arrays.best/params/Dense_0/bias: nothing there",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_directory_of_another_run_is_refused(finished, name):
    path, _ = finished
    before = sorted(file.name for file in path.rglob("*"))
    options, message = OTHERS[name]
    with pytest.raises(ValueError, match="holds a run of other data, another model or") as error:
        fit(path, **options)
    assert message in str(error.value)
    assert len(str(error.value)) < 1000
    assert sorted(file.name for file in path.rglob("*")) == before


def test_a_finished_run_says_so_and_an_old_one_goes_on(finished, capsys):
    path, result = finished
    toy.equal(fit(path), result)
    ended = f"training in {path} has ended already, at step 2: nothing is trained\n"
    assert capsys.readouterr().err == ended
    written = (path / "fingerprint.json").read_text()
    (path / "fingerprint.json").unlink()
    toy.equal(fit(path), result)
    assert "of an earlier version, has no fingerprint" in capsys.readouterr().err
    assert (path / "fingerprint.json").read_text() == written
    (path / "fingerprint.json").write_text("[]")
    with pytest.raises(ValueError, match=r"fingerprint.json must hold a JSON object, got \[\]"):
        fit(path)
    (path / "fingerprint.json").write_text(written)


@pytest.mark.slow
def test_a_run_without_a_checkpoint_may_become_another(finished, tmp_path):
    path, result = finished
    tmp_path.joinpath("fingerprint.json").write_text("{}")
    toy.equal(fit(tmp_path), result)
    fingerprints = [(each / "fingerprint.json").read_text() for each in (path, tmp_path)]
    assert fingerprints[0] == fingerprints[1]
