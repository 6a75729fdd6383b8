"""What the timer does each minute: count the edge's new log lines, note the disks, renew the page and the metrics."""

import time
from collections.abc import Sequence
from pathlib import Path

from switchyard.engine.effects import replace_file, run
from switchyard.engine.layout import EDGE, LOGS, AppPaths, HostConfig
from switchyard.names import AppName
from switchyard.report import data, host, metrics, page, traffic

PAGES = EDGE / "report"
"""Where the edge serves the pages from: a directory that its container sees."""

_PAGE_SECONDS = 300.0
_LARGE_LOG_BYTES = 50 << 20
"""Below the size at which the role rotates: logrotate itself knows that one."""


def page_file(name: AppName) -> Path:
    """Where an application's page lies."""
    return PAGES / str(name) / "index.html"


def _rotate() -> None:
    """Have large logs rotated now: the distribution's own timer comes once a day, and a disk is full sooner."""
    if any(path.stat().st_size > _LARGE_LOG_BYTES for path in (LOGS / "edge").glob("*.jsonl")):
        run(["logrotate", "/etc/logrotate.d/switchyard-edge"], step="collect.rotate", check=False)


def collect(names: Sequence[AppName], config: HostConfig, days: float) -> dict[str, int]:
    """Do it for every application of this host; returns how many log lines were new for each."""
    host.sample()
    done = {}
    for name in names:
        paths = AppPaths(name)
        done[str(name)] = traffic.collect(paths)
        file = page_file(name)
        if not file.is_file() or time.time() - file.stat().st_mtime > _PAGE_SECONDS:
            replace_file(file, page.render(data.gather(paths, config.name, days)), step="report.page")
    _rotate()
    metrics.write(names)
    return done
