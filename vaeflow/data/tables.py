"""Tables of real numbers, for density estimation: cell nuclei, and NumPy archives with splits."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float32

from vaeflow._util.files import package_file
from vaeflow._util.messages import listed, shown
from vaeflow.data.archive import open_archive
from vaeflow.data.dataset import Table, arrays_part, make_splits
from vaeflow.data.images import check_table

SOURCES = ("embedded:nuclei", "npz:PATH")

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
    """embedded:nuclei, or npz:PATH: an archive with arrays train, validation (or val) and test,
    each of shape [row, column] and of a floating type."""

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
    else:
        raise ValueError(
            f"source must be one of {', '.join(SOURCES)}, got '{shown(config.source)}'"
        )
    _check_columns(tables, config.source)
    parts = {split: arrays_part({"vector": table}) for split, table in tables.items()}
    splits = make_splits(parts, config.fold, name=config.source)
    columns = columns or [f"column {number}" for number in range(tables["train"].shape[1])]
    return Table(name=config.source, columns=tuple(columns), **splits)


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
