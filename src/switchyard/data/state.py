"""What each job did last, and what is being alerted: one small file each, so that jobs never write over each other."""

import contextlib
import json
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from switchyard.data.settings import Backup
from switchyard.engine.announce import Severity, announce
from switchyard.engine.effects import replace_file
from switchyard.errors import Exit, SwitchyardError

REMIND_SECONDS = 86_400.0


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Outcome:
    """How a job ended last."""

    job: str
    ok: bool
    at: str
    message: str
    succeeded_at: str = ""
    """When it last succeeded; empty when it never did."""
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def age(self) -> float | None:
        """Seconds since the last success, or None when there was none."""
        return (now() - datetime.fromisoformat(self.succeeded_at)).total_seconds() if self.succeeded_at else None


def _path(backup: Backup, job: str) -> Path:
    return backup.folder / "state" / f"{job}.json"


def read(backup: Backup, job: str) -> Outcome | None:
    """How a job ended last; None when it never ran."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        return Outcome(**json.loads(_path(backup, job).read_text()))
    return None


def write(backup: Backup, job: str, *, ok: bool, message: str, **details: Any) -> Outcome:
    """Note how a job ended."""
    last, at = read(backup, job), now().isoformat(timespec="seconds")
    succeeded = at if ok else last.succeeded_at if last else ""
    outcome = Outcome(job, ok, at, message, succeeded, details)
    replace_file(_path(backup, job), json.dumps(asdict(outcome), indent=1) + "\n", step=f"data.{job}_state")
    return outcome


def alert(backup: Backup, kind: str, problem: str, *, severity: Severity = "critical", **details: Any) -> None:
    """Announce a problem once, again when it changes or a day has passed, and that it is over. '' is no problem."""
    path = backup.folder / "state" / f"alert-{kind}.json"
    try:
        open_since = json.loads(path.read_text())
    except (OSError, ValueError):
        open_since = {}
    was, told = str(open_since.get("problem", "")), float(open_since.get("told", 0.0))
    stamp = now().timestamp()
    # Numbers in a sentence change all the time; the same sentence with others is the same problem.
    same = _words(was) == _words(problem) and open_since.get("severity", severity) == severity
    if not problem and not was:
        return
    if problem and same and stamp - told < REMIND_SECONDS:
        return
    if problem:
        announce(f"backup.{kind}", f"{backup.name}: {problem}", severity=severity, app=str(backup.name), **details)
    else:
        announce(f"backup.{kind}.over", f"{backup.name}: over: {was}", app=str(backup.name))
    noted = {"problem": problem, "told": stamp, "severity": severity}
    replace_file(path, json.dumps(noted) + "\n", step="data.alert")


def _words(text: str) -> str:
    return "".join(character for character in text if not character.isdigit())


def require_recent_drill(backup: Backup | None) -> None:
    """Refuse a deploy when the inventory wants a recent drill and there is none."""
    if backup is None or not backup.deploy_needs_drill_days:
        return
    outcome = read(backup, "drill")
    age = outcome.age if outcome else None
    if age is None or age > backup.deploy_needs_drill_days * 86_400:
        said = "none has succeeded yet" if age is None else f"the last good one is {age / 86_400:.1f} days old"
        raise SwitchyardError(
            f"backup_deploy_needs_drill_days wants a restore drill of at most {backup.deploy_needs_drill_days} days "
            f"and {said}: 'switchyard drill {backup.environment}' runs one.",
            Exit.PREFLIGHT,
        )
