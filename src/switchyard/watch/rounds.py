"""One round of the standing watch: look, judge, tell, note. Its timer runs it, whatever became of the last one.

People are told before it is noted that they were: killed in between, they are told twice rather than never.
"""

import time
from collections.abc import Callable

from switchyard.engine.announce import announce
from switchyard.engine.effects import exclusive
from switchyard.engine.layout import RUNTIME, HostConfig
from switchyard.errors import SwitchyardError
from switchyard.notify import config as notify
from switchyard.notify import heartbeat
from switchyard.report.dora import duration
from switchyard.watch import limits as limited
from switchyard.watch import measure, standing
from switchyard.watch.alerts import moment, title
from switchyard.watch.limits import Limits
from switchyard.watch.standing import Change, Standing

Say = Callable[[str], None]


def run(host: HostConfig, say: Say) -> Standing:
    """Look once. Raises `SwitchyardError` when another round is at work, or what was found cannot be noted."""
    limits = limited.load()
    with exclusive(RUNTIME / "standing.lock", wait=0, busy="Another round of the standing watch is at work."):
        known, now = standing.load(), time.time()
        gap = max(limits.calm_seconds, 4 * limits.interval)
        found = measure.look(known, host, limits, now)
        for change in standing.judge(known, found.findings, found.seen, now, calm=limits.calm_seconds, gap=gap):
            if _tell(change, host, say):
                standing.told(known, change)
        known.looked_at = now
        # Before the heartbeat, which may wait: what people were told is noted first.
        standing.save(known)
        if _beat(known, host, limits, now, say):
            standing.save(known)
    return known


def _tell(change: Change, host: HostConfig, say: Say) -> bool:
    """Leave it in the spool; tells whether that succeeded, so that a full disk only delays it."""
    condition = change.condition
    kind = f"alert.{condition.key.partition(':')[0]}"
    severity, text = condition.severity, title(condition, host)
    if change.over:
        kind, severity, text = f"{kind}.over", "info", f"over after {duration(change.seconds)}: {text}"
    done = announce(
        kind,
        text,
        severity=severity,
        app=condition.app,
        alert=condition.key,
        since=moment(condition.since),
        seconds=round(change.seconds, 1),
    )
    say(text if done else f"not told, the spool takes nothing: {text}")
    return done


def _beat(known: Standing, host: HostConfig, limits: Limits, now: float, say: Say) -> bool:
    """Send a heartbeat when one is due; tells whether there is anything to note of it."""
    try:
        settings = notify.load()
    except SwitchyardError as error:
        say(error.message)
        return False
    # A look comes a moment early or late; without some room every second heartbeat would be a look too late.
    due = settings.heartbeat_seconds - limits.interval / 2
    if not settings.heartbeat_url:
        cleared, known.heartbeat_problem = bool(known.heartbeat_problem), ""
        return cleared
    if 0 <= now - known.heartbeat_at < due:
        return False
    problem = heartbeat.beat(settings, host.name, [title(condition, host) for condition in known.alerts()], now)
    if problem != known.heartbeat_problem:
        say(f"heartbeat: {problem or 'delivered again'}")
    known.heartbeat_problem = problem
    known.heartbeat_at = known.heartbeat_at if problem else now
    return True
