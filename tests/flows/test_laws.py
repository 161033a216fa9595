"""Every public flow obeys every law."""

from __future__ import annotations

import pytest

from tests.registry import FLOWS, Entry
from vaeflow.testing import CHECKS, run_check


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("entry", FLOWS, ids=lambda entry: entry.name)
def test_law(entry: Entry, check: str) -> None:
    """The flow's bijector passes the check."""
    run_check(check, entry.case)
