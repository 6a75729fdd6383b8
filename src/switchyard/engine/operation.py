"""One operation on one application: its lock, its lease, its phases and what the operator reads about them."""

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from switchyard.engine import lease as leases
from switchyard.engine.announce import Severity, announce
from switchyard.engine.effects import exclusive, replace_file
from switchyard.engine.layout import AppPaths, HostConfig
from switchyard.engine.lease import Lease
from switchyard.engine.ledger import Ledger
from switchyard.errors import Exit, SwitchyardError
from switchyard.watch import state

FAILED = "FAILED: "
"""What begins the reason for an operation's end in its log."""

_NEWS: dict[str, tuple[str, Severity]] = {
    "live": ("live", "info"),
    "rolled back": ("live", "warning"),
    "reverted": ("reverted", "critical"),
    "failed": ("failed", "critical"),
}
"""Outcomes that people are told of: the last word of the news' kind, and how loud it is."""


@dataclass
class Result:
    """How an operation ended, as the follower and the ledger get it."""

    op: str
    kind: str
    code: int = 0
    message: str = ""
    details: str = ""
    changed: bool = False
    version: str = ""
    release: str = ""
    previous: str = ""
    colour: str = ""
    digests: dict[str, str] = field(default_factory=dict)
    phases: dict[str, float] = field(default_factory=dict)
    """Seconds by phase."""
    switch_ms: float = 0.0
    """From the rename of the pointer to its proof on new connections."""
    live_ms: float = 0.0
    """From the start of the engine to that proof."""
    switched_at: float = 0.0
    """When the pointer was renamed, in seconds since 1970 (UTC): from here on old connections drain."""
    seen: dict[str, int] = field(default_factory=dict)
    """Requests of the new release and errors among them while it was watched, on all edges; empty when it was not."""
    data: dict[str, Any] = field(default_factory=dict)
    """What one host of a fleet tells its coordinator."""


