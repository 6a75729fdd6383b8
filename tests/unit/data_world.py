"""Backups on the pretend host of the engine's unit tests: their settings on disk, and what their commands answer."""

from __future__ import annotations

import json
from dataclasses import asdict

from switchyard.data import settings
from switchyard.data.settings import Backup, Repository
from switchyard.engine import effects, layout
from tests.unit.engine_world import NAME, World


def back_up(world: World) -> Backup:
    """Backups on this host and away from it; every command about the database's container succeeds."""
    places = [Repository("local"), Repository("away", "sftp", host="h", user="u")]
    made = Backup(NAME.app, NAME.environment, "img", "shop", 999, "/data", "/data", places, str(world.root / "backups"))
    effects.replace_file(settings.FOLDER / f"{NAME}.json", json.dumps(asdict(made)), step="test.settings")
    effects.replace_file(layout.HOST_FILE, json.dumps(asdict(world.host)), step="test.host")
    made.live_data.mkdir(parents=True)
    world.docker.answers["^docker (exec|rm|network (disconnect|rm)|compose .* --no-recreate)"] = (0, "", "")
    return made


def answer(world: World, pattern: str, code: int, out: str = "", err: str = "") -> None:
    """Answer these commands like this, before any other pattern is looked at."""
    world.docker.answers = {pattern: (code, out, err), **world.docker.answers}
