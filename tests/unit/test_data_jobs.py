"""What the jobs do when a disk is full, a table is locked or an earlier one was killed."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from switchyard.data import applied, copy, database, drill, dump, operations, pgbackrest, point, restore, state, targets
from switchyard.data import backup as backups
from switchyard.data.settings import Backup
from switchyard.engine import effects, layout
from switchyard.errors import SwitchyardError
from tests.unit.data_world import answer
from tests.unit.engine_world import World


def full(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk with one gigabyte left."""
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=1 << 20, f_frsize=1024))


def test_a_dump_that_would_fill_the_disk_is_refused_before_it_begins(
    world: World, backup: Backup, monkeypatch: pytest.MonkeyPatch
) -> None:
    full(monkeypatch)
    answer(world, " psql ", 0, f"{5 << 30}\n")
    with pytest.raises(SwitchyardError, match="has 1024 MiB free, a dump needs 5376 MiB"):
        dump.dump(backup, pytest.fail)
    assert not [argv for argv in world.ran("docker", "exec") if "pg_dump" in argv]


def test_a_dump_that_fails_leaves_nothing_of_itself(
    world: World, backup: Backup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backups, "take_inventory", lambda _: None)
    backup.dumps.mkdir(parents=True)
    (backup.dumps / "shop.dump").write_text("the last good one")
    (backup.dumps / "shop.dump.new").write_text("half of one that was killed")
    answer(world, " psql ", 0, "1000\n")
    answer(world, " pg_dump ", 1, err="could not write to output file")
    with pytest.raises(SwitchyardError, match="could not write"):
        dump.dump(backup, lambda _: None)
    assert [path.name for path in backup.dumps.iterdir()] == ["shop.dump"]


def test_unfinished_dumps_are_not_uploaded_and_files_of_such_names_are(world: World, backup: Backup) -> None:
    answer(world, "^restic", 0)
    backups._restic_once(backup, backup.repositories[0], ["/uploads"])
    (argv,) = [argv for argv in world.ran("restic") if "backup" in argv]
    assert f"--exclude={backup.dumps}/*.new" in argv
    assert "--exclude=*.new" not in argv


def test_a_lock_that_a_killed_run_left_is_removed_and_nothing_is_made_anew(world: World, backup: Backup) -> None:
    answer(world, "^restic", 0)
    answer(world, "^restic (?!.*--no-lock).* cat ", 11, err="unable to create lock in backend: repository is locked")
    answer(world, "^restic .* init", 1, err="Fatal: config file already exists")
    backups._restic_once(backup, backup.repositories[0], ["/uploads"])
    words = [word for argv in world.ran("restic") for word in argv if word in ("init", "unlock", "backup")]
    assert words == ["unlock", "backup"]


def test_files_are_restored_beside_a_lock(world: World, backup: Backup) -> None:
    answer(world, "^restic", 0, json.dumps({"total_size": 1}))
    answer(world, "^restic (?!.*--no-lock)", 11, err="unable to create lock in backend: repository is locked")
    assert backups.restore_files(backup, "local", "latest") == backup.folder / "files"


def test_files_are_restored_only_where_there_is_room(
    world: World, backup: Backup, monkeypatch: pytest.MonkeyPatch
) -> None:
    full(monkeypatch)
    answer(world, "^restic .* stats", 0, json.dumps({"total_size": 3 << 30}))
    with pytest.raises(SwitchyardError, match="what is restored needs 3328 MiB"):
        backups.restore_files(backup, "local", "latest")
    assert not [argv for argv in world.ran("restic") if "restore" in argv]


# One at a time


