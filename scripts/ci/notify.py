#!/usr/bin/env python3
"""Tells a Slack-compatible webhook (SLACK_WEBHOOK) how a job ended: JOB_STATUS, MESSAGE, VERSION and so on.

For what no host can tell: a build that failed, a host that was not reached. It never fails the job. Without
SLACK_WEBHOOK it does nothing.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime

from common import ROOT, commit, get, run_url, say

sys.path.insert(0, str(ROOT / "src"))

from switchyard.notify.config import Target
from switchyard.notify.send import Undelivered, send

_TRIES = 3


def main() -> None:
    """Send one message, three times at most."""
    if not get("SLACK_WEBHOOK"):
        say("notify: no SLACK_WEBHOOK, nobody to tell")
        return
    status = get("JOB_STATUS", "success")
    what = get("JOB_NAME", "job")
    details = {
        "version": get("VERSION"),
        "release": get("RELEASE"),
        "who": get("ACTOR"),
        "commit": commit(),
        "seconds": float(get("SECONDS_SPENT")) if get("SECONDS_SPENT").replace(".", "", 1).isdigit() else None,
        "run_url": run_url(),
        "message": get("MESSAGE"),
    }
    news = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "title": f"{what}: {status}",
        "severity": "info" if status == "success" else "critical",
        "app": get("GITHUB_REPOSITORY"),
        "details": details,
    }
    target = Target("webhook", get("SLACK_WEBHOOK"))
    for attempt in range(1, _TRIES + 1):
        try:
            send(target, news, "", f"{get('GITHUB_RUN_ID', 'run')}-{get('GITHUB_RUN_ATTEMPT', '1')}-{what}")
            return
        except Undelivered as error:
            say(f"notify: attempt {attempt} of {_TRIES}: {error.reason}")
    if get("GITHUB_ACTIONS"):
        print("::warning::The notification could not be delivered.")


if __name__ == "__main__":
    main()
