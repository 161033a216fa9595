"""The base class against the distrax that is installed."""

import distrax

from vaeflow.bijectors.base import DISTRAX_FIELDS


class Identity(distrax.Bijector):
    """The least that distrax takes for a bijector."""

    def forward_and_log_det(self, x):
        return x, x

    def inverse_and_log_det(self, y):
        return y, y


def test_fields_of_distrax_are_known():
    """A field that distrax adds would become a leaf of every pytree: list it in `base.py`."""
    assert set(vars(Identity(1))) == set(DISTRAX_FIELDS)