def test_who_is_in_the_way_is_named_with_the_way_to_end_it(
    backup: Backup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proc, unit = tmp_path / "proc", "switchyard-backup-shop-test-drill.service"
    (proc / "42").mkdir(parents=True)
    (proc / "42" / "cgroup").write_text(f"0::/system.slice/{unit}\n")
    monkeypatch.setattr(backups, "_PROC", proc)
    with backups.alone(backup):
        inode = backup.lock.stat().st_ino
        (proc / "locks").write_text(
            f"1: FLOCK  ADVISORY  WRITE 7 00:1a:{inode + 1} 0 EOF\n2: FLOCK  ADVISORY  WRITE 42 00:1a:{inode} 0 EOF\n"
        )
        with pytest.raises(SwitchyardError, match=f"'sudo systemctl stop {unit}'"), backups.alone(backup, wait=0):
            pass
        (proc / "locks").unlink()
        with pytest.raises(SwitchyardError, match="is at work; wait"), backups.alone(backup, wait=0):
            pass


def test_what_a_killed_drill_left_goes_when_the_next_job_begins_and_a_copy_for_a_look_stays(
    world: World, backup: Backup
) -> None:
    folders = [one.folder for one in (copy.drill_copy(backup), copy.dump_check(backup), copy.scratch(backup))]
    for folder in folders:
        folder.mkdir(parents=True)
    with backups.alone(backup):
        assert [folder.exists() for folder in folders] == [False, False, True]
    removed = [name for argv in world.ran("docker", "rm") for name in argv if name.startswith(str(backup.name))]
    assert f"{backup.name}-drill-copy" in removed
    assert f"{backup.name}-scratch" not in removed


def test_the_release_that_a_killed_drill_had_started_goes_with_it(world: World, backup: Backup) -> None:
    left = layout.RUNTIME / f"{backup.name}-drill.json"
    with backups.alone(backup):
        pass
    assert not world.ran("docker", "network", "rm")
    left.write_text("secrets")
    with backups.alone(backup):
        assert not left.exists()
    assert [argv[-1] for argv in world.ran("docker", "network", "rm")] == [f"{backup.name}-drill"]
    assert f"{backup.name}-drill-pooler" in [argv[-1] for argv in world.ran("docker", "rm")]


def test_a_copy_is_measured_against_the_disk_without_what_an_earlier_one_left(
    backup: Backup, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, now = copy.scratch(backup), datetime.now(UTC)
    left.folder.mkdir(parents=True)

    def require(place: Path, *_: object) -> None:
        assert not place.exists()
        raise SwitchyardError("no room")

    monkeypatch.setattr(copy, "require_space", require)
    with pytest.raises(SwitchyardError, match="no room"):
        left.restore(pgbackrest.Kept("F", "full", now, now, size=1, repository=1), [], pytest.fail)


def test_the_old_data_of_a_restore_that_died_is_not_forgotten(backup: Backup) -> None:
    old = backup.home / "data.before-1"
    old.mkdir()
    (backup.home / "restore.json").write_text("{}")
    assert restore.forget(backup) == []
    (backup.home / "restore.json").unlink()
    assert restore.forget(backup) == [str(old)]


# Backups


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Archiving works, and so does everything that a backup does."""
    monkeypatch.setattr(backups, "require_archiving", lambda _: None)
    monkeypatch.setattr(backups, "back_up_to", lambda *_: "20260102-030405F")
    for name in ("_back_up_files", "check"):
        monkeypatch.setattr(backups, name, lambda *_: [])


@pytest.mark.usefixtures("quiet")
def test_a_locked_table_does_not_keep_a_backup_from_being_made(world: World, backup: Backup) -> None:
    answer(world, " psql ", 3, err="ERROR:  canceling statement due to lock timeout")
    said: list[str] = []
    with pytest.raises(SwitchyardError, match=r"is not whole: rows were not counted: .*lock timeout"):
        backups.back_up(backup, "incr", said.append)
    (statement,) = [text for text in world.docker.inputs if "query_to_xml" in text]
    assert "SET lock_timeout = '60s'" in statement


@pytest.mark.usefixtures("quiet")
def test_a_backup_by_hand_closes_the_alert_of_the_one_that_failed(
    world: World, backup: Backup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backups, "take_inventory", lambda _: None)
    state.alert(backup, "failed", "away: no answer")
    op = world.operation("backup")
    operations.perform(op, {"type": "full"})
    assert op.result.code == 0 and op.result.message.startswith("20260102-030405F of shop-test is in local, away")
    assert [news["kind"] for news in world.news()] == ["backup.failed", "backup.failed.over"]


# Uploaded files


def test_uploaded_files_are_taken_from_where_the_application_has_them(world: World, backup: Backup) -> None:
    local, shared = layout.STATE / "shop-test" / "volumes" / "uploads", world.root / "mnt" / "media"
    backup = replace(backup, volumes=[str(local), str(shared)])
    answer(world, "^restic", 0)
    shared.mkdir(parents=True)
    # Before the application's own role has run, its directories are nobody's fault.
    assert backups._back_up_files(backup, lambda _: None) == []
    local.mkdir(parents=True)
    assert backups._back_up_files(backup, lambda _: None) == []
    (*_, first, second) = [argv for argv in world.ran("restic") if "backup" in argv]
    assert first[-2:] == [str(local), str(shared)] == second[-2:]
    assert world.news() == []


def test_uploaded_files_that_are_out_of_reach_are_named_and_alerted(world: World, backup: Backup) -> None:
    local, shared = str(layout.STATE / "shop-test" / "volumes" / "uploads"), "/mnt/nothing/here"
    answer(world, "^restic", 0)
    apart = replace(world.host, groups=["db"])
    effects.replace_file(layout.HOST_FILE, json.dumps(vars(apart)), step="test.host")
    assert backups._back_up_files(replace(backup, volumes=[local, shared]), lambda _: None) == []
    (news,) = world.news()
    assert news["kind"] == "backup.files" and news["severity"] == "warning"
    assert f"are in no backup: {local}, {shared} is no directory on vm1" in news["title"]


# Drills


def report(plan: str, **more: Any) -> drill.Report:
    """A drill that went well."""
    checks = [drill.Check("every row can be read", ok=True)]
    return drill.Report("id", "shop-test", "now", plan, backup="F", repository="local", checks=checks, **more)


def test_a_drill_publishes_no_loss_that_it_did_not_measure(world: World, backup: Backup) -> None:
    world.release(1, "blue")
    drill._publish(backup, report("time"), 1)
    drill._publish(backup, report("latest", rpo_seconds=31.0, application="0001-1.0.0"), 2)
    past, newest = world.ledger().of("drill")
    assert (past["rpo_seconds"], past["application"]) == (None, "")
    assert (newest["rpo_seconds"], newest["application"]) == (31.0, "0001-1.0.0")
    assert "RPO" not in report("time").sentence
    assert report("time").sentence.endswith("; the application was not started here.")
    assert report("latest", rpo_seconds=31.0, application="x").sentence.endswith("RTO 0 s, RPO 31 s.")


@pytest.mark.parametrize(("state_", "hours", "started"), [("clean", 1, 0), ("unchanged", 1, 1), ("clean", -1, 1)])
def test_a_copy_from_before_the_last_migration_is_not_what_the_live_release_runs_on(
    world: World, backup: Backup, monkeypatch: pytest.MonkeyPatch, state_: str, hours: int, started: int
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(applied, "live_trial", lambda *_: asked.append(_))
    monkeypatch.setattr(drill, "load_host", lambda: world.host)
    world.ledger().append("migration", op="x", release="0001-1.0.0", state=state_, digest="d")
    moment = datetime.now(UTC) - timedelta(hours=hours)
    found = report("oldest")
    drill._application(backup, copy.drill_copy(backup), found, moment, lambda _: None)
    assert len(asked) == started
    assert found.sentence.endswith("not started here." if started else "on data from before its last migration.")


def test_a_copy_in_which_nothing_tells_the_loss_has_not_passed(backup: Backup, monkeypatch: pytest.MonkeyPatch) -> None:
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    kept = pgbackrest.Kept("F", "full", moment, moment, 1, 1)
    monkeypatch.setattr(drill, "_choose", lambda *_: targets.Choice(pgbackrest.Target("latest"), kept, [], None))
    monkeypatch.setattr(restore, "make", lambda *_: 1.0)
    monkeypatch.setattr(drill, "_newest", lambda _: None)
    found = report("latest")
    drill._restore(backup, copy.drill_copy(backup), found, moment, lambda _: None)
    assert not found.ok and "no heartbeat" in found.sentence


@pytest.mark.parametrize(
    ("live", "problem"), [("public.kept\n", ""), ("public.kept\npublic.gone\n", "table public.gone is missing")]
)
def test_a_table_that_was_dropped_since_the_count_is_not_taken_for_lost(
    backup: Backup, monkeypatch: pytest.MonkeyPatch, live: str, problem: str
) -> None:
    answers = {
        "drill.inventory": "public.kept 9\npublic.gone 9",
        "drill.count": "public.kept t 9",
        "drill.tables": live,
    }

    def sql(_: str, __: str, *, step: str, **___: object) -> list[list[str]]:
        return [line.split() for line in answers[step].splitlines()]

    monkeypatch.setattr(database, "sql", sql)
    check = drill.compare_rows(backup, copy.drill_copy(backup))
    assert (check.ok, check.detail) == (not problem, problem or "9 in 1 tables")


# Before a migration


@pytest.mark.usefixtures("backup")
@pytest.mark.parametrize(
    ("holder", "largest", "says"),
    [("", 1 << 20, []), ("42 of reports", 1 << 20, ["process 42 of reports"]), ("", 1 << 30, ["takes up to 2048 MiB"])],
)
def test_what_a_migration_would_fail_on_is_said_before_it(
    world: World, monkeypatch: pytest.MonkeyPatch, holder: str, largest: int, says: list[str]
) -> None:
    full(monkeypatch)
    monkeypatch.setattr(backups, "require_archiving", lambda _: None)
    answer(world, " psql .*--dbname=shop", 0, f"{holder}\t{largest}\n")
    answer(world, " psql .*--dbname=postgres", 0, "0/1\t1\t0/2\n")
    op = world.begun()
    said: list[str] = []
    monkeypatch.setattr(op, "say", said.append)
    point.make(op, "0002-2.0.0", contracts=False)
    warnings = [line for line in said if "WARNING" in line]
    assert len(warnings) == len(says) and all(words in line for words, line in zip(says, warnings, strict=True))
    assert [event["name"] for event in world.ledger().of("restore-point")] == ["before-deploy-2"]
