"""Folders of Hugging Face `datasets` (``hf:PATH``): saved ones, and Parquet as the hub has it."""

from __future__ import annotations

import json
import pathlib
import re
from typing import Any

from vaeflow._util.files import optional_import
from vaeflow._util.messages import listed, reason, shown
from vaeflow._util.reading import any_error_named, most_decompressed, open_regular
from vaeflow.data.dataset import Dataset
from vaeflow.data.examples import SPLIT_NAMES, from_huggingface
from vaeflow.data.images import Crop

_MOST_DESCRIBED = 2**24  # bytes of JSON

_SHARD = re.compile(r"([a-z]+)(-\d+-of-\d+)?\.parquet")


def open_saved(name: str, path: str, fold: int, image_size: int | None, crop: Crop) -> Dataset:
    """Opens the folder at `path`, of which nothing is fetched, run or written.

    It is one that ``save_to_disk`` of a `datasets.Dataset` or `datasets.DatasetDict` made, or one
    of Parquet files, there or in ``data/``, whose names begin with their split, as those of the hub
    do: ``train-00000-of-00001.parquet``. Images are the column of `datasets.Image` that is named
    ``image`` or is the only one, in which files are embedded; labels are the column ``label``, if
    it is a `datasets.ClassLabel`. An image is decoded when it is read.

    Raises:
      ValueError: The folder is missing or of neither kind, a file is damaged or of columns other
        than these, or datasets isn't installed.
    """
    datasets = optional_import("datasets", f"source='{shown(name)}'", "datasets", "datasets")
    root = pathlib.Path(path).expanduser()
    label = f"source='{shown(name)}'"
    if not root.is_dir():
        raise ValueError(f"{label}: there is no such folder")
    try:
        tables = _saved(root) or _shards(root)
        if not tables:
            raise ValueError("it holds neither dataset_info.json nor Parquet files of a split")
        with any_error_named():
            splits = {split: _dataset(datasets, table) for split, table in tables.items()}
        image, classes = _columns(datasets, next(iter(splits.values())).features)
        bytes_only = datasets.Image(decode=False)
        splits = {split: rows.cast_column(image, bytes_only) for split, rows in splits.items()}
    except (OSError, ValueError) as error:
        raise ValueError(f"{label}: can't be read: {shown(reason(error), 250)}") from error
    return from_huggingface(
        splits,
        image=image,
        label=classes,
        image_size=image_size,
        crop=crop,
        fold=fold,
        name=name,
    )


def _dataset(datasets: Any, table: Any) -> Any:
    table.validate(full=True)
    return datasets.Dataset(datasets.table.InMemoryTable(table))


def _columns(datasets: Any, features: Any) -> tuple[str, str | None]:
    """The columns of images and of labels."""
    images = [key for key, kind in features.items() if isinstance(kind, datasets.Image)]
    if "image" not in images and len(images) != 1:
        raise ValueError(f"there must be a column image of images, got [{listed(features)}]")
    labelled = isinstance(features.get("label"), datasets.ClassLabel)
    return "image" if "image" in images else images[0], "label" if labelled else None


def _json(file: pathlib.Path) -> Any:
    with open_regular(file) as (stream, size):
        if size > _MOST_DESCRIBED:
            raise ValueError(f"{shown(file.name)} has {size} bytes, of at most {_MOST_DESCRIBED}")
        with any_error_named():
            return json.loads(stream.read(size))


def _saved(root: pathlib.Path) -> dict[str, Any]:
    """The tables that `save_to_disk` wrote, none if there are none."""
    if (root / "dataset_dict.json").exists():
        described = _json(root / "dataset_dict.json")
        names = described.get("splits") if isinstance(described, dict) else None
        if not isinstance(names, list) or not all(map(_is_plain, names)):
            raise ValueError("dataset_dict.json must name the splits")
        return {name: _saved_table(root / name) for name in names if name in SPLIT_NAMES}
    if (root / "state.json").exists():
        return {"train": _saved_table(root)}
    return {}


def _is_plain(name: Any) -> bool:
    """Whether a name is one of a file in the same folder."""
    return isinstance(name, str) and pathlib.PurePath(name).name == name != ".."


def _saved_table(folder: pathlib.Path) -> Any:
    arrow = optional_import("pyarrow", "source hf:PATH", "pyarrow", "datasets")
    state = _json(folder / "state.json")
    files = state.get("_data_files") if isinstance(state, dict) else None
    names = [file.get("filename") for file in files] if isinstance(files, list) else []
    if not names or not all(map(_is_plain, names)):
        raise ValueError("state.json must name the files of the data")
    tables = []
    for name in names:
        with open_regular(folder / name):  # an error unless it is a regular file
            pass
        with any_error_named():
            tables.append(arrow.ipc.open_stream(arrow.memory_map(str(folder / name))).read_all())
    return arrow.concat_tables(tables)


def _shards(root: pathlib.Path) -> dict[str, Any]:
    """The tables of Parquet files by split, none if there are none."""
    arrow = optional_import("pyarrow", "source hf:PATH", "pyarrow", "datasets")
    found: dict[str, list[pathlib.Path]] = {}
    for file in sorted([*root.glob("*.parquet"), *root.glob("data/*.parquet")]):
        match = _SHARD.fullmatch(file.name)
        if match and match[1] in SPLIT_NAMES:
            found.setdefault(match[1], []).append(file)
    return {
        split: arrow.concat_tables([_parquet(file) for file in files])
        for split, files in found.items()
    }


def _parquet(file: pathlib.Path) -> Any:
    parquet = optional_import("pyarrow.parquet", "source hf:PATH", "pyarrow", "datasets")
    with open_regular(file) as (stream, size), any_error_named():
        opened = parquet.ParquetFile(
            stream,
            thrift_string_size_limit=2**24,
            thrift_container_size_limit=2**20,
            page_checksum_verification=True,
        )
        groups = [opened.metadata.row_group(k) for k in range(opened.metadata.num_row_groups)]
        declared = sum(max(group.total_byte_size, 0) for group in groups)
        if declared > most_decompressed(size):
            raise ValueError(f"it declares {declared} bytes, compressed to {size}: too many")
        return opened.read(use_threads=False)
