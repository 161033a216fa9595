"""Every public bijector obeys every law."""

from __future__ import annotations

import pytest

from tests.registry import BIJECTORS, Entry, laws, parameters, representatives
from vaeflow.testing import CHECKS, run_check


@pytest.mark.parametrize(("entry", "check"), laws(BIJECTORS, CHECKS, representatives(BIJECTORS)))
def test_law(entry: Entry, check: str) -> None:
    """The bijector passes the check."""
    run_check(check, entry.case)


@pytest.mark.parametrize("entry", parameters(BIJECTORS))
def test_entry_makes_its_class(entry: Entry) -> None:
    """An entry tests the class that it is listed under."""
    assert isinstance(entry.case.batched, entry.public)
