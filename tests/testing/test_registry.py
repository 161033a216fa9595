"""The registry is complete, and would notice if it weren't."""

from __future__ import annotations

import pytest

from tests.registry import ENTRIES, missing, public_classes


def test_every_public_class_has_an_entry() -> None:
    """Each public bijector and flow is under test."""
    assert missing(ENTRIES) == set()


@pytest.mark.parametrize("public", sorted(public_classes(), key=lambda public: public.__name__))
def test_removed_class_is_reported(public: type) -> None:
    """Without the entries of a class, the class is missing."""
    assert missing(entry for entry in ENTRIES if entry.public is not public) == {public}


def test_names_are_unique() -> None:
    """No entry hides another."""
    names = [entry.name for entry in ENTRIES]
    assert len(set(names)) == len(names)
