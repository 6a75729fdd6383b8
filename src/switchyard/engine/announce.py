"""News for people: an operation, a job or a watch leaves it in a spool, and never waits for anybody to read it.

What is announced here is delivered by the notifier, a process of its own.
"""

import contextlib
import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from switchyard.engine.effects import replace_file
from switchyard.errors import SwitchyardError

SPOOL = Path("/var/spool/switchyard/news")
"""One file for each piece of news: `TIME_NS-PID.json`, so that names sort by time. Root only: 0700."""

_MOST = 10_000
"""News in a spool that nobody empties; more is not written. The notifier keeps far fewer, and says what it drops."""

Severity = Literal["info", "warning", "critical"]


def announce(kind: str, title: str, *, severity: Severity = "info", app: str = "", **details: object) -> bool:
    """Leave one piece of news in the spool; tells whether that was possible.

    Never raises: what is announced matters more than the announcement.

    `kind` is a stable word such as `deploy.live` or `backup.failed`, `title` one sentence for people, `app` an
    APP-ENV (empty for news of the host), `details` plain JSON values. Nothing of it may be secret.
    """
    news = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "kind": kind,
        "severity": severity,
        "app": app,
        "title": title,
        "details": details,
    }
    path = SPOOL / f"{time.time_ns()}-{os.getpid()}.json"
    with contextlib.suppress(SwitchyardError, OSError):
        if SPOOL.is_dir() and sum(1 for _ in SPOOL.iterdir()) >= _MOST:
            return False
        replace_file(path, json.dumps(news) + "\n", step="announce", mode=0o640)
        return True
    return False
