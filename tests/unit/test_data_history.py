"""The ledger leaves the host with the uploaded files, so that `verify --against` has a copy from a backup."""

from __future__ import annotations

import json

import pytest

from switchyard.data import backup as backups
from switchyard.data.settings import Backup, Repository
from switchyard.engine import layout
from switchyard.engine.effects import Completed
from tests.unit.engine_world import NAME, World


def test_ledger_and_records_go_with_the_files_and_are_kept_as_long(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout.HOST_FILE.parent.mkdir(parents=True, exist_ok=True)
    layout.HOST_FILE.write_text(json.dumps({"name": "vm1", "groups": ["app", "db", "edge"], "edge_image": "e@1"}))
    ran: list[list[str]] = []

    def run(argv: list[str], **_: object) -> Completed:
        ran.append(argv)
        return Completed(0, "", "")

    monkeypatch.setattr(backups, "run", run)
    place = Repository("here", "local")
    backup = Backup(NAME.app, NAME.environment, "img", "shop", 999, "/data", "/data", [place], "/backups")
    assert backups._back_up_files(backup, lambda _: None) == []
    assert not any(str(world.paths.ledger) in argv for argv in ran)
    world.release(1, "blue")
    ran.clear()
    assert backups._back_up_files(backup, lambda _: None) == []
    (saved,) = [argv for argv in ran if "backup" in argv]
    assert saved[-2:] == [str(world.paths.ledger), str(world.paths.releases)]
    (expired,) = [argv for argv in ran if "forget" in argv]
    assert "--group-by=host" in expired
