"""Repairs one host of several, alone: what it can know without its coordinator.

Three things are made true: a database here is a whole one, the edge points at what was last proven on it, and what is
live runs. A colour that is not live is left alone, since another edge may still use it; the coordinator's next command
settles the rest.
"""

from collections.abc import Callable
from dataclasses import replace

from switchyard.data import restore
from switchyard.engine import colour as colours
from switchyard.engine import docker, edge, phases, ports, prune, records
from switchyard.engine import lease as leases
from switchyard.engine.layout import AppPaths, HostConfig
from switchyard.engine.operation import Result, read_result, write_result
from switchyard.engine.order import read_note, write_note
from switchyard.engine.site import Pointer
from switchyard.errors import Exit, SwitchyardError
from switchyard.watch import attend, watcher
from switchyard.watch import state as probations

Say = Callable[[str], None]


def repair(paths: AppPaths, host: HostConfig, say: Say, *, after: str) -> SwitchyardError | None:
    """Make all true; the caller holds the lock. Returns the first thing that could not be put right."""
    if ports.is_lost():
        say("recover: the port plan is missing and is read back from Docker")
        ports.rebuild(docker.labelled())
    problem: SwitchyardError | None = None
    for settle in (restore.settle, start_live, _settle_pointer, _settle_probation, _settle_records):
        try:
            settle(paths, host, say)
        except SwitchyardError as error:
            problem = problem or error
            say(f"recover: {error.message}")
    if after and read_result(paths, after) is None:
        message = f"The operation's part on {host.name} died; what serves there is whole."
        write_result(paths, Result(after, "", int(Exit.INTERRUPTED), message))
    return problem


def start_live(paths: AppPaths, host: HostConfig, say: Say) -> None:
    """Start what the note says is live here, when it does not run."""
    note = read_note(paths)
    if note is None or "app" not in host.groups or note.release not in records.ids(paths):
        return
    if not is_member(note, host):
        # It was left out of that release, and has nothing of it to start.
        return
    colours.start_if_down(paths, host, note.release, note.colour, say)


def is_member(pointer: Pointer, host: HostConfig) -> bool:
    """Tell whether a pointer sends users to this host; one that lists no members does to the only one."""
    targets = [target for by_service in pointer.members.get(pointer.colour, {}).values() for target in by_service]
    return not pointer.members or any(
        target.rpartition(":")[0].strip("[]") == host.publish_address for target in targets
    )


def _settle_records(paths: AppPaths, _host: HostConfig, _say: Say) -> None:
    prune.remove_unfinished(paths)


def _settle_pointer(paths: AppPaths, host: HostConfig, say: Say) -> None:
    """A pointer that was renamed but never proven would go live at the next unrelated reload, so it goes back."""
    if "edge" not in host.groups:
        return
    note, pointer = read_note(paths), phases.file_pointer(paths)
    if pointer == note:
        return
    if note is None:
        say(f"recover: the first switch of {paths.name} was never proven here; it is taken off this edge")
        edge.unpoint(paths, host)
        return
    say(f"recover: {note.release} was proven last here; this edge goes back to it")
    edge.point(paths, phases.site_for(paths, host, note), host, within=0.0)


def _settle_probation(paths: AppPaths, host: HostConfig, say: Say) -> None:
    """Nobody watches any more: a release that this edge still reaches stays, another one goes back."""
    pointer = phases.file_pointer(paths)
    if pointer is None or not pointer.probation or leases.holder(paths) is not None:
        return
    known = probations.load(paths)
    if known and known.release == pointer.release and not known.done:
        say(f"recover: {pointer.release} is on probation; the watch goes on")
        watcher.start(paths, known.op, attend.engine())
        return
    settled = replace(pointer, probation=False)
    try:
        edge.point(paths, phases.site_for(paths, host, settled), host)
        say(f"recover: {pointer.release} answers; its interrupted probation is over on this edge")
    except SwitchyardError as error:
        if error.code is not Exit.REVERTED or pointer.previous not in records.ids(paths):
            raise
        say(f"recover: {pointer.release} does not pass its probation; this edge goes back to {pointer.previous}")
        settled = pointer.back()
        edge.point(paths, phases.site_for(paths, host, settled), host, within=0.0)
    write_note(paths, settled, host)
