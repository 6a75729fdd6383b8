"""Runs the application's own migration once, in the new image, before the new colour starts.

The migration runs in a container of its own name. A killed engine leaves it running, and whoever comes next finds it
by that name and takes its result, so no migration is ever started twice or left in doubt by a death of ours.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from switchyard.data import indexes, point
from switchyard.engine import colour, docker, records
from switchyard.engine.effects import query, run
from switchyard.engine.ledger import Ledger
from switchyard.engine.operation import Operation
from switchyard.engine.records import Record
from switchyard.errors import Exit, SwitchyardError
from switchyard.names import COLOURS
from switchyard.request import Migration, Request
from switchyard.secrets import generations

_POLL_SECONDS = 0.1
_LOCK_TRIES = 5
_LOCK_PAUSE = 2.0
"""Seconds before the second attempt; later ones wait longer."""
_VANISHED = -1
_OUT_OF_TIME = -2
"""What counts instead of an exit code: a tool that is stopped may well end with 0, half-way."""


@dataclass(frozen=True)
class _Run:
    """A one-shot container of a release."""

    op: Operation
    record: Record

    def project(self) -> str:
        return f"{self.record.name}-migrate"

    def variables(self) -> dict[str, str]:
        # The migration publishes nothing, but compose wants every variable of the file.
        open_ports = {
            f"SWITCHYARD_PUBLISH_{records.variable(service)}_{index}": "127.0.0.1:0"
            for service, count in self.record.instances.items()
            for index in range(1, count + 1)
        }
        return open_ports | {
            "SWITCHYARD_COLOUR": COLOURS[0],
            "SWITCHYARD_MIGRATE_NAME": colour.migrate_name(self.record),
            "SWITCHYARD_SECRETS": str(generations.of(self.op.paths, self.record.id)),
        }

    def current(self, migration: Migration) -> str | None:
        """The revision that the application's `current` command prints; None when it cannot tell."""
        if not migration.current:
            return None
        name = f"{colour.migrate_name(self.record)}-current"
        words = ("run", "--rm", "--no-deps", "--name", name, "migrate", *migration.current)
        done = run(
            colour.compose(self.record, self.project(), *words),
            step="migrate.current",
            timeout=120,
            environment=self.variables() | {"SWITCHYARD_MIGRATE_NAME": name},
            check=False,
        )
        if done.code != 0:
            self.op.say(f"migrate: {' '.join(migration.current)} failed: {done.reason}")
            return None
        return done.out.strip()

    def start(self) -> None:
        run(
            colour.compose(self.record, self.project(), "up", "--detach", "--no-deps", "--pull", "never", "migrate"),
            step="migrate.start",
            timeout=120,
            environment=self.variables(),
        )

    def wait(self, timeout: float, before_stop: Callable[[], None]) -> int:
        """Wait for the container's end; returns its exit code, or why there is none that counts.

        One that still runs after `timeout` seconds is stopped; `before_stop` notes that for whoever would come next.
        """
        name = colour.migrate_name(self.record)
        deadline = time.monotonic() + timeout
        while (found := docker.inspect(name)) and found["State"]["Status"] in ("running", "restarting", "paused"):
            if time.monotonic() > deadline:
                before_stop()
                run(["docker", "stop", "--time", "10", name], step="migrate.stop", timeout=60)
                return _OUT_OF_TIME
            time.sleep(_POLL_SECONDS)
        if found is None:
            return _VANISHED
        # One that was created and never ran (a command that does not exist) has an exit code as well.
        return int(found["State"]["ExitCode"]) or (0 if found["State"]["Status"] == "exited" else _VANISHED)

    def log(self) -> str:
        answer = query(["docker", "logs", "--tail", "30", colour.migrate_name(self.record)])
        return (answer.out + answer.err).strip()

    def remove(self) -> None:
        run(["docker", "rm", "--force", colour.migrate_name(self.record)], step="migrate.remove", check=False)


def is_pending(ledger: Ledger, request: Request, digests: Mapping[str, str]) -> bool:
    """Tell whether these images have something to migrate, as far as the ledger knows."""
    state = ledger.schema()
    if request.migration is None:
        return False
    return bool(state and state["state"] == "dirty") or digests[request.migration.service] not in ledger.migrated()


def migrate(op: Operation, record: Record, decision: str) -> None:
    """Run the release's migration; the old colour serves on whatever happens here.

    `decision` is `resume` or `resolve` (the operator's answer to a dirty schema) or ''. Raises `SwitchyardError`
    (migration): the schema is as before, or is recorded as dirty and the next deploy waits for a decision.
    """
    migration = record.request.migration
    state = op.ledger.schema()
    if migration is None:
        return
    if state and state["state"] == "started":
        _settle(op, state)
        state = op.ledger.schema()
    if state and state["state"] == "dirty":
        if decision == "resolve":
            op.say("migrate: the schema counts as repaired by hand; the migration runs from there")
        elif decision != "resume":
            raise dirty(state)
    elif record.digests[migration.service] in op.ledger.migrated():
        # Also for an older release: schemas only expand within an epoch, and old code does not know newer revisions.
        op.say("migrate: this image already migrated this database")
        return
    point.before_migration(op, record)
    one_shot = _Run(op, record)
    # Asked of the new image even when the ledger knows: two images may word the same revision differently.
    before = one_shot.current(migration)
    _note(op, record, "started", before=before)
    op.say(f"migrate: running {' '.join(migration.command)} in {record.request.services[migration.service].reference}")
    code = _run_patiently(op, one_shot, migration, before, lambda: _note_stop(op, record, before))
    _conclude(op, one_shot, migration, before, code)


