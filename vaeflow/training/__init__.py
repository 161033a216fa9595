"""Training: compiles any loss into a step, and runs, logs, saves and resumes it."""

from vaeflow.training.batches import Batches
from vaeflow.training.config import TrainConfig
from vaeflow.training.fit import FitResult, NonFiniteError, fit
from vaeflow.training.interrupts import Interrupted
from vaeflow.training.optimizer import make_optimizer, make_schedule
from vaeflow.training.run_directory import RunDirectory, open_run_directory
from vaeflow.training.state import Player, TrainState, create_train_state, variables_of
from vaeflow.training.step import (
    ema_decay_at,
    make_scanned_train_step,
    make_train_step,
    make_update,
)

__all__ = [
    "Batches",
    "FitResult",
    "Interrupted",
    "NonFiniteError",
    "Player",
    "RunDirectory",
    "TrainConfig",
    "TrainState",
    "create_train_state",
    "ema_decay_at",
    "fit",
    "make_optimizer",
    "make_scanned_train_step",
    "make_schedule",
    "make_train_step",
    "make_update",
    "open_run_directory",
    "variables_of",
]
