"""Fixtures that several unit tests share."""

from pathlib import Path

import pytest

from switchyard.data.settings import Backup
from tests.unit.data_world import back_up
from tests.unit.engine_world import World, make_world


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> World:
    """One application on a pretend host below the test's own directory."""
    return make_world(monkeypatch, tmp_path)


@pytest.fixture
def backup(world: World) -> Backup:
    """Backups of that application."""
    return back_up(world)
