"""One row each minute, so that what a restore lost can be measured to the minute, on an idle database as well."""

from switchyard.data import database
from switchyard.data.settings import OPS_DATABASE, Backup
from switchyard.engine.layout import AppPaths
from switchyard.engine.ledger import Ledger
from switchyard.errors import SwitchyardError

_BEAT = """
SET lock_timeout = '5s';
INSERT INTO heartbeat (at, lsn, release) VALUES (clock_timestamp(), pg_current_wal_lsn(), {release})
  ON CONFLICT (one) DO UPDATE SET at = excluded.at, lsn = excluded.lsn, release = excluded.release;
SELECT pg_walfile_name(pg_switch_wal());
"""
# The switch sends the row off at once. Without it the row waits for archive_timeout, and a loss looks twice as large.


def beat(backup: Backup) -> None:
    """Write the row. Raises `SwitchyardError` when the database does not take it."""
    live = Ledger.load(AppPaths(backup.name)).last_live()
    statement = _BEAT.format(release=database.quoted(live[0] if live else ""))
    try:
        database.sql(backup.container, statement, step="heartbeat.beat", database=OPS_DATABASE, timeout=40)
    except SwitchyardError as error:
        if "does not exist" not in error.message:
            raise
        database.prepare(backup.container)
        database.sql(backup.container, statement, step="heartbeat.beat", database=OPS_DATABASE, timeout=40)
