"""Refreshes this environment's data with another one's: restored from its backup, sanitised, then exchanged in.

The backup is restored into a copy that has lost every network before anything reads it. There the personal columns are
overwritten; what leaves the copy is a logical dump of the result. So this environment's server keeps its identity, its
passwords and its own backups, and not one page that ever held a personal value reaches it. The database before serves
until the live release is healthy on the new one; whatever fails earlier, it goes on.
"""

import time
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from switchyard.data import backup as backups
from switchyard.data import database, maintenance, personal, pgbackrest, restore, settings, source, state, succession
from switchyard.data import targets as chosen_targets
from switchyard.data.copy import Copy
from switchyard.data.settings import Backup
from switchyard.data.source import Order, Source
from switchyard.data.succession import DUMP_INSIDE, Marker
from switchyard.engine import colour as colours
from switchyard.engine import maintenance as pages
from switchyard.engine import migrate, phases, records
from switchyard.engine.operation import Operation
from switchyard.errors import Exit, SwitchyardError

_SPACE = 2.5
"""The copy, its dump and the database that is made from it need this many times the size of the backup's database."""
_SECONDS = 6 * pgbackrest.HOURS


def check(backup: Backup, order: Order, host: str) -> str:
    """Tell what a refresh would do, or raise what would stop it; nothing is changed."""
    with backups.alone(backup, wait=5):
        from_where = source.of(backup, order.repository)
        try:
            from_where.place_keys(order)
            choice = _preflight(backup, from_where, order, host)
        finally:
            succession.clean(backup)
    return (
        f"{backup.name} would be refreshed from {choice.chosen.label} of {order.source} ({choice.target}, "
        f"{choice.chosen.size >> 20} MiB) with {len(order.sanitise)} sanitising statements."
    )


def refresh(op: Operation, order: Order) -> None:
    """Do it; the result tells how old the data is and what to do next."""
    backup = settings.load(op.paths.name)
    try:
        with op.exclusively():
            op.begin(f"data of {order.source}")
            with backups.alone(backup, wait=backups.SHORT_SECONDS):
                _under_marker(op, backup, order)
            op.end("refreshed")
    except SwitchyardError as error:
        op.fail(error)
        op.say(f"FAILED: {error.message}")
        if op.lease is not None and error.code is not Exit.INTERRUPTED:
            op.end("failed")


def _under_marker(op: Operation, backup: Backup, order: Order) -> None:
    from_where = source.of(backup, order.repository)
    restore.settle(op.paths, op.host, op.say)
    succession.clean(backup)
    succession.mark(backup, Marker(op.id))
    exchanging = False
    try:
        with op.phase("preflight"):
            from_where.place_keys(order)
            choice = _preflight(backup, from_where, order, op.host.name)
        copy = succession.copy_of(from_where)
        with op.phase("restore"):
            restore.make(copy, choice, op.say)
            from_where.remove_keys()
            until = copy.last_commit() or (choice.moment or choice.chosen.ended).isoformat(timespec="seconds")
        with op.phase("sanitise"):
            columns = _sanitise(copy, order, op)
        with op.phase("load"):
            _load(op, backup, copy, order)
            succession.clean(backup)
        with op.phase("exchange"):
            exchanging = True
            _exchange(op, backup)
        with op.phase("serve"):
            served = _serve(op)
            succession.mark(backup, replace(succession.read(backup), stage="made"))
    except SwitchyardError as error:
        _note(op, order, "failed", why=error.message)
        succession.undo(backup, op.say)
        if exchanging:
            op.say(f"refresh: {maintenance.leave(op, state.now().isoformat())}")
        succession.conclude(op.paths, backup)
        error.message = f"{error.message.rstrip('.')}. Nothing was refreshed; the database before serves on."
        raise
    _note(op, order, "refreshed", until=until, backup=choice.chosen.label, columns=len(columns))
    succession.conclude(op.paths, backup)
    op.result.changed = True
    op.result.message = (
        f"{backup.name} has the data of {order.source} as of {until} ({_age(until)} old), {len(columns)} personal "
        f"columns sanitised. {served} The data before is kept in the database {succession.former(backup)}: 'sudo "
        f"switchyard restore-forget {backup.name}' removes it."
    )


