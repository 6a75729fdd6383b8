"""A restore in place: what it does when a repository, another restore or a drill is in its way."""

from __future__ import annotations

import json
from typing import Any

import pytest

from switchyard.data import backup as backups
from switchyard.data import exchange, restore
from switchyard.data.exchange import Marker
from switchyard.data.settings import Backup, Repository
from switchyard.engine import recover
from switchyard.errors import SwitchyardError
from tests.unit.data_world import answer
from tests.unit.engine_world import OPERATION, World

A = "0001-1.0.0"
UNTIL = "2026-01-02T03:00:00+00:00"


def marked(backup: Backup, stage: str, **changes: Any) -> Marker:
    """A restore that lies there half done."""
    new, old = backup.home / "data.new-1", backup.home / "data.before-1"
    facts = {"until": UNTIL, "target": "latest", "timeline": 1, "closed": True} | changes
    marker = Marker(OPERATION, stage, str(new), str(old), **facts)
    exchange.mark(backup, marker)
    return marker


def test_a_repository_that_is_away_does_not_keep_users_from_the_restored_database(world: World, backup: Backup) -> None:
    world.release(1, "blue")
    marked(backup, "swapping")
    answer(world, "stanza-create", 103, err="ERROR: [103]: unable to connect to away")
    said: list[str] = []
    assert recover.recover(world.paths, world.host, said.append)
    assert not exchange.marker_path(backup).exists()
    assert world.docker.serving() == A
    assert [event["until"] for event in world.ledger().of("restore")] == [UNTIL]
    (news,) = [news for news in world.news() if news["kind"] == "backup.archive"]
    assert "Not every repository archives after the restore" in news["title"]
    assert "unable to connect to away" in " ".join(said)


def test_the_full_backup_after_a_restore_goes_wherever_it_can(
    world: World, backup: Backup, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached: list[str] = []

    def back_up_to(_: Backup, __: int, repository: Repository, *___: object) -> str:
        reached.append(repository.name)
        if repository.name == "local":
            raise SwitchyardError("the disk is full.")
        return "20260102-030405F"

    monkeypatch.setattr(backups, "back_up_to", back_up_to)
    warning = restore._full_backup(world.operation("restore"), backup)
    assert reached == ["local", "away"]
    assert "local: the disk is full" in warning and "run backup.yml -e type=full" in warning
    assert [news["kind"] for news in world.news()] == ["backup.failed"]


def test_a_last_backup_asks_only_the_repository_that_is_restored_from(
    world: World, backup: Backup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backups, "archiving", lambda _: "ready")
    monkeypatch.setattr(backups, "back_up_to", lambda *_: "20260102-030405F")
    segment = "000000010000000000000007"
    answer(world, "--repo=1 .*repo-ls", 0, json.dumps({f"17-1/0000000100000000/{segment}-ab.zst": {}}))
    answer(world, "--repo=2 .*repo-ls", 0, "{}")
    answer(world, " psql ", 0, f"{segment}\n")
    op = world.operation("restore")
    assert restore._last_backup(op, backup, 1, alive=True)
    assert not restore._last_backup(op, backup, 2, alive=True)
    assert not [argv for argv in world.ran("docker", "exec") if argv[-1] == "check"]
