"""Brings the database back: beside the live one for a look, or in its place.

In its place means: writers stop, a last backup is made, a copy is restored and recovers beside the live data, and only
when it takes writes are the two data directories exchanged. Killed before that moment, the old database goes on; killed
after it, the new one does. The old data stays until somebody removes it.
"""

import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from switchyard.data import backup as backups
from switchyard.data import database, exchange, maintenance, pgbackrest, settings, state, succession, targets
from switchyard.data.copy import Copy, scratch
from switchyard.data.settings import Backup
from switchyard.engine import docker
from switchyard.engine import maintenance as pages
from switchyard.engine.effects import run
from switchyard.engine.layout import AppPaths, HostConfig
from switchyard.engine.ledger import Ledger
from switchyard.engine.operation import Operation
from switchyard.errors import Exit, SwitchyardError

Say = backups.Say
_ARCHIVE_SECONDS = 180.0


@dataclass(frozen=True)
class Wish:
    """What somebody asks for."""

    to: str
    into: str
    repository: str = ""
    confirm: str = ""


def check_wish(wish: Wish, host: str) -> pgbackrest.Target:
    """Refuse what is incomplete, or would replace the live database without the host's name typed."""
    if not wish.to or wish.into not in ("scratch", "live"):
        raise SwitchyardError(
            'Say what to restore and where: -e to=latest | "TIME" | before-deploy=42 | backup=LABEL, and '
            "-e into=scratch (beside the live database) or -e into=live (in its place).",
            Exit.USAGE,
        )
    target = pgbackrest.parse_target(wish.to)
    if wish.into == "live" and wish.confirm != host:
        given = f"'{wish.confirm}' is another name" if wish.confirm else "nothing was confirmed"
        raise SwitchyardError(
            f"This would replace the live database on {host}, and {given}. If you mean it: -e confirm={host}",
            Exit.USAGE,
        )
    return target


def restore(op: Operation, wish: Wish) -> None:
    """Do what the wish says; the result tells what was lost at most, and what to do next."""
    target = check_wish(wish, op.host.name)
    backup = settings.load(op.paths.name)
    op.ledger = Ledger.load(op.paths)
    if wish.into == "scratch":
        with backups.alone(backup, wait=backups.SHORT_SECONDS):
            _into_scratch(op, backup, target, wish.repository)
        return
    try:
        with op.exclusively():
            op.begin(str(target))
            with backups.alone(backup, wait=backups.SHORT_SECONDS):
                _into_live(op, backup, target, wish.repository)
            op.end("restored")
    except SwitchyardError as error:
        op.give_up(error)
        if op.lease is not None and error.code is not Exit.INTERRUPTED:
            op.end("failed")


def choose(backup: Backup, target: pgbackrest.Target, repository: str, paths: AppPaths) -> targets.Choice:
    """Ask the repositories and choose; works also while there is no live database."""
    stanza = info(backup)
    return targets.decide(backup, stanza, target, repository, Ledger.load(paths).events)


def info(backup: Backup) -> dict[str, Any]:
    """What the repositories hold, as `pgbackrest.info` tells it; works also while there is no live database."""
    found = docker.inspect(backup.container)
    if found and found["State"]["Running"]:
        return pgbackrest.info(backup.container)
    return look(Copy(backup, f"{backup.name}-look", backup.folder / "look"))


def look(helper: Copy) -> dict[str, Any]:
    """Ask the repositories from a throw-away container."""
    run(["install", "-d", "-m", "0700", str(helper.folder)], step="restore.look_folder")
    words = ("--output=json", "--log-level-console=error", "info")
    done = run(helper.tool(*words), step="restore.look", timeout=300, check=False)
    if done.code != 0:
        raise SwitchyardError(f"The backups cannot be listed: {pgbackrest.explain(done)}.", Exit.PREFLIGHT)
    return pgbackrest.first_stanza(done.out)


def _make(copy: Copy, choice: targets.Choice, say: Say, *, to_be_live: bool = False) -> float:
    """Restore a copy and wait until it takes writes; returns seconds."""
    began = time.monotonic()
    say(f"restore: {choice.target} from {choice.chosen.label}, {choice.chosen.size >> 20} MiB")
    copy.restore(choice.chosen, choice.words, say)
    say(f"restore: files are there after {time.monotonic() - began:.0f} s, replaying WAL")
    copy.start(choice.chosen, to_be_live=to_be_live)
    copy.wait_ready(say)
    # Its moment may be one at which a restore had closed it.
    database.reopen(copy.name, copy.backup.database)
    seconds = time.monotonic() - began
    say(f"restore: the copy takes writes after {seconds:.0f} s")
    return seconds


def make(copy: Copy, choice: targets.Choice, say: Say) -> float:
    """Restore a copy that is looked at and thrown away; returns the seconds until it took writes."""
    return _make(copy, choice, say)


