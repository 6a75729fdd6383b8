"""The spool as the notifier sees it: what waits, what is too old or too much, and what every target has."""

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from switchyard.engine.announce import SPOOL
from switchyard.engine.effects import run

_STALE_SECONDS = 60.0
_BATCH = 500


def waiting() -> list[str]:
    """Names of the news in the spool, oldest first."""
    if not SPOOL.is_dir():
        return []
    return sorted(path.name for path in SPOOL.iterdir() if path.suffix == ".json" and not path.name.startswith("."))


def read(name: str) -> dict[str, Any] | None:
    """One piece of news; None when it is gone or is none."""
    try:
        data = json.loads((SPOOL / name).read_text())
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def surplus(names: list[str], max_age: float, max_news: int) -> list[str]:
    """Those that are older than `max_age` seconds, or too many; the oldest go first."""
    many = names[: max(0, len(names) - max_news)]
    limit = time.time() - max_age
    old = [name for name in names[len(many) :] if _modified(SPOOL / name) < limit]
    return many + old


def remove(names: Iterable[str]) -> None:
    """Take news out of the spool."""
    paths = [str(SPOOL / name) for name in names]
    for start in range(0, len(paths), _BATCH):
        run(["rm", "-f", "--", *paths[start : start + _BATCH]], step="notify.remove")


def unfinished() -> bool:
    """Tell whether somebody is writing news right now; what a killed writer left is removed."""
    found = list(SPOOL.glob(".*.tmp")) if SPOOL.is_dir() else []
    stale = [path.name for path in found if time.time() - _modified(path) > _STALE_SECONDS]
    remove(stale)
    return len(found) > len(stale)


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return time.time()
