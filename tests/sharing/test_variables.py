"""Saved models load exactly, in any process; damaged files raise one-line errors."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
import re
import subprocess
import sys

import flax.core
import jax
import jax.numpy as jnp
import make_version_1
import numpy as np
import pytest
import safetensors.numpy

import vaeflow as vf

ROOT = pathlib.Path(__file__).resolve().parents[2]
NAN = np.array([0x7FC00001, 0xFF800000, 0x80000000, 1], np.uint32).view(np.float32)

DTYPES = ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "float16", "float32"]
DTYPES += ["complex64", jnp.dtype(jnp.bfloat16)]

TREES = {
    "nothing": {},
    "empty dicts": {"a": {}, "b": {"c": {}, "d": np.zeros(1, np.float32)}},
    "odd keys": {
        key: {"/": np.full(2, index, np.int32), "~1": np.zeros((), np.int32)}
        for index, key in enumerate(
            ["", "/", "~", "~1", "~01", "//", "a/b", ".", "é\n\0", '"', " "]
        )
    },
    "keys that look alike": {"a": {"b": np.ones(1, np.int8)}, "a/b": np.zeros(2, np.uint8)},
    "the header's own names": {"__metadata__": np.ones(1, np.int16), "vaeflow": {}},
    "all dtypes": {str(dtype): np.arange(6).reshape(2, 3).astype(dtype) for dtype in DTYPES},
    "bits": {"nan": NAN, "bfloat16": jnp.asarray([0.1, jnp.inf, -0.0, jnp.nan], jnp.bfloat16)},
    "shapes": {
        "scalar": jnp.float32(2.5),
        "numpy scalar": np.float32(2.5),
        "none": np.zeros((3, 0, 2), np.float32),
        "many": np.arange(64, dtype=np.int32).reshape((2,) * 6),
    },
    "orders": {
        "transposed": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "strided": np.arange(10, dtype=np.int32)[::-3],
        "other end first": np.arange(6, dtype=">f4"),
    },
    "frozen": flax.core.freeze({"params": {"a": jnp.ones(3)}}),
}


def assert_same(got, expected):
    if hasattr(expected, "items"):
        assert type(got) is dict
        assert sorted(got) == sorted(expected)
        for key, value in expected.items():
            assert_same(got[key], value)
        return
    expected = np.asarray(expected)
    assert isinstance(got, jax.Array)
    assert got.shape == expected.shape
    assert got.dtype == expected.dtype.newbyteorder("=")
    expected = np.ascontiguousarray(expected.astype(expected.dtype.newbyteorder("=")))
    assert np.asarray(got).tobytes() == expected.tobytes()


@pytest.mark.parametrize("name", TREES)
def test_variables_come_back_bit_for_bit(name, tmp_path):
    path = tmp_path / "model.safetensors"
    vf.save(path, {"name": name}, TREES[name])
    config, variables = vf.load(path)
    assert config == {"name": name}
    assert_same(variables, TREES[name])
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


def test_wide_numbers_need_wide_jax(tmp_path):
    path = str(tmp_path / "model")
    vf.save(path, {}, {"a": np.array([1 / 3, 1e300]), "b": np.array([2**40, -1])})
    with pytest.raises(ValueError, match="holds float64 at '/a', which needs jax_enable_x64"):
        vf.load(path)
    with jax.enable_x64(True):
        assert_same(vf.load(path)[1], {"a": np.array([1 / 3, 1e300]), "b": np.array([2**40, -1])})


@dataclasses.dataclass(frozen=True)
class Inner:
    sizes: tuple[int, ...] = (1, 2)


@dataclasses.dataclass(frozen=True)
class Config:
    inner: Inner = dataclasses.field(default_factory=Inner)
    rate: float = 0.1


def test_configurations_are_json(tmp_path):
    path = tmp_path / "model"
    vf.save(path, Config(), {})
    assert vf.load(path) == ({"inner": {"sizes": [1, 2]}, "rate": 0.1}, {})
    config = {"a": [None, True, 1.5, "é\x00"], "b": {"c": {}}}
    vf.save(path, config, {})
    assert vf.load(path) == (config, {})


def test_the_file_has_the_documented_format(tmp_path):
    path = tmp_path / "model"
    vf.save(path, {"a": 1}, {"params": {"x/y": np.ones(2, np.float32)}, "state": {}})
    with safetensors.safe_open(path, "np") as file:
        assert file.keys() == ["/params/x~1y"]
        description = json.loads(file.metadata()["vaeflow"])
    assert len(description.pop("sha256")) == 64
    assert description == {
        "format": "vaeflow",
        "version": 1,
        "config": {"a": 1},
        "empty": ["/state"],
    }


def test_equal_models_are_equal_files(tmp_path):
    first, second = {"a": np.ones(2), "b": {}, "c": {}}, {"c": {}, "b": {}, "a": np.ones(2)}
    vf.save(tmp_path / "first", {}, first)
    vf.save(tmp_path / "second", {}, second)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


INVALID = {
    "typed keys": ({}, {"a": {"key": jax.random.key(0)}}, "got typed keys at '/a/key'"),
    "list": ({}, {"a": [np.ones(2)]}, "got list at '/a'"),
    "number": ({}, {"a": {"b": 1.0}}, "got float at '/a/b'"),
    "none": ({}, {"a": None}, "got NoneType at '/a'"),
    "array": ({}, np.ones(2), "got ndarray at ''"),
    "keys": ({}, {"a": {3: np.ones(2)}}, "keys that are strings, got 3 in '/a'"),
    "surrogates": ({}, {"\ud800": np.ones(2)}, "keys that UTF-8 can hold"),
    "objects": ({}, {"a": np.array([None])}, "got object at '/a'"),
    "text": ({}, {"a": np.array(["x"])}, "got <U1 at '/a'"),
    "narrow": ({}, {"a": jnp.zeros(2, jnp.int4)}, "got int4 at '/a'"),
    "wide": ({}, {"a": np.zeros(2, np.complex128)}, "got complex128 at '/a'"),
    "config's type": (3, {}, "config must be a dataclass or a mapping, got int"),
    "config's class": (Config, {}, "config must be a dataclass or a mapping, got type"),
    "config's values": ({"a": np.ones(2)}, {}, "config must be what JSON can hold"),
    "config's numbers": ({"a": float("nan")}, {}, "config must be what JSON can hold"),
}


@pytest.mark.parametrize("case", INVALID)
def test_unsupported_values_raise_and_write_nothing(case, tmp_path):
    config, variables, message = INVALID[case]
    with pytest.raises(ValueError) as error:  # noqa: PT011 (its message is compared below)
        vf.save(tmp_path / "model", config, variables)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def error_of(path, content):
    path.write_bytes(content)
    with pytest.raises(ValueError) as error:  # noqa: PT011 (its message is compared by callers)
        vf.load(path)
    message = str(error.value)
    assert "\n" not in message
    assert str(path) in message
    return message


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model"
    kernel = np.arange(12, dtype=np.float32).reshape(3, 4)
    variables = {"params": {"kernel": kernel, "bias": np.ones(4, np.int8)}, "state": {}}
    vf.save(path, {"width": 3}, variables)
    return path, path.read_bytes()


def test_a_file_cut_short_anywhere_raises(saved):
    path, content = saved
    for size in range(len(content)):
        error_of(path, content[:size])
    assert "damaged" in error_of(path, content[:-1])
    assert "damaged" in error_of(path, content + b"\0")


@pytest.mark.parametrize("bit", range(8))
def test_a_flipped_bit_anywhere_raises(saved, bit):
    path, content = saved
    for position in range(len(content)):
        flipped = bytearray(content)
        flipped[position] ^= 1 << bit
        error_of(path, flipped)


def rewritten(content, **changes):
    """The same tensors with something else in the header."""
    tensors = safetensors.numpy.load(content)
    size = int.from_bytes(content[:8], "little")
    description = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["vaeflow"])
    metadata = json.dumps({**description, **changes})
    return safetensors.numpy.save(tensors, {"vaeflow": metadata})


def test_files_of_others_and_newer_ones_raise(saved):
    path, content = saved
    tensors = safetensors.numpy.load(content)
    assert vf.load(path)[0] == {"width": 3}
    for other in (None, {"format": "pt"}, {"vaeflow": "{"}, {"vaeflow": "[1]"}, {"vaeflow": "{}"}):
        message = error_of(path, safetensors.numpy.save(tensors, other))
        assert "isn't a model of vaeflow" in message
    assert "isn't a model" in error_of(path, rewritten(content, format="other"))
    assert "isn't a safetensors file" in error_of(path, b"PK\3\4" + bytes(100))
    message = error_of(path, rewritten(content, version=3))
    assert (
        "was made by a newer vaeflow (version 3 of the format, this one reads up to 2)" in message
    )
    assert "upgrade vaeflow" in message
    assert "damaged" in error_of(path, rewritten(content, config={"width": 4}))
    path.write_bytes(rewritten(content))
    assert vf.load(path)[0] == {"width": 3}
    path.unlink()
    with pytest.raises(FileNotFoundError):
        vf.load(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": [1]}, r"its config must be an object, got \[1\]"),
        ({"empty": "/state"}, 'its list of empty dicts is "/state"'),
        ({"empty": ["/params"]}, "'/params' holds something else already"),
        ({"empty": [""]}, "'' holds something else already"),
        ({"empty": ["/a" * 102]}, "is more than 100 deep"),
        ({"empty": ["/\n"] * 2}, r"'/\\n' holds something else"),
        ({"version": True}, "isn't a model of vaeflow"),
        ({"config": {"a": float("inf")}}, "isn't a model of vaeflow"),
    ],
)
def test_a_right_digest_of_wrong_content_raises(saved, changes, message):
    path, content = saved
    tensors = safetensors.numpy.load(content)
    size = int.from_bytes(content[:8], "little")
    description = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["vaeflow"])
    del description["sha256"]
    description |= changes
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for name, array in sorted(tensors.items()):
        digest.update(json.dumps([name, array.dtype.name, array.shape]).encode() + array.tobytes())
    changes = {**changes, "sha256": digest.hexdigest()}
    assert re.search(message, error_of(path, rewritten(content, **changes)))


def test_too_many_arrays_and_too_deep_dicts_raise(tmp_path, monkeypatch):
    many = {str(number): np.zeros(0, np.int8) for number in range(6)}
    vf.save(tmp_path / "file", {}, many)
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["vaeflow.sharing.save"], "_MOST_TENSORS", 5)
        with pytest.raises(ValueError, match=r"must have 5 arrays .* got 6"):
            vf.save(tmp_path / "file", {}, many)
        with pytest.raises(ValueError, match=r"it has 6 tensors, of at most 5"):
            vf.load(tmp_path / "file")
    tree = np.zeros(1, np.float32)
    for _ in range(102):
        tree = {"a": tree}
    with pytest.raises(ValueError, match=r"must be at most 100 deep, got '/a/a.*/a'"):
        vf.save(tmp_path / "file", {}, tree)
    vf.save(tmp_path / "file", {}, tree["a"])
    leaf = vf.load(tmp_path / "file")[1]
    while isinstance(leaf, dict):
        (leaf,) = leaf.values()
    assert leaf == 0


def test_headers_are_compared_with_the_file_before_it_is_read(saved):
    path, content = saved
    with path.open("r+b") as file:
        file.truncate(2**40)
    with pytest.raises(ValueError, match=r"its tensors end at byte .*, in a file of 1099511627776"):
        vf.load(path)
    size = int.from_bytes(content[:8], "little")
    assert "in a file of" in error_of(path, (2**60).to_bytes(8, "little") + content[8:])
    assert "its header has" in error_of(path, (size + 10**6).to_bytes(8, "little") + content[8:])


def test_version_1_loads():
    config, variables = vf.load(make_version_1.PATH)
    assert config == make_version_1.CONFIG
    assert_same(variables, make_version_1.variables())


MODEL = """
import sys
import jax, numpy as np
import vaeflow as vf

def model():
    glow = vf.flows.Glow((4, 4, 1), num_levels=1, num_steps=2, hidden_features=4)
    return vf.models.FlowModel(glow, vf.models.UniformDequantizer())

def log_prob(variables):
    images = np.arange(48, dtype=np.uint8).reshape(3, 4, 4, 1) * 5
    compute = jax.jit(lambda variables, *rest: model().apply(variables, *rest, method="log_prob"))
    return np.asarray(compute(variables, images, jax.random.key(3)))
"""


@pytest.mark.slow
def test_another_process_computes_the_same_bits(tmp_path):
    names = {}
    exec(MODEL, names)
    images = jax.random.randint(jax.random.key(0), (8, 4, 4, 1), 0, 256).astype(jnp.uint8)
    variables = jax.jit(names["model"]().init)(jax.random.key(1), images)
    vf.save(tmp_path / "model", {}, variables)
    script = MODEL + "\nprint(log_prob(vf.load(sys.argv[1])[1]).tobytes().hex())"
    ended = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "model")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == names["log_prob"](variables).tobytes().hex()
