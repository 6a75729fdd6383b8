"""Fixtures that several unit tests share."""

from pathlib import Path

import pytest

from tests.unit.engine_world import World, make_world


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> World:
    """One application on a pretend host below the test's own directory."""
    return make_world(monkeypatch, tmp_path)
