"""Who owns a bed: a process, told apart from a later one with the same number by its start time."""

from __future__ import annotations

import os
from pathlib import Path


def parse_start(stat: str) -> str:
    """Return the start time from /proc/PID/stat; the name in it may contain spaces and brackets."""
    return stat.rpartition(")")[2].split()[19]


def of(pid: int) -> str | None:
    """Return the identity of a running process, or None; a zombie counts as gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    if stat.rpartition(")")[2].split()[0] in "ZX":
        return None
    return f"{pid}:{parse_start(stat)}"


def me() -> str:
    """Return the identity of this process."""
    found = of(os.getpid())
    assert found is not None
    return found


def alive(identity: str) -> bool:
    """Tell whether the very process that an identity names is still running."""
    pid = identity.partition(":")[0]
    return pid.isdigit() and of(int(pid)) == identity
