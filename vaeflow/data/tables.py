"""Tables of real numbers, for density estimation: cell nuclei, files of columns, and frames."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32

from vaeflow._util.files import local_or_remote, package_file
from vaeflow._util.messages import listed, reason, shown
from vaeflow.data import table_files
from vaeflow.data.archive import open_archive
from vaeflow.data.dataset import Table, arrays_part, make_splits
from vaeflow.data.images import check_table

SOURCES = ("embedded:nuclei", "npz:PATH", "table:PATH")

_KEYS = {"train": ("train",), "validation": ("validation", "val"), "test": ("test",)}
_MEASUREMENTS = (
    "radius",
    "texture",
    "perimeter",
    "area",
    "smoothness",
    "compactness",
    "concavity",
    "concave points",
    "symmetry",
    "fractal dimension",
)
# Columns are selected as by Papamakarios et al. 2017: none in which a value recurs in many rows, as
# zero does in 2% of these, and none that another almost determines, by a correlation above 0.98
# (with the radius).
_RECURRING = "concav"
_CORRELATED = {"mean perimeter", "mean area", "worst perimeter", "worst area"}


@dataclasses.dataclass(frozen=True)
class TableConfig:
    """The table to learn the density of."""

    source: str = "embedded:nuclei"
    """embedded:nuclei; npz:PATH: an archive with arrays train, validation (or val) and test, each
    of shape [row, column] and of a floating type; or table:PATH: a .parquet or .csv file, or a
    folder of train, validation (or val) and test. table:PATH#a,b takes the columns a and b."""

    fold: int = 0
    """Which of ten folds to hold out, 0 to 9, where the table doesn't come with splits."""


def open_table(config: TableConfig) -> Table:
    """Opens the table that `config` names. Its batches hold ``vector`` and ``index``.

    ===================  =====================================================================
    source               table
    ===================  =====================================================================
    ``embedded:nuclei``  20 measurements of the cell nuclei of 569 tumours of the breast (Street,
                         Wolberg & Mangasarian 1993), shipped by scikit-learn; in folds
    ``npz:PATH``         a NumPy archive with arrays ``train``, ``validation`` or ``val``, and
                         ``test`` of shape [row, column], float32 or, then cast to it, float64.
                         Arrays under other names are ignored. Nothing is ever unpickled
    ``table:PATH``       the columns of real numbers of a Parquet or CSV file, in folds, or of
                         ``train``, ``validation`` or ``val``, and ``test`` ``.parquet`` or
                         ``.csv`` in a folder, those that are missing carved out of train;
                         ``table:PATH#a,b`` takes the columns of these names, whole numbers too
                         (`vaeflow.data.table_files.read_table`)
    ===================  =====================================================================

    Raises:
      ValueError: The source is unknown, or its data are missing or bad: an array that is missing,
        isn't one of floats or a table, has too few rows, another number of columns than the others
        or a value that isn't finite, or a column of `train` that is constant.
    """
    kind, _, path = config.source.partition(":")
    columns = None
    if config.source == "embedded:nuclei":
        tables, columns = {"train": _read_nuclei(config.source)}, _nuclei_columns()
    elif kind == "npz" and path:
        tables = _read_npz(config.source, path)
    elif kind == "table" and path:
        tables, columns = _read_files(config.source, path)
    else:
        raise ValueError(
            f"source must be one of {', '.join(SOURCES)}, got '{shown(config.source)}'"
        )
    columns = columns or [f"column {number}" for number in range(tables["train"].shape[1])]
    return _make_table(tables, columns, config.fold, config.source)


def _make_table(
    tables: Mapping[str, np.ndarray], columns: Sequence[str], fold: int, name: str
) -> Table:
    _check_columns(tables, name)
    parts = {split: arrays_part({"vector": table}) for split, table in tables.items()}
    splits = make_splits(parts, fold, name=name)
    return Table(name=name, columns=tuple(map(str, columns)), **splits)


def from_frame(
    train: Any,
    validation: Any = None,
    test: Any = None,
    *,
    columns: Sequence[str] | None = None,
    fold: int = 0,
    name: str = "frame",
) -> Table:
    """Makes a table of a frame of pandas, Polars or Arrow, or of a dict of arrays.

    Args:
      train: Anything with names of columns, as ``column_names``, ``columns`` or keys, whose entries
        at these names are arrays, or give one by ``__array__``.
      validation: The same columns, or None to carve rows out of `train`.
      test: The same columns, or None to carve rows out of `train`.
      columns: Names of the columns to take, whole numbers too; None for those of floating types.
      fold: Which of ten folds to hold out, 0 to 9, where splits are carved.
      name: Name of the table, for its summary and for errors.

    Raises:
      ValueError: A column is missing or isn't of numbers, a value is missing or isn't a finite
        float32 number, a column of `train` is constant, or there are too few rows.
    """
    frames = {"train": train, "validation": validation, "test": test}
    tables: dict[str, np.ndarray] = {}
    for split, frame in frames.items():
        if frame is not None:
            label = f"source='{shown(name)}', {split}"
            read = _read_frame(frame, columns, label)
            tables[split] = check_table(read.values, name=label)
            columns = read.names  # of the others, those of train
    return _make_table(tables, columns, fold, name)


