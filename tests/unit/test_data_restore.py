"""A restore in place: what it does when a repository, another restore or a drill is in its way."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from switchyard.data import backup as backups
from switchyard.data import exchange, maintenance, restore, state
from switchyard.data.exchange import Marker
from switchyard.data.pgbackrest import Kept, Target
from switchyard.data.settings import Backup, Repository
from switchyard.data.targets import Choice
from switchyard.engine import lease, recover
from switchyard.engine.operation import Operation
from switchyard.engine.order import write_note
from switchyard.engine.site import Pointer
from switchyard.errors import SwitchyardError
from tests.unit.data_world import answer
from tests.unit.engine_world import OPERATION, World

A = "0001-1.0.0"
UNTIL = "2026-01-02T03:00:00+00:00"


def marked(backup: Backup, stage: str, **changes: Any) -> Marker:
    """A restore that lies there half done."""
    new, old = backup.home / "data.new-1", backup.home / "data.before-1"
    facts: dict[str, Any] = {"until": UNTIL, "target": "latest", "timeline": 1, "closed": True} | changes
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
    (news,) = [news for news in world.news() if news["kind"] == "backup.failed"]
    assert "no full backup was made after the restore" in news["title"] and "type=full" in news["title"]
    (news,) = [news for news in world.news() if news["kind"] == "backup.archive"]
    assert "Not every repository archives after the restore" in news["title"]
    assert "unable to connect to away" in " ".join(said)


@pytest.mark.parametrize("several", [False, True])
def test_a_restore_that_died_in_its_full_backup_is_told_until_there_is_a_good_one(
    world: World, backup: Backup, monkeypatch: pytest.MonkeyPatch, several: bool
) -> None:
    if several:
        one_of_several(world)
    op = world.begun("restore")
    op.ledger.append("restore", op=op.id, until=UNTIL, time=UNTIL)
    monkeypatch.setattr(lease, "_started", lambda _: "another process")
    assert recover.recover(world.paths, world.host, lambda _: None)
    assert [news["kind"] for news in world.news()] == ["backup.failed"]
    state.write(backup, "backup", ok=True, message="made")
    state.alert(backup, "failed", "")
    assert recover.recover(world.paths, world.host, lambda _: None)
    assert [news["kind"] for news in world.news()] == ["backup.failed", "backup.failed.over"]


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


# On hosts that release together


def one_of_several(world: World) -> None:
    """Have this host know what its coordinator said is live."""
    record = world.release(1, "blue")
    write_note(world.paths, Pointer(record.id, "blue"), world.host)
    world.point(Pointer(record.id, "blue"))


def test_recovery_of_one_host_of_several_settles_a_restore_that_died(world: World, backup: Backup) -> None:
    one_of_several(world)
    marker = marked(backup, "swapping")
    backup.live_data.rename(marker.old)
    Path(marker.new).mkdir()
    assert recover.recover(world.paths, world.host, lambda _: None)
    assert backup.live_data.is_dir() and not Path(marker.new).exists()
    assert not exchange.marker_path(backup).exists()
    assert [event["until"] for event in world.ledger().of("restore")] == [UNTIL]


def test_recovery_of_one_host_of_several_lets_applications_into_the_old_database_again(
    world: World, backup: Backup
) -> None:
    one_of_several(world)
    marker = marked(backup, "restoring")
    Path(marker.new).mkdir()
    assert recover.recover(world.paths, world.host, lambda _: None)
    assert [text for text in world.docker.inputs if "ALLOW_CONNECTIONS true" in text]
    assert world.news() == []
    assert backup.live_data.is_dir() and not Path(marker.new).exists()
    assert not exchange.marker_path(backup).exists()


@pytest.mark.parametrize(
    ("target", "says"), [("before-deploy=2", "the one before 2, or 2 itself"), ("latest", f"live at {UNTIL}")]
)
def test_one_host_of_several_does_not_go_back_alone_and_says_what_to_deploy(
    world: World, target: str, says: str
) -> None:
    migration = {"service": "api", "command": ["migrate"]}
    world.release(1, "blue", migration=migration)
    world.release(2, "green", previous=A, migration=migration)
    pointer = world.pointer()
    write_note(world.paths, pointer, world.host)
    told = maintenance.leave(world.operation("restore"), UNTIL, target)
    assert told.startswith("WARNING: 0002-2.0.0") and says in told
    assert world.pointer() == pointer


# One after another, and what others write


def chosen() -> Choice:
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    return Choice(Target("latest"), Kept("20260102-000000F", "full", moment, moment, 1, 1), [], None)


@pytest.fixture
def restorable(world: World, backup: Backup, monkeypatch: pytest.MonkeyPatch) -> World:
    """A live database with a backup that can be restored."""

    def last_backup(*_: object, **__: object) -> bool:
        world.docker.inputs.append("last backup")
        return True

    assert backup.live_data.is_dir()
    world.release(1, "blue")
    answer(world, " psql ", 0, "1\n")
    monkeypatch.setattr(restore, "choose", lambda *_: chosen())
    monkeypatch.setattr(restore, "_make", lambda copy, *_, **__: copy.folder.mkdir())
    monkeypatch.setattr(restore, "_until", lambda *_: UNTIL)
    monkeypatch.setattr(restore, "_last_backup", last_backup)
    monkeypatch.setattr(restore, "_full_backup", lambda *_: "")
    return world


def restore_live(world: World) -> Operation:
    op = world.operation("restore")
    restore.restore(op, restore.Wish("latest", "live", confirm=world.host.name))
    return op


def test_nobody_writes_any_more_when_the_last_backup_begins(restorable: World, backup: Backup) -> None:
    op = restore_live(restorable)
    assert op.result.code == 0 and "at most 0 s of writes were lost" in op.result.message
    assert [event["backup"] for event in restorable.ledger().of("restore")] == [chosen().chosen.label]
    inputs = restorable.docker.inputs
    (closed,) = [number for number, text in enumerate(inputs) if "ALLOW_CONNECTIONS false" in text]
    assert closed < inputs.index("last backup")
    assert [text for text in inputs[closed + 1 :] if "ALLOW_CONNECTIONS true" in text]
    assert [path.name for path in backup.home.iterdir()].count("data") == 1


def test_secrets_that_changed_after_the_moment_are_named_as_logins_are_older(restorable: World) -> None:
    ledger, before = restorable.ledger(), "2026-01-02T02:00:00+00:00"
    ledger.append("key", subject="DATABASE_URL", outcome="changed", time=before)
    ledger.append("key", subject="ci:main", outcome="changed")
    ledger.append("key", subject="NEW", outcome="added")
    assert restore._older_logins(ledger, UNTIL) == ""
    ledger.append("key", subject="DATABASE_URL", outcome="changed")
    ledger.append("key", subject="DATABASE_URL", outcome="changed")
    told = restore_live(restorable).result.message
    assert f" The database's logins are those of {UNTIL}, and DATABASE_URL changed since: " in told
    assert "provision.yml --tags postgres" in told


def test_a_restore_first_settles_the_one_that_died(restorable: World, backup: Backup) -> None:
    marker = marked(backup, "swapping")
    backup.live_data.rename(marker.old)
    Path(marker.new).mkdir()
    assert restore_live(restorable).result.code == 0
    assert not Path(marker.new).exists()
    assert sorted(path.name for path in backup.home.iterdir()) == [
        "data",
        "data.before-1",
        "data.before-20260102T030405",
    ]


def test_a_database_that_does_not_come_up_is_replaced_and_its_page_taken_away(
    restorable: World, backup: Backup, monkeypatch: pytest.MonkeyPatch
) -> None:
    marked(backup, "restoring")
    op = restorable.operation("restore")

    def settle(*_: object) -> None:
        raise SwitchyardError("it does not answer")

    monkeypatch.setattr(exchange, "settle", settle)
    assert restore._settle_earlier(op, backup)
    backup.live_data.rmdir()
    with pytest.raises(SwitchyardError, match="it does not answer"):
        restore._settle_earlier(op, backup)