def _age(until: str) -> str:
    seconds = max(0, round((state.now() - datetime.fromisoformat(until)) / timedelta(seconds=1)))
    return f"{seconds} s" if seconds < 7200 else f"{seconds // 3600} h"


def _note(op: Operation, order: Order, outcome: str, **facts: object) -> None:
    op.ledger.append(
        "refresh", op=op.id, subject=order.source, outcome=outcome, repository=order.repository.name, **facts
    )


# Before anything is changed


def _preflight(backup: Backup, from_where: Source, order: Order, host: str) -> chosen_targets.Choice:
    if order.host != host:
        raise SwitchyardError(
            f"This host calls itself {host}, the inventory says {order.host}: the address leads to another machine.",
            Exit.PREFLIGHT,
        )
    if not database.answers(backup.container):
        raise SwitchyardError(backups.reason(backup, "down"), Exit.PREFLIGHT)
    copy = succession.copy_of(from_where)
    stanza = restore.look(copy)
    require_another(stanza, backups.system_identifier(backup), str(backup.name), order)
    _require_version(stanza, backup, order)
    choice = chosen_targets.decide(from_where, stanza, order.target, "", [])
    copy.require_space(int(choice.chosen.size * _SPACE))
    return choice


def require_another(stanza: dict[str, Any], own: str, name: str, order: Order) -> None:
    """Refuse a repository that cannot be read, and one whose database is the very one that would be replaced."""
    problems = pgbackrest.repository_problems(stanza, [order.repository.name], ignore=pgbackrest.NEW)
    for repository, problem in problems.items():
        raise SwitchyardError(f"{order.source}'s repository {repository} cannot be read: {problem}.", Exit.PREFLIGHT)
    if not stanza.get("db"):
        raise SwitchyardError(
            f"{order.source}'s repository {order.repository.name} holds no backup at {order.repository.path}.",
            Exit.PREFLIGHT,
        )
    if own in {str(entry["system-id"]) for entry in stanza["db"]}:
        raise SwitchyardError(
            f"The database of {name} is the very one that {order.source} backs up (system identifier {own}), or a "
            "restored copy of it: nothing is refreshed here.",
            Exit.PREFLIGHT,
        )


