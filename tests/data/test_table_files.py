"""Tables in Parquet and CSV files, and frames of pandas, Polars and Arrow."""

from __future__ import annotations

import sys
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vaeflow import data

VALUES = np.random.default_rng(0).normal(size=(40, 3))
FRAME = pd.DataFrame(VALUES, columns=["mass", "size, mean", "#"])
FRAME["number"] = np.arange(40)
FRAME["name"] = "x"
REALS = ("mass", "size, mean", "#")


def write(frame, path):
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        frame.set_index(np.linspace(0, 1, len(frame))).to_parquet(path)


def open_table(path, columns="", **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return data.open_table(data.TableConfig(f"table:{path}{columns}", **options))


def rows(table):
    """The rows of all splits in the order of their index."""
    parts = [data.stack(split) for split in (table.train, table.validation, table.test)]
    index = np.concatenate([part["index"] for part in parts])
    return np.concatenate([part["vector"] for part in parts])[np.argsort(index)]


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".CSV"])
def test_a_file_gives_its_columns_of_real_numbers(tmp_path, suffix):
    path = tmp_path / f"rows{suffix}"
    write(FRAME, path.with_suffix(suffix.lower()))
    path.with_suffix(suffix.lower()).rename(path)
    source = data.TableConfig(f"table:{path}", fold=3)
    expected = r"are left out: \['number \(whole numbers\)', 'name \((large_string|text)\)'\]"
    with pytest.warns(UserWarning, match=expected):
        table = data.open_table(source)
    assert table.columns == REALS
    assert str(table).endswith(f"rows{suffix}: 3 columns, 32 train / 4 validation / 4 test")
    np.testing.assert_array_equal(rows(table), VALUES.astype(np.float32))
    held_out = data.stack(table.test)["index"]
    assert not set(held_out) & set(data.stack(open_table(path).test)["index"])


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_columns_are_taken_by_name_in_their_order(tmp_path, suffix):
    path = tmp_path / f"rows{suffix}"
    write(FRAME, path)
    table = open_table(path, "#number,mass")
    assert table.columns == ("number", "mass")
    expected = np.stack([np.arange(40), VALUES[:, 0]], axis=1).astype(np.float32)
    np.testing.assert_array_equal(rows(table), expected)
    other = path.with_name(f"a#mass{suffix}")
    path.rename(other)  # a file of that whole name is itself meant
    assert open_table(other).columns == REALS


def test_a_folder_gives_its_splits(tmp_path):
    write(FRAME[:20], tmp_path / "train.parquet")
    write(FRAME[20:30][["name", "#", "mass", "size, mean"]], tmp_path / "val.csv")
    write(FRAME[30:], tmp_path / "test.parquet")
    table = open_table(tmp_path)
    assert table.columns == REALS
    assert str(table).endswith("3 columns, 20 train / 10 validation / 10 test")
    np.testing.assert_array_equal(rows(table), VALUES.astype(np.float32))
    (tmp_path / "test.parquet").unlink()
    assert str(open_table(tmp_path)).endswith("18 train / 10 validation / 2 test")


def test_a_first_row_of_numbers_is_data(tmp_path):
    path = tmp_path / "rows.csv"
    np.savetxt(path, VALUES, delimiter=",", fmt="%.17g")
    table = open_table(path)
    assert table.columns == ("column 0", "column 1", "column 2")
    np.testing.assert_array_equal(rows(table), VALUES.astype(np.float32))
    path.write_bytes(b'\xef\xbb\xbf"a ""b""",c\r\n' + b"\r\n".join([b'"1.5",2', b"2.5,3"] * 10))
    assert open_table(path).columns == ('a "b"',)  # c is of whole numbers
    assert set(rows(open_table(path)).ravel()) == {1.5, 2.5}


@pytest.mark.parametrize("make", [lambda frame: frame, pl.from_pandas, pa.Table.from_pandas, dict])
def test_frames_are_taken_as_they_are(make):
    table = data.from_frame(make(FRAME), fold=3)
    assert table.columns == REALS
    np.testing.assert_array_equal(rows(table), VALUES.astype(np.float32))
    assert str(table) == "frame: 3 columns, 32 train / 4 validation / 4 test"
    parts = [make(FRAME[start : start + 10]) for start in (0, 20, 30)]
    table = data.from_frame(*parts, columns=["number", "mass"], name="stars")
    assert table.columns == ("number", "mass")
    assert str(table) == "stars: 2 columns, 10 train / 10 validation / 10 test"
    np.testing.assert_array_equal(data.stack(table.test)["vector"][:, 0], np.arange(30, 40))


