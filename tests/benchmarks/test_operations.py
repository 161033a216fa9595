"""Operations counted from shapes, against counts by hand and by the compiler."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

import vaeflow as vf
from benchmarks.operations import (
    Product,
    forward_operations,
    glow_products,
    training_operations,
)
from benchmarks.vae_size import VaeSize, step_operations


def test_one_product_by_hand():
    # A 3x3 convolution of 5 to 7 channels at 4 positions, twice.
    product = Product(4, 9, 5, 7, 2)
    assert product.operations == 2 * 2 * 4 * 9 * 5 * 7
    assert product.entries == 2 * 4 * (5 + 7)


def test_a_glow_by_hand():
    # 8x8x1 images, two levels of three steps of width 10. Level 0: 4x4x4, of which 2 channels stay.
    # Level 1: 2x2x8, its last.
    level_0 = 3 * 16 * (4 * 4 + 9 * 2 * 10 + 10 * 10 + 9 * 10 * 4) + 16 * 9 * 2 * 4
    level_1 = 3 * 4 * (8 * 8 + 9 * 4 * 10 + 10 * 10 + 9 * 10 * 8)
    products = glow_products((8, 8, 1), levels=2, steps=3, width=10)
    assert forward_operations(products) == 2 * (level_0 + level_1)
    assert training_operations(products) == 6 * (level_0 + level_1)


def test_every_convolution_of_the_flow_is_counted():
    shape, levels, steps, width = (16, 16, 3), 3, 2, 64
    model = vf.models.FlowModel(
        vf.flows.Glow(
            shape, num_levels=levels, num_steps=steps, hidden_features=width, plu=True, scan=False
        )
    )
    images = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    kernels: list[tuple[int, ...]] = []

    def record(path, leaf):
        if getattr(path[-1], "key", None) in ("kernel", "lower"):
            kernels.append(leaf.shape)

    jax.tree_util.tree_map_with_path(record, variables["params"])
    # Stacked kernels hold one entry for each tap, channel and feature of all steps.
    entries = sum(math.prod(shape) for shape in kernels)
    products = glow_products(shape, levels, steps, width)
    assert sum(p.count * p.taps * p.inputs * p.outputs for p in products) == entries


def test_a_step_of_an_auto_encoder_by_hand():
    # Forward, and kernels; and inputs of all layers but the first.
    size = VaeSize(hidden=5, latents=3, samples=7, batch_size=2)
    encoder = 2 * 784 * 5 + 3 * 5 * 3 * 2  # means and scales
    decoder = 3 * 7 * (3 * 5 + 5 * 784)
    assert step_operations(size) == 2 * 2 * (encoder + decoder)
