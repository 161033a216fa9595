"""The model of a slice: bytes on a ring, the longer of computing and moving, and where it ends."""

from __future__ import annotations

import jax.numpy as jnp
import pytest

from benchmarks import tpu_slice
from benchmarks.tpu_slice import Chip, Job
from experiments import glow_celeba
from vaeflow import data, training

CHIP = Chip(peak=100.0, memory=1e9, bandwidth=10.0, link=50.0)


def test_bytes_on_a_ring():
    assert tpu_slice.ring_bytes(1, 1000.0) == 0
    assert tpu_slice.ring_bytes(2, 1000.0) == 1000
    assert tpu_slice.ring_bytes(4, 1000.0) == 1500
    assert tpu_slice.ring_bytes(256, 256.0) == 510


def test_seconds_on_a_ring_are_bytes_over_the_link_and_hops():
    assert tpu_slice.ring_seconds(1, 1000.0, CHIP) == 0
    assert tpu_slice.ring_seconds(4, 0.0, CHIP) == pytest.approx(6e-6)
    assert tpu_slice.ring_seconds(4, 1000.0, CHIP) == pytest.approx(1500 / 50 + 6e-6, rel=1e-9)


def test_compute_is_bound_by_operations_or_by_memory():
    reach = 100.0 * tpu_slice.SHARE
    busy = Job("busy", 8, 1, operations=1000.0, traffic=1.0)
    assert tpu_slice.compute_seconds(busy, 3, CHIP) == pytest.approx(3 * 1000 / reach)
    moving = Job("moving", 8, 1, operations=1.0, traffic=1000.0)
    assert tpu_slice.compute_seconds(moving, 3, CHIP) == pytest.approx(3 * 1000 / 10)


@pytest.mark.parametrize(
    ("batch_size", "parameters", "chips"),
    # An image takes 25 s. With 250 parameters, two chips reduce in 20 s, four in 30 and eight in
    # 35; each has 4 images, 2 and then 1, so that eight would wait longer than they compute.
    [(8, 250, 4), (8, 1, 8), (6, 1, 2), (8, 10**6, 1)],
)
def test_where_scaling_ends(batch_size, parameters, chips):
    job = Job("job", batch_size, parameters, operations=25 * 100 * tpu_slice.SHARE, traffic=0)
    assert tpu_slice.most_chips(job, CHIP) == chips


def test_a_preset_is_counted_by_hand():
    config = glow_celeba.Config(
        data.DataConfig(),
        glow_celeba.ModelConfig(
            levels=1, steps=2, width=3, precision="bfloat16", backward="reversible"
        ),
        training.TrainConfig(batch_size=5),
    )
    job = tpu_slice.preset_job("small", config, (4, 4, 1))
    # 2x2 positions of 4 channels, of which 2 are read.
    kernels = 2 * (4 * 4 + 9 * 2 * 3 + 3 * 3 + 9 * 3 * 4)
    assert job.operations == 4 * 2 * 4 * kernels  # passes, multiply and add, positions
    bfloat16 = jnp.dtype("bfloat16").itemsize
    assert job.traffic == 4 * bfloat16 * 2 * 4 * ((4 + 4) + (2 + 3) + (3 + 3) + (3 + 4))
    vectors = 2 * (2 * 4 + 2 * 3 + 2 * 3 + 2 * 4)  # actnorms, hidden layers, last layer
    top_prior = 2 * 4 * 4
    assert job.parameters == kernels + vectors + top_prior
    assert (job.name, job.batch_size) == ("small", 5)
