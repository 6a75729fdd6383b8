"""Looks whether WAL reaches every repository, every five minutes; and tells what should have run and has not.

An archive that falls behind loses nothing yet: WAL waits beside the data until the disk is full. So people hear of it
early, with the time that is left.
"""

import os
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from switchyard.data import backup as backups
from switchyard.data import database, pgbackrest, state
from switchyard.data.settings import Backup
from switchyard.engine.announce import Severity
from switchyard.errors import SwitchyardError

DISK_WARNING, DISK_CRITICAL = 70, 85
"""Percent of a file system in use."""
JOBS = ("backup", "dump", "drill")
"""Those whose absence is alerted."""

_STATE = """
SELECT (SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name ~ '\\.ready$'),
  coalesce((SELECT extract(epoch FROM now() - min(modification))::bigint FROM pg_ls_archive_statusdir()
    WHERE name ~ '\\.ready$'), 0),
  (SELECT coalesce(sum(size), 0)::bigint FROM pg_ls_waldir()),
  failed_count, coalesce(last_archived_wal, ''),
  coalesce(extract(epoch FROM now() - last_archived_time)::bigint, -1),
  (last_failed_time IS NOT NULL AND (last_archived_time IS NULL OR last_failed_time > last_archived_time))
FROM pg_stat_archiver
"""


@dataclass(frozen=True)
class Archive:
    """Where archiving stands."""

    waiting: int
    """Segments that are not archived yet."""
    oldest_seconds: int
    """How long the oldest of them has been waiting."""
    wal_bytes: int
    failed: int
    last_archived: str
    last_archived_seconds: int
    failing: bool
    """The last attempt failed."""
    repositories: dict[str, str] = field(default_factory=dict)
    """What is wrong with a repository, by name."""


def look(backup: Backup) -> Archive:
    """Ask the live database and every repository. Raises `SwitchyardError` when the database does not answer."""
    row = database.sql(backup.container, _STATE, step="archive.state")[0]
    names = [repository.name for repository in backup.repositories]
    try:
        problems = pgbackrest.repository_problems(pgbackrest.info(backup.container), names)
    except SwitchyardError as error:
        problems = {"backups": error.message}
    waiting, oldest, size, failed = (int(row[index]) for index in range(4))
    return Archive(waiting, oldest, size, failed, row[4], int(row[5]), row[6] == "t", problems)


def judge(archive: Archive, warning: int, critical: int) -> tuple[Severity, str]:
    """How bad it is, and one sentence; ('info', '') when WAL flows. `warning` and `critical` are seconds."""
    where = "; ".join(f"{name}: {problem}" for name, problem in archive.repositories.items())
    behind = archive.oldest_seconds if archive.waiting else 0
    if archive.waiting and behind >= warning:
        text = (
            f"WAL has not been archived for {behind // 60} min, {archive.waiting} segments wait; a loss of this host "
            f"now would lose that time{'. ' + where if where else ''}."
        )
        return ("critical" if behind >= critical else "warning"), text
    if archive.repositories:
        return "warning", f"A backup repository does not answer: {where}."
    if archive.failing:
        return "warning", f"The last attempt to archive WAL failed; {archive.waiting} segments wait."
    return "info", ""


def disk_problem(paths: list[Path]) -> tuple[Severity, str]:
    """The fullest of these file systems, when it is full enough to speak of."""
    worst, at = 0, Path("/")
    for path in paths:
        if not path.exists():
            continue
        status = os.statvfs(path)
        used = 100 - 100 * status.f_bavail // max(1, status.f_blocks)
        if used > worst:
            worst, at = used, path
    if worst < DISK_WARNING:
        return "info", ""
    text = f"The file system of {at} is {worst} % full; when WAL cannot be written, the database stops."
    return ("critical" if worst >= DISK_CRITICAL else "warning"), text


def watch(backup: Backup, say: backups.Say) -> None:
    """Look, note what was seen, and alert what is wrong. Raises `SwitchyardError` when any of it is critical."""
    problems: list[str] = []
    grave: list[str] = []

    def tell(kind: str, severity: Severity, problem: str) -> None:
        state.alert(backup, kind, problem, severity=severity)
        if problem:
            problems.append(problem)
            grave.extend([problem] if severity == "critical" else [])
            say(f"archive: {problem}")

    status = backups.archiving(backup)
    details: dict[str, object] = {"archiving": status}
    if status == "ready":
        seen = look(backup)
        details |= vars(seen)
        tell("archive", *judge(seen, backup.archive_warning_seconds, backup.archive_critical_seconds))
    else:
        tell("archive", "critical", f"Nothing is archived: {backups.reason(backup, status)}")
    tell("disk", *disk_problem([backup.live_data, backup.local]))
    state.write(backup, "archive", ok=not problems, message=" ".join(problems) or "WAL flows.", **details)
    if grave:
        raise SwitchyardError(" ".join(grave))


def overdue(backup: Backup, backup_hours: float) -> dict[str, str]:
    """For `backup`, `dump` and `drill`, a sentence when the last success is too long ago, or ''.

    The standing watch asks.
    """
    begun = _begun(backup)
    limits = {
        "backup": (backup_hours, "backup"),
        "dump": (backup.dump_max_age_days * 24.0, "logical dump"),
        "drill": (backup.drill.max_age_days * 24.0, "restore drill"),
    }
    return {job: _late(backup, job, hours, what, begun) for job, (hours, what) in limits.items()}


def _late(backup: Backup, job: str, hours: float, what: str, begun: datetime) -> str:
    outcome = state.read(backup, job)
    age = outcome.age if outcome else None
    if age is None:
        age = (state.now() - begun).total_seconds()
        if age > hours * 3600:
            return f"no {what} has ever succeeded, and backups have been on for {age / 3600:.0f} h."
    elif age > hours * 3600:
        return f"the last {what} that succeeded is {age / 3600:.0f} h old; it should be at most {hours:.0f} h."
    return ""


def _begun(backup: Backup) -> datetime:
    """When archiving began on this host."""
    try:
        return datetime.fromtimestamp((backup.spool / "stanza").stat().st_mtime, state.now().tzinfo)
    except OSError:
        return state.now()
