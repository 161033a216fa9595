"""Figures are rendered only in tests marked `figures`."""

from __future__ import annotations

import pathlib

import pytest

from vaeflow import plotting


def pytest_configure(config: pytest.Config) -> None:
    """Declares the marker."""
    config.addinivalue_line("markers", "figures: render figures; for tests that look at them.")


@pytest.fixture(autouse=True)
def _unrendered(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Saves an empty file in place of each figure and animation, which takes no time."""
    if request.node.get_closest_marker("figures"):
        return

    def save(path, *arguments) -> None:
        pathlib.Path(path).touch()

    monkeypatch.setattr(plotting, "save_figure", save)
    monkeypatch.setattr(plotting, "save_animation", save)
