"""Definitions of models: JSON values from which the same model is built again."""

from __future__ import annotations

import dataclasses
import functools
import json
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaeflow as vf
from tests.golden import models as stored
from vaeflow.sharing import definition


def through_json(model, classes=()):
    return definition.build(json.loads(json.dumps(definition.describe(model, classes))), classes)


@pytest.mark.parametrize("name", stored.MODELS)
def test_every_kind_of_model_comes_back(name):
    model = stored.MODELS[name].build()
    described = definition.describe(model)
    built = through_json(model)
    assert type(built) is type(model)
    assert built == model
    assert definition.describe(built) == described


def test_all_fields_are_written_so_that_defaults_may_change():
    described = definition.describe(vf.flows.RealNVP((3,)))
    fields = {field.name for field in dataclasses.fields(vf.flows.RealNVP)} - {"parent", "name"}
    assert described["fields"].keys() == fields
    assert described["fields"]["log_scale"] == {
        "class": "bijectors.BoundedLogScale",
        "fields": {"lower": -2.0, "upper": 6.0},
    }


def test_numbers_that_are_not_finite_partials_types_and_names_come_back():
    wide = vf.bijectors.BoundedLogScale(-math.inf, math.inf)
    flow = vf.flows.MaskedAutoregressiveFlow(
        (3,),
        transformer=vf.bijectors.AffineTransformer(wide),
        hidden_sizes=[8, np.int64(4)],
        dtype=jnp.bfloat16,
    )
    built = through_json(flow)
    assert built.transformer.log_scale == wide
    assert built.hidden_sizes == (8, 4)
    assert built.dtype == jnp.bfloat16
    leaky = functools.partial(jax.nn.leaky_relu, negative_slope=0.3)
    network = through_json(vf.nn.MLP(2, activation=leaky))
    assert network.activation.func is jax.nn.leaky_relu
    assert network.activation.keywords == {"negative_slope": 0.3}


class Doubling(nn.Module):
    """A network of a user's own."""

    features: int

    @nn.compact
    def __call__(self, x, *, context=None):
        return nn.Dense(self.features)(2 * x)


def test_own_classes_are_passed_by_the_user_alone():
    encoder = vf.encoders.Encoder(Doubling(3), vf.encoders.DiagonalGaussianPosterior(2))
    with pytest.raises(ValueError, match=r"model\.network .* Doubling: pass classes=\[Doubling\]"):
        definition.describe(encoder)
    described = definition.describe(encoder, [Doubling])
    assert definition.build(described, [Doubling]) == encoder
    with pytest.raises(ValueError, match=r"model\.network is of Doubling, .*classes=\[Doubling\]"):
        definition.build(described)
    with pytest.raises(ValueError, match="names of their own"):
        definition.build(described, [Doubling, dataclasses.make_dataclass("Doubling", [])])


REFUSED = {
    r"model\.activation is <function <lambda>": lambda: vf.nn.MLP(2, activation=lambda x: x),
    r"model\.features is Array": lambda: vf.nn.MLP(jnp.ones(3)),
    r"model\.groups must have keys that are strings": lambda: vf.encoders.GroupedPosterior(
        {1: vf.encoders.DiagonalGaussianPosterior(2)}
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_no_file_can_hold_is_named(message):
    with pytest.raises(ValueError, match=message):
        definition.describe(REFUSED[message]())


GLOW = {"class": "flows.Glow", "fields": {"event_shape": [8, 8, 3]}}
DAMAGED = {
    "an unknown class": {"class": "os.system", "fields": {"command": "true"}},
    "a function as a class": {"class": "jax.nn.relu", "fields": {}},
    "an unknown function": {"function": "builtins.eval"},
    "an unknown field": {"class": "flows.Glow", "fields": {"event_shape": [8, 8, 3], "x": 1}},
    "a place among modules": {"class": "flows.Glow", "fields": {"parent": None}},
    "a missing field": {"class": "flows.Glow", "fields": {}},
    "a wrong value": {"class": "bijectors.BoundedLogScale", "fields": {"lower": 1.0}},
    "no object": {"class": 3, "fields": {}},
    "more": {**GLOW, "more": 1},
    "a type that isn't one": {"dtype": "object"},
    "a number": {"float": "1e999"},
    "depth": functools.reduce(lambda inner, _: [inner], range(200), 0),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_definitions_raise(kind):
    with pytest.raises(ValueError, match="model") as caught:
        definition.build(DAMAGED[kind])
    assert len(str(caught.value)) < 500
    assert definition.build(GLOW) == vf.flows.Glow((8, 8, 3))


def test_a_file_holds_its_model(tmp_path):
    model = vf.models.FlowModel(vf.flows.RealNVP((3,), hidden_features=8))
    variables = model.init(jax.random.key(0), jnp.ones((4, 3)))
    vf.save(tmp_path / "flow.safetensors", model, variables)
    loaded, again = vf.load(tmp_path / "flow.safetensors")
    assert loaded == model
    jax.tree.map(np.testing.assert_array_equal, again, variables)
    vf.save(tmp_path / "again.safetensors", loaded, again)
    content = (tmp_path / "flow.safetensors").read_bytes()
    assert (tmp_path / "again.safetensors").read_bytes() == content
