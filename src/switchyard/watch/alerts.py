"""What the standing watch has told people and what is not over, in words; also for `status`."""

import time
from datetime import UTC, datetime
from typing import Any

from switchyard.engine.layout import HostConfig
from switchyard.errors import SwitchyardError
from switchyard.report.dora import duration
from switchyard.watch import limits, standing
from switchyard.watch.standing import Condition

_MISSED_LOOKS = 5
_LEAST_SECONDS = 60.0
"""After so many looks, and at least so many seconds, without one nobody watches."""


def title(condition: Condition, host: HostConfig) -> str:
    """The alert as one sentence: whose it is, and what is wrong."""
    return f"{condition.app or host.name}: {condition.problem}."


def moment(seconds: float) -> str:
    """A time for people and programs alike; '' for 0."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds") if seconds else ""


def report(app: str, host: HostConfig) -> dict[str, Any]:
    """What stands for this application and its host, and whether anybody watches, ready for JSON."""
    known, now = standing.load(), time.time()
    problems = []
    interval = limits.Limits().interval
    try:
        interval = limits.load().interval
    except SwitchyardError as error:
        problems.append(error.message)
    if known.looked_at and now - known.looked_at > max(_MISSED_LOOKS * interval, _LEAST_SECONDS):
        ago = duration(now - known.looked_at)
        problems.append(f"nobody has looked for {ago}: 'systemctl status switchyard-standing.timer'")
    if known.heartbeat_problem:
        problems.append(f"the heartbeat is not delivered ({known.heartbeat_problem})")
    return {
        "looked_at": moment(known.looked_at),
        "heartbeat_at": moment(known.heartbeat_at),
        "problems": problems,
        "alerts": [
            {
                "alert": condition.key,
                "app": condition.app,
                "severity": condition.told,
                "since": moment(condition.since),
                "text": title(condition, host),
            }
            for condition in known.alerts()
            if condition.app in ("", app)
        ],
    }


def lines(report: dict[str, Any]) -> list[str]:
    """The same for a person."""
    alerts = [f"ALERT     {alert['text']} Since {alert['since']}." for alert in report["alerts"]]
    return alerts + [f"watch     {problem}" for problem in report["problems"]]
