"""Backs up: the database with pgBackRest, uploaded files and dumps with restic; then verifies what was written."""

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from switchyard.data import database, pgbackrest, repositories, state, verify
from switchyard.data.copy import require_space, sweep
from switchyard.data.settings import OPS_DATABASE, Backup, Repository
from switchyard.engine import docker
from switchyard.engine.effects import exclusive, replace_file, run
from switchyard.engine.layout import STATE, AppPaths, load_host
from switchyard.errors import Exit, SwitchyardError

Say = Callable[[str], None]
HOURS = pgbackrest.HOURS
_PROC = Path("/proc")
_LOCK_SECONDS = 3 * HOURS
SHORT_SECONDS = 60.0
"""How long what a person waits for waits for the lock."""
_INVENTORY_SECONDS = 1800.0
_INVENTORY_LOCK_SECONDS = 60
_STANDBY_SECONDS = 5.0


@contextlib.contextmanager
def alone(backup: Backup, *, wait: float = _LOCK_SECONDS) -> Iterator[None]:
    """Hold the lock that keeps backups, restores, dumps and drills apart; what killed ones left is removed."""
    with exclusive(backup.lock, wait=wait, busy=lambda: _busy(backup)):
        sweep(backup)
        yield


def _busy(backup: Backup) -> str:
    unit = _holder(backup.lock)
    known = f": {unit}. A drill or a dump may be ended at any time ('sudo systemctl stop {unit}')" if unit else ""
    return f"Another backup, restore or drill of {backup.name} is at work{known}; wait for anything else."


def _holder(lock: Path) -> str:
    """The unit of the process that holds a lock; '' when that cannot be told."""
    with contextlib.suppress(OSError, StopIteration):
        inode, held = lock.stat().st_ino, map(str.split, (_PROC / "locks").read_text().splitlines())
        pid = next(words[4] for words in held if words[1] == "FLOCK" and words[5].endswith(f":{inode}"))
        place = (_PROC / pid / "cgroup").read_text().strip()
        return next(part for part in reversed(place.split("/")) if part.endswith(".service"))
    return ""


def back_up(backup: Backup, kind: str, say: Say) -> str:
    """Back up to every repository, database and files, and verify; returns one sentence.

    `kind` is `incr` or `full`. A repository that cannot be reached does not keep the others from their backup.
    Raises `SwitchyardError` naming every problem; what could be backed up then is.
    """
    began = time.monotonic()
    problems: list[str] = []
    with alone(backup):
        require_archiving(backup)
        say("backup: counting rows")
        try:
            take_inventory(backup)
        except SwitchyardError as error:
            # A table that somebody has locked is no reason to have no backup.
            problems.append(f"rows were not counted: {error.message.rstrip('.')}")
            say(f"backup: {problems[-1]}")
        labels, failed = back_up_to_each(backup, kind, say)
        problems += failed
        problems += _back_up_files(backup, say)
        problems += check(backup, say)
    if problems:
        raise SwitchyardError(f"The backup of {backup.name} is not whole: {'; '.join(problems)}.")
    places = ", ".join(repository.name for repository in backup.repositories)
    missing = out_of_reach(backup)
    warning = f" WARNING: {missing}" if missing else ""
    return f"{labels[0]} of {backup.name} is in {places}, verified, after {time.monotonic() - began:.0f} s.{warning}"


def require_archiving(backup: Backup) -> None:
    """Raise `SwitchyardError` unless the live database archives to our repositories."""
    status = archiving(backup)
    if status != "ready":
        raise SwitchyardError(reason(backup, status), Exit.PREFLIGHT)


def reason(backup: Backup, status: str) -> str:
    """Say why archiving is not `ready`, and what to do."""
    return _REASONS[status].format(name=backup.name)


_REASONS = {
    "down": "The database of {name} does not answer: 'docker logs {name}-postgres' says why.",
    "waiting": (
        "Postgres of {name} still runs without archiving: provision.yml -e restart=postgres restarts it with it."
    ),
    "unprepared": "The repositories of {name} are not set up: run provision.yml.",
    "foreign": (
        "A repository of {name} holds the backups of another database, so nothing is archived there. If this host "
        "replaces a lost one, restore it: restore.yml -e to=latest -e into=live -e repository=NAME -e confirm=HOST. "
        "If it does not, give backup_repositories another path."
    ),
}


