"""Training: compiles any loss into a step, and runs, logs, saves and resumes it."""

from vaeflow.training.batches import Batches, IndexBatches, UnpairedBatches
from vaeflow.training.config import TrainConfig
from vaeflow.training.fit import FitResult, fit
from vaeflow.training.hosts import HostsConfig, Interrupted, is_first, join_hosts
from vaeflow.training.optimizer import make_optimizer, make_schedule
from vaeflow.training.progress import NonFiniteError
from vaeflow.training.run_directory import RunDirectory, open_run_directory
from vaeflow.training.state import Player, TrainState, create_train_state, variables_of
from vaeflow.training.step import make_scanned_train_step, make_train_step
from vaeflow.training.strategy import Strategy, make_strategy
from vaeflow.training.update import make_update

__all__ = [
    "Batches",
    "FitResult",
    "HostsConfig",
    "IndexBatches",
    "Interrupted",
    "NonFiniteError",
    "Player",
    "RunDirectory",
    "Strategy",
    "TrainConfig",
    "TrainState",
    "UnpairedBatches",
    "create_train_state",
    "fit",
    "is_first",
    "join_hosts",
    "make_optimizer",
    "make_scanned_train_step",
    "make_schedule",
    "make_strategy",
    "make_train_step",
    "make_update",
    "open_run_directory",
    "variables_of",
]