def bring_up(op: Operation, record: Record) -> None:
    """Run a release's migration on a database that came from elsewhere; the ledger is neither asked nor told.

    Raises `SwitchyardError` (migration) with the migration's own last lines when it fails.
    """
    migration = record.request.migration
    if migration is None:
        return
    one_shot = _Run(op, record)
    op.say(f"migrate: running {' '.join(migration.command)} of {record.id}")
    code = _run_patiently(op, one_shot, migration, one_shot.current(migration), lambda: None)
    log = one_shot.log()
    one_shot.remove()
    if code != 0:
        raise SwitchyardError(f"The migration of {record.id} {_ended(migration, code)}.", Exit.MIGRATION, log)


def _run_patiently(
    op: Operation, one_shot: _Run, migration: Migration, before: str | None, before_stop: Callable[[], None]
) -> int:
    """Run the migration; again, a few times, when all that happened is that it waited too long for a lock.

    The role's `lock_timeout` ends it before those who queue behind it are users. Returns what the last `wait` did.
    """
    for attempt in range(1, _LOCK_TRIES + 1):
        one_shot.start()
        code = one_shot.wait(migration.timeout, before_stop)
        if code in (0, _OUT_OF_TIME) or attempt == _LOCK_TRIES or not _only_lost_a_lock(one_shot, migration, before):
            break
        op.say(f"migrate: a lock was not free in time (attempt {attempt} of {_LOCK_TRIES}); the schema is as before")
        one_shot.remove()
        time.sleep(attempt * _LOCK_PAUSE)
    return code


def _only_lost_a_lock(one_shot: _Run, migration: Migration, before: str | None) -> bool:
    # 55P03 is lock_not_available, as drivers that translate the server's words show it.
    said = any(words in one_shot.log().lower() for words in ("lock timeout", "55p03", "locknotavailable"))
    return said and before is not None and one_shot.current(migration) == before


def _ended(migration: Migration, code: int) -> str:
    if code == _OUT_OF_TIME:
        return f"ran longer than app_migration.timeout ({migration.timeout:.0f} s) and was stopped"
    return f"failed with exit code {code}"


def dirty(state: dict[str, object]) -> SwitchyardError:
    """The refusal of a schema that nobody has vouched for."""
    return SwitchyardError(
        f"The migration of release {state['release']} stopped half-way and the schema is dirty. Look at the database, "
        "then deploy with '-e migration=resume' (run the migration again from where it stands) or "
        "'-e migration=resolve' (you repaired it by hand).",
        Exit.MIGRATION,
    )


def _note(op: Operation, record: Record, state: str, **more: object) -> None:
    service = record.request.migration.service if record.request.migration else ""
    op.ledger.append(
        "migration",
        op=op.id,
        release=record.id,
        state=state,
        digest=record.digests.get(service, ""),
        schema_epoch=record.request.schema_epoch,
        **more,
    )


def _note_stop(op: Operation, record: Record, before: str | None) -> None:
    """Say that a migration is being stopped while it still runs: afterwards its exit code does not tell."""
    _note(op, record, "started", before=before, stopped=True)


def _conclude(op: Operation, one_shot: _Run, migration: Migration, before: str | None, code: int) -> None:
    """Judge a finished migration by its exit code and, when it failed, by the revision it left."""
    record = one_shot.record
    if code == 0:
        _note(op, record, "clean", before=before)
        one_shot.remove()
        op.say("migrate: done")
        if left := indexes.invalid(op.paths.name):
            op.say(
                f"WARNING: these indexes are not valid, so nothing uses them: {', '.join(left)}; drop and rebuild them"
            )
        return
    log, after = one_shot.log(), one_shot.current(migration)
    # A revision that could not be asked for, before or afterwards, proves nothing.
    unchanged = before is not None and after == before
    if unchanged:
        _note(op, record, "unchanged", before=before, after=after)
    else:
        _note(op, record, "dirty", before=before, after=after)
    one_shot.remove()
    state = "The schema is as before." if unchanged else "The schema may be half-way and is recorded as dirty."
    if left := indexes.invalid(op.paths.name):
        state += f" Indexes that are not valid, to be dropped before the next attempt: {', '.join(left)}."
    raise SwitchyardError(
        f"The migration of {record.id} {_ended(migration, code)}; the old release serves on. {state}",
        Exit.MIGRATION,
        log,
    )


def _settle(op: Operation, state: dict[str, object]) -> None:
    """Find out how a migration ended whose engine died: its container goes on alone, and is asked here."""
    record = records.load(op.paths, str(state["release"]))
    migration = record.request.migration
    if migration is None:
        return
    one_shot = _Run(op, record)
    # Engines of before wrote '' for an application that cannot tell its revision.
    before = str(state["before"]) if migration.current and state.get("before") is not None else None
    if docker.inspect(colour.migrate_name(record)) is None:
        # Killed before its container existed: nothing has touched the schema.
        _note(op, record, "unchanged", before=before, after=before)
        return
    op.say(f"migrate: waiting for the migration that {state['op']} began")
    was_stopped = bool(state.get("stopped"))
    code = one_shot.wait(0.0 if was_stopped else migration.timeout, lambda: _note_stop(op, record, before))
    try:
        _conclude(op, one_shot, migration, before, _OUT_OF_TIME if was_stopped else code)
    except SwitchyardError as error:
        op.say(error.message)