def archiving(backup: Backup) -> str:
    """Tell where archiving stands: `ready`, `waiting` (for a restart), `unprepared` or `down`."""
    try:
        mode = database.one(backup.container, "SHOW archive_mode", step="backup.archive_mode", timeout=20)
    except SwitchyardError:
        return "down"
    if mode != "on":
        return "waiting"
    return "ready" if (backup.spool / "stanza").exists() else "unprepared"


def prepare(backup: Backup, say: Say, *, check_only: bool = False) -> dict[str, object]:
    """Set the repositories up, let archiving begin, make the first full backup. Safe to repeat."""
    status = archiving(backup)
    if status == "ready" and not _without_backup(backup):
        return {"changed": False, "state": "ready", "message": f"{backup.name} archives and has a full backup."}
    if check_only:
        return {"changed": status != "waiting", "state": status, "message": "the first backup would be made"}
    if status in ("waiting", "down"):
        return {"changed": False, "state": status, "message": reason(backup, status)}
    with alone(backup):
        stanza = pgbackrest.info(backup.container)
        names = [repository.name for repository in backup.repositories]
        for name, problem in pgbackrest.repository_problems(stanza, names, ignore=pgbackrest.NEW).items():
            raise SwitchyardError(f"The backup repository {name} cannot be used: {problem}.", Exit.PREFLIGHT)
        if foreign(backup, stanza):
            return {"changed": False, "state": "foreign", "message": reason(backup, "foreign")}
        begin_archiving(backup)
    return {"changed": True, "state": "ready", "message": back_up(backup, "full", say)}


def foreign(backup: Backup, stanza: dict[str, Any]) -> bool:
    """Tell whether a repository holds backups of another cluster than the one that runs."""
    identity = system_identifier(backup)
    known = {str(entry["system-id"]) for entry in stanza.get("db", [])}
    return bool(known) and identity not in known


def begin_archiving(backup: Backup) -> None:
    """Create the stanza where it is missing, then let archiving begin."""
    database.prepare(backup.container)
    pgbackrest.command(backup.container, "--no-online", "stanza-create", step="backup.stanza", timeout=300)
    owner = (backup.uid, backup.uid)
    # It names the cluster, so that a data directory that was exchanged by hand is noticed.
    replace_file(backup.spool / "stanza", system_identifier(backup) + "\n", step="backup.begin", owner=owner)
    pgbackrest.command(backup.container, "check", step="backup.check", timeout=300)


def system_identifier(backup: Backup) -> str:
    """The cluster's identity, which it keeps through every restore."""
    statement = "SELECT system_identifier FROM pg_control_system()"
    return database.one(backup.container, statement, step="backup.identity")


def _without_backup(backup: Backup) -> list[str]:
    """Repositories that answer and hold no backup, such as one that was added later."""
    stanza = pgbackrest.info(backup.container)
    return pgbackrest.empty_repositories(stanza, [repository.name for repository in backup.repositories])


def take_inventory(backup: Backup) -> None:
    """Count the rows of every table, for drills to compare with."""
    counted = database.sql(
        backup.container,
        f"SET lock_timeout = '{_INVENTORY_LOCK_SECONDS}s';\n"
        f"SET statement_timeout = '{_INVENTORY_SECONDS - 60:.0f}s';\n{database.COUNT};",
        step="backup.count",
        database=backup.database,
        timeout=_INVENTORY_SECONDS,
    )
    values = ",\n".join(
        f"({database.quoted(name)}, {int(rows)}, {'true' if small == 't' else 'false'}, clock_timestamp())"
        for name, small, rows in counted
    )
    database.prepare(backup.container)
    insert = f"INSERT INTO inventory (relation, rows, exact, taken_at) VALUES {values};"  # noqa: S608 - names through quoted(), numbers through int()
    statement = f"BEGIN; TRUNCATE inventory; {insert if values else ''} COMMIT;"  # noqa: S608 - as above
    database.sql(backup.container, statement, step="backup.inventory", database=OPS_DATABASE)


def back_up_to_each(backup: Backup, kind: str, say: Say) -> tuple[list[str], list[str]]:
    """Back the database up to every repository, each apart; returns labels, and what went wrong with the others."""
    labels, problems = [], []
    for number, repository in enumerate(backup.repositories, start=1):
        try:
            labels.append(back_up_to(backup, number, repository, kind, say))
        except SwitchyardError as error:
            problems.append(f"{repository.name}: {error.message.rstrip('.')}")
            say(f"backup: {problems[-1]}")
    return labels, problems