def _require_version(stanza: dict[str, Any], backup: Backup, order: Order) -> None:
    theirs = str(stanza["db"][-1].get("version", ""))
    number = database.one(backup.container, "SHOW server_version_num", step="refresh.version")
    ours = str(int(number) // 10000)
    if theirs != ours:
        raise SwitchyardError(
            f"{order.source} runs Postgres {theirs} and {backup.name} runs {ours}: have the same major version first.",
            Exit.PREFLIGHT,
        )


# In the copy


def _sanitise(copy: Copy, order: Order, op: Operation) -> list[str]:
    """Overwrite what is personal and prove that it was; returns the columns."""
    rows = database.sql(copy.name, personal.COLUMNS, step="refresh.columns", database=order.database)
    columns = personal.require_covered(
        [name for name, tagged in rows if tagged == "t"],
        order.personal,
        order.sanitise,
        [name for name, _ in rows],
        nothing_personal=order.nothing_personal,
    )
    for number, statement in enumerate(order.sanitise, start=1):
        what = ", ".join(statement.covers) or "no column"
        op.say(f"sanitise: {number} of {len(order.sanitise)}: {what}")
        before = {column: _print(copy, order, column) for column in map(personal.full, statement.covers)}
        sql = f"BEGIN;\n{statement.sql.rstrip().rstrip(';')};\nCOMMIT;"
        try:
            database.sql(copy.name, sql, step="refresh.sanitise", database=order.database, timeout=_SECONDS)
        except SwitchyardError as error:
            raise SwitchyardError(f"Sanitising statement {number} ({what}) failed: {error.message}") from error
        for column, seen in before.items():
            if seen and _print(copy, order, column) == seen:
                raise SwitchyardError(
                    f"Sanitising statement {number} says that it covers {column} and left it exactly as it was."
                )
    return columns


def _print(copy: Copy, order: Order, column: str) -> str:
    """A fingerprint of a column's values, whatever their order; '' when it has none, or is gone."""
    schema, table, name = (database.identifier(part) for part in column.split("."))
    there = f"SELECT to_regclass({database.quoted(f'{schema}.{table}')}) IS NOT NULL"
    if database.one(copy.name, there, step="refresh.table", database=order.database) != "t":
        return ""
    value = f"nullif({name}::text, '')"
    statement = f"SELECT coalesce(sum(hashtextextended({value}, 0)::numeric)::text, '') FROM {schema}.{table}"  # noqa: S608 - through identifier()
    try:
        return database.one(copy.name, statement, step="refresh.fingerprint", database=order.database, timeout=_SECONDS)
    except SwitchyardError as error:
        if "does not exist" in error.message:
            # The statement dropped the column, which leaves nothing of it.
            return ""
        raise


# From the copy to the live server


def _load(op: Operation, backup: Backup, copy: Copy, order: Order) -> None:
    """Have the sanitised data as a database of its own in the live server, beside the live one."""
    began, name = time.monotonic(), succession.coming(backup)
    succession.drop(backup, name)
    old, new = database.identifier(order.database), database.identifier(name)
    database.sql(copy.name, f"ALTER DATABASE {old} RENAME TO {new}", step="refresh.rename_copy")
    op.say("load: writing the sanitised data")
    common = ("--username=postgres", "--jobs=2")
    # It must not follow what production publishes.
    shape = ("--format=directory", "--compress=1", "--create", "--no-subscriptions", "--no-publications")
    argv = ("pg_dump", *common, *shape, f"--dbname={name}", f"--file={DUMP_INSIDE}")
    database.inside(copy.name, *argv, step="refresh.dump", timeout=_SECONDS)
    _have_roles(op, backup, copy)
    op.say("load: reading it into the live server, beside the live database")
    words = ("--exit-on-error", "--create", "--dbname=postgres")
    database.inside(backup.container, "pg_restore", *common, *words, DUMP_INSIDE, step="refresh.load", timeout=_SECONDS)
    statistics = ("vacuumdb", *common, "--quiet", "--analyze-only", f"--dbname={name}")
    database.inside(backup.container, *statistics, step="refresh.analyze", timeout=_SECONDS)
    op.say(f"load: done after {time.monotonic() - began:.0f} s")


def _have_roles(op: Operation, backup: Backup, copy: Copy) -> None:
    """Roles that own something there and are unknown here exist from now on, and cannot log in."""
    statement = "SELECT rolname FROM pg_roles WHERE rolname !~ '^pg_'"
    theirs = {row[0] for row in database.sql(copy.name, statement, step="refresh.their_roles")}
    ours = {row[0] for row in database.sql(backup.container, statement, step="refresh.our_roles")}
    for role in sorted(theirs - ours):
        op.say(f"load: the role {role} is made here, without a login")
        database.sql(backup.container, f"CREATE ROLE {database.identifier(role)} NOLOGIN", step="refresh.role")


def _exchange(op: Operation, backup: Backup) -> None:
    succession.drop(backup, succession.former(backup))
    closed = phases.live_pointer(op.paths) is not None and not pages.is_on(op.paths)
    succession.mark(backup, Marker(op.id, "renaming", closed))
    if phases.live_pointer(op.paths):
        op.say("exchange: users get 503 from here on")
        maintenance.enter(op)
    live, coming, former = backup.database, succession.coming(backup), succession.former(backup)
    succession.swap(backup, (live, former), (coming, live))


def _serve(op: Operation) -> str:
    """Start the live release on the new data, after its own migration; raises when it does not get healthy."""
    pointer = phases.live_pointer(op.paths)
    if pointer is None:
        return "No application is live on this host; one elsewhere goes on with the new data."
    record = records.load(op.paths, pointer.release)
    migrate.bring_up(op, record)
    colours.start_if_down(op.paths, op.host, pointer.release, pointer.colour, op.say)
    phases.wait_until_healthy(op, record, pointer.colour)
    return f"{pointer.release} serves it."
