"""Configurations load from JSON, and errors name mismatched values."""

from __future__ import annotations

import dataclasses
import json
from typing import Literal

import pytest

from experiments import glow_celeba
from vaeflow import sharing


@dataclasses.dataclass(frozen=True)
class Inner:
    sizes: tuple[int, ...] = ()
    pair: tuple[int, str] = (1, "a")
    kind: Literal["x", "y"] = "x"


@dataclasses.dataclass(frozen=True)
class Config:
    inner: Inner
    inners: tuple[Inner, ...] = ()
    rate: float = 0.1
    steps: int | None = None
    name: str = "n"
    on: bool = False


def as_json(config):
    return json.loads(json.dumps(dataclasses.asdict(config)))


@pytest.mark.parametrize(
    "config",
    [
        Config(Inner()),
        Config(Inner((1, 2), (3, "b"), "y"), (Inner(), Inner((4,))), 2.0, 5, "", True),
        *(preset.config for preset in glow_celeba.PRESETS.values()),
    ],
)
def test_configurations_come_back(config):
    assert sharing.from_json(type(config), as_json(config)) == config


def test_defaults_fill_in_and_whole_numbers_are_floats():
    got = sharing.from_json(Config, {"inner": {}, "rate": 3})
    assert got == Config(Inner(), rate=3.0)
    assert type(got.rate) is float


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inner": {"size": 3}}, "config.inner must have the fields of Inner: sizes, pair, kind; "),
        ({"inner": 3}, "config.inner must have the fields of Inner: sizes, pair, kind; got 3"),
        ({"inner": {"sizes": [1, "a"]}}, "config.inner.sizes[1] must be int, got 'a'"),
        ({"inner": {"pair": [1]}}, "config.inner.pair must be tuple[int, str], got [1]"),
        ({"inner": {"kind": "z"}}, "config.inner.kind must be Literal['x', 'y'], got 'z'"),
        ({"rate": "fast"}, "config.rate must be float, got 'fast'"),
        ({"steps": 1.5}, "config.steps must be int, got 1.5"),
        ({"steps": True}, "config.steps must be int, got True"),
        ({"name": None}, "config.name must be str, got None"),
        ({"on": 1}, "config.on must be bool, got 1"),
    ],
)
def test_mismatched_values_are_named(change, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 (its message is compared below)
        sharing.from_json(Config, {**as_json(Config(Inner())), **change})
    assert str(error.value).startswith(message)


def test_a_field_without_default_must_be_there():
    with pytest.raises(
        ValueError, match=r"config must have the fields of Config: inner, .*; got on"
    ):
        sharing.from_json(Config, {"on": True})
