"""A database that follows another one: built from its backups, and asked how far behind it is.

From its first start on it streams from the primary; what it missed it takes from the repository. It keeps no
replication slot there, so a replica that is away never fills the primary's disk.
"""

from pathlib import PurePosixPath
from typing import Any

from switchyard.data import database, pgbackrest, restore
from switchyard.data.backup import SHORT_SECONDS, Say, alone
from switchyard.data.copy import Copy
from switchyard.data.settings import Backup, find
from switchyard.engine.effects import run
from switchyard.errors import Exit, SwitchyardError
from switchyard.names import AppName

# Without anything left to replay it is not behind, however long ago the last transaction was.
_LAG = """
SELECT pg_is_in_recovery(),
  coalesce((SELECT status FROM pg_stat_wal_receiver), ''),
  coalesce((SELECT sender_host FROM pg_stat_wal_receiver), ''),
  CASE WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn()
      AND EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming') THEN 0
    ELSE coalesce(round(extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())::numeric, 1), -1) END
"""


def prepare(backup: Backup, say: Say, *, check_only: bool = False) -> dict[str, object]:
    """Have the data of a replica on this host, restored from the newest backup where there is none. Safe to repeat.

    Raises `SwitchyardError` when what is here is a database of its own: it may have been promoted.
    """
    inner = PurePosixPath(backup.pgdata).relative_to(backup.data_path)
    data = backup.live_data / inner
    if (data / "PG_VERSION").exists():
        if (data / "standby.signal").exists():
            return {"changed": False, "state": "ready", "message": f"{backup.name} has its replica."}
        raise SwitchyardError(
            f"{data} holds a database of its own, no replica: when it was promoted, move this host from the group "
            "replica to db; to build a replica here, stop it and move that directory away.",
            Exit.PREFLIGHT,
        )
    if check_only:
        return {"changed": True, "state": "missing", "message": "the replica would be built from a backup"}
    with alone(backup, wait=SHORT_SECONDS):
        _build(backup, say)
    return {"changed": True, "state": "ready", "message": f"the replica of {backup.name} was built from a backup"}


def _build(backup: Backup, say: Say) -> None:
    """Restore beside the place and rename: whoever dies in between leaves no half of a database there."""
    chosen = pgbackrest.choose(pgbackrest.parse_info(restore.info(backup)), pgbackrest.Target("latest"))
    copy = Copy(backup, f"{backup.name}-replica", backup.home / "data.building")
    say(f"replica: {chosen.label}, {chosen.size >> 20} MiB")
    # Without --repo, which would end in the replica's settings: what it misses later may come from any place.
    copy.restore(chosen, [f"--set={chosen.label}", "--type=standby"], say)
    copy.remove_container()
    # An empty directory, as the role made it, is replaced by the rename; any other one is not.
    run(["mv", "-T", str(copy.folder), str(backup.live_data)], step="replica.place")


def state(name: AppName) -> dict[str, Any] | None:
    """How the replica on this host is; None when there is none here. `lag_seconds` is None when it is not known."""
    backup = find(name)
    if backup is None or not backup.replica:
        return None
    report: dict[str, Any] = {"replica": True, "streaming": False, "primary": "", "lag_seconds": None, "problem": ""}
    try:
        ((in_recovery, status, sender, lag),) = database.sql(backup.container, _LAG, step="replica.lag", timeout=20)
    except SwitchyardError as error:
        return report | {"problem": error.message}
    report |= {"streaming": status == "streaming", "primary": sender}
    if float(lag) >= 0:
        report["lag_seconds"] = float(lag)
    if in_recovery != "t":
        report |= {"replica": False, "lag_seconds": None}
        report["problem"] = "it was promoted and takes writes: move its host from the group replica to db"
    elif not report["streaming"]:
        report["problem"] = "it does not stream from its primary: 'docker logs' of its container says why"
    return report


def words(report: dict[str, Any]) -> str:
    """The same for a person, in one line."""
    lag = report.get("lag_seconds")
    behind = f"{lag:g} s behind" if lag is not None else "nobody knows how far behind"
    if report["problem"]:
        return f"{report['problem']}{f' ({behind})' if report.get('replica') else ''}"
    return f"streams from {report['primary']}, {behind}"
