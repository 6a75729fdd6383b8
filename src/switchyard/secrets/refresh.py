"""Starts the warm release again, so that it holds today's secrets and a rollback to it stays a flip."""

from switchyard.engine import colour as colours
from switchyard.engine import phases, ports, records, recover
from switchyard.engine.operation import Operation
from switchyard.errors import Exit, SwitchyardError
from switchyard.secrets import generations


def refresh(op: Operation) -> str:
    """Stop and start what is warm, and check it as a deploy would; returns its release, or '' when nothing is warm.

    No user reaches the idle colour. Raises `SwitchyardError` when the release does not become healthy; it is then
    stopped, and a rollback to it starts it anew.
    """
    pointer = phases.live_pointer(op.paths)
    if pointer and pointer.probation:
        raise SwitchyardError(
            f"Release {pointer.release} is still on probation, and {pointer.previous} stands by: wait for its verdict.",
            Exit.BUSY,
        )
    idle = phases.idle_colour(op.paths)
    release, running = colours.release_in(op.paths.name, idle)
    if not pointer or not running or not release:
        return ""
    record = records.load(op.paths, release)
    with op.phase("start"):
        phases.drain(op, record, idle, release)
        colours.stop(op.paths.name, idle)
        try:
            colours.start(record, idle, ports.load(), op.host)
            phases.wait_until_healthy(op, record, idle)
        except SwitchyardError:
            colours.stop(op.paths.name, idle)
            raise
    with op.phase("verify"):
        phases.verify(op, record, idle)
    # What it was started with before is needed by nobody now.
    generations.prune(op.paths)
    return release


def refresh_by_hand(op: Operation) -> str:
    """`refresh` as an operation of its own, with its start and end in the ledger."""
    with op.exclusively():
        recover.before(op)
        op.begin("")
        try:
            op.result.release = refresh(op)
        except SwitchyardError as error:
            op.fail(error)
            op.end("failed")
            raise
        op.end("done")
    return op.result.release
