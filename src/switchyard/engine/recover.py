"""The one place that repairs. Run after an operation died, at boot, before the next operation, or by hand.

It makes four things true again: the pointer is the last one that was proven; the idle colour holds the warm release
or nothing; every start in the ledger has an end; the lease belongs to somebody alive.
"""

import contextlib
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

from switchyard.data import exchange, restore, succession
from switchyard.engine import colour as colours
from switchyard.engine import docker, edge, handover, phases, ports, prune, records, rejoin
from switchyard.engine import lease as leases
from switchyard.engine.effects import exclusive, run
from switchyard.engine.layout import EDGE_LIVE, REQUESTS, AppPaths, HostConfig
from switchyard.engine.ledger import Event, Ledger
from switchyard.engine.operation import Operation, Result, read_result, tell_interrupted, write_result
from switchyard.engine.site import Pointer
from switchyard.errors import Exit, SwitchyardError
from switchyard.names import Colour, new_operation, other
from switchyard.watch import attend, watcher
from switchyard.watch import state as probations

Say = Callable[[str], None]
BOOT_SECONDS = 120.0
_ORPHAN_SECONDS = 600.0


def alone(op: Operation) -> None:
    """This host releases by itself from now on, also when it was one of several before; refused while it is."""
    if op.host.several:
        raise SwitchyardError(
            f"{op.host.name} releases together with other hosts: deploy and roll back from the control machine.",
            Exit.USAGE,
        )
    if op.paths.note.is_file():
        run(["rm", "-f", "--", str(op.paths.note)], step="recover.alone")


def only_watches(paths: AppPaths) -> bool:
    """Tell whether a living operation has let go of the lock, and follows the probation of what it made live."""
    lease = leases.read(paths)
    return bool(lease and lease.op and lease.process_alive and lease.phase == "watch")


def before(op: Operation, *, take_over: bool = False) -> None:
    """Repair what a dead operation or a person's hand left, before a new one begins; the caller holds the lock.

    What a living operation has under way is its own, also while it only watches and has let go of the lock. Whoever may
    `take_over` from it at that point ends it here, in the ledger as well.
    """
    lease = leases.read(op.paths)
    if lease and lease.op and lease.process_alive and not (take_over and only_watches(op.paths)):
        return
    pointer = phases.live_pointer(op.paths)
    named = (pointer.release, pointer.colour) if pointer else None
    died = op.ledger.unfinished() and leases.holder(op.paths) is None
    # On probation it is asked whether somebody watches.
    if died or named != op.ledger.last_live() or ports.is_lost() or (pointer and pointer.probation):
        repair(op.paths, op.host, op.ledger, op.say)


def recover(paths: AppPaths, host: HostConfig, say: Say, *, after: str = "") -> bool:
    """Repair one application; `after` is the operation whose unit just ended. Returns whether it was ours to repair.

    Does nothing while a living operation holds the lease.
    """
    # A verb that is dying lets go of its lock within moments.
    with exclusive(paths.lock, wait=30, busy=f"An operation is changing {paths.name}; it will repair what it finds."):
        lease = leases.read(paths)
        if lease and lease.op and lease.process_alive:
            return False
        if paths.note.is_file():
            _remove_temporaries(paths)
            forget_orphans()
            problem = rejoin.repair(paths, host, say, after=after)
        elif lease and lease.alive and lease.op != after and after:
            return False
        else:
            problem = repair(paths, host, Ledger.load(paths), say)
        if after and read_result(paths, after) is None:
            # It died before it began, so the ledger knows nothing of it; its follower still waits for an answer.
            message = "The operation died before it began; nothing was changed. The same command again converges."
            write_result(paths, Result(after, "", int(Exit.INTERRUPTED), message))
        if problem and not after:
            raise problem
        return True


