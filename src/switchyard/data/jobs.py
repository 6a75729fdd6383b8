"""What the timers run, by name."""

from switchyard.data import archive, drill, dump, heartbeat
from switchyard.data import backup as backups
from switchyard.data.settings import Backup


def run_job(backup: Backup, job: str, say: backups.Say) -> None:
    """Run one job. Raises `SwitchyardError`, so that the unit fails, too."""
    if job == "heartbeat":
        heartbeat.beat(backup)
    elif job in ("daily", "weekly"):
        say(f"{job}: {backups.job(backup, 'incr' if job == 'daily' else 'full', say)}")
    elif job == "archive":
        archive.watch(backup, say)
    elif job == "dump":
        dump.job(backup, say)
    elif job == "drill":
        drill.job(backup, say)
