"""Going back: the same phases as a deploy, run with an older record. It moves traffic and images, never the schema."""

from switchyard.engine import colour as colours
from switchyard.engine import docker, edge, phases, records, recover
from switchyard.engine.operation import Operation
from switchyard.engine.records import Record
from switchyard.engine.site import Pointer
from switchyard.errors import Exit, SwitchyardError
from switchyard.names import Colour, names_release, other


def rollback(op: Operation, wanted: str) -> None:
    """Make an earlier release live again; `wanted` is a version, a release id, or '' for the previous good one.

    Warm (still running in the other colour): a pointer flip. Older: started from its record and its local image, and
    never where users are: both colours of a canary have some.
    """
    try:
        with op.exclusively():
            recover.alone(op)
            if recover.only_watches(op.paths):
                # What is refused must not end the deploy that follows its probation, as repairing does.
                _way_back(op, wanted)
            recover.before(op, take_over=True)
            pointer, target = _way_back(op, wanted)
            op.begin(target.version, take_over=True)
            op.result.release = target.id
            with op.phase("preflight"):
                edge.check_live(edge.master_pid())
            if pointer.is_canary and target.id != pointer.previous:
                pointer = _leave_canary(op, pointer)
            idle = other(pointer.colour)
            if is_warm(op, target, idle):
                op.say(f"rollback: {target.id} is warm on {idle}")
                with op.phase("verify"):
                    phases.wait_until_healthy(op, target, idle)
                    phases.verify(op, target, idle)
            else:
                _start_cold(op, target, idle)
            with op.phase("switch"):
                phases.switch(op, target, idle, probation=False)
            with op.phase("finish"):
                op.result.message = (
                    f"{target.id} is live again on {idle}; {pointer.release} stays warm on {pointer.colour}."
                )
                op.end("rolled back")
    except SwitchyardError as error:
        op.end_after(error, "failed")


def _way_back(op: Operation, wanted: str) -> tuple[Pointer, Record]:
    """What is live, and the record to go back to; refuses without a trace."""
    pointer = phases.live_pointer(op.paths)
    if pointer is None:
        raise SwitchyardError(f"Nothing of {op.paths.name} is live: deploy a release first.", Exit.UNKNOWN_RELEASE)
    return pointer, choose(op, pointer, wanted)


def is_warm(op: Operation, target: Record, idle: Colour) -> bool:
    """Tell whether the release still runs in the idle colour."""
    return colours.release_in(op.paths.name, idle) == (target.id, True)


def _leave_canary(op: Operation, canary: Pointer) -> Pointer:
    """Give every client the release that most of them have; only then does the canary's colour belong to nobody."""
    with op.phase("canary"):
        op.say(f"rollback: {canary.release} is a canary; every client goes back to {canary.previous} first")
        phases.switch(op, records.load(op.paths, canary.previous), other(canary.colour), probation=False)
    return Pointer(canary.previous, other(canary.colour), canary.release)


def _start_cold(op: Operation, target: Record, idle: Colour) -> None:
    try:
        with op.phase("pull"):
            missing = [s for s in target.request.services if docker.image(target.pinned(s)) is None]
            if missing:
                op.say(f"rollback: the image of {', '.join(missing)} is no longer on this host; asking the registry")
                phases.pull(op, target)
        with op.phase("start"):
            phases.start(op, target)
        with op.phase("verify"):
            phases.verify(op, target, idle)
    except SwitchyardError as error:
        error.message += " The live release serves on."
        recover.clear_idle(op, idle)
        raise


def choose(op: Operation, pointer: Pointer, wanted: str) -> Record:
    """Find the record to go back to; refuses, each with its own exit code, what must not be gone back to."""
    known, good = records.ids(op.paths), _good(op)
    if pointer.is_canary and pointer.previous not in known:
        # No pointer can name that release any more, so its clients could not be kept while its colour is replaced.
        raise SwitchyardError(
            f"{pointer.previous} has the clients that the canary {pointer.release} has not, and its record is gone, so "
            f"nothing can take its place: give {pointer.release} every client with 'switchyard promote', then go back.",
            Exit.UNKNOWN_RELEASE,
        )
    if not wanted:
        earlier = [release for release in op.ledger.lineage()[:-1] if release in good and release in known]
        if (pointer.probation or pointer.rolling) and pointer.previous in known:
            earlier = [pointer.previous]
        if not earlier:
            raise SwitchyardError(
                f"There is no earlier good release of {op.paths.name} to go back to. {_offer(op, pointer)}",
                Exit.UNKNOWN_RELEASE,
            )
        return _compatible(op, records.load(op.paths, earlier[-1]), pointer)
    matching = [release for release in known if names_release(wanted, release)]
    if not matching:
        raise SwitchyardError(
            f"Release {wanted} of {op.paths.name} is not known on this host. {_offer(op, pointer)}",
            Exit.UNKNOWN_RELEASE,
        )
    if pointer.release in matching:
        raise SwitchyardError(f"Release {pointer.release} already is live.", Exit.ALREADY_LIVE)
    healthy = [release for release in matching if release in good]
    if not healthy:
        reason = op.ledger.bad().get(matching[-1], "it never passed its health checks")
        raise SwitchyardError(
            f"Release {matching[-1]} must not go live: {reason}. {_offer(op, pointer)}", Exit.NEVER_HEALTHY
        )
    return _compatible(op, records.load(op.paths, healthy[-1]), pointer)


def _good(op: Operation) -> set[str]:
    return op.ledger.ever_live() - set(op.ledger.bad())


def _offer(op: Operation, pointer: Pointer) -> str:
    known = [release for release in records.ids(op.paths) if release in _good(op) and release != pointer.release]
    return f"Known releases: {', '.join(known)}." if known else "No other release is known."


def _compatible(op: Operation, target: Record, pointer: Pointer) -> Record:
    """Refuse to cross a schema epoch: an older release cannot run on a contracted schema."""
    epoch, raised_by = op.ledger.schema_epoch()
    if target.request.schema_epoch < epoch:
        raise SwitchyardError(
            f"Release {target.id} (schema epoch {target.request.schema_epoch}) cannot run on the database, which "
            f"release {raised_by} brought to epoch {epoch}: fix forward with a new release, or restore the database to "
            f"before {raised_by} and accept the loss of what was written since. {_offer(op, pointer)}",
            Exit.SCHEMA,
        )
    return target
