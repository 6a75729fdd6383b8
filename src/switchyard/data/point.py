"""A named restore point before a migration, and a backup before one that contracts the schema."""

import os

from switchyard.data import backup as backups
from switchyard.data import database, pgbackrest, settings, state
from switchyard.data.settings import Backup
from switchyard.engine.operation import Operation
from switchyard.engine.records import Record
from switchyard.errors import Exit, SwitchyardError

# Sizes as the planner knows them: asking for the real ones waits for locks.
_OBSTACLES = """
SELECT coalesce((SELECT pid || ' of ' || usename FROM pg_stat_activity WHERE datname = current_database()
    AND backend_type = 'client backend' AND xact_start < now() - interval '5 min' ORDER BY xact_start LIMIT 1), ''),
  (SELECT coalesce(max(relpages), 0)::bigint * current_setting('block_size')::int FROM pg_class WHERE relkind = 'r');
"""


def before_migration(op: Operation, record: Record) -> None:
    """Make the point before a release whose migration runs on this host."""
    make(op, record.id, contracts=record.request.schema_epoch > op.ledger.schema_epoch()[0])


def make(op: Operation, release: str, *, contracts: bool) -> None:
    """Make the point that `before-deploy=NUMBER` restores to; does nothing where there is no backup.

    A release that contracts the schema (raises its epoch) gets an incremental backup first, which makes going back
    quick. Raises `SwitchyardError`: no migration begins that could not be undone.
    """
    backup = settings.find(op.paths.name)
    if backup is None:
        return
    try:
        backups.require_archiving(backup)
        if contracts:
            op.say("migrate: the schema contracts, so a backup comes first")
            with backups.alone(backup, wait=600):
                for number, repository in enumerate(backup.repositories, start=1):
                    backups.back_up_to(backup, number, repository, "incr", op.say)
        name = pgbackrest.point_name(release)
        statement = (
            f"SELECT pg_create_restore_point('{name}'), "
            "('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int, pg_switch_wal()"
        )
        _warn(op, backup)
        made = state.now().isoformat()
        row = database.sql(backup.container, statement, step="migrate.restore_point")[0]
    except SwitchyardError as error:
        raise SwitchyardError(
            f"No restore point could be made before the migration, so it was not begun: {error.message}", Exit.MIGRATION
        ) from error
    point = {"name": name, "lsn": row[0], "timeline": int(row[1]), "made": made}
    op.ledger.append("restore-point", op=op.id, release=release, **point)
    going_back = f"restore.yml with -e to=before-deploy={name.rpartition('-')[2]}"
    op.say(f"migrate: restore point {name}; {going_back} goes back there")


def _warn(op: Operation, backup: Backup) -> None:
    """Say what migrations fail on: a transaction that holds its locks for long, and no room to rewrite a table."""
    rows = database.sql(backup.container, _OBSTACLES, step="migrate.obstacles", database=backup.database)
    holder, largest = rows[0][0], int(rows[0][1])
    if holder:
        op.say(
            f"migrate: WARNING: the transaction of process {holder} has been open for more than 5 min; a "
            "migration that changes a table it read waits for it in vain"
        )
    status = os.statvfs(backup.live_data)
    free = status.f_bavail * status.f_frsize
    if free < 2 * largest:
        op.say(
            f"migrate: WARNING: {backup.live_data} has {free >> 20} MiB free, and a rewrite of the largest table takes "
            f"up to {2 * largest >> 20} MiB"
        )
