"""Tables of real numbers, for densities of their rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float32

from vaeflow.data.archives import open_archive, read_array
from vaeflow.data.arrays import arrays_part
from vaeflow.data.checks import check_table
from vaeflow.data.dataset import Table
from vaeflow.data.packages import package_file
from vaeflow.data.splits import make_splits

SOURCES = ("embedded:nuclei", "npz:PATH")

_KEYS = {"train": ("train",), "validation": ("validation", "val"), "test": ("test",)}
# Without those in which a value, zero, recurs in 2% of the rows (concavity and concave points), and
# with one alone of radius, perimeter and area, whose correlations are above 0.98: the selection of
# Papamakarios et al. 2017 for densities of tables.
_NUCLEI_COLUMNS = (0, 1, 4, 5, 8, 9, *range(10, 16), 18, 19, 20, 21, 24, 25, 28, 29)


@dataclasses.dataclass(frozen=True)
class TableConfig:
    """Which table to learn the density of."""

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
        or an entry that isn't finite, or a column of `train` that holds one value alone.
    """
    kind, _, path = config.source.partition(":")
    if config.source == "embedded:nuclei":
        tables = {"train": _read_nuclei(config.source)}
    elif kind == "npz" and path:
        tables = _read_npz(config.source, path)
    else:
        raise ValueError(f"source={config.source!r} is unknown; allowed are {', '.join(SOURCES)}")
    _check_columns(tables, config.source)
    parts = {split: arrays_part({"vector": table}) for split, table in tables.items()}
    splits = make_splits(parts, config.fold, name=config.source)
    return Table(name=config.source, columns=tables["train"].shape[1], **splits)


def _read_nuclei(name: str) -> Float32[np.ndarray, "row column"]:
    path = package_file(name, "scikit-learn", "sklearn", "datasets/data/breast_cancer.csv")
    with path.open() as lines:
        table = np.loadtxt(lines, delimiter=",", skiprows=1, usecols=_NUCLEI_COLUMNS)
    return check_table(table, name=f"source={name!r}")


def _read_npz(name: str, path: str) -> dict[str, Float32[np.ndarray, "row column"]]:
    with open_archive(name, path) as archive:
        found = {
            split: [key for key in keys if key in archive.files] for split, keys in _KEYS.items()
        }
        if any(len(keys) != 1 for keys in found.values()):
            raise ValueError(
                f"source={name!r}: holds arrays {sorted(archive.files)}; needed are train,"
                " validation or val, and test"
            )
        return {
            split: check_table(read_array(archive, key, name), name=f"source={name!r}, {key}")
            for split, (key,) in found.items()
        }


def _check_columns(tables: Mapping[str, np.ndarray], name: str) -> None:
    shapes = {split: table.shape for split, table in tables.items()}
    if len({columns for _, columns in shapes.values()}) > 1:
        raise ValueError(
            f"source={name!r}: tables of different numbers of columns: {shapes}; allowed is one"
            " number for all"
        )
    train = tables["train"]
    constant = np.flatnonzero(np.min(train, axis=0) == np.max(train, axis=0))
    if len(constant):
        column = int(constant[0])
        raise ValueError(
            f"source={name!r}, train: column {column} (counted from 0) holds {train[0, column]}"
            " alone, which has no density; allowed are columns that vary"
        )
