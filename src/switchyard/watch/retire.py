"""Stops a release that a person took back, once nobody uses it: WebSockets and uploads end where they began."""

from switchyard.engine import colour as colours
from switchyard.engine import phases, records
from switchyard.engine.effects import run
from switchyard.engine.layout import AppPaths
from switchyard.engine.operation import Operation
from switchyard.names import COLOURS, Colour


def start(paths: AppPaths, release: str, engine: str) -> bool:
    """Start the unit that waits; tells whether it started. Without it, the next deploy drains the release."""
    started = run(
        [
            "systemd-run",
            "--quiet",
            "--collect",
            "--no-block",
            f"--unit=switchyard-retire-{paths.name}-{release}",
            f"--description=Switchyard stops {release} of {paths.name}",
            engine,
            "retire",
            str(paths.name),
            release,
        ],
        step="retire.unit",
        check=False,
    )
    return started.code == 0


def retire(op: Operation, release: str) -> bool:
    """Wait for its connections, at most its drain time, then stop it; tells whether it was stopped.

    One that serves again, or that nobody took back, stays.
    """
    colour = _where(op, release)
    if colour is None:
        return False
    phases.drain(op, records.load(op.paths, release), colour, release)
    # Only now, so that a rollback or a deploy need not wait.
    with op.exclusively(wait=60):
        pointer = phases.live_pointer(op.paths)
        serves = pointer is None or release in (pointer.release, pointer.previous)
        if serves or release not in op.ledger.bad() or _where(op, release) != colour:
            return False
        colours.stop(op.paths.name, colour)
    return True


def _where(op: Operation, release: str) -> Colour | None:
    """The colour whose containers are of this release and run."""
    return next((c for c in COLOURS if colours.release_in(op.paths.name, c) == (release, True)), None)
