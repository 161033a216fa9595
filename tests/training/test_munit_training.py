"""MUNIT's players are trained against each other, and survive images without contrast."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from tests.munit_game import GAME, SHAPES, images, variables
from vaeflow import losses, training
from vaeflow.data import Source
from vaeflow.data.dataset import array_part
from vaeflow.training.batches import groups

CONFIG = training.TrainConfig(learning_rate=1e-3)
OPTIMIZERS = {
    player: training.make_optimizer(CONFIG, (0.5, 0.999))
    for player in ("discriminator", "generator")
}
LOSSES = {"discriminator": losses.munit_discriminator, "generator": losses.munit}
STEPS = 200


def source(of_domain: np.ndarray) -> Source:
    return Source(array_part(of_domain, None).read, np.arange(len(of_domain)))


def constant(shape: tuple[int, int, int]) -> np.ndarray:
    """White and black images by turns."""
    of_domain = np.zeros((4, *shape), np.uint8)
    of_domain[::2] = 255
    return of_domain


@pytest.mark.slow
def test_munit_learns_noise_and_stays_finite_on_constant_images():
    steps = training.make_train_step(GAME, LOSSES, OPTIMIZERS, seed=0, scan_steps=STEPS)
    histories = {}
    for kind, make in {"noise": lambda shape: images(shape, 4), "constant": constant}.items():
        sources = (source(make(shape)) for shape in SHAPES.values())
        batches = training.UnpairedBatches(*sources, batch_size=4, seed=0)
        state = training.create_train_state(variables(), OPTIMIZERS)
        ((_, plan),) = groups(batches.plan(0), iter([STEPS]), STEPS)
        state, histories[kind] = steps(state, batches.examples(), plan, np.int32(STEPS))
        # A step that isn't finite would be the last.
        assert state.finite
        assert state.step == STEPS
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
        assert all(np.isfinite(values).all() for values in histories[kind].values())
    # Auto-encoders come to reproduce what they were given, and discriminators don't stand still.
    for domain in SHAPES:
        for kind, history in histories.items():
            errors = history[f"generator/reconstruction_{domain}"]
            assert errors[-20:].mean() < 0.8 * errors[:20].mean(), (kind, domain)
            judged = history[f"discriminator/real_{domain}"]
            assert np.abs(judged[-1] - judged[0]) > 0.01 * judged[0]
