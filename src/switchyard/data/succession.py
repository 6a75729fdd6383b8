"""How the database that a refresh made takes the place of the one before: two renames in one transaction.

A marker lies on the host from the first step to the last. While it does, the database before is the one that counts:
whoever finds the marker of a dead refresh brings that one back and removes the rest.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from switchyard.data import backup as backups
from switchyard.data import database, exchange, settings, source
from switchyard.data.copy import Copy
from switchyard.data.repositories import DUMPS_INSIDE
from switchyard.data.settings import Backup
from switchyard.engine import maintenance
from switchyard.engine.effects import replace_file, run
from switchyard.engine.layout import AppPaths, load_host
from switchyard.errors import SwitchyardError

_FOLDER = "refresh"


@dataclass(frozen=True)
class Marker:
    """What a refresh is doing, for whoever comes after a kill.

    `stage`: making, renaming (until the live release is healthy on the new data), made (only the page is left to do).
    """

    op: str
    stage: str = "making"
    closed: bool = False
    """This refresh shows the maintenance page, and so has to take it away."""


def marker_path(backup: Backup) -> Path:
    """Where the marker lies while a refresh is under way."""
    return backup.home / "refresh.json"


def mark(backup: Backup, marker: Marker) -> None:
    """Say what is under way, durably."""
    replace_file(marker_path(backup), json.dumps(vars(marker)) + "\n", step=f"refresh.mark_{marker.stage}")


def read(backup: Backup) -> Marker:
    """The marker that lies there."""
    try:
        return Marker(**json.loads(marker_path(backup).read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise SwitchyardError(
            f"{marker_path(backup)} cannot be understood: look which databases there are, have the right one as "
            f"{backup.database}, and remove that file."
        ) from error


def conclude(paths: AppPaths, backup: Backup) -> None:
    """Let users in, unless it was somebody else who closed, and forget the refresh. Safe to repeat."""
    if read(backup).closed:
        maintenance.turn_off(paths, load_host())
    run(["rm", "-f", "--", str(marker_path(backup))], step="refresh.unmark")


def coming(backup: Backup) -> str:
    """Name of the database that is being made."""
    return f"{backup.database}_refreshed"


def former(backup: Backup) -> str:
    """Name under which the database before is kept."""
    return f"{backup.database}_before_refresh"


def copy_of(from_where: source.Source) -> Copy:
    """The copy that is restored and sanitised; the dumps' directory is its only way to anything."""
    return Copy(
        from_where,
        f"{from_where.name}-refresh-copy",
        from_where.folder / _FOLDER,
        from_where.drill.memory_mb,
        shared=((from_where.dumps, DUMPS_INSIDE),),
    )


def dump_path(backup: Backup) -> Path:
    """Where the sanitised data waits between the copy and the live server, as the host sees it."""
    return backup.dumps / _FOLDER


DUMP_INSIDE = f"{DUMPS_INSIDE}/{_FOLDER}"


def exists(backup: Backup, name: str) -> bool:
    """Tell whether the live server has a database of this name."""
    statement = f"SELECT count(*) FROM pg_database WHERE datname = {database.quoted(name)}"  # noqa: S608 - through quoted()
    return database.one(backup.container, statement, step="refresh.exists") == "1"


def drop(backup: Backup, name: str) -> None:
    """Remove a database from the live server, whoever is connected to it."""
    statement = f"DROP DATABASE IF EXISTS {database.identifier(name)} WITH (FORCE)"
    database.sql(backup.container, statement, step="refresh.drop", timeout=600)


def swap(backup: Backup, *pairs: tuple[str, str]) -> None:
    """Rename databases, all or none; those who are connected are sent away, and nobody comes back in between."""
    names = [(database.identifier(name), database.identifier(new)) for name, new in pairs]
    old = ", ".join(database.quoted(name) for name, _ in pairs)
    close = "".join(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false;\n" for name, _ in names)
    send_away = f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname IN ({old});\n"  # noqa: S608 - through quoted()
    renames = "".join(f"ALTER DATABASE {name} RENAME TO {new};\n" for name, new in names)
    reopen = "".join(f"ALTER DATABASE {new} ALLOW_CONNECTIONS true;\n" for _, new in names)
    statements = f"{close}{send_away}BEGIN;\n{renames}{reopen}COMMIT;"
    database.sql(backup.container, statements, step="refresh.rename")


def clean(backup: Backup) -> None:
    """Remove the copy, the keys and the dump: whatever of the other environment is on this host outside its server."""
    from_where = source.of(backup)
    copy_of(from_where).remove()
    from_where.remove_keys()
    if dump_path(backup).exists():
        run(["rm", "-rf", "--one-file-system", "--", str(dump_path(backup))], step="refresh.delete_dump")


def undo(backup: Backup, say: backups.Say) -> None:
    """Have the data as it was before a refresh that failed or died. Safe to repeat; `conclude` comes after it."""
    clean(backup)
    exchange.start_database(backup, say)
    if read(backup).stage == "renaming" and exists(backup, former(backup)):
        pairs = [(former(backup), backup.database)]
        if exists(backup, backup.database):
            pairs.insert(0, (backup.database, coming(backup)))
        swap(backup, *pairs)
        say(f"refresh: {backup.database} is the database before again")
    drop(backup, coming(backup))


def settle(paths: AppPaths, say: backups.Say) -> None:
    """Put right what a refresh left that died; the caller holds the application's lock."""
    backup = settings.find(paths.name)
    if backup is None or not marker_path(backup).is_file():
        return
    if read(backup).stage != "made":
        say("recover: a refresh died; the database before goes on")
        undo(backup, say)
    conclude(paths, backup)


def forget(backup: Backup) -> list[str]:
    """Remove the database that the last refresh kept."""
    if marker_path(backup).is_file() or not database.answers(backup.container) or not exists(backup, former(backup)):
        return []
    drop(backup, former(backup))
    return [f"database {former(backup)}"]
