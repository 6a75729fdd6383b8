"""Starts an operation as a unit of its own and follows it; losing the follower loses nothing."""

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from switchyard.engine import lease as leases
from switchyard.engine.effects import query, replace_file, run
from switchyard.engine.layout import OPERATION_LOGS, REQUESTS, RUNTIME, AppPaths
from switchyard.engine.operation import FAILED, Result, read_result
from switchyard.errors import Exit, SwitchyardError
from switchyard.names import check_operation, new_operation

BESIDE = ("backup", "drill", "scratch")
"""Operations that change nothing that is live, so they go on beside a release."""

_LONGEST = 24 * 3600
_UNIT_BYTES = 64 << 10
_UNKNOWN_ANSWERS = 5
"""How often nothing may be found of an operation that was started, at least a second each, before it counts as lost."""
_POLL = 0.02


def start(paths: AppPaths, kind: str, request: dict[str, Any], operation: str = "") -> str:
    """Start an operation in a systemd unit that outlives this process; returns its id.

    A caller that chose the id itself may call again after a lost connection: a known operation is not started twice.
    The request travels by a root-only file on a tmpfs, since it carries secrets. Whatever ends the unit, systemd runs
    `recover` after it.
    """
    if operation and is_known(paths, check_operation(operation)):
        return operation
    # A member's order is judged by its fencing token, under the lock.
    holder = leases.holder(paths) if kind != "member" else None
    beside = kind in BESIDE or (kind == "rollback" and holder is not None and holder.phase == "watch")
    if holder and holder.process_alive and not beside:
        raise SwitchyardError(f"Another operation is changing {paths.name} right now: {holder.describe()}.", Exit.BUSY)
    operation = operation or new_operation()
    engine = str(Path(sys.argv[0]).resolve())
    log = OPERATION_LOGS / f"{operation}.log"
    data = {"op": operation, "kind": kind, "app": str(paths.name), "request": request}
    replace_file(REQUESTS / f"{operation}.json", json.dumps(data), step="operation.request", mode=0o600)
    if not OPERATION_LOGS.is_dir():
        run(["mkdir", "-p", "-m", "0750", str(OPERATION_LOGS)], step="operation.logs")
    started = run(
        [
            "systemd-run",
            "--quiet",
            "--collect",
            "--no-block",
            f"--unit=switchyard-{operation}",
            f"--description=Switchyard {kind} of {paths.name}",
            f"--property=ExecStopPost={engine} recover --app {paths.name} --after {operation}",
            f"--property=StandardOutput={_output(log)}",
            "--property=StandardError=inherit",
            f"--property=RuntimeMaxSec={_LONGEST}",
            engine,
            "perform",
            operation,
        ],
        step="operation.unit",
        check=False,
    )
    # A start that is repeated at once meets its own unit, which is just as good.
    if started.code != 0 and "already" not in started.err:
        raise SwitchyardError(f"systemd cannot start the operation: {started.reason.rstrip('.')}{_lack_of_room()}.")
    return operation


def _lack_of_room() -> str:
    """What systemd does not say by itself when it has no room for a unit's file."""
    room = os.statvfs(RUNTIME)
    full = room.f_bavail * room.f_frsize < _UNIT_BYTES or (room.f_files and not room.f_favail)
    return "; there is no space left on /run, where it writes its units" if full else ""


def _output(log: Path) -> str:
    """Where the unit's words go: systemd does not start a unit without its log, and a rollback shall not need one."""
    room = os.statvfs(log.parent)
    full = (room.f_files and not room.f_favail) or room.f_flag & os.ST_RDONLY
    return "journal" if full else f"append:{log}"


def is_known(paths: AppPaths, operation: str) -> bool:
    """Tell whether an operation's unit was ever started on this host."""
    return (OPERATION_LOGS / f"{operation}.log").exists() or paths.result(operation).exists()


def follow(paths: AppPaths, operation: str, offset: int, wait: float) -> dict[str, Any]:
    """Return what the operation said since `offset`, and its result once it ended; waits up to `wait` seconds."""
    log = OPERATION_LOGS / f"{operation}.log"
    deadline = time.monotonic() + wait
    while True:
        result = read_result(paths, operation)
        text = _read_from(log, offset)
        # With a result the last lines are there, too: the result is written after them.
        there = False
        if result is None and time.monotonic() > deadline:
            there = _is_there(operation)
            if not there and log.exists():
                # Read again after asking systemd: it may have been written in between.
                result = read_result(paths, operation) or _lost(operation)
        if result is not None or time.monotonic() > deadline:
            whole = text[: text.rfind(b"\n") + 1] if result is None else text
            return {
                "op": operation,
                "offset": offset + len(whole),
                "lines": whole.decode(errors="replace").splitlines(),
                "known": there or result is not None or is_known(paths, operation),
                "done": result is not None,
                "result": result,
            }
        time.sleep(_POLL)


def to_end(paths: AppPaths, operation: str, say: Callable[[str], None]) -> dict[str, Any]:
    """Follow an operation that was started on this host to its end, handing on each line; returns its result."""
    offset = unknown = 0
    while True:
        seen = follow(paths, operation, offset, 1.0)
        offset = seen["offset"]
        for line in seen["lines"]:
            say(line)
        if seen["done"]:
            return dict(seen["result"])
        unknown = 0 if seen["known"] else unknown + 1
        if unknown > _UNKNOWN_ANSWERS:
            return _lost(operation)


def _is_there(operation: str) -> bool:
    """Tell whether the operation's unit runs, or what follows on it."""
    state = query(["systemctl", "show", "--property=ActiveState", "--value", f"switchyard-{operation}"]).out.strip()
    return state not in ("inactive", "failed")


def _lost(operation: str) -> dict[str, Any]:
    """A result, with the last reason, for a unit that left none because even its recovery could not write."""
    log = _read_from(OPERATION_LOGS / f"{operation}.log", 0).decode(errors="replace")
    reasons = [line.partition(FAILED)[2] for line in log.splitlines() if FAILED in line]
    reason = reasons[-1] if reasons else "The operation died."
    message = f"{reason} It could not leave its result: 'switchyard recover', then 'switchyard status'."
    return asdict(Result(operation, "", int(Exit.INTERRUPTED), message))


def _read_from(path: Path, offset: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read()
    except OSError:
        return b""
