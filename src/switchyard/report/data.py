"""Everything that the page shows, gathered from this host into one value; the page itself is a pure function of it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from switchyard import chain
from switchyard.engine.layout import AppPaths
from switchyard.engine.ledger import Ledger, content
from switchyard.report import facts, story, traffic
from switchyard.report import host as hosts
from switchyard.report.story import Event
from switchyard.report.traffic import Minutes


@dataclass(frozen=True)
class Data:
    """One application on one host, over one period."""

    app: str
    environment: str
    host: str
    since: datetime
    until: datetime
    events: Sequence[Event]
    minutes: Minutes
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    """The host's own, as `host.describe` gives them."""
    findings: Sequence[str] = ()
    """What is wrong with the ledger's chain."""
    lines: int = 0


def gather(paths: AppPaths, host: str, days: float) -> Data:
    """Read everything about the last `days` days."""
    until = datetime.fromtimestamp(time.time(), story.now().tzinfo)
    since = until - timedelta(days=days)
    text = content(paths)
    return Data(
        paths.name.app,
        paths.name.environment,
        host,
        since,
        until,
        Ledger.load(paths).events,
        traffic.load(paths, since, until),
        facts.jobs(paths.name),
        hosts.describe(),
        [finding.text for finding in chain.check(str(paths.name), text)],
        len(chain.split(text)),
    )
