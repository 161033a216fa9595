"""The stored files, and how they are compared with what the library makes today."""

from __future__ import annotations

import hashlib
import json
import pathlib
from typing import Any

import jax
import numpy as np

PyTree = Any

FILES = pathlib.Path(__file__).with_name("version_1")


def leaves_of(tree: PyTree) -> dict[str, Any]:
    """All leaves by their path."""
    found, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in found}


def described(tree: PyTree) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and dtype of all leaves by their path."""
    return {path: (leaf.shape, str(leaf.dtype)) for path, leaf in leaves_of(tree).items()}


def digest(tree: PyTree) -> str:
    """SHA-256 of paths, shapes, dtypes and bits."""
    total = hashlib.sha256()
    for path, leaf in sorted(leaves_of(tree).items()):
        array = np.asarray(leaf)
        total.update(json.dumps([path, str(array.dtype), array.shape]).encode())
        total.update(array.tobytes())
    return total.hexdigest()


def perturbed(variables: PyTree) -> PyTree:
    """Adds noise to all parameters, so that none is zero; other collections stay as they are."""
    random = np.random.RandomState(0)

    def moved(leaf: Any) -> Any:
        array = np.asarray(leaf)
        noise = 0.05 * random.normal(size=array.shape)
        return (array + noise).astype(array.dtype) if array.dtype == np.float32 else array

    parameters = jax.tree.map(moved, variables["params"])
    return {**jax.device_get(variables), "params": parameters}


def assert_same_outputs(
    found: dict[str, Any], expected: dict[str, np.ndarray], rtol: float = 1e-5, atol: float = 1e-5
) -> None:
    """Compares reals to rounding, images to one level, other integers exactly."""
    assert sorted(found) == sorted(expected)
    for name, value in expected.items():
        got = np.asarray(found[name])
        assert (got.shape, got.dtype) == (value.shape, value.dtype), name
        if value.dtype == np.uint8:
            difference = np.abs(got.astype(int) - value.astype(int))
            assert difference.max(initial=0) <= 1, name
            assert difference.mean() < 0.05, name
        elif np.issubdtype(value.dtype, np.floating):
            assert np.isfinite(value).all(), name
            np.testing.assert_allclose(got, value, rtol=rtol, atol=atol, err_msg=name)
        else:
            np.testing.assert_array_equal(got, value, err_msg=name)


def read_arrays(path: pathlib.Path) -> dict[str, dict[str, np.ndarray]]:
    """Arrays of a file by the two parts of their names."""
    found: dict[str, dict[str, np.ndarray]] = {}
    with np.load(path) as stored:
        for name in stored.files:
            first, _, second = name.partition("/")
            found.setdefault(first, {})[second] = stored[name]
    return found


def write_arrays(path: pathlib.Path, arrays: dict[str, dict[str, Any]]) -> None:
    """The opposite."""
    flat = {f"{a}/{b}": np.asarray(value) for a, own in arrays.items() for b, value in own.items()}
    np.savez_compressed(path, **flat)