def _read_frame(frame: Any, wanted: Sequence[str] | None, label: str) -> table_files.Columns:
    names = getattr(frame, "column_names", None)
    if names is None:
        names = frame.keys() if isinstance(frame, Mapping) else getattr(frame, "columns", None)
    if names is None:
        raise ValueError(f"{label}: must have columns, got {type(frame).__name__}")
    names = list(names)
    try:
        table_files.check_names(names)
        arrays = {column: np.asarray(frame[column]) for column in names}
        kinds = {column: _kind(array) for column, array in arrays.items()}
        chosen = table_files.choose(kinds, wanted)
    except ValueError as error:
        raise ValueError(f"{label}: {error}") from error
    values = np.stack([arrays[column].astype(np.float64) for column in chosen], axis=1)
    return table_files.Columns(chosen, values, table_files.left_out(kinds, chosen))


def _kind(array: np.ndarray) -> str:
    """The kind of a column, as `table_files.choose` takes it."""
    if array.ndim != 1:
        return f"shape {array.shape}"
    if array.dtype.kind == "f":
        return ""
    return "whole numbers" if array.dtype.kind in "iu" else f"dtype {array.dtype}"


def _read_files(name: str, path: str) -> tuple[dict[str, np.ndarray], list[str]]:
    """Reads a file, or those of a folder, with the names of the columns."""
    try:
        files, wanted = _find_files(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"source='{shown(name)}': {reason(error)}") from error
    tables, chosen = {}, None
    for split, file in files.items():
        label = f"source='{shown(name)}'" + (f", {split}" if len(files) > 1 else "")
        try:
            read = table_files.read_table(file, wanted)
        except (OSError, ValueError) as error:
            raise ValueError(f"{label}: can't be read: {shown(reason(error), 250)}") from error
        if chosen is None and wanted is None and read.left_out:
            others = [f"{key} ({kind})" for key, kind in read.left_out.items()]
            warnings.warn(
                f"{label}: columns that aren't of real numbers are left out: [{listed(others)}]",
                stacklevel=2,
            )
        tables[split] = check_table(read.values, name=label)
        chosen = wanted = read.names
    return tables, chosen


def _find_files(path: str) -> tuple[dict[str, str], list[str] | None]:
    """The file of each split, and the names of columns that end the path, if they do."""
    wanted = None
    if "#" in path and not local_or_remote(path).exists():
        path, _, names = path.rpartition("#")
        wanted = names.split(",")
    place = local_or_remote(path)
    if place.is_dir():
        files = {}
        for split, keys in _KEYS.items():
            names = [f"{key}{suffix}" for key in keys for suffix in table_files.SUFFIXES]
            found = [place / file for file in names if (place / file).exists()]
            if len(found) > 1:
                raise ValueError(f"must have one file of {split}, got {found[0].name} and more")
            if found:
                files[split] = str(found[0])
        if "train" not in files:
            raise ValueError("a folder must have train.parquet or train.csv")
        return files, wanted
    if not place.exists():
        raise ValueError("there is no such file or folder")
    if not path.lower().endswith(table_files.SUFFIXES):
        raise ValueError(f"files must end in {' or '.join(table_files.SUFFIXES)}")
    return {"train": str(place)}, wanted


def _columns() -> list[str]:
    return [f"{kind} {name}" for kind in ("mean", "error of", "worst") for name in _MEASUREMENTS]


def _nuclei_columns() -> list[str]:
    """The columns that are kept."""
    return [name for name in _columns() if _RECURRING not in name and name not in _CORRELATED]


def _read_nuclei(name: str) -> Float32[np.ndarray, "row column"]:
    path = package_file(name, "scikit-learn", "sklearn", "datasets/data/breast_cancer.csv")
    with path.open() as lines:
        usecols = [_columns().index(column) for column in _nuclei_columns()]
        table = np.loadtxt(lines, delimiter=",", skiprows=1, usecols=usecols)
    return check_table(table, name=f"source='{shown(name)}'")


def _read_npz(name: str, path: str) -> dict[str, Float32[np.ndarray, "row column"]]:
    with open_archive(f"source='{shown(name)}'", path) as archive:
        arrays = {
            split: [key for key in keys if key in archive.keys] for split, keys in _KEYS.items()
        }
        if any(len(keys) != 1 for keys in arrays.values()):
            raise ValueError(
                f"{archive.label}: arrays must be train, validation or val, and test, got"
                f" [{listed(sorted(archive.keys))}]"
            )
        return {
            split: check_table(archive.read(key), name=f"{archive.label}, {key}")
            for split, (key,) in arrays.items()
        }


def _check_columns(tables: Mapping[str, np.ndarray], name: str) -> None:
    shapes = {split: table.shape for split, table in tables.items()}
    if len({columns for _, columns in shapes.values()}) > 1:
        raise ValueError(
            f"source='{shown(name)}': tables must have one number of columns, got shapes {shapes}"
        )
    train = tables["train"]
    constant = np.flatnonzero(np.min(train, axis=0) == np.max(train, axis=0))
    if len(constant):
        column = int(constant[0])
        raise ValueError(
            f"source='{shown(name)}', train: columns must vary, to have a density, got"
            f" {train[0, column]} alone in column {column} (counted from 0)"
        )
