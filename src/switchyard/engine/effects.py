"""The only two functions through which the engine changes a host: run a command, replace a file.

Because every effect passes here, every effect is a fault point: a test writes a fault file (root only, on a tmpfs)
that names one of them, and the process is killed, fails or hangs just before or just after it.
"""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from switchyard.errors import Exit, SwitchyardError

FAULT_FILE = Path("/run/switchyard/fault.json")
"""`{"step": NAME, "nth": N, "when": "before|after", "how": "kill|error|hang", "hang_seconds": S, "trace": PATH}`"""


# A write has no time limit of its own; a test's injected hang ends after this.
_WRITE_TIMEOUT = 60.0


@dataclass(frozen=True)
class Completed:
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def reason(self) -> str:
        """The most telling line of what the command said, for an error message."""
        lines = [line.strip() for line in (self.err.strip() or self.out.strip()).splitlines() if line.strip()]
        return lines[-1] if lines else f"exit code {self.code}"


class CommandFailed(SwitchyardError):
    """A command that had to succeed did not."""

    def __init__(self, step: str, argv: Sequence[str], completed: Completed) -> None:
        super().__init__(f"{step}: {argv[0]} failed: {completed.reason}", Exit.FAILED)
        self.completed = completed


class _Faults:
    """Counts effects by step and carries out the one fault that the fault file asks for. Inert without that file."""

    def __init__(self) -> None:
        self.scope = ""
        self.passed: dict[str, int] = {}
        self.plan: dict[str, Any] | None = None
        self.loaded = False

    def _load(self) -> None:
        self.loaded = True
        with contextlib.suppress(OSError, ValueError):
            status = FAULT_FILE.stat()
            if status.st_uid == 0 and not status.st_mode & 0o022:
                self.plan = json.loads(FAULT_FILE.read_text())

    def point(self, step: str, when: str, timeout: float) -> None:
        """Pass a fault point; does not return when the plan says kill."""
        if not self.loaded:
            self._load()
        if self.plan is None:
            return
        step = self.scope + step
        if when == "before":
            self.passed[step] = self.passed.get(step, 0) + 1
            if "trace" in self.plan:
                with Path(self.plan["trace"]).open("a") as file:
                    file.write(f"{step} {self.passed[step]}\n")
        here = (step, self.passed.get(step), when)
        if here != (self.plan.get("step"), self.plan.get("nth", 1), self.plan.get("when")):
            return
        how, seconds, self.plan = self.plan["how"], float(self.plan.get("hang_seconds", timeout)), None
        # Fires once: what repairs the damage must not meet the same fault again.
        FAULT_FILE.unlink(missing_ok=True)
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "error":
            raise OSError(5, f"injected fault {when} '{step}'")
        if how == "hang":
            time.sleep(min(seconds, timeout))
            raise TimeoutError(f"injected hang {when} '{step}'")


_faults = _Faults()


def scope(name: str) -> None:
    """Put `name` before every step of this process, so that tests tell it from others that take the same steps."""
    _faults.scope = f"{name}:"


def run(
    argv: Sequence[str],
    *,
    step: str,
    timeout: float = 60.0,
    stdin: str | None = None,
    environment: Mapping[str, str] | None = None,
    check: bool = True,
) -> Completed:
    """Run a command that changes something and return what it answered.

    `step` names the effect in messages and fault plans; `timeout` is in seconds; `environment` is added to the
    process's own. Raises `CommandFailed` when `check` is set and the command fails, `SwitchyardError` on timeout.
    """
    try:
        _faults.point(step, "before", timeout)
        done = subprocess.run(
            list(argv),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            # What a command prints is not ours to choose, and bytes that are no text must not end an operation.
            errors="replace",
            env={**os.environ, **environment} if environment else None,
        )
        _faults.point(step, "after", timeout)
    except (subprocess.TimeoutExpired, TimeoutError) as error:
        raise SwitchyardError(f"{step}: {argv[0]} did not finish within {timeout:.0f} s.") from error
    except OSError as error:
        raise SwitchyardError(f"{step}: cannot run {argv[0]}: {error.strerror or error}.") from error
    completed = Completed(done.returncode, done.stdout, done.stderr)
    if check and completed.code != 0:
        raise CommandFailed(step, argv, completed)
    return completed


def query(
    argv: Sequence[str],
    *,
    timeout: float = 20.0,
    stdin: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Completed:
    """Run a command that only reads. No fault point: whatever happens to it, nothing has changed."""
    try:
        done = subprocess.run(
            list(argv),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            errors="replace",
            env={**os.environ, **environment} if environment else None,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Completed(127, "", f"{argv[0]}: {error}")
    return Completed(done.returncode, done.stdout, done.stderr)


def replace_file(
    path: Path, data: str | bytes, *, step: str, mode: int = 0o644, owner: tuple[int, int] | None = None
) -> None:
    """Replace `path` whole: readers see the old content or the new, also after a power cut.

    Missing parent directories are made (0755). `owner` is (uid, gid). Raises `SwitchyardError` naming the file when
    the disk, its inodes or its permissions refuse; the old content then stands.
    """
    content = data.encode() if isinstance(data, str) else data
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        _faults.point(step, "before", _WRITE_TIMEOUT)
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        try:
            if owner is not None:
                os.fchown(descriptor, *owner)
            os.fchmod(descriptor, mode)
            view = memoryview(content)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        # rename(2) itself, so that what is pointed at changes in one step.
        temporary.replace(path)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        _faults.point(step, "after", _WRITE_TIMEOUT)
    except TimeoutError as error:
        raise SwitchyardError(f"{step}: writing {path} did not finish.") from error
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        hint = {28: "free space or inodes on that file system", 30: "remount that file system read-write"}
        fix = hint.get(error.errno or 0, "check that file system")
        raise SwitchyardError(f"{step}: cannot write {path}: {error.strerror or error}; {fix}.") from error


@contextlib.contextmanager
def exclusive(path: Path, *, wait: float, busy: str | Callable[[], str]) -> Iterator[None]:
    """Hold the lock `path` while the block runs; the kernel frees it when the process dies.

    Waits up to `wait` seconds, then raises `SwitchyardError(busy)` with the exit code for a busy host; only then is a
    `busy` that can be called asked for its words. Raises `SwitchyardError`, too, when the lock's file cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SwitchyardError(f"Cannot make the lock {path}: {error.strerror or error}; free space there.") from error
    try:
        deadline = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise SwitchyardError(busy() if callable(busy) else busy, Exit.BUSY) from None
                time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)
