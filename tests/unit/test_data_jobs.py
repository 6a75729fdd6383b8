"""What the jobs do when a disk is full, a table is locked or an earlier one was killed."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from switchyard.data import backup as backups
from switchyard.data import copy, dump
from switchyard.data.settings import Backup
from switchyard.errors import SwitchyardError
from tests.unit.data_world import answer
from tests.unit.engine_world import World


def full(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk with one gigabyte left."""
    monkeypatch.setattr(copy.os, "statvfs", lambda _: SimpleNamespace(f_bavail=1 << 20, f_frsize=1024))


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


def test_files_are_restored_only_where_there_is_room(
    world: World, backup: Backup, monkeypatch: pytest.MonkeyPatch
) -> None:
    full(monkeypatch)
    answer(world, "^restic .* stats", 0, json.dumps({"total_size": 3 << 30}))
    with pytest.raises(SwitchyardError, match="what is restored needs 3328 MiB"):
        backups.restore_files(backup, "local", "latest")
    assert not [argv for argv in world.ran("restic") if "restore" in argv]
