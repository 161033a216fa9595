"""Tables in Parquet and CSV files (``table:PATH``), read by column within bounds."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from jaxtyping import Float

from vaeflow._util.files import local_or_remote, optional_import
from vaeflow._util.messages import listed, reason, shown
from vaeflow._util.reading import any_error_named, most_decompressed, open_regular

SUFFIXES = (".parquet", ".csv")

_MOST_LINE = 2**20  # bytes

_ROWS_AT_ONCE = 2**16

_INDEX = re.compile(r"__index_level_\d+__")
"""Names under which pandas keeps a frame's index."""


class Columns(NamedTuple):
    """Some columns of a table.

    Attributes:
      names: Their names.
      values: Their values.
      left_out: Names of the others, with the reasons.
    """

    names: list[str]
    values: Float[np.ndarray, "row column"]
    left_out: Mapping[str, str]


def read_table(path: str, wanted: Sequence[str] | None) -> Columns:
    """Reads a file of a suffix of `SUFFIXES`.

    Of Parquet the columns of floating types are taken, of CSV those of numbers that aren't all
    whole: densities are of real numbers. What is `wanted` by name is taken in that order, whole
    numbers too.

    The first line of a CSV file names the columns, unless all of it are numbers; cells are divided
    by commas, and may be quoted by ``"``. A missing value is NaN in Parquet, and an error in CSV.

    Args:
      path: The file; local, or of any kind that `etils.epath` knows.
      wanted: Names of columns, or None.

    Raises:
      ValueError: It can't be read, is damaged, is larger than files of its size are taken to be, or
        lacks a column that is wanted; the message is the reason alone. pyarrow isn't installed,
        for Parquet.
      OSError: It can't be opened.
    """
    read = _read_parquet if path.lower().endswith(".parquet") else _read_csv
    with open_regular(local_or_remote(path)) as (stream, size):
        return read(stream, size, wanted)


def choose(kinds: Mapping[str, str], wanted: Sequence[str] | None) -> list[str]:
    """Chooses columns: those that are wanted, or those of real numbers.

    Args:
      kinds: For each column "" if it is of real numbers, "whole numbers" if of these, or else its
        type.
      wanted: Names, or None.

    Raises:
      ValueError: A column is missing, named twice or not of numbers; or none is of real numbers.
    """
    if wanted is None:
        chosen = [name for name, kind in kinds.items() if not kind]
        if not chosen:
            raise ValueError(
                f"no column is of real numbers among [{listed(kinds)}]; name columns, if whole"
                " numbers are to be taken"
            )
        return chosen
    if len(set(wanted)) < len(wanted):
        raise ValueError(f"columns must be named once each, got [{listed(wanted)}]")
    if missing := [name for name in wanted if name not in kinds]:
        raise ValueError(f"there is no column {listed(missing)} among [{listed(kinds)}]")
    others = [name for name in wanted if kinds[name] not in ("", "whole numbers")]
    if others:
        kind = shown(kinds[others[0]], 40)
        raise ValueError(f"columns must be of numbers, got [{listed(others)}], the first of {kind}")
    return list(wanted)


def left_out(kinds: Mapping[str, str], chosen: Sequence[str]) -> dict[str, str]:
    """The columns that weren't chosen, each with its kind."""
    return {name: kind for name, kind in kinds.items() if name not in chosen}


def check_names(names: Sequence[str]) -> None:
    """Raises a ValueError if two columns have one name."""
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"more than one column is named {listed(twice)}")


def _read_parquet(stream: BinaryIO, size: int, wanted: Sequence[str] | None) -> Columns:
    parquet = optional_import("pyarrow.parquet", "source table:PATH", "pyarrow", "tables")
    most = most_decompressed(size)
    with any_error_named():
        file = parquet.ParquetFile(
            stream,
            thrift_string_size_limit=2**24,
            thrift_container_size_limit=2**20,
            page_checksum_verification=True,
        )
        described, schema = file.metadata, file.schema_arrow
        kinds = {
            field.name: _kind(field.type) for field in schema if not _INDEX.fullmatch(field.name)
        }
        check_names([field.name for field in schema])
        chosen = choose(kinds, wanted)
        rows = described.num_rows
        _check_declared(described, schema.get_all_field_indices, chosen, size)
        if not 0 <= rows <= most // (8 * len(chosen)):
            raise ValueError(f"it declares {rows} rows in {size} bytes: too many")
        values, start = np.empty((rows, len(chosen))), 0
        for batch in file.iter_batches(_ROWS_AT_ONCE, columns=chosen, use_threads=False):
            end = start + batch.num_rows
            if end > rows:
                raise ValueError(f"it has more than the {rows} rows that it declares")
            for place, name in enumerate(chosen):
                column = batch.column(batch.schema.get_field_index(name)).cast("float64")
                values[start:end, place] = column.to_numpy(zero_copy_only=False)
            start = end
        if start < rows:
            raise ValueError(f"it has {start} of the {rows} rows that it declares")
    return Columns(chosen, values, left_out(kinds, chosen))


