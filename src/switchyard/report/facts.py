"""What the rooms beside the engine left in their state files: last backup, last restore drill and so on.

A job's file is `/var/lib/switchyard/backup/APP-ENV/state/JOB.json` with `ok`, `at`, `succeeded_at`, `message` and
`details`. A room that is not in use has no files, and then nothing is said about it.
"""

import json
from typing import Any

from switchyard.engine.layout import STATE
from switchyard.names import AppName


def jobs(name: AppName) -> dict[str, dict[str, Any]]:
    """How each job ended last, by its name."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted((STATE / "backup" / str(name) / "state").glob("*.json")):
        try:
            data = json.loads(path.read_text())
        except (OSError, ValueError):
            continue
        if isinstance(data, dict) and {"job", "ok", "at"} <= data.keys():
            found[str(data["job"])] = data
    return found


def objectives(job: dict[str, Any]) -> tuple[float | None, float | None]:
    """Recovery time and recovery point that a drill measured, in seconds."""
    details = job.get("details") or {}

    def number(key: str) -> float | None:
        value = details.get(f"{key}_seconds", details.get(key))
        return float(value) if isinstance(value, int | float) else None

    return number("rto"), number("rpo")
