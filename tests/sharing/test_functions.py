"""Exported functions equal the model's, for any batch; other files raise errors."""

from __future__ import annotations

import contextlib
import hashlib
import json
import pathlib
import zipfile

import exported_models
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaeflow import models, sharing
from vaeflow.sharing.export import lower_function

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_every_model_flow_and_dequantizer_has_an_entry(monkeypatch):
    entries = exported_models.MODELS.values()
    assert exported_models.missing(entries) == set()
    assert len(exported_models.required()) >= 12

    class Another(models.FlowModel):
        """A flow, a model and a dequantizer, by turns."""

        noise_shape = (3,)

    for package in (exported_models.flows, models):
        with monkeypatch.context() as patch:
            patch.setattr(package, "Another", Another, raising=False)
            patch.setattr(package, "__all__", [*package.__all__, "Another"])
            assert all(Another in combination for combination in exported_models.missing(entries))
            assert exported_models.missing(entries)
    without_glow = [model for model in entries if type(model.flow).__name__ != "Glow"]
    assert len(exported_models.missing(without_glow)) == 3


def initialised(model, context=None):
    """Variables with noise on all parameters, since networks start at zero."""
    data = rows(model, 8)
    variables = jax.device_get(jax.jit(model.init)(jax.random.key(0), data, context=context))
    generator = np.random.default_rng(7)

    def noisy(leaf):
        return leaf + 0.05 * generator.normal(size=leaf.shape).astype(leaf.dtype)

    return {**variables, "params": jax.tree.map(noisy, variables["params"])}


def rows(model, count):
    generator = np.random.default_rng(count)
    shape = (count, *model.flow.event_shape)
    if model.dequantizer is None:
        return generator.uniform(-0.5, 0.5, shape).astype(np.float32)
    return generator.integers(0, 256, shape).astype(np.uint8)


def assert_close(got, expected):
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    if got.dtype == np.uint8:  # values at the very border of two levels may fall to either
        got, expected = np.int32(got), np.int32(expected)
        assert np.mean(got != expected) < 0.02
    else:
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def marked(name):
    return pytest.param(name, marks=() if name == "mixture-base" else pytest.mark.slow)


@pytest.mark.parametrize("name", [marked(name) for name in exported_models.MODELS])
def test_exported_functions_are_the_models(name, tmp_path):
    model = exported_models.MODELS[name]
    variables = initialised(model)
    functions = sharing.export_functions(model)
    sharing.save_exported(tmp_path / "file", functions, variables, {})
    loaded = sharing.load_exported(tmp_path / "file")
    assert sorted(loaded) == ["log_prob", "sample"]
    data = rows(model, 4)
    keys = jax.random.split(jax.random.key(5), 4)

    @jax.jit
    def directly(variables):
        base = model.apply(variables, temperature=0.7, method="noise")
        noise = jax.vmap(lambda key: base.sample(seed=key))(keys)
        rng = None if model.dequantizer is None else keys
        log_prob = model.apply(variables, data, rng, method="log_prob")
        return log_prob, model.apply(variables, noise, method="decode")

    log_prob, samples = jax.device_get(directly(variables))
    # A row depends on its own key alone, so batches of all sizes hold the same rows.
    chosen = slice(1, 3)
    numbers = np.asarray(jax.random.key_data(keys))[chosen]
    arguments = [data[chosen]] if model.dequantizer is None else [data[chosen], numbers]
    assert_close(loaded["log_prob"](*arguments), log_prob[chosen])
    assert_close(loaded["sample"](numbers, np.float32(0.7)), samples[chosen])


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case[0], marks=() if case[0] == "labels" else pytest.mark.slow)
        for case in exported_models.CONTEXTS
    ],
)
@pytest.mark.slow
def test_conditional_models_export_too(case):
    _, model, shape, dtype = case
    generator = np.random.default_rng(0)
    context = generator.integers(0, 3, (8, *shape)).astype(dtype)
    variables = initialised(model, context)
    images = model.dequantizer is not None
    given = {
        "data": ("b", *model.flow.event_shape),
        "keys": ("b", 2),
        "context": ("b", *shape),
        "noise": ("b", *model.flow.noise_shape),
    }
    dtypes = {"data": jnp.uint8 if images else jnp.float32, "keys": jnp.uint32, "context": dtype}

    def both(variables, data, keys, context, noise):
        typed = jax.random.wrap_key_data(keys)
        log_prob = model.apply(variables, data, typed, context=context, method="log_prob")
        decoded = model.apply(variables, noise, context=context, method="decode")
        encoded = model.apply(variables, data, typed, context=context, method="encode")
        parts = [log_prob[:, None], encoded, decoded.reshape(decoded.shape[0], -1)]
        return jnp.concatenate([part.astype(jnp.float32) for part in parts], axis=1)

    arguments = {
        name: sharing.ArgumentSpec(given[name], dtypes.get(name, jnp.float32), "") for name in given
    }
    exported = lower_function(sharing.FunctionSpec(both, arguments, ""), variables)
    assert exported.platforms == ("cpu", "cuda", "tpu")
    for count in (1, 3):
        keys = jax.random.key_data(jax.random.split(jax.random.key(5), count))
        noise = generator.normal(size=(count, *model.flow.noise_shape)).astype(np.float32)
        values = (rows(model, count), keys, context[:count], noise)
        got, expected = exported.call(*values), jax.jit(both)(variables, *values)
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def scaled(variables, x, factor):
    return x.astype(jnp.float32) * factor * variables["w"]


