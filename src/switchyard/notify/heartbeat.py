"""A sign of life to somebody outside, who notices when it ends: a dead host alerts nobody."""

from datetime import UTC, datetime
from typing import Any

from switchyard.notify.config import Config, Target
from switchyard.notify.send import Undelivered, send

_TIMEOUT = 5.0
"""Shorter than a webhook's: whoever sends it has to look at services again soon."""


def beat(config: Config, host: str, alerts: list[str], now: float) -> str:
    """Post one heartbeat with the alerts that stand; returns why it was not delivered, or ''. Never the URL."""
    time = datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds")
    news: dict[str, Any] = {
        "time": time,
        "kind": "heartbeat",
        "severity": "info",
        "app": "",
        "title": f"{host} is watched; alerts that stand: {len(alerts)}.",
        "details": {"alerts": alerts},
    }
    target = Target("heartbeat", config.heartbeat_url, format="json", timeout=_TIMEOUT)
    try:
        send(target, news, host, f"heartbeat-{now:.0f}")
    except Undelivered as error:
        return error.reason
    return ""
