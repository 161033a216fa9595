"""Tables: reading, splits, and errors of invalid tables."""

from __future__ import annotations

import importlib.util
import itertools

import numpy as np
import pytest

from vaeflow import data
from vaeflow.data.tables import _columns, _nuclei_columns

TABLE = np.random.default_rng(0).normal(size=(40, 3))
PARTS = {"train": TABLE[:20], "validation": TABLE[20:30], "test": TABLE[30:]}


class Trap:
    """Fails the test if it is ever unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


@pytest.fixture
def open_arrays(tmp_path):
    def open_arrays(fold: int = 0, **arrays) -> data.Table:
        np.savez(tmp_path / "table.npz", **arrays)
        return data.open_table(data.TableConfig(f"npz:{tmp_path}/table.npz", fold))

    return open_arrays


@pytest.mark.parametrize("validation", ["validation", "val"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_archive_is_taken_as_it_is(open_arrays, validation, dtype):
    arrays = {
        "train": PARTS["train"].astype(dtype),
        validation: PARTS["validation"].astype(dtype),
        "test": PARTS["test"].astype(dtype),
        "notes": np.array(["ignored"]),
    }
    table = open_arrays(**arrays)
    assert table.columns == ("column 0", "column 1", "column 2")
    assert table.shape == (3,)
    assert str(table).endswith("table.npz: 3 columns, 20 train / 10 validation / 10 test")
    stacked = [data.stack(split) for split in (table.train, table.validation, table.test)]
    assert all(batch["vector"].dtype == np.float32 for batch in stacked)
    vectors = np.concatenate([batch["vector"] for batch in stacked])
    np.testing.assert_array_equal(vectors, TABLE.astype(np.float32))
    index = np.concatenate([batch["index"] for batch in stacked])
    np.testing.assert_array_equal(index, np.arange(40))


def test_batches_hold_the_rows_that_they_number(open_arrays):
    table = open_arrays(**PARTS)
    for batch in itertools.islice(data.training_batches(table.train, 8, 3), 5):
        assert batch.keys() == {"vector", "index"}
        expected = TABLE[batch["index"]].astype(np.float32)
        np.testing.assert_array_equal(batch["vector"], expected)
    assert table.train[3].keys() == {"vector", "index"}


def test_nuclei_are_those_of_the_package_with_their_names():
    from sklearn.datasets import load_breast_cancer

    table = data.open_table(data.TableConfig())
    assert str(table) == "embedded:nuclei: 20 columns, 455 train / 57 validation / 57 test"
    loaded = load_breast_cancer()
    # The package says "mean radius", "radius error" and "worst radius".
    names = [f"error of {n[:-6]}" if n.endswith("error") else n for n in loaded.feature_names]
    assert names == _columns()
    expected = loaded.data[:, [names.index(column) for column in table.columns]]
    splits = [data.stack(split) for split in (table.train, table.validation, table.test)]
    for batch in splits:
        np.testing.assert_array_equal(batch["vector"], expected[batch["index"]].astype(np.float32))
    assert sorted(np.concatenate([batch["index"] for batch in splits])) == list(range(569))


def test_columns_of_nuclei_are_selected_by_the_rule():
    from sklearn.datasets import load_breast_cancer

    values = load_breast_cancer().data
    recurring = [np.unique(column, return_counts=True)[1].max() for column in values.T]
    chosen = []
    for number, column in enumerate(values.T):
        if recurring[number] > 0.01 * len(values):
            continue
        if all(abs(np.corrcoef(column, values[:, other])[0, 1]) <= 0.98 for other in chosen):
            chosen.append(number)
    assert [_columns()[number] for number in chosen] == _nuclei_columns()


def test_tests_of_all_folds_tile_the_nuclei():
    folds = [data.open_table(data.TableConfig(fold=fold)) for fold in range(10)]
    held_out = np.concatenate([data.stack(fold.test)["index"] for fold in folds])
    assert sorted(held_out) == list(range(569))


def changed(row: int, column: int, value: float) -> np.ndarray:
    table = PARTS["test"].copy()
    table[row, column] = value
    return table


CONSTANT = PARTS["train"].copy()
CONSTANT[:, 1] = 0.5
# They differ, but no longer as float32.
ALIKE = PARTS["train"].copy()
ALIKE[:, 2] = 1 + 1e-12 * np.arange(20)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"test": changed(4, 2, np.nan)},
            r"test: .* got nan in row 4, column 2 \(counted from 0\); 1 aren't",
        ),
        (
            {"test": changed(5, 0, -np.inf)},
            "test: values must be finite .*, got -inf in row 5, column 0",
        ),
        ({"test": changed(6, 1, 1e39)}, r"test: .* float32 numbers, got 1e\+39 in row 6, column 1"),
        ({"train": np.full((20, 3), np.nan)}, "train: .* row 0, column 0 .*; 60 aren't"),
        (
            {"train": np.arange(60).reshape(20, 3)},
            "train: dtype must be a floating one, .* got int64",
        ),
        ({"train": PARTS["train"] > 0}, "train: dtype must be .*, got bool"),
        ({"train": PARTS["train"].astype(complex)}, "train: dtype must be .*, got complex128"),
        ({"train": PARTS["train"].astype(str)}, "train: dtype must be .*, got <U"),
        (
            {"train": np.array([[Trap()] * 3] * 20)},
            "train must be a plain numeric array, got Python objects, .* never unpickled",
        ),
        ({"train": TABLE[:, 0]}, r"train: shape must be \[row, column\], .* got \(40,\)"),
        ({"train": TABLE[:, :, None]}, r"train: shape must be .*, got \(40, 3, 1\)"),
        ({"train": TABLE[:, :0]}, r"train: shape must be .*, got \(40, 0\)"),
        ({"test": TABLE[:, :2]}, r"must have one number of columns, .*'test': \(40, 2\)"),
        ({"train": TABLE[:1]}, "train: there must be 2 rows or more, got 1"),
        ({"validation": TABLE[:0]}, "validation: there must be 2 rows or more, got 0"),
        (
            {"train": CONSTANT},
            "train: columns must vary, to have a density, got 0.5 alone in column 1",
        ),
        ({"train": ALIKE}, "train: columns must vary, .* got 1.0 alone in column 2"),
        (
            {"val": TABLE},
            r"arrays must be train, .* got \['test', 'train', 'val', 'validation'\]",
        ),
        ({"fold": 1}, "fold must be 0 for .*table.npz, which comes with all its splits, got 1"),
    ],
)
def test_bad_arrays_raise_one_line(open_arrays, arrays, message):
    with pytest.raises(ValueError, match=message) as caught:
        open_arrays(**PARTS | arrays)
    assert "\n" not in str(caught.value)
    assert "table.npz" in str(caught.value)


@pytest.mark.parametrize("missing", PARTS)
def test_every_split_is_needed(open_arrays, missing):
    given = {split: table for split, table in PARTS.items() if split != missing}
    with pytest.raises(
        ValueError, match=rf"arrays must be train, validation .* got \['{min(given)}"
    ):
        open_arrays(**given)


@pytest.mark.parametrize("content", [None, b"", b"no archive", "cut", "flipped"])
def test_files_that_are_no_archives_raise(tmp_path, content):
    path = tmp_path / "table.npz"
    if content in ("cut", "flipped"):
        np.savez_compressed(path, **PARTS)
        whole = bytearray(path.read_bytes())
        whole[200] ^= 255
        path.write_bytes(whole[:300] if content == "cut" else whole)
    elif content is not None:
        path.write_bytes(content)
    expected = {None: "there is no such file", "flipped": "train can't be read"}
    with pytest.raises(ValueError, match=expected.get(content, "not an .npz archive")) as caught:
        data.open_table(data.TableConfig(f"npz:{path}"))
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("source", ["nuclei", "npz:", "embedded:faces", "folder:x", ""])
def test_unknown_sources_raise(source):
    message = f"source must be one of embedded:nuclei, npz:PATH, table:PATH, got '{source}'"
    with pytest.raises(ValueError, match=message):
        data.open_table(data.TableConfig(source))


def test_missing_package_is_named_with_the_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None)
    with pytest.raises(ValueError, match=r"nuclei'.* scikit-learn; pip install 'vaeflow\[exp"):
        data.open_table(data.TableConfig())
