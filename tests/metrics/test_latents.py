"""Active and collapsed latents."""

import numpy as np
import pytest

from vaeflow import metrics


def test_latents_that_follow_the_data_are_active():
    random = np.random.RandomState(0)
    means = random.normal(size=(2000, 3)) * [1.0, 0.05, 0.2] + [0, 5, 0]
    np.testing.assert_array_equal(metrics.active_units(means), [True, False, True])
    np.testing.assert_array_equal(metrics.active_units(np.full((3, 2), 7.0)), [False, False])


@pytest.mark.parametrize("shape", [(5,), (1, 3), (2, 3, 4)])
def test_other_shapes_raise(shape):
    with pytest.raises(ValueError, match=r"\[example, latent\] with 2 examples or more, got"):
        metrics.active_units(np.zeros(shape))