# Beside the live one


def _into_scratch(op: Operation, backup: Backup, target: pgbackrest.Target, repository: str) -> None:
    copy = scratch(backup)
    choice = choose(backup, target, repository, op.paths)
    try:
        seconds = _make(copy, choice, op.say)
    except SwitchyardError:
        copy.remove()
        raise
    db = backup.database
    op.say(f"look:   docker exec -it {copy.name} psql -U postgres -d {db}")
    op.say(
        f"copy a table back:   docker exec {copy.name} pg_dump -U postgres -d {db} --data-only -t TABLE | "
        f"docker exec -i {backup.container} psql -U postgres -d {db} -1 -v ON_ERROR_STOP=1"
    )
    op.say("that one copies rows into an empty table that is there; leave out --data-only for a table that is gone")
    op.result.changed = True
    op.result.message = (
        f"{copy.name} is the database as of {copy.last_commit() or choice.target}, ready after {seconds:.0f} s; the "
        f"live one is untouched. 'sudo switchyard scratch-remove {backup.name}' removes it."
    )


# In place of the live one


def _into_live(op: Operation, backup: Backup, target: pgbackrest.Target, repository: str) -> None:
    left_closed = _settle_earlier(op, backup)
    stamp = op.id.partition("-")[0]
    new, old = backup.home / f"data.new-{stamp}", backup.home / f"data.before-{stamp}"
    copy = Copy(backup, f"{backup.name}-restoring", new)
    with op.phase("preflight"):
        choice = choose(backup, target, repository, op.paths)
        copy.require_space(choice.chosen.size)
        alive = database.answers(backup.container)
        closed = left_closed or not pages.is_on(op.paths)
        timeline = _timeline(backup) if alive else 0
        exchange.mark(
            backup, exchange.Marker(op.id, "restoring", str(new), str(old), "", str(choice.target), timeline, closed)
        )
    with op.phase("stop"):
        op.say("restore: users get 503 from here on")
        maintenance.enter(op)
        if alive:
            # Also to applications on other hosts: what they write from here on would be lost unsaid.
            database.close(backup.container, backup.database)
        stopped = state.now()
    with op.phase("last backup"):
        saved = _last_backup(op, backup, backup.number(repository) if repository else 1, alive=alive)
        if choice.target.kind == "latest":
            choice = choose(backup, target, repository, op.paths)
    with op.phase("restore"):
        _make(copy, choice, op.say, to_be_live=True)
        until = _until(copy, choice)
        _require_same_database(backup, copy)
        copy.stop()
        copy.remove_container()
    with op.phase("swap"):
        facts = (str(new), str(old), until, str(choice.target), timeline, closed, choice.chosen.label)
        exchange.mark(backup, exchange.Marker(op.id, "swapping", *facts))
        _stop_live(backup)
        run(["mv", "-T", str(backup.live_data), str(old)], step="restore.swap_old")
        run(["mv", "-T", str(new), str(backup.live_data)], step="restore.swap_new")
        exchange.conclude(op.paths, backup, op.say)
        op.ledger = Ledger.load(op.paths)
    with op.phase("serve"):
        served = maintenance.leave(op, until, str(choice.target))
        problem = exchange.open_again(op.paths, backup, exchanged=True)
    with op.phase("full backup"):
        warning = (f" WARNING: {problem}" if problem else "") + _full_backup(op, backup)
    lost = 0 if saved and choice.target.kind == "latest" else _seconds_between(until, stopped)
    op.result.changed = True
    op.result.message = (
        f"The database is as of {until}; at most {lost} s of writes were lost. {served} The old data is kept in {old}: "
        f"when you do not need it, 'sudo switchyard restore-forget {backup.name}' removes it."
        f"{_older_logins(op.ledger, until)}{warning}"
    )


def _settle_earlier(op: Operation, backup: Backup) -> bool:
    """Put right what an earlier restore left that died; tells whether its maintenance page is left to take away."""
    if not exchange.marker_path(backup).is_file():
        return False
    closed = exchange.read(backup).closed
    try:
        settle(op.paths, op.host, op.say)
    except SwitchyardError as error:
        if not backup.live_data.exists():
            raise
        # Its database does not come up, and is what this restore replaces.
        op.say(f"restore: {error.message}")
        return closed
    op.ledger = Ledger.load(op.paths)
    return False


def settle(paths: AppPaths, host: HostConfig, say: Say) -> None:
    """Have one whole database, and the release that fits it, after a restore or a refresh that died. Safe to repeat.

    The caller holds the application's lock.
    """
    if restored := exchange.settle(paths, say):
        op = Operation.open(restored.op, "restore", "recover", paths, host)
        op.ledger = Ledger.load(paths)
        say(f"recover: {maintenance.leave(op, restored.until, restored.target)}")
        if problem := exchange.open_again(paths, settings.load(paths.name), exchanged=True):
            say(f"recover: {problem}")
    if backup := settings.find(paths.name):
        _tell_unfinished(paths, backup, restored)
    succession.settle(paths, say)


