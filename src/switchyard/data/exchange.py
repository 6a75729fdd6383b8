"""The moment at which a restored database takes the live one's place, and what puts right a death around it.

A marker says what is under way. Before the two renames the old database is the live one; after them the new one is.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path

from switchyard.data import backup as backups
from switchyard.data import database, settings, state
from switchyard.data.copy import Copy
from switchyard.data.settings import Backup
from switchyard.engine import maintenance
from switchyard.engine.effects import replace_file, run
from switchyard.engine.layout import AppPaths, load_host
from switchyard.engine.ledger import Ledger
from switchyard.errors import SwitchyardError

Say = backups.Say
_START_SECONDS = 600.0


@dataclass(frozen=True)
class Marker:
    """What a restore in place is doing, for whoever comes after a kill. `stage`: restoring or swapping."""

    op: str
    stage: str
    new: str
    old: str
    until: str
    target: str
    timeline: int
    closed: bool
    """This restore shows the maintenance page, and so has to take it away."""
    backup: str = ""
    """Label of the backup that was restored; before the exchange, ''."""


def marker_path(backup: Backup) -> Path:
    """Where the marker lies while a restore in place is under way."""
    return backup.home / "restore.json"


def mark(backup: Backup, marker: Marker) -> None:
    """Say what is under way, durably."""
    replace_file(marker_path(backup), json.dumps(vars(marker)) + "\n", step=f"restore.mark_{marker.stage}")


def read(backup: Backup) -> Marker:
    """The marker that lies there."""
    try:
        return Marker(**json.loads(marker_path(backup).read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise SwitchyardError(
            f"{marker_path(backup)} cannot be understood: look at {backup.home}, have the right directory as data, and "
            "remove that file."
        ) from error


def conclude(paths: AppPaths, backup: Backup, say: Say) -> None:
    """Start the exchanged database and note it in the ledger. Safe to repeat."""
    marker = read(backup)
    start_database(backup, say)
    ledger = Ledger.load(paths)
    if not any(event.get("op") == marker.op for event in ledger.of("restore")):
        facts = {"until": marker.until, "timeline": marker.timeline, "kept": marker.old, "backup": marker.backup}
        ledger.append("restore", op=marker.op, subject=marker.target, outcome="restored", **facts)


def open_again(paths: AppPaths, backup: Backup, *, exchanged: bool) -> str:
    """Let users in, unless it was somebody else who closed, and forget the restore. Safe to repeat.

    Returns what keeps archiving from going on in an exchanged database, or ''.
    """
    marker = read(backup)
    if marker.closed:
        maintenance.turn_off(paths, load_host())
    problem = _archive_again(backup) if exchanged else ""
    run(["rm", "-f", "--", str(marker_path(backup))], step="restore.unmark")
    return problem


def _archive_again(backup: Backup) -> str:
    """Let archiving go on; a repository that is away must not keep users from a good database, and is alerted."""
    try:
        # Also for a new host, whose own repository is empty.
        backups.begin_archiving(backup)
    except SwitchyardError as error:
        problem = f"Not every repository archives after the restore: {error.message}"
        # The watch of the archive looks every five minutes, and takes it from here.
        state.alert(backup, "archive", problem, severity="warning")
        return problem
    return ""


def start_database(backup: Backup, say: Say) -> None:
    """Start the live database's container, wait until it answers, and have it open to the application."""
    compose = ["docker", "compose", "--project-name", backup.container, "--file", str(backup.home / "compose.yml")]
    run([*compose, "up", "--detach", "--no-recreate"], step="restore.start", timeout=300)
    deadline = time.monotonic() + _START_SECONDS
    while not database.answers(backup.container):
        if time.monotonic() > deadline:
            raise SwitchyardError(f"{backup.container} does not answer: 'docker logs {backup.container}' says why.")
        time.sleep(0.5)
    # A restore or a refresh may have closed it and died.
    database.reopen(backup.container, backup.database)
    say("restore: the database answers")


def settle(paths: AppPaths, say: Say) -> Marker | None:
    """Put right what a restore in place left that died; the caller holds the application's lock. Safe to repeat.

    Returns the marker when the restored database is the live one: then the caller has the release that fits it serve,
    and lets users in by `open_again`.
    """
    backup = settings.find(paths.name)
    if backup is None or not marker_path(backup).is_file():
        return None
    marker = read(backup)
    copy = Copy(backup, f"{backup.name}-restoring", Path(marker.new))
    copy.remove_container()
    if marker.stage == "swapping" and not backup.live_data.exists():
        # Between the two renames: the new data is complete, and goes on where it was going.
        say("recover: finishing the restore that died")
        run(["mv", "-T", marker.new, str(backup.live_data)], step="restore.swap_new")
    if marker.stage == "swapping" and not Path(marker.new).exists():
        conclude(paths, backup, say)
        return marker
    say("recover: the restore died before the databases were exchanged; the old one goes on")
    copy.remove()
    start_database(backup, say)
    open_again(paths, backup, exchanged=False)
    return None
