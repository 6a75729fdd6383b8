"""A logical dump, restored as a check: the copy that shares neither format nor version with the other backups."""

from switchyard.data import backup as backups
from switchyard.data import database, drill, state
from switchyard.data.copy import Copy
from switchyard.data.repositories import DUMPS_INSIDE
from switchyard.data.settings import Backup
from switchyard.engine.effects import run
from switchyard.errors import SwitchyardError

_SECONDS = 6 * 3600.0


def dump(backup: Backup, say: backups.Say) -> str:
    """Dump, restore into an empty server, compare the rows; only then does it take the last one's place."""
    new, last = f"{backup.database}.dump.new", f"{backup.database}.dump"
    copy = Copy(backup, f"{backup.name}-dump-check", backup.folder / "dump-check", backup.drill.memory_mb)
    with backups.alone(backup):
        backups.take_inventory(backup)
        say("dump: writing")
        common = ("--username=postgres",)
        database.inside(
            backup.container,
            *("pg_dump", *common, "--format=custom", f"--dbname={backup.database}", f"--file={DUMPS_INSIDE}/{new}"),
            step="dump.write",
            timeout=_SECONDS,
        )
        database.inside(
            backup.container,
            *("pg_dumpall", *common, "--globals-only", f"--file={DUMPS_INSIDE}/globals.sql.new"),
            step="dump.globals",
        )
        copy.require_space(sum(path.stat().st_size for path in backup.dumps.glob("*.new")) * 8)
        say("dump: restoring it as a check")
        try:
            rows = _check(backup, copy, new)
        finally:
            copy.remove()
        for name in (last, "globals.sql"):
            run(["mv", "-T", str(backup.dumps / f"{name}.new"), str(backup.dumps / name)], step="dump.keep")
    return f"{backup.dumps / last} holds {rows} rows, proven by a restore."


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