def _tell_unfinished(paths: AppPaths, backup: Backup, settled: exchange.Marker | None) -> None:
    """Alert when the last restore died before its full backup was made; the next good backup ends it."""
    ledger, done = Ledger.load(paths), state.read(backup, "backup")
    last = next(reversed(list(ledger.of("restore"))), None)
    if last is None or (done and done.succeeded_at > str(last["time"])):
        return
    if settled or any(start["op"] == last["op"] for start in ledger.unfinished()):
        told = "no full backup was made after the restore, which died: run backup.yml -e type=full."
        state.alert(backup, "failed", told)


def _timeline(backup: Backup) -> int:
    statement = "SELECT timeline_id FROM pg_control_checkpoint()"
    return int(database.one(backup.container, statement, step="restore.timeline"))


def _last_backup(op: Operation, backup: Backup, number: int, *, alive: bool) -> bool:
    """Back up what is there now; tells whether repository `number`, which is restored from, has all of it.

    A dead database is kept as it lies instead. No other repository is asked: it may be away.
    """
    if not alive or backups.archiving(backup) != "ready":
        op.say("restore: no last backup: the database is down or does not archive; its data is kept as it is")
        return False
    try:
        backups.back_up_to(backup, 1, backup.repositories[0], "incr", op.say)
        switch = "SELECT pg_walfile_name(pg_switch_wal())"
        _wait_archived(backup, number, database.one(backup.container, switch, step="restore.switch_wal"))
    except SwitchyardError as error:
        op.say(f"restore: no last backup ({error.message}); the old data is kept as it is")
        return False
    return True


def _wait_archived(backup: Backup, number: int, segment: str) -> None:
    deadline = time.monotonic() + _ARCHIVE_SECONDS
    while not any(f"/{segment}-" in path for path in pgbackrest.wal_files(backup.container, number)):
        if time.monotonic() > deadline:
            raise SwitchyardError(f"{segment} did not reach {backup.repositories[number - 1].name}")
        time.sleep(1)


def _until(copy: Copy, choice: targets.Choice) -> str:
    """The moment that the copy stands for: what was asked for, else the last transaction that it has."""
    if choice.target.kind in ("time", "point") and choice.moment:
        return choice.moment.isoformat(timespec="milliseconds")
    last = copy.last_commit()
    return last or (choice.moment or choice.chosen.ended).isoformat(timespec="seconds")


def _seconds_between(until: str, stopped: datetime) -> int:
    return max(0, round((stopped - datetime.fromisoformat(until)) / timedelta(seconds=1)))


def _require_same_database(backup: Backup, copy: Copy) -> None:
    name = database.quoted(backup.database)
    statement = f"SELECT count(*) FROM pg_database WHERE datname = {name}"  # noqa: S608 - through quoted()
    if database.one(copy.name, statement, step="restore.look_inside") != "1":
        raise SwitchyardError(
            f"The backup has no database '{backup.database}': it is another application's. Nothing was exchanged."
        )


def _older_logins(ledger: Ledger, until: str) -> str:
    """What to do when a secret changed since: passwords came back with the data, and one of them may be refused now."""
    moment = datetime.fromisoformat(until)
    changed = {
        str(event["subject"])
        for event in ledger.of("key")
        if event.get("outcome") == "changed" and datetime.fromisoformat(str(event["time"])) > moment
    }
    # A CI system's key opens nothing in the database.
    names = ", ".join(sorted(name for name in changed if not name.startswith("ci:")))
    if not names:
        return ""
    return (
        f" The database's logins are those of {until}, and {names} changed since: if it holds a password of the "
        "database, run provision.yml --tags postgres."
    )


def _stop_live(backup: Backup) -> None:
    if docker.inspect(backup.container):
        run(["docker", "stop", backup.container], step="restore.stop_live", timeout=600)


def _full_backup(op: Operation, backup: Backup) -> str:
    """A new timeline begins with a full backup; failing does not undo the restore, and is said and alerted."""
    problems = backups.back_up_to_each(backup, "full", op.say)[1]
    if not problems:
        return ""
    what = f"the full backup after the restore failed ({'; '.join(problems)})"
    state.alert(backup, "failed", f"{what[0].upper()}{what[1:]}.")
    return f" WARNING: {what}: run backup.yml -e type=full."


def forget(backup: Backup) -> list[str]:
    """Remove what restores in place kept; the caller holds the lock. One that died may still need it."""
    old = sorted(str(path) for path in backup.home.glob("data.before-*"))
    if not old or exchange.marker_path(backup).is_file():
        return []
    run(["rm", "-rf", "--one-file-system", "--", *old], step="restore.forget", timeout=1800)
    return old