FUNCTIONS = {
    "scaled": sharing.FunctionSpec(
        scaled,
        {
            "x": sharing.ArgumentSpec(("b", 2), jnp.bfloat16, "lengths in metres"),
            "factor": sharing.ArgumentSpec((), np.float32, "a factor"),
        },
        "lengths in millimetres",
    )
}


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "functions.zip"
    sharing.save_exported(path, FUNCTIONS, {"w": jnp.float32(1000)}, {"width": 3})
    return path, path.read_bytes()


def test_the_file_has_a_signature_of_its_functions(saved):
    path, _ = saved
    with zipfile.ZipFile(path) as archive:
        assert sorted(archive.namelist()) == ["scaled.bin", "signature.json"]
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        signature = json.loads(archive.read("signature.json"))
        exported = jax.export.deserialize(bytearray(archive.read("scaled.bin")))
        digest = hashlib.sha256(archive.read("scaled.bin")).hexdigest()
    assert exported.platforms == ("cpu", "cuda", "tpu")
    assert signature == {
        "format": "vaeflow functions",
        "version": 2,
        "jax": jax.__version__,
        "platforms": ["cpu", "cuda", "tpu"],
        "batch": "b",
        "config": {"width": 3},
        "functions": {
            "scaled": {
                "arguments": [
                    {
                        "name": "x",
                        "dtype": "bfloat16",
                        "shape": ["b", 2],
                        "meaning": "lengths in metres",
                    },
                    {"name": "factor", "dtype": "float32", "shape": [], "meaning": "a factor"},
                ],
                "result": {
                    "dtype": "float32",
                    "shape": ["b", 2],
                    "meaning": "lengths in millimetres",
                },
                "sha256": digest,
            }
        },
    }
    call = sharing.load_exported(path)["scaled"]
    for count in (1, 4):
        x = np.ones((count, 2), jnp.bfloat16)
        np.testing.assert_array_equal(call(x, np.float32(2)), np.full((count, 2), 2000, np.float32))
    with pytest.raises(ValueError, match="Dtype mismatch"):
        call(np.ones((3, 2), np.float32), np.float32(2))


def test_no_path_of_this_machine_is_in_the_file(tmp_path):
    before = jax.config.jax_traceback_in_locations_limit
    assert before != 0
    model = exported_models.MODELS["mixture-base"]
    functions, variables = sharing.export_functions(model), initialised(model)
    sharing.save_exported(tmp_path / "file", functions, variables, {})
    content = (tmp_path / "file").read_bytes()
    assert b".py" not in content
    assert str(ROOT).encode() not in content
    assert jax.config.jax_traceback_in_locations_limit == before
    sharing.save_exported(tmp_path / "again", functions, variables, {})
    assert (tmp_path / "again").read_bytes() == content


def test_a_failing_write_leaves_the_old_file(saved, monkeypatch):
    path, content = saved

    def fails(*arguments):
        raise OSError("no space left")

    monkeypatch.setattr(pathlib.Path, "replace", fails)
    with pytest.raises(OSError, match="no space left"):
        sharing.save_exported(path, FUNCTIONS, {"w": jnp.float32(1)}, {})
    assert path.read_bytes() == content
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_names_are_identifiers(tmp_path):
    with pytest.raises(ValueError, match=r"names that are identifiers, got '../x'"):
        sharing.save_exported(tmp_path / "file", {"../x": FUNCTIONS["scaled"]}, {}, {})
    assert list(tmp_path.iterdir()) == []


