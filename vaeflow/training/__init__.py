"""Training: compiled steps of any loss, and a loop that logs, evaluates, saves and resumes.

`make_train_step` needs JAX alone. Run directories and shuffled batches need the packages of the
extra ``vaeflow[experiments]``, and raise a `ValueError` that names it where one is missing.
"""

from vaeflow.training.batches import Batches, IndexBatches, UnpairedBatches
from vaeflow.training.config import TrainConfig, make_optimizer, make_schedule
from vaeflow.training.hosts import HostsConfig, is_first, join_hosts
from vaeflow.training.logging import JSONLinesLogger, TensorBoardLogger
from vaeflow.training.loop import NonFiniteError, TrainResult, train
from vaeflow.training.parallel import Strategy, make_strategy
from vaeflow.training.run_directory import RunDirectory, open_run_directory
from vaeflow.training.signals import Interrupted
from vaeflow.training.state import Player, TrainState, create_train_state, variables_of
from vaeflow.training.trackers import LogConfig, MLflowLogger, WandbLogger
from vaeflow.training.update import make_train_step, make_update

__all__ = [
    "Batches",
    "HostsConfig",
    "IndexBatches",
    "Interrupted",
    "JSONLinesLogger",
    "LogConfig",
    "MLflowLogger",
    "NonFiniteError",
    "Player",
    "RunDirectory",
    "Strategy",
    "TensorBoardLogger",
    "TrainConfig",
    "TrainResult",
    "TrainState",
    "UnpairedBatches",
    "WandbLogger",
    "create_train_state",
    "is_first",
    "join_hosts",
    "make_optimizer",
    "make_schedule",
    "make_strategy",
    "make_train_step",
    "make_update",
    "open_run_directory",
    "train",
    "variables_of",
]
