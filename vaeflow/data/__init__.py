"""Datasets by source strings, with disjoint splits, and their batches.

A batch is a dictionary of numpy arrays: ``image`` (uint8, shape [batch, height, width, channel]),
``index`` (int32, shape [batch]) and, where the data have labels, ``label`` (int32, shape [batch]).
Coloured digits also have ``style``, the class of their style (int32, shape [batch]).
A batch of a table has ``vector`` (float32, shape [batch, column]) and ``index``.
"""

from vaeflow.data.batches import epoch_batches, stack, training_batches
from vaeflow.data.colored_digits import ColoredDigits, DigitStyles
from vaeflow.data.config import DataConfig, open_dataset
from vaeflow.data.dataset import Dataset, GroundTruth, Source, Table
from vaeflow.data.examples import from_huggingface, from_pytorch
from vaeflow.data.folder import read_grey_image
from vaeflow.data.sprites import Sprites
from vaeflow.data.tables import TableConfig, from_frame, open_table
from vaeflow.data.unpaired import Pair, PairConfig, open_pair

__all__ = [
    "ColoredDigits",
    "DataConfig",
    "Dataset",
    "DigitStyles",
    "GroundTruth",
    "Pair",
    "PairConfig",
    "Source",
    "Sprites",
    "Table",
    "TableConfig",
    "epoch_batches",
    "from_frame",
    "from_huggingface",
    "from_pytorch",
    "open_dataset",
    "open_pair",
    "open_table",
    "read_grey_image",
    "stack",
    "training_batches",
]