def repair(paths: AppPaths, host: HostConfig, ledger: Ledger, say: Say) -> SwitchyardError | None:
    """Make the four things true; the caller holds the lock. Safe to run again, and when nothing is wrong.

    Returns the first thing that could not be put right, after everything else was.
    """
    _remove_temporaries(paths)
    forget_orphans()
    if ports.is_lost():
        say("recover: the port plan is missing and is read back from Docker")
        ports.rebuild(docker.labelled())
    problem: SwitchyardError | None = None
    steps = (
        _settle_database, _settle_edge, _settle_verdict, _settle_pointer, _settle_live, _settle_probation, warm_again,
        _settle_records,
    )  # fmt: skip
    for settle in steps:
        try:
            settle(paths, host, ledger, say)
        except SwitchyardError as error:
            # What else is wrong is still put right, and the next operation can begin.
            problem = problem or error
            say(f"recover: {error.message}")
    live = phases.live_pointer(paths)
    for start in ledger.unfinished():
        _write_end(paths, ledger, start, live)
    lease = leases.read(paths)
    if lease and lease.op:
        leases.release(paths, lease)
    return problem


def _remove_temporaries(paths: AppPaths) -> None:
    """Files of a write that never reached its rename."""
    for directory in (paths.state, EDGE_LIVE):
        if directory.is_dir() and any(directory.rglob(".*.tmp")):
            run(["find", str(directory), "-name", ".*.tmp", "-type", "f", "-delete"], step="recover.temporaries")


def _settle_edge(_paths: AppPaths, _host: HostConfig, _ledger: Ledger, say: Say) -> None:
    """One edge serves: a take-over by a new container that was interrupted goes on, or is undone."""
    if len(edge.containers()) > 1:
        with edge.edge_lock():
            for line in handover.settle():
                say(f"recover: {line}")


def _settle_database(paths: AppPaths, host: HostConfig, ledger: Ledger, say: Say) -> None:
    """A restore or a refresh that died leaves one whole database, the old or the new, and the release that fits it."""
    restore.settle(paths, host, say)
    ledger.events = Ledger.load(paths).events


def _settle_pointer(paths: AppPaths, host: HostConfig, ledger: Ledger, say: Say) -> None:
    """A pointer that was renamed but never proven would go live at the next unrelated reload, so it goes back."""
    pointer, live = phases.live_pointer(paths), ledger.last_live()
    if live is None:
        if paths.pointer.is_file():
            say(f"recover: the first switch of {paths.name} was never proven; it is taken off the edge")
            edge.unpoint(paths, host)
        return
    if pointer and (pointer.release, pointer.colour) == live:
        return
    release, colour = live
    # What was never live is no release to go back to: there a later deploy died, and this one stays.
    if pointer and pointer.colour != colour and ledger.share() < 100 and pointer.release in ledger.lineage():
        _leave_canary(paths, host, ledger, pointer, release, say)
        return
    named = pointer.release if pointer else "nothing"
    say(f"recover: the pointer names {named}, {release} was proven last; it goes back")
    colours.start_if_down(paths, host, release, colour, say)
    edge.point(paths, phases.site_for(paths, host, Pointer(release, colour, _warm(paths, ledger, colour))), host)


def _leave_canary(paths: AppPaths, host: HostConfig, ledger: Ledger, pointer: Pointer, canary: str, say: Say) -> None:
    """Finish the way back from a canary: going back to it would give it to the many who never had it."""
    say(f"recover: {canary} was a canary and is being left; every client has {pointer.release} again")
    colours.start_if_down(paths, host, pointer.release, pointer.colour, say)
    edge.point(paths, phases.site_for(paths, host, pointer), host)
    op = next((start["op"] for start in ledger.unfinished()), "recover")
    ledger.append("live", op=op, release=pointer.release, colour=pointer.colour)


def _settle_live(paths: AppPaths, host: HostConfig, _: Ledger, say: Say) -> None:
    """What the pointer names must run."""
    if live := phases.live_pointer(paths):
        colours.start_if_down(paths, host, live.release, live.colour, say)


