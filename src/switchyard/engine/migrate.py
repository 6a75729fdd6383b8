"""Runs the application's own migration once, in the new image, before the new colour starts.

The migration runs in a container of its own name. A killed engine leaves it running, and whoever comes next finds it
by that name and takes its result, so no migration is ever started twice or left in doubt by a death of ours.
"""

import time
from collections.abc import Mapping
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

    def current(self, migration: Migration) -> str:
        """The revision that the application's `current` command prints, or '' when it has none or fails."""
        if not migration.current:
            return ""
        name = f"{colour.migrate_name(self.record)}-current"
        words = ("run", "--rm", "--no-deps", "--name", name, "migrate", *migration.current)
        done = run(
            colour.compose(self.record, self.project(), *words),
            step="migrate.current",
            timeout=120,
            environment=self.variables() | {"SWITCHYARD_MIGRATE_NAME": name},
            check=False,
        )
        return done.out.strip() if done.code == 0 else ""

    def start(self) -> None:
        run(
            colour.compose(self.record, self.project(), "up", "--detach", "--no-deps", "--pull", "never", "migrate"),
            step="migrate.start",
            timeout=120,
            environment=self.variables(),
        )

    def wait(self, timeout: float) -> int:
        """Wait for the container's end; returns its exit code, -1 when it vanished."""
        name = colour.migrate_name(self.record)
        deadline = time.monotonic() + timeout
        while (found := docker.inspect(name)) and found["State"]["Status"] in ("running", "restarting", "paused"):
            if time.monotonic() > deadline:
                run(["docker", "stop", "--time", "10", name], step="migrate.stop", timeout=60)
                found = docker.inspect(name)
                break
            time.sleep(_POLL_SECONDS)
        # One that was created and never ran (a command that does not exist) has an exit code as well.
        return int(found["State"]["ExitCode"]) or (0 if found["State"]["Status"] == "exited" else -1) if found else -1

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
    code = _run_patiently(op, one_shot, migration, before)
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
    code = _run_patiently(op, one_shot, migration, one_shot.current(migration))
    log = one_shot.log()
    one_shot.remove()
    if code != 0:
        raise SwitchyardError(f"The migration of {record.id} failed with exit code {code}.", Exit.MIGRATION, log)


def _run_patiently(op: Operation, one_shot: _Run, migration: Migration, before: str) -> int:
    """Run the migration; again, a few times, when all that happened is that it waited too long for a lock.

    The role's `lock_timeout` ends it before those who queue behind it are users. Returns the last exit code.
    """
    for attempt in range(1, _LOCK_TRIES + 1):
        one_shot.start()
        code = one_shot.wait(migration.timeout)
        if code == 0 or attempt == _LOCK_TRIES or not _only_lost_a_lock(one_shot, migration, before):
            break
        op.say(f"migrate: a lock was not free in time (attempt {attempt} of {_LOCK_TRIES}); the schema is as before")
        one_shot.remove()
        time.sleep(attempt * _LOCK_PAUSE)
    return code


def _only_lost_a_lock(one_shot: _Run, migration: Migration, before: str) -> bool:
    # 55P03 is lock_not_available, as drivers that translate the server's words show it.
    said = any(words in one_shot.log().lower() for words in ("lock timeout", "55p03", "locknotavailable"))
    return said and bool(migration.current) and one_shot.current(migration) == before


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


def _conclude(op: Operation, one_shot: _Run, migration: Migration, before: str, code: int) -> None:
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
    unchanged = bool(migration.current) and after == before
    if unchanged:
        _note(op, record, "unchanged", before=before, after=after)
    else:
        _note(op, record, "dirty", before=before, after=after)
    one_shot.remove()
    state = "The schema is as before." if unchanged else "The schema may be half-way and is recorded as dirty."
    if left := indexes.invalid(op.paths.name):
        state += f" Indexes that are not valid, to be dropped before the next attempt: {', '.join(left)}."
    raise SwitchyardError(
        f"The migration of {record.id} failed with exit code {code}; the old release serves on. {state}",
        Exit.MIGRATION,
        log,
    )


def _settle(op: Operation, state: dict[str, object]) -> None:
    """Find out how a migration ended whose engine died: its container goes on alone, and is asked here."""
    record = records.load(op.paths, str(state["release"]))
    if record.request.migration is None:
        return
    one_shot = _Run(op, record)
    before = str(state.get("before", ""))
    if docker.inspect(colour.migrate_name(record)) is None:
        # Killed before its container existed: nothing has touched the schema.
        _note(op, record, "unchanged", before=before, after=before)
        return
    op.say(f"migrate: waiting for the migration that {state['op']} began")
    with_code = one_shot.wait(record.request.migration.timeout)
    try:
        _conclude(op, one_shot, record.request.migration, before, with_code)
    except SwitchyardError as error:
        op.say(error.message)
