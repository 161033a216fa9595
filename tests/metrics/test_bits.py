"""Bits per dimension."""

import math

import numpy as np
import pytest

from vaeflow import metrics


def test_a_uniform_density_over_levels_has_eight_bits():
    nats = np.full(3, 12 * math.log(256))
    np.testing.assert_allclose(metrics.bits_per_dim(nats, 12), 8.0)


def test_no_dimensions_raise():
    with pytest.raises(ValueError, match="dimensions must be at least 1, got 0"):
        metrics.bits_per_dim(1.0, 0)
