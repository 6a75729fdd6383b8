"""How a deploy follows the watch: it starts it, shows what it says, and ends as it decides."""

import contextlib
import sys
import time
from pathlib import Path

from switchyard.engine import lease as leases
from switchyard.engine import phases
from switchyard.engine.layout import OPERATION_LOGS, STATE
from switchyard.engine.operation import Operation
from switchyard.engine.records import Record
from switchyard.errors import Exit, SwitchyardError
from switchyard.watch import state, watcher

_POLL = 0.1
_ALIVE_EVERY = 5.0
_SILENT = 60.0
"""Seconds without progress after which the watch is not waited for: it cannot write what it finds. It has a line every
five seconds otherwise (`rule.INTERVAL`)."""


def engine() -> str:
    """The engine's own file, under the name that its content gave it."""
    return str(Path(sys.argv[0]).resolve())


def attend(op: Operation, record: Record) -> None:
    """Have the release watched, and follow until the verdict; a detached watch is not followed.

    Where several hosts go together, a step of a canary ends when it has held; the unit watches on until the next one.
    Raises `SwitchyardError`: reverted (the old release is live again), or inconclusive (the new one stays; a canary
    gives its clients back).
    """
    pointer = phases.live_pointer(op.paths)
    if pointer is None or not pointer.probation or pointer.release != record.id:
        return
    known = state.load(op.paths)
    if known is None or (known.op, known.release, known.done) != (op.id, record.id, False):
        watcher.begin(op.paths, op.id, record, op.result.switched_at or time.time())
    log = OPERATION_LOGS / f"{op.id}.watch.log"
    # What was shown with the step before is not shown again.
    offset = log.stat().st_size if log.is_file() else 0
    watcher.start(op.paths, op.id, engine())
    # Of several hosts, the operation that leads them waits for a person.
    if record.request.watch == "detached" or (record.request.canary.manual and not pointer.members):
        op.say("watch: the host goes on watching; 'switchyard status' tells how it ends")
        return
    if not pointer.is_canary:
        op.say(f"watch: for {record.request.probation_seconds:.0f} s, {pointer.previous} stands by as backup")
    _conclude(_follow(op, offset), record)


def _follow(op: Operation, offset: int) -> state.Probation:
    log, alive = OPERATION_LOGS / f"{op.id}.watch.log", time.monotonic()
    last, moved = state.load(op.paths), alive
    while True:
        known = state.load(op.paths)
        if known != last:
            last, moved = known, time.monotonic()
        offset = _show(log, offset)
        if known is None or known.op != op.id:
            raise SwitchyardError("The watch was taken over by another operation.", Exit.INTERRUPTED)
        if known.done or _is_for_the_leader(op, known):
            _show(log, offset)
            return known
        if time.monotonic() - alive > _ALIVE_EVERY:
            if op.lease is not None:
                leases.check(op.paths, op.lease)
            watcher.start(op.paths, op.id, engine())
            alive = time.monotonic()
        if time.monotonic() - moved > _SILENT:
            raise SwitchyardError(
                f"The watch of {known.release} has got no further for {_SILENT:.0f} s: is {STATE} full? It goes on, "
                "and both colours run: 'switchyard status' tells how it ends.",
                Exit.INCONCLUSIVE,
            )
        time.sleep(_POLL)


def _is_for_the_leader(op: Operation, known: state.Probation) -> bool:
    """Whether several hosts act together on what is known now, led by whoever called this."""
    pointer = phases.live_pointer(op.paths)
    return bool(pointer and pointer.members) and bool(known.verdict or (pointer and known.held == pointer.share))


def _show(log: Path, offset: int) -> int:
    try:
        with log.open("rb") as file:
            file.seek(offset)
            text = file.read()
    except OSError:
        return offset
    whole = text[: text.rfind(b"\n") + 1]
    with contextlib.suppress(OSError):
        print(whole.decode(errors="replace"), end="", flush=True)
    return offset + len(whole)


def _conclude(known: state.Probation, record: Record) -> None:
    if known.verdict == "revert":
        raise SwitchyardError(f"Release {record.id} failed on probation: {known.reason}.", Exit.REVERTED)
    if known.goes_back:
        raise SwitchyardError(
            f"Release {record.id} could not be judged as a canary: {known.reason}. Every client has the old release "
            "again, and both colours run: look, then deploy it again.",
            Exit.INCONCLUSIVE,
        )
    if known.verdict in ("sick", "inconclusive"):
        raise SwitchyardError(
            f"Release {record.id} is live and could not be judged: {known.reason}. Both colours run: look, then keep "
            "it, or go back with scripts/rollback.sh.",
            Exit.INCONCLUSIVE,
        )
    if known.verdict == "superseded":
        raise SwitchyardError(f"Another operation took over while {record.id} was on probation.", Exit.INTERRUPTED)
