"""The lease: one operation at a time may change an application, and a dead one loses the right by itself.

`flock` guards each verb and dies with its process. The lease covers what spans verbs: it names the holder, carries a
fencing token that every verb checks, and counts as free when its holder is dead and 60 s have passed (at once when
recovery runs). Time is the boot clock, so a changed wall clock neither frees nor prolongs it.
"""

import contextlib
import json
import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from switchyard.engine.effects import exclusive, replace_file
from switchyard.engine.layout import AppPaths
from switchyard.errors import Exit, SwitchyardError

LEASE_SECONDS = 60.0


def boot_id() -> str:
    """Identify this boot of the kernel; a lease of another boot is dead."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _started(pid: int) -> str:
    """Start time of a process in clock ticks since boot (field 22 of /proc/PID/stat), or '' when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True)
class Lease:
    """Who holds the right to change one application."""

    op: str
    kind: str
    who: str
    fence: int
    phase: str
    boot: str
    pid: int
    pid_started: str
    renewed: float

    @property
    def process_alive(self) -> bool:
        """Tell whether the process that wrote this lease still runs."""
        return self.boot == boot_id() and self.pid_started != "" and _started(self.pid) == self.pid_started

    @property
    def alive(self) -> bool:
        """Tell whether the holder still has the right."""
        if not self.op or self.boot != boot_id():
            return False
        return self.process_alive or _now() - self.renewed < LEASE_SECONDS

    @property
    def age(self) -> float:
        """Seconds since the holder last renewed it."""
        return max(0.0, _now() - self.renewed)

    def describe(self) -> str:
        """Say who holds it, for an operator."""
        return f"{self.kind} {self.op} by {self.who or 'unknown'}, in phase {self.phase}, renewed {self.age:.0f} s ago"


def read(paths: AppPaths) -> Lease | None:
    """Return the lease on disk, held or not; None when there is none or it cannot be understood."""
    try:
        return Lease(**json.loads(paths.lease.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def holder(paths: AppPaths) -> Lease | None:
    """Return the lease when somebody holds it now."""
    lease = read(paths)
    return lease if lease and lease.alive else None


def _write(paths: AppPaths, lease: Lease) -> Lease:
    replace_file(paths.lease, json.dumps(asdict(lease)) + "\n", step=f"lease.{lease.phase or 'free'}", mode=0o640)
    return lease


def acquire(paths: AppPaths, *, op: str, kind: str, who: str, take_over: bool = False, above: int = 0) -> Lease:
    """Take the lease; the caller holds the application's lock.

    `take_over` lets a rollback end a probation that is only waiting. The fencing token is higher than `above`. Raises
    `SwitchyardError` naming the holder.
    """
    current = read(paths)
    if current and current.alive and current.op != op and not (take_over and current.phase == "watch"):
        raise SwitchyardError(
            f"Another operation holds {paths.name}: {current.describe()}. Wait for it, or follow it with "
            f"'switchyard status'; the lease frees itself {LEASE_SECONDS:.0f} s after its holder dies.",
            Exit.BUSY,
        )
    pid = os.getpid()
    fence = max(current.fence if current else 0, above) + 1
    return _write(paths, Lease(op, kind, who, fence, "preflight", boot_id(), pid, _started(pid), _now()))


def join(paths: AppPaths, *, op: str, kind: str, who: str, fence: int, phase: str) -> Lease:
    """Take part, on one of several hosts, in what `op` does under the fencing token that it was given.

    The token only grows: raises `SwitchyardError` when this host has seen a higher one, or the same of somebody else.
    """
    current = read(paths)
    if current and (current.fence > fence or (current.fence == fence and current.op not in ("", op))):
        raise SwitchyardError(f"The lease on {paths.name} was taken over by {current.describe()}.", Exit.INTERRUPTED)
    pid = os.getpid()
    return _write(paths, Lease(op, kind, who, fence, phase, boot_id(), pid, _started(pid), _now()))


def renew(paths: AppPaths, lease: Lease, phase: str) -> Lease:
    """Prolong the lease on entering `phase`; raises `SwitchyardError` when somebody else has taken it."""
    check(paths, lease)
    pid = os.getpid()
    return _write(
        paths,
        Lease(lease.op, lease.kind, lease.who, lease.fence, phase, boot_id(), pid, _started(pid), _now()),
    )


def beat(paths: AppPaths, fence: int, phase: str) -> bool:
    """Prolong the lease with this token for a holder that works on other hosts; tells whether it still is the holder's.

    A verb that is at work here is alive itself and prolongs it at its end, so a lock that is taken is no loss.
    """
    current = read(paths)
    if current is None or current.fence != fence or not current.op:
        return False
    with contextlib.suppress(SwitchyardError), exclusive(paths.lock, wait=1, busy="A verb is at work."):
        current = read(paths)
        if current is None or current.fence != fence or not current.op:
            return False
        _write(paths, replace(current, phase=phase, renewed=_now()))
    return True


def prolong(paths: AppPaths, lease: Lease) -> None:
    """Let the lease's time begin anew, when it is still this one; the caller holds the application's lock.

    One that cannot be written is no failure of what was done: the coordinator's next beat tries again.
    """
    current = read(paths)
    if current is not None and (current.fence, current.op) == (lease.fence, lease.op):
        with contextlib.suppress(SwitchyardError):
            _write(paths, replace(current, renewed=_now()))


def check(paths: AppPaths, lease: Lease) -> None:
    """Compare the fencing token; raises `SwitchyardError` when the lease was taken over."""
    current = read(paths)
    if current is None or (current.fence, current.op) != (lease.fence, lease.op):
        by = current.describe() if current and current.op else "recovery"
        raise SwitchyardError(f"The lease on {paths.name} was taken over by {by}.", Exit.INTERRUPTED)


def release(paths: AppPaths, lease: Lease) -> None:
    """Give the lease back, when it is still this one."""
    current = read(paths)
    if current is not None and current.fence == lease.fence and current.op:
        _write(paths, Lease("", "", "", lease.fence, "", "", 0, "", 0.0))
