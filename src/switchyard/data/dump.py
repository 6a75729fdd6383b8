"""A logical dump, restored as a check: the copy that shares neither format nor version with the other backups."""

from collections.abc import Sequence
from pathlib import Path

from switchyard.data import backup as backups
from switchyard.data import database, drill, state
from switchyard.data.copy import Copy, dump_check, require_space
from switchyard.data.repositories import DUMPS_INSIDE
from switchyard.data.settings import Backup
from switchyard.engine.effects import run
from switchyard.errors import SwitchyardError

_SECONDS = 6 * 3600.0


def dump(backup: Backup, say: backups.Say) -> str:
    """Dump, restore into an empty server, compare the rows; only then does it take the last one's place."""
    names = (f"{backup.database}.dump", "globals.sql")
    new = [backup.dumps / f"{name}.new" for name in names]
    copy = dump_check(backup)
    with backups.alone(backup):
        _clean(new)
        size = _size(backup)
        require_space(backup.dumps, size, "a dump")
        backups.take_inventory(backup)
        try:
            _write(backup, new, say)
            copy.require_space(size)
            say("dump: restoring it as a check")
            rows = _check(backup, copy, new[0].name)
            for name, path in zip(names, new, strict=True):
                run(["mv", "-T", str(path), str(backup.dumps / name)], step="dump.keep")
        finally:
            copy.remove()
            _clean(new)
    return f"{backup.dumps / names[0]} holds {rows} rows, proven by a restore."


def _size(backup: Backup) -> int:
    statement = "SELECT pg_database_size(current_database())"
    return int(database.one(backup.container, statement, step="dump.size", database=backup.database))


def _clean(new: Sequence[Path]) -> None:
    run(["rm", "-f", "--", *map(str, new)], step="dump.clean")


def _write(backup: Backup, new: Sequence[Path], say: backups.Say) -> None:
    say("dump: writing")
    common = ("--username=postgres",)
    inside = [f"{DUMPS_INSIDE}/{path.name}" for path in new]
    database.inside(
        backup.container,
        *("pg_dump", *common, "--format=custom", f"--dbname={backup.database}", f"--file={inside[0]}"),
        step="dump.write",
        timeout=_SECONDS,
    )
    database.inside(
        backup.container,
        *("pg_dumpall", *common, "--globals-only", f"--file={inside[1]}"),
        step="dump.globals",
    )


def _check(backup: Backup, copy: Copy, name: str) -> int:
    copy.start_empty([(backup.dumps, DUMPS_INSIDE)])
    copy.wait_ready(lambda _: None)
    common = ("--username=postgres",)
    database.inside(
        copy.name,
        "psql",
        *common,
        "--quiet",
        f"--file={DUMPS_INSIDE}/globals.sql.new",
        step="dump.check_globals",
        timeout=600,
    )
    database.inside(
        copy.name,
        *(
            "pg_restore",
            *common,
            "--exit-on-error",
            "--create",
            "--dbname=postgres",
            "--jobs=2",
            f"{DUMPS_INSIDE}/{name}",
        ),
        step="dump.check",
        timeout=_SECONDS,
    )
    wanted = database.sql(
        backup.container, "SELECT relation, rows FROM inventory", step="dump.inventory", database="switchyard_ops"
    )
    counted = database.sql(
        copy.name, f"{database.COUNT};", step="dump.count", database=backup.database, timeout=_SECONDS
    )
    have = {relation: int(rows) for relation, _, rows in counted}
    problems = drill.missing_rows(
        {relation: int(rows) for relation, rows in wanted}, have, backup.drill.row_tolerance_percent
    )
    if problems:
        raise SwitchyardError(f"The dump is not whole: {'; '.join(problems)}.")
    return sum(have.values())


def job(backup: Backup, say: backups.Say) -> None:
    """The weekly dump: done, noted, and alerted when it fails. Raises what went wrong."""
    try:
        message = dump(backup, say)
    except SwitchyardError as error:
        state.write(backup, "dump", ok=False, message=error.message)
        state.alert(backup, "dump", f"The logical dump failed: {error.message}")
        raise
    state.write(backup, "dump", ok=True, message=message)
    state.alert(backup, "dump", "")
    say(f"dump: {message}")