@dataclass
class Operation:
    """An operation under way. Use as: `with op.exclusively(): op.begin(...); with op.phase("pull"): ...`."""

    id: str
    kind: str
    who: str
    paths: AppPaths
    host: HostConfig
    result: Result
    ledger: Ledger
    began: float = field(default_factory=time.monotonic)
    lease: Lease | None = None
    commit: str = ""
    """Revision of the source that is released, for the news of it."""
    run_url: str = ""
    """Page of the job that asked for it."""

    @classmethod
    def open(cls, identity: str, kind: str, who: str, paths: AppPaths, host: HostConfig) -> "Operation":
        """Prepare an operation; nothing is taken or written yet."""
        return cls(identity, kind, who, paths, host, Result(identity, kind), Ledger(paths))

    def say(self, text: str) -> None:
        """Tell the operator, with the time (UTC). A log that cannot be written must not stop a release."""
        with contextlib.suppress(OSError):
            print(f"{datetime.now(UTC):%H:%M:%S} {text}", flush=True)

    @contextlib.contextmanager
    def exclusively(self, wait: float = 2.0) -> Iterator[None]:
        """Hold the application's lock, waiting for it at most `wait` seconds; the ledger is read afresh."""
        current = leases.holder(self.paths)
        by = f": {current.describe()}" if current else ""
        busy = (
            f"Another operation is changing {self.paths.name} right now{by}. Wait for it, or read 'switchyard status'."
        )
        with exclusive(self.paths.lock, wait=wait, busy=busy):
            self.ledger = Ledger.load(self.paths)
            if self.lease is not None:
                leases.check(self.paths, self.lease)
            yield

    def begin(self, version: str, *, take_over: bool = False, above: int = 0) -> None:
        """Take the lease (its fencing token is higher than `above`) and write the start into the ledger."""
        self.lease = leases.acquire(
            self.paths, op=self.id, kind=self.kind, who=self.who, take_over=take_over, above=above
        )
        self.result.version = version
        self.ledger.append("start", op=self.id, kind=self.kind, who=self.who, version=version)
        self._tell("started", f"{self.kind} to {version} started.", "info")

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Run one phase: renews the lease under the phase's name and measures it."""
        if self.lease is None:
            raise SwitchyardError(f"Phase {name} needs an operation that has begun.")
        if self.lease.phase != name:
            self.lease = leases.renew(self.paths, self.lease, name)
        started = time.monotonic()
        try:
            yield
        finally:
            self.result.phases[name] = round(time.monotonic() - started, 3)

    def switched(self, milliseconds: float) -> None:
        """Note a proven switch."""
        self.result.switch_ms = round(milliseconds, 1)
        self.result.switched_at = round(time.time() - milliseconds / 1000, 3)
        self.result.live_ms = round((time.monotonic() - self.began) * 1000, 1)

    def end(self, outcome: str) -> None:
        """Write the end into the ledger and give the lease back."""
        if self.lease is None:
            return
        self.ledger.append(
            "end",
            op=self.id,
            kind=self.kind,
            outcome=outcome,
            code=self.result.code,
            message=self.result.message,
            version=self.result.version,
            release=self.result.release,
            seconds=round(time.monotonic() - self.began, 2),
            phases=self.result.phases,
            switch_ms=self.result.switch_ms,
            live_ms=self.result.live_ms,
            **(self.result.seen or self._seen()),
        )
        leases.release(self.paths, self.lease)
        if outcome in _NEWS:
            event, severity = _NEWS[outcome]
            self._tell(event, self.result.message, severity)

    def end_after(self, error: SwitchyardError, outcome: str) -> None:
        """Write the end of an operation that failed; one whose lease was taken over has a new owner, who writes it."""
        self.give_up(error)
        if self.lease is None or error.code is Exit.INTERRUPTED:
            return
        try:
            with self.exclusively(wait=30):
                self.end(outcome)
        except SwitchyardError as unwritten:
            # Recovery, which runs when this process has ended, writes the end; the follower gets the first error.
            self.say(f"the end is left to recovery: {unwritten.message}")

    def _seen(self) -> dict[str, int]:
        """Requests of the new release and errors among them, by the watch of this operation on this host."""
        known = state.load(self.paths)
        if known is None or known.op != self.id or not known.figures:
            return {}
        return {key: known.figures[key] for key in ("requests", "errors")}

    def _tell(self, event: str, title: str, severity: Severity) -> None:
        """Leave news of a release for people; what somebody does by hand is no news."""
        if self.kind not in ("deploy", "rollback"):
            return
        result = self.result
        announce(
            f"{self.kind}.{event}",
            f"{self.paths.name}: {title}",
            severity=severity,
            app=str(self.paths.name),
            op=self.id,
            version=result.version,
            release=result.release,
            previous=result.previous,
            who=self.who,
            commit=self.commit,
            run_url=self.run_url,
            seconds=round(time.monotonic() - self.began, 2) if event != "started" else None,
            phase=next(reversed(result.phases), "") if severity != "info" else "",
        )

    def fail(self, error: SwitchyardError) -> None:
        """Put an error into the result."""
        self.result.code = int(error.code)
        self.result.message = error.message
        self.result.details = error.details

    def give_up(self, error: SwitchyardError) -> None:
        """Put an error into the result, and tell the operator."""
        self.fail(error)
        self.say(FAILED + error.message)

    def write_result(self) -> None:
        """Leave the result where followers look for it."""
        write_result(self.paths, self.result)


def tell_interrupted(paths: AppPaths, start: Mapping[str, Any], message: str) -> None:
    """Leave news of a release whose operation died; what died of anything else is no news."""
    if start["kind"] in ("deploy", "rollback"):
        app, version, who = str(paths.name), start["version"], start.get("who", "")
        title = f"{app}: {message}"
        announce(f"{start['kind']}.interrupted", title, severity="critical", app=app, version=version, who=who)


def write_result(paths: AppPaths, result: Result) -> None:
    """Write a result file."""
    replace_file(paths.result(result.op), json.dumps(asdict(result)) + "\n", step="operation.result", mode=0o640)


def read_result(paths: AppPaths, operation: str) -> dict[str, object] | None:
    """Read a result file; None while the operation has not ended."""
    try:
        data = json.loads(paths.result(operation).read_text())
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None