def error_of(path, content):
    path.write_bytes(content)
    with pytest.raises(ValueError) as error:  # noqa: PT011 (its message is compared by callers)
        sharing.load_exported(path)
    message = str(error.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def rewritten(path, **files):
    """The archive with other files in it; None leaves one out."""
    with zipfile.ZipFile(path) as archive:
        old = {name.partition(".")[0]: archive.read(name) for name in archive.namelist()}
    new = path.with_name("new")
    with zipfile.ZipFile(new, "w") as archive:
        for name, content in (old | files).items():
            if content is not None:
                archive.writestr(f"{name}.{'json' if name == 'signature' else 'bin'}", content)
    return new.read_bytes()


def test_damaged_files_and_others_raise(saved):
    path, content = saved
    for size in range(0, len(content), 29):
        assert "holds no exported functions" in error_of(path, content[:size])
    path.write_bytes(content)
    signature = json.loads(zipfile.ZipFile(path).read("signature.json"))
    cases = [
        ({"signature": None}, "holds no exported functions"),
        ({"signature": b"{"}, "holds no exported functions"),
        ({"signature": b"[]"}, "holds no exported functions"),
        ({"signature": json.dumps(signature | {"format": "x"})}, "its format is 'x'"),
        ({"signature": json.dumps(signature | {"version": 3})}, "made by a newer vaeflow (version"),
        ({"signature": json.dumps(signature | {"version": True})}, "version must be a number"),
        ({"signature": json.dumps(signature | {"functions": [1]})}, "functions an object"),
        ({"signature": json.dumps(signature | {"functions": {"scaled": 3}})}, "not subscriptable"),
        ({"signature": b'{"a": ' + b"[" * 10**5}, "nested too deeply"),
        ({"scaled": None}, "can't be loaded: scaled.bin is missing"),
        ({"scaled": b"nothing"}, "scaled.bin doesn't have its digest"),
        ({"another": b""}, "it holds 'another.bin', which signature.json doesn't list"),
        (
            {"signature": json.dumps(signature | {"version": 1}), "scaled": b"nothing"},
            f"scaled was made with JAX {jax.__version__}, and JAX ",
        ),
    ]
    for files, message in cases:
        path.write_bytes(content)
        assert message in error_of(path, rewritten(path, **files))
    path.write_bytes(content)
    path.write_bytes(rewritten(path))
    assert sorted(sharing.load_exported(path)) == ["scaled"]


def test_exchanged_functions_raise(tmp_path):
    argument = {"x": sharing.ArgumentSpec(("b",), np.float32, "a length")}
    functions = {
        "double": sharing.FunctionSpec(lambda variables, x: 2 * x, argument, "a length"),
        "triple": sharing.FunctionSpec(lambda variables, x: 3 * x, argument, "a length"),
        "count": sharing.FunctionSpec(lambda variables, x: x.astype(np.int32), argument, "count"),
    }
    path = tmp_path / "file"
    sharing.save_exported(path, functions, {}, {})
    loaded = sharing.load_exported(path)
    assert [float(loaded[name](np.float32([5]))[0]) for name in functions] == [10, 15, 5]
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        signature = json.loads(archive.read("signature.json"))
        compiled = {name: archive.read(f"{name}.bin") for name in functions}
    exchanged = {"double": compiled["triple"], "triple": compiled["double"]}
    assert "double.bin doesn't have its digest" in error_of(path, rewritten(path, **exchanged))
    # Files of version 1 have no digests: only functions of other types can be told apart.
    old = {"signature": json.dumps(signature | {"version": 1}), "double": compiled["count"]}
    path.write_bytes(content)
    assert "double.bin has other arguments or results" in error_of(path, rewritten(path, **old))


def test_flipped_bits_raise_or_change_nothing(saved):
    path, content = saved
    with zipfile.ZipFile(path) as archive:
        stored = [archive.read(name) for name in archive.namelist()]
    places = {range(content.index(data), content.index(data) + len(data)) for data in stored}
    for position in {*range(0, len(content), 5), *range(len(content) - 150, len(content))}:
        flipped = bytearray(content)
        flipped[position] ^= 1 << position % 8
        if any(position in place for place in places):
            error_of(path, flipped)
            continue
        path.write_bytes(flipped)
        with contextlib.suppress(ValueError):  # a date of the archive, say, changes nothing
            assert sorted(sharing.load_exported(path)) == ["scaled"]
