"""The order of a deploy. Reads as its own runbook; what each line does is in `phases`."""

import contextlib

from switchyard.engine import colour as colours
from switchyard.engine import phases, prune, recover
from switchyard.engine.migrate import migrate
from switchyard.engine.operation import Operation
from switchyard.engine.records import Record
from switchyard.errors import Exit, SwitchyardError
from switchyard.gate import access
from switchyard.names import other
from switchyard.request import Request


def deploy(op: Operation, request: Request) -> None:
    """Make `request` live, or leave the old release serving; the result and the ledger say which and why."""
    record: Record | None = None
    try:
        with op.exclusively():
            recover.alone(op)
            recover.before(op)
            op.begin(request.version)
            _note_keys(op)
            with op.phase("preflight"):
                record = phases.prepare(op, request)
            if record is None:
                _unchanged(op, request)
                return
            op.result.release = record.id
            op.say(f"preflight: passed; this is release {record.id}")
            with op.phase("pull"):
                phases.pull(op, record)
            with op.phase("migrate"):
                migrate(op, record, request.migration_decision)
            _raise_idle_colour(op, record)
            with op.phase("switch"):
                idle = phases.idle_colour(op.paths)
                phases.switch(op, record, idle, probation=request.on_probation, unseen=bool(record.request.smoke_tests))
                _smoke_after(op, record)
        # The lock is free while the release is only being watched, so that a rollback need not wait.
        _probation(op, record)
        _finish(op, record)
    except SwitchyardError as error:
        outcomes = {Exit.REVERTED: "reverted", Exit.INCONCLUSIVE: "inconclusive"}
        op.end_after(error, outcomes.get(error.code, "failed"))


def _note_keys(op: Operation) -> None:
    """What provision could not note before there was a ledger; a file that it left damaged must not stop a release."""
    with contextlib.suppress(SwitchyardError):
        access.note(op.paths.name, op.ledger, op.who)


def _finish(op: Operation, record: Record) -> None:
    """Settle what serves already; a failure here is a warning, since the release is live."""
    with op.exclusively():
        op.result.message = f"{record.id} is live on {op.result.colour}."
        pointer = phases.live_pointer(op.paths)
        if pointer and pointer.probation:
            # Detached: the host goes on watching, and finishes or goes back by itself.
            share = f" for {pointer.share} % of the clients" if pointer.is_canary else ""
            op.result.message = f"{record.id} is live on {op.result.colour}{share}, on probation; the host watches it."
            op.end("live")
            return
        try:
            with op.phase("finish"):
                phases.conclude(op)
                prune.prune(op.paths, op.ledger, record.request.retain, op.say)
        except SwitchyardError as error:
            op.result.message += f" Finishing it failed, 'switchyard recover' tries again: {error.message}"
            op.say(f"WARNING: {error.message}")
        op.end("live")


def _unchanged(op: Operation, request: Request) -> None:
    live = phases.live_pointer(op.paths)
    op.result.release = live.release if live else ""
    op.result.colour = live.colour if live else ""
    op.result.message = f"No change: {op.result.release} already is what was asked for ({request.version})."
    op.end("unchanged")


def _raise_idle_colour(op: Operation, record: Record) -> None:
    """Start and verify; on failure stop the new containers and bring the warm release back."""
    idle = phases.idle_colour(op.paths)
    try:
        with op.phase("start"):
            phases.start(op, record)
        with op.phase("verify"):
            phases.verify(op, record, idle)
    except SwitchyardError as error:
        error.message += " The old release serves on."
        recover.clear_idle(op, idle)
        raise


def _smoke_after(op: Operation, record: Record) -> None:
    """Smoke tests through the edge; the old release is live again when one fails."""
    try:
        phases.verify_through_edge(op, record)
    except SwitchyardError as error:
        pointer = phases.live_pointer(op.paths)
        error.details = error.details or colours.log_tail(op.paths.name, pointer.colour if pointer else "blue")
        if pointer and pointer.previous:
            phases.take_back(op, error.message)
            error.message += f" {op.result.release} is live again."
        raise


def _probation(op: Operation, record: Record) -> None:
    """Follow the watch; what its verdict asks for, it has done itself."""
    try:
        with op.phase("watch"):
            phases.watch(op, record)
    except SwitchyardError as error:
        pointer = phases.live_pointer(op.paths)
        if pointer and pointer.release != record.id:
            op.result.release, op.result.colour = pointer.release, pointer.colour
        if pointer and error.code is Exit.REVERTED:
            error.details = error.details or colours.log_tail(op.paths.name, other(pointer.colour))
            error.message += f" {pointer.release} is live again."
        raise
