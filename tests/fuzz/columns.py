"""Tables in Parquet and CSV files."""

from __future__ import annotations

import csv
import functools
import io
import pathlib
import warnings

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.fuzz.mutations import SPECIAL, damaged, name_of, pick, same, special_file
from tests.fuzz.oracle import Input
from vaeflow import data

VALUES = np.random.RandomState(0).normal(size=(24, 3))
NAMES = ["a", "b", "c"]


def rows(table: data.Table) -> np.ndarray:
    """The rows in the order of the file."""
    parts = [data.stack(getattr(table, split)) for split in ("train", "validation", "test")]
    index = np.concatenate([part["index"] for part in parts])
    return np.concatenate([part["vector"] for part in parts])[np.argsort(index)]


def right(expected: np.ndarray, table: data.Table) -> bool:
    """Whether a table holds these rows."""
    return same(rows(table), expected.astype(np.float32))


def right_csv(content: bytes, table: data.Table) -> bool:
    """Whether a table holds what Python's own reader finds at its columns."""
    lines = list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")))
    lines = [line for line in lines if line]
    names, found = lines[0], lines[1:]
    if all(_is_number(name) for name in names):
        names, found = [f"column {place}" for place in range(len(names))], lines
    places = [names.index(name) for name in table.columns]
    with np.errstate(over="ignore"):
        values = np.array([[float(line[place].strip()) for place in places] for line in found])
        return right(values, table)


def right_parquet(table: data.Table) -> bool:
    """Whether a table is one of at most so many finite numbers: a damaged head may say anything."""
    values = rows(table)
    return values.shape[1] <= len(NAMES) and bool(np.isfinite(values).all())


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _csv(random: np.random.Generator) -> tuple[str, bytes]:
    lines = [",".join(NAMES), *(",".join(map(repr, row.tolist())) for row in VALUES)]
    content = pick(random, ["\n", "\r\n"]).join(lines).encode()
    kind = pick(random, ["damaged"] * 6 + ["cell"] * 4 + ["wide", "long", "quotes", "one line"])
    if kind == "damaged":
        title, content = damaged(random, content)
        return title, content
    if kind == "cell":
        cell = pick(
            random, ["", "nan", "-inf", "1e39", "0x1p3", "1_0", "\u0661", '"1.5"', '"', "é", "\0"]
        )
        place, column = int(random.integers(len(VALUES))), int(random.integers(3))
        cells = [list(map(repr, row.tolist())) for row in VALUES]
        cells[place][column] = cell
        content = "\n".join([",".join(NAMES), *map(",".join, cells)]).encode()
        return f"{cell!r} in row {place}", content
    if kind == "wide":
        return kind, b"a" + b"," * 2**21 + b"\n" + content
    if kind == "long":
        return kind, content + b"\n" + b"1.5," * 2**21
    if kind == "quotes":
        return kind, content + b'\n"' + b"\n" * 2**20
    return kind, b"1.5" * 2**21


@functools.cache
def _bomb() -> bytes:
    """A constant column of 2^24 rows."""
    content = io.BytesIO()
    pq.write_table(pa.table({"a": np.ones(2**24)}), content, compression="zstd")
    return content.getvalue()


def _parquet(random: np.random.Generator) -> tuple[str, bytes, np.ndarray | None]:
    kind = pick(random, ["damaged"] * 10 + ["number", "bomb", "types", "groups"])
    options = {
        "compression": pick(random, ["none", "snappy", "gzip", "zstd", "brotli", "lz4"]),
        "use_dictionary": bool(random.integers(2)),
        "write_page_checksum": bool(random.integers(2)),
        "row_group_size": pick(random, [5, 100]),
    }
    columns = dict(zip(NAMES, VALUES.T.copy(), strict=True))
    if kind == "number":
        number = pick(random, [np.nan, np.inf, 1e39])
        columns["a"][3] = number
    elif kind == "types":
        columns["d"] = pa.array([[1.5]] * 24)
        columns["e"] = pa.array([{"a": "x"}] * 24)
        columns["f"] = pa.array([b"x" * 999] * 24)
    elif kind == "bomb":
        return kind, _bomb(), None
    content = io.BytesIO()
    pq.write_table(pa.table(columns), content, **options)
    content = content.getvalue()
    if kind == "damaged":
        title, content = damaged(random, content)
        return f"{options}, {title}", content, VALUES
    return kind, content, None if kind == "number" else VALUES


def make(random: np.random.Generator, folder: pathlib.Path) -> Input:
    """Makes a file."""
    is_csv = random.random() < 0.5
    path = folder / name_of(random, ".csv" if is_csv else ".parquet")
    read = functools.partial(_open, path)
    if random.random() < 0.02:
        kind = pick(random, SPECIAL)
        special_file(path, kind)
        return Input(kind, read, None)
    if is_csv:
        title, content = _csv(random)
        path.write_bytes(content)
        return Input(f"csv, {title}", read, functools.partial(right_csv, content))
    title, content, held = _parquet(random)
    path.write_bytes(content)
    check = right_parquet if "{" in title else functools.partial(right, held)
    return Input(f"parquet, {title}", read, None if held is None else check)


def _open(path: pathlib.Path) -> data.Table:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return data.open_table(data.TableConfig(f"table:{path}"))