@pytest.mark.parametrize(
    ("frame", "options", "message"),
    [
        (FRAME[["number"]], {}, r"no column is of real numbers among \['number'\]"),
        (FRAME, {"columns": ["mass", "weight"]}, "there is no column 'weight' among"),
        (FRAME, {"columns": ["name"]}, r"must be of numbers, got \['name'\], the first of dtype"),
        (FRAME, {"columns": ["mass", "mass"]}, "columns must be named once each"),
        (FRAME.assign(mass=np.nan), {}, "values must be finite .*, got nan in row 0, column 0"),
        (pl.DataFrame({"a": [1.5, None, 2.5]}), {}, "got nan in row 1, column 0"),
        (FRAME.assign(mass=2.0), {}, "columns must vary, .* got 2.0 alone in column 0"),
        (FRAME[:5], {}, "5 training examples are too few"),
        ({"a": VALUES}, {}, r"no column is of real numbers among \['a'\]"),
        (VALUES, {}, "must have columns, got ndarray"),
        (FRAME[["mass", "mass"]], {}, "more than one column is named 'mass'"),
    ],
)
def test_bad_frames_raise(frame, options, message):
    with pytest.raises(ValueError, match=f"source='stars'.*{message}"):
        data.from_frame(frame, name="stars", **options)


CSV = "a,b\n" + "1.5,2.5\n2.5,3.5\n" * 10


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.csv", "", "no column is of real numbers|its first row"),
        ("rows.csv", CSV + "x,1\n", "could not convert string 'x' to float64 at row 20, column 1"),
        ("rows.csv", CSV + "1.5,\n", "could not convert string '' to float64 at row 20, column 2"),
        ("rows.csv", CSV + "nan,1\n", "got nan in row 20, column 0"),
        ("rows.csv", CSV + "1.5\n", "usecols must be|number of columns|invalid column index"),
        ("rows.csv", "a,b,c\n1,2\n", "its first row has 2 cells for 3 columns"),
        ("rows.csv", "a,a\n1.5,2.5\n2.5,3.5\n", "more than one column is named 'a'"),
        ("rows.csv", "a\n\xff\n", "utf-8"),
        ("rows.csv", "a," * 2**20 + "\n", "lines must have fewer than 1048576 bytes"),
        ("rows.csv", CSV + "1.5," * 2**19, "lines must have fewer than 1048576 bytes"),
        ("rows.parquet", CSV, "[Pp]arquet"),
        ("rows.parquet", "", "[Pp]arquet"),
        ("rows.txt", CSV, "files must end in .parquet or .csv"),
    ],
)
def test_bad_files_raise_one_line_that_names_them(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=message) as caught:
        open_table(tmp_path / name)
    assert len(str(caught.value)) <= 500
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


def test_bombs_are_refused(tmp_path):
    """A constant column of a billion rows takes a few kilobytes."""
    path = tmp_path / "rows.parquet"
    constant = pa.table({"a": pa.array(np.ones(2**20))})
    with pq.ParquetWriter(path, constant.schema, compression="zstd") as writer:
        for _ in range(40):
            writer.write_table(constant)
    assert path.stat().st_size < 2**20
    with pytest.raises(ValueError, match=r"declares 41943040 rows in .* bytes: too many"):
        open_table(path)


def test_a_damaged_page_is_seen_by_its_checksum(tmp_path):
    path = tmp_path / "rows.parquet"
    pq.write_table(
        pa.table({"a": VALUES[:, 0]}), path, use_dictionary=False, write_page_checksum=True
    )
    content = bytearray(path.read_bytes())
    place = content.index(VALUES[7, 0].tobytes()[:4])
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"rows.parquet.*(CRC|checksum)"):
        open_table(path)


def test_missing_files_folders_and_packages_raise(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"rows.csv': there is no such file or folder"):
        open_table(tmp_path / "rows.csv")
    with pytest.raises(ValueError, match=r"a folder must have train.parquet or train.csv"):
        open_table(tmp_path)
    for suffix in (".csv", ".parquet"):
        write(FRAME, tmp_path / f"train{suffix}")
    with pytest.raises(ValueError, match=r"one file of train, got train.parquet and more"):
        open_table(tmp_path)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ValueError, match=r"needs the package pyarrow; pip install 'vaeflow\[tab"):
        open_table(tmp_path / "train.parquet")
    assert open_table(tmp_path / "train.csv").columns == REALS