def _warm(paths: AppPaths, ledger: Ledger, live: Colour) -> str:
    """The release that belongs in the idle colour: the one before the live one, unless it is bad."""
    lineage = ledger.lineage()
    candidates = [release for release in lineage[:-1] if release not in ledger.bad()]
    kept = set(records.ids(paths))
    # What was left by a rollback stays warm where it is, too: going forward again is then a flip as well.
    resident, _ = colours.release_in(paths.name, other(live))
    if resident in ledger.ever_live() and resident in kept and resident not in ledger.bad():
        return resident
    return candidates[-1] if candidates and candidates[-1] in kept else ""


def warm_again(paths: AppPaths, host: HostConfig, ledger: Ledger, say: Say) -> None:
    """Put the warm release back into the idle colour, or stop what has no business there."""
    pointer = phases.live_pointer(paths)
    if pointer is None:
        return
    idle = other(pointer.colour)
    resident, running = colours.release_in(paths.name, idle)
    warm = pointer.previous or _warm(paths, ledger, pointer.colour)
    record = records.find(paths, warm)
    if record and warm not in ledger.bad():
        if (resident, running) == (warm, True):
            return
        if all(docker.image(record.pinned(service)) for service in record.request.services):
            say(f"recover: {warm} is started on {idle} again, warm for a rollback")
            colours.start(record, idle, ports.load(), host)
            return
    if any(container.running for container in docker.of_colour(paths.name, idle)):
        say(f"recover: stopping what is left on {idle}")
        colours.stop(paths.name, idle)


def clear_idle(op: Operation, idle: Colour) -> None:
    """After a release did not come up: stop it, and have the warm one back. What fails here is said."""
    try:
        colours.stop(op.paths.name, idle)
        warm_again(op.paths, op.host, op.ledger, op.say)
    except SwitchyardError as error:
        # The first error is the one to act on; `recover` tidies what is left here.
        op.say(f"cleaning up: {error.message}")


def _settle_records(paths: AppPaths, _host: HostConfig, _ledger: Ledger, _say: Say) -> None:
    prune.remove_unfinished(paths)


def _settle_verdict(paths: AppPaths, host: HostConfig, ledger: Ledger, say: Say) -> None:
    """A verdict that was reached on a release, and died before all that follows from it was done, is carried out."""
    pointer, known, live = phases.live_pointer(paths), probations.load(paths), ledger.last_live()
    if pointer is None or live is None or known is None or known.done or not known.verdict:
        return
    if known.release not in (pointer.release, live[0]):
        return
    say(f"recover: the verdict on {known.release} was {known.verdict}; it is carried out")
    if known.goes_back and pointer.release == known.release and pointer.previous in records.ids(paths):
        colours.start_if_down(paths, host, pointer.previous, other(pointer.colour), say)
    watcher.carry_out(paths, host, known)
    ledger.events = Ledger.load(paths).events


def _settle_probation(paths: AppPaths, _host: HostConfig, _ledger: Ledger, say: Say) -> None:
    """A probation that nobody watches any more is watched again."""
    pointer, known = phases.live_pointer(paths), probations.load(paths)
    if pointer is None or not pointer.probation:
        return
    if known is None or known.release != pointer.release or known.done:
        known = watcher.begin(paths, new_operation(), records.load(paths, pointer.release), time.time())
    if not watcher.is_running(known.op):
        say(f"recover: {pointer.release} is on probation; the watch goes on")
        watcher.start(paths, known.op, attend.engine())