def back_up_to(backup: Backup, number: int, repository: Repository, kind: str, say: Say) -> str:
    """Back the database up to one repository and return the backup's label; the caller holds the lock."""
    say(f"backup: {kind} to {repository.name}")
    away = _standby_away(backup)
    reading = [] if away else repositories.standby_words(backup)
    words = (f"--repo={number}", f"--type={kind}", "--log-level-console=warn", *reading, "backup")
    began = time.monotonic()
    while True:
        done = run(pgbackrest.argv(backup.container, *words), step="backup.run", timeout=6 * HOURS, check=False)
        if done.code == 0:
            break
        # Another one's lock, such as that of a backup whose starter was killed and that is still at work.
        if done.code != pgbackrest.LOCKED or time.monotonic() - began > _LOCK_SECONDS:
            raise SwitchyardError(pgbackrest.explain(done))
        time.sleep(2)
    _tell_source(backup, away or pgbackrest.standby_problem(done.out + done.err), say)
    mine = [one for one in pgbackrest.kept(backup.container) if one.repository == number]
    if not mine:
        raise SwitchyardError("pgBackRest reports no error and lists no backup")
    newest = mine[-1]
    say(f"backup: {newest.label}, {newest.size >> 20} MiB of database, in {time.monotonic() - began:.0f} s")
    return newest.label


def _standby_away(backup: Backup) -> str:
    """Why the replica that is to be read cannot be reached; pgBackRest itself would try for minutes."""
    if not backup.standby:
        return ""
    try:
        socket.create_connection((backup.standby, repositories.STANDBY_PORT), timeout=_STANDBY_SECONDS).close()
    except OSError as error:
        return f"port {repositories.STANDBY_PORT} does not answer ({error.strerror or error})"
    return ""


def _tell_source(backup: Backup, why: str, say: Say) -> None:
    """Say which host was read, and have people told while it is not the replica that the inventory names."""
    if backup.standby:
        say(f"backup: read from the primary: {why}" if why else f"backup: read from the replica at {backup.standby}")
    told = f"backups are read from the primary, since the replica at {backup.standby} cannot be: {why}."
    state.alert(backup, "standby", told if backup.standby and why else "", severity="warning")


def check(backup: Backup, say: Say) -> list[str]:
    """Verify every repository, and return what is wrong, named."""
    problems = []
    for number, repository in enumerate(backup.repositories, start=1):
        say(f"backup: verifying {repository.name}")
        words = (f"--repo={number}", "--output=text", "--log-level-console=error", "--verbose", "verify")
        done = run(pgbackrest.argv(backup.container, *words), step="backup.verify", timeout=6 * HOURS, check=False)
        verdict = verify.judge(done.out + done.err, done.code)
        found = verdict.problems
        if verdict.ok:
            found = _missing_wal(backup, number, repository, say)
        problems += [f"{repository.name}: {problem}" for problem in found]
    for problem in problems:
        say(f"backup: {problem}")
    return problems


def _missing_wal(backup: Backup, number: int, repository: Repository, say: Say) -> list[str]:
    """Name the WAL that is missing after the newest full backup.

    What is missing before it makes some moments of the past unreachable for good. That is told as a warning, until the
    backups of that time have expired: a job that fails every night for a month is not read any more.
    """
    mine = [one for one in pgbackrest.kept(backup.container) if one.repository == number]
    files = pgbackrest.wal_files(backup.container, number)
    found = verify.gaps(files, mine[0].first_wal if mine else "", _segment_bytes(backup))
    full = [one.first_wal for one in mine if one.type == "full"]
    past = [gap for gap in found if full and gap.is_before(full[-1])]
    for gap in past:
        say(f"backup: {repository.name}: {gap}, up to the full backup that followed")
    told = f"{repository.name}: {'; '.join(map(str, past))}, up to the full backup that followed." if past else ""
    state.alert(backup, f"gap.{repository.name}", told, severity="warning")
    return [f"{gap}: run a full backup now (backup.yml -e type=full)" for gap in found if gap not in past]


def _segment_bytes(backup: Backup) -> int:
    statement = "SELECT setting FROM pg_settings WHERE name = 'wal_segment_size'"
    return int(database.one(backup.container, statement, step="backup.segment_size"))


# Uploaded files and dumps


def out_of_reach(backup: Backup) -> str:
    """Which uploaded files are in no backup, and what to do; '' when all of them are."""
    folder, host = STATE / str(backup.name) / "volumes", load_host()
    # The role that makes them comes after the first backup.
    awaited = "app" in host.groups and not folder.is_dir()
    missing = [path for path in map(Path, backup.volumes) if not path.is_dir()]
    named = ", ".join(str(path) for path in missing if not (awaited and path.is_relative_to(folder)))
    if not named:
        return ""
    return (
        f"uploaded files are in no backup: {named} is no directory on {host.name}. Have it mounted there, too, from a "
        "storage that is named in app_shared_volumes."
    )


