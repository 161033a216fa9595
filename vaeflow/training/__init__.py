"""Training: compiles any loss into a step, and runs, logs, saves and resumes it."""

from vaeflow.training.batches import Batches, IndexBatches, UnpairedBatches
from vaeflow.training.compiler import compiler_options
from vaeflow.training.config import TrainConfig
from vaeflow.training.fit import FitResult, check_batch_size, fit
from vaeflow.training.hosts import HostsConfig, is_first, join_hosts
from vaeflow.training.interrupts import Interrupted
from vaeflow.training.lock import run_lock
from vaeflow.training.optimizer import make_optimizer, make_schedule, weight_decay_mask
from vaeflow.training.progress import NonFiniteError
from vaeflow.training.run_directory import RunDirectory, open_run_directory
from vaeflow.training.state import Player, TrainState, create_train_state, variables_of
from vaeflow.training.step import make_scanned_train_step, make_train_step
from vaeflow.training.strategy import Strategy, make_strategy
from vaeflow.training.update import ema_decay_at, make_update

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
    "check_batch_size",
    "compiler_options",
    "create_train_state",
    "ema_decay_at",
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
    "run_lock",
    "variables_of",
    "weight_decay_mask",
]