def _write_end(paths: AppPaths, ledger: Ledger, start: Event, live: Pointer | None) -> None:
    """Give an operation that died its end: in the ledger, and for whoever follows it."""
    serving = f"{live.release} is live" if live else "nothing is live"
    reached = any(event["op"] == start["op"] for event in ledger.of("live"))
    outcome = "interrupted, but live" if reached else "interrupted"
    message = f"The operation died and was recovered; {serving}. The same command again converges."
    # Told twice rather than never, when this dies in between.
    tell_interrupted(paths, start, message)
    ledger.append(
        "end",
        op=start["op"],
        kind=start["kind"],
        outcome=outcome,
        code=int(Exit.INTERRUPTED),
        message=message,
        version=start["version"],
        release=live.release if live else "",
    )
    if read_result(paths, start["op"]) is None:
        result = Result(start["op"], start["kind"], int(Exit.INTERRUPTED), message, version=start["version"])
        result.release, result.colour = (live.release, live.colour) if live else ("", "")
        write_result(paths, result)


def forget_request(operation: str) -> None:
    """Remove an operation's request, which carries secrets, from the tmpfs: as soon as it was read."""
    path = REQUESTS / f"{operation}.json"
    if path.is_file():
        run(["rm", "-f", "--", str(path)], step="operation.forget")


def forget_orphans() -> None:
    """Remove requests whose starter died before it had a unit to hand them to."""
    old = [path for path in REQUESTS.glob("*.json") if time.time() - path.stat().st_mtime > _ORPHAN_SECONDS]
    if old:
        run(["rm", "-f", "--", *map(str, old)], step="recover.orphans")


def boot(paths: AppPaths, host: HostConfig, say: Say) -> None:
    """After a reboot: wait for the addresses that are published on, bring the live colour up, then the edge."""
    _wait_for_address(host.publish_address)
    _wait_for(_docker_answers, "Docker to answer")
    restored = None  # Which release fits a database that was exchanged is for the repair to say.
    with contextlib.suppress(SwitchyardError):
        # Said and tried again by the repair below; the application starts without its database, too.
        restored = exchange.settle(paths, say)
        succession.settle(paths, say)
    live = None if restored else Ledger.load(paths).last_live()
    if paths.note.is_file():
        rejoin.start_live(paths, host, say)
    elif live is not None:
        release, colour = live
        colours.start_if_down(paths, host, release, colour, say)
    start_edge(say)
    recover(paths, host, say)


def has_docker() -> bool:
    """Whether the Docker command is on this host."""
    return any((Path(folder) / "docker").is_file() for folder in os.environ.get("PATH", "").split(":"))


def start_databases(say: Say) -> SwitchyardError | None:
    """After a reboot: start each database, and its pooler, that Docker tried to start once and gave up.

    As when the address it publishes comes up late, which is waited for. What a person stopped before the boot ended
    well, and stays down. Returns the first thing that could not be put right: the application starts without it.
    """
    _wait_for(_docker_answers, "Docker to answer")
    problem: SwitchyardError | None = None
    for role in ("postgres", "pooler"):
        for container in docker.containers({"switchyard.role": role}):
            if container.state == "exited" and not container.status.startswith("Exited (0)"):
                try:
                    for address in docker.published(container.id):
                        _wait_for_address(address)
                    say(f"recover: starting {container.name}")
                    run(["docker", "start", container.id], step="recover.database", timeout=60)
                except SwitchyardError as error:
                    # The standing watch tells a person, too.
                    problem = problem or error
                    say(f"recover: {error.message}")
    return problem


def start_edge(say: Say) -> None:
    """Start the edge's container, the newest when there are several, unless one runs."""
    found = edge.containers()
    if found and not any(container.running for container in found):
        say("recover: starting the edge")
        run(["docker", "start", found[0].id], step="recover.edge", timeout=60)
    if len(found) > 1:
        with edge.edge_lock():
            for line in handover.settle(wait=handover.START_SECONDS):
                say(f"recover: {line}")


def _wait_for_address(address: str) -> None:
    _wait_for(lambda: _can_bind(address), f"address {address} to come up")


def _can_bind(address: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def _docker_answers() -> bool:
    try:
        docker.info()
    except SwitchyardError:
        return False
    return True


def _wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + BOOT_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise SwitchyardError(f"Waited {BOOT_SECONDS:.0f} s for {what}.")
        time.sleep(0.5)