def _back_up_files(backup: Backup, say: Say) -> list[str]:
    paths = [str(path) for path in (*map(Path, backup.volumes), backup.dumps) if path.is_dir()]
    missing = out_of_reach(backup)
    state.alert(backup, "files", missing, severity="warning")
    if missing:
        say(f"backup: {missing}")
    problems = []
    for repository in backup.repositories:
        say(f"backup: files to {repository.name}")
        try:
            _restic_once(backup, repository, [*paths, *_history(backup)])
        except SwitchyardError as error:
            problems.append(f"files to {repository.name}: {error.message.rstrip('.')}")
            say(f"backup: {problems[-1]}")
    return problems


def _restic_once(backup: Backup, repository: Repository, paths: list[str]) -> None:
    argv, environment = repositories.restic(backup, repository)

    def restic(*words: str, step: str, timeout: float, check: bool = True) -> int:
        return run([*argv, *words], step=step, environment=environment, timeout=timeout, check=check).code

    # Locks of a killed run are stale and go; a repository that is not there yet is made. One of those locks must not
    # make it look as if it were not there.
    if restic("cat", "config", "--no-lock", step="files.look", timeout=120, check=False) != 0:
        restic("init", step="files.init", timeout=120)
    restic("unlock", step="files.unlock", timeout=120)
    # What a dump leaves that was killed is no dump.
    unfinished = f"--exclude={backup.dumps}/*.new"
    restic("backup", "--host", str(backup.name), unfinished, *paths, step="files.backup", timeout=6 * HOURS)
    keep = f"--keep-within={backup.retention_days}d"
    # By host alone: what there is to back up changes, and the snapshots of before shall expire all the same.
    restic("forget", "--prune", keep, "--keep-last=2", "--group-by=host", step="files.forget", timeout=6 * HOURS)
    restic("check", "--read-data-subset=5%", step="files.check", timeout=6 * HOURS)


def _history(backup: Backup) -> list[str]:
    """The ledger and the releases' records of this host; no record holds a secret."""
    paths = AppPaths(backup.name)
    return [str(path) for path in (paths.ledger, paths.releases) if path.exists()]


def restore_files(backup: Backup, name: str, snapshot: str) -> Path:
    """Restore files and dumps into a directory of their own, beside the live ones; returns it."""
    argv, environment = repositories.restic(backup, backup.repositories[backup.number(name) - 1])
    place = backup.folder / "files"
    with alone(backup, wait=SHORT_SECONDS):
        # A lock that a killed run left keeps nobody from the files: nothing else is at work on them now.
        asking = ("stats", snapshot, "--mode", "restore-size", "--json", "--no-lock")
        told = run([*argv, *asking], step="files.size", environment=environment, timeout=1800)
        require_space(place, int(json.loads(told.out)["total_size"]), "what is restored")
        words = ("restore", snapshot, "--target", str(place), "--no-lock")
        run([*argv, *words], step="files.restore", environment=environment, timeout=6 * HOURS)
    return place


def job(backup: Backup, kind: str, say: Say) -> str:
    """A backup: done, noted, and alerted when it fails, also by hand. Returns one sentence; raises what went wrong."""
    try:
        message = back_up(backup, kind, say)
    except SwitchyardError as error:
        state.write(backup, "backup", ok=False, message=error.message, kind=kind)
        state.alert(backup, "failed", error.message)
        raise
    state.write(backup, "backup", ok=True, message=message, kind=kind)
    state.alert(backup, "failed", "")
    return message


def listing(backup: Backup) -> list[dict[str, object]]:
    """Every backup that can be restored, oldest first."""
    return [
        {
            "label": one.label,
            "type": one.type,
            "ended": one.ended.isoformat(),
            "bytes": one.size,
            "repository": backup.repositories[one.repository - 1].name,
        }
        for one in pgbackrest.kept(helper(backup))
    ]


def helper(backup: Backup) -> str:
    """The container in which pgBackRest is asked: the live one when it runs."""
    found = docker.inspect(backup.container)
    if found and found["State"]["Running"]:
        return backup.container
    raise SwitchyardError(f"{backup.container} does not run: 'docker start {backup.container}'.", Exit.PREFLIGHT)