def _check_declared(described: Any, indices: Any, chosen: Sequence[str], size: int) -> None:
    """Raises a ValueError if the parts of the chosen columns are taken to be bombs."""
    wanted = set(chosen)
    declared = 0
    for group in range(described.num_row_groups):
        for place in range(described.num_columns):
            part = described.row_group(group).column(place)
            if part.path_in_schema in wanted:
                if not 0 <= part.total_compressed_size <= size:
                    raise ValueError(
                        f"a part of it declares {part.total_compressed_size} bytes of {size}"
                    )
                declared += max(part.total_uncompressed_size, 0)
    if declared > most_decompressed(size):
        raise ValueError(f"it declares {declared} bytes, compressed to {size}: too many")


def _kind(arrow_type: Any) -> str:
    """The kind of a column, as `choose` takes it, by its type in Arrow."""
    types = optional_import("pyarrow.types", "source table:PATH", "pyarrow", "tables")
    if types.is_floating(arrow_type) or types.is_decimal(arrow_type):
        return ""
    return "whole numbers" if types.is_integer(arrow_type) else str(arrow_type)


def _read_csv(stream: BinaryIO, size: int, wanted: Sequence[str] | None) -> Columns:
    with any_error_named():
        header = _row(stream.readline(_MOST_LINE))
        first = _row(stream.readline(_MOST_LINE))
        named = not header or not all(map(_is_number, header))
        names = header if named else [f"column {place}" for place in range(len(header))]
        if named and len(first) != len(names):
            raise ValueError(f"its first row has {len(first)} cells for {len(names)} columns")
        check_names(names)
        sample = first if named else header
        # An empty cell is a missing number, which is an error below, or an empty text.
        kinds = {
            name: "" if _is_number(cell) or not cell else "text"
            for name, cell in zip(names, sample, strict=True)
        }
        stated = {name: kind or "whole numbers" for name, kind in kinds.items()}
        chosen = choose(kinds if wanted is None else stated, wanted)
        places = [names.index(name) for name in chosen]
        values = _numbers(stream, skip=int(named), places=places)
    if wanted is None:
        whole = np.all(np.floor(values) == values, axis=0)
        kinds |= {
            name: "whole numbers" for name, is_whole in zip(chosen, whole, strict=True) if is_whole
        }
        chosen, before = choose(kinds, None), chosen
        values = values[:, [before.index(name) for name in chosen]]
    return Columns(chosen, values, left_out(kinds, chosen))


def _numbers(stream: BinaryIO, skip: int, places: Sequence[int]) -> Float[np.ndarray, "row column"]:
    stream.seek(0)
    return np.loadtxt(
        _lines(stream),
        delimiter=",",
        quotechar='"',
        comments=None,
        skiprows=skip,
        usecols=places,
        ndmin=2,
    )


def _lines(stream: BinaryIO) -> Iterator[str]:
    """Yields lines of bounded length: a cell takes many times its bytes while it is parsed."""
    encoding = "utf-8-sig"
    while line := stream.readline(_MOST_LINE):
        _check_length(line)
        yield line.decode(encoding)
        encoding = "utf-8"


def _check_length(line: bytes) -> None:
    if len(line) == _MOST_LINE:
        raise ValueError(f"lines must have fewer than {_MOST_LINE} bytes")


def _row(line: bytes) -> list[str]:
    """The cells of a line.

    Raises:
      ValueError: It isn't text in UTF-8, or is too long.
    """
    _check_length(line)
    try:
        return next(csv.reader([line.decode("utf-8-sig")], strict=True), [])
    except csv.Error as error:
        raise ValueError(reason(error)) from error


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
