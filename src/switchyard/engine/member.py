"""One host of several: what each verb of a coordinator does here.

Only the edges' pointers move traffic, so application hosts are prepared without anybody noticing. The first edge
keeps lease and ledger; the other hosts have a copy of the ledger and a note of what is live. Every verb may
be run again.
"""

import contextlib
import hashlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from switchyard import PROTOCOL
from switchyard.data import point, settings
from switchyard.data.state import require_recent_drill
from switchyard.engine import colour as colours
from switchyard.engine import docker, edge, phases, ports, preflight, prune, records, rollback
from switchyard.engine import lease as leases
from switchyard.engine.effects import replace_file
from switchyard.engine.layout import AppPaths, HostConfig
from switchyard.engine.ledger import Ledger
from switchyard.engine.migrate import is_pending, migrate
from switchyard.engine.operation import Operation, tell_interrupted
from switchyard.engine.order import Order, read_note, require_group, write_note
from switchyard.engine.probe import ask, judge_health
from switchyard.engine.records import Record
from switchyard.engine.site import Pointer
from switchyard.errors import Exit, SwitchyardError
from switchyard.names import COLOURS, Colour, parse_release_id, release_id
from switchyard.request import Request
from switchyard.request import parse as parse_request
from switchyard.trust.admit import admit
from switchyard.watch import state as probations

_KNOWN_EVENT = ("time", "event", "op", "release", "state")
"""What makes an event of the ledger that event, wherever it was copied to."""


def facts(paths: AppPaths, host: HostConfig) -> dict[str, Any]:
    """What a coordinator has to know of this host before it begins."""
    lease = leases.read(paths)
    pointer = phases.file_pointer(paths)
    note, given = read_note(paths), probations.promotion(paths)
    raw = paths.ledger.read_bytes() if paths.ledger.is_file() else b""
    numbers = [parsed[0] for path in paths.releases.glob("[0-9]*-*") if (parsed := parse_release_id(path.name))]
    return {
        "host": host.name,
        "groups": host.groups,
        "engine": Path(sys.argv[0]).resolve().name,
        "protocol": PROTOCOL,
        "pointer": pointer.mark() if pointer else None,
        "note": note.mark() if note else None,
        "verdict": verdict(paths, host),
        "promotion": asdict(given) if given else None,
        "lease": {"fence": lease.fence if lease else 0, "alive": bool(lease and lease.alive)},
        "operation": lease.describe() if lease and lease.alive else "",
        "ledger": {"lines": raw.count(b"\n"), "hash": hashlib.sha256(raw).hexdigest()},
        "number": max(numbers, default=0),
        "records": records.ids(paths),
        "colours": {colour: _colour(paths, host, colour) for colour in COLOURS} if "app" in host.groups else {},
    }


def verdict(paths: AppPaths, host: HostConfig, op: str = "") -> dict[str, Any] | None:
    """What the watch on this edge decided last, or decided for `op`; None when it did not."""
    known = probations.load(paths)
    if known is None or known.verdict in ("", "superseded") or (op and known.op != op):
        return None
    event = {"time": known.ended or records.now(), "event": "verdict", **known.event, "host": host.name}
    return {"event": event, "goes_back": known.goes_back}


def _colour(paths: AppPaths, host: HostConfig, colour: Colour) -> dict[str, Any]:
    release, running = colours.release_in(paths.name, colour)
    record = None if ports.is_lost() else records.find(paths, release)
    return {
        "release": release,
        "running": running,
        "targets": _targets(record, colour, host) if record else {},
    }


def _targets(record: Record, colour: Colour, host: HostConfig) -> dict[str, list[str]]:
    """Every `ip:port` of a release on this host, by service."""
    plan = ports.load()
    return {
        service: ports.addresses(plan, record.name, service, count, colour, host.publish_address)
        for service, count in record.instances.items()
    }


def perform(op: Operation, order: Order) -> None:
    """Carry out one order; the result and its `data` go back to the coordinator."""
    try:
        with op.exclusively(wait=10), _prolonging(op):
            if order.verb in _OF_DATABASE:
                # A host of the database alone has its own leases (of restores), and no part in what is live.
                _OF_DATABASE[order.verb](op, order)
                return
            if not op.paths.note.is_file():
                # From here on this host is one of several, and is repaired as such.
                write_note(op.paths, phases.file_pointer(op.paths) or order.pointer, op.host)
            for identity, files in order.records.items():
                records.adopt(op.paths, identity, files)
            if order.verb == "begin":
                _begin(op, order)
                return
            op.lease = leases.join(
                op.paths, op=order.op, kind=order.kind, who=order.who, fence=order.fence, phase=order.verb
            )
            if order.events:
                merge(op.ledger, order.events)
            if order.verb != "watch":
                _VERBS[order.verb](op, order)
        if order.verb == "watch":
            _watch(op, order)
    except SwitchyardError as error:
        op.give_up(error)


@contextlib.contextmanager
def _prolonging(op: Operation) -> Iterator[None]:
    """Prolong the lease at the end of a verb, also of one that failed.

    While the verb had the lock no beat got through, and with its process what kept the lease alive ends.
    """
    try:
        yield
    finally:
        if op.lease is not None:
            leases.prolong(op.paths, op.lease)


def merge(ledger: Ledger, events: list[dict[str, Any]]) -> None:
    """Take over what other hosts wrote into their copies of the ledger."""
    known = {_identity(event) for event in ledger.events}
    for event in events:
        if _identity(event) not in known:
            ledger.append(**{key: value for key, value in event.items() if key not in ("n", "prev")})


def _identity(event: dict[str, Any]) -> tuple[object, ...]:
    return tuple(event.get(key) for key in _KNOWN_EVENT)


# The host that keeps the ledger


def _begin(op: Operation, order: Order) -> None:
    """Take the lease, decide what it is about, and number it."""
    require_group(op.host, "edge", "keep the ledger")
    if order.ledger and not op.ledger.events:
        # This host was rebuilt: the chain of the ledger's lines goes on where a copy has it.
        replace_file(op.paths.ledger, order.ledger, step="ledger.adopt", mode=0o640)
        op.ledger = Ledger.load(op.paths)
    merge(op.ledger, order.events)
    pointer = phases.live_pointer(op.paths)
    for start in op.ledger.unfinished():
        if leases.holder(op.paths) is None:
            _end_dead(op.ledger, start, pointer)
    unsettled = _unsettled(op, order, pointer)
    data = _BEGINNINGS[order.kind](op, order, pointer)
    wanted = {data["release"], pointer.release if pointer else "", pointer.previous if pointer else ""}
    known = {release for release in wanted if records.find(op.paths, release)}
    op.result.data = data | {
        "fence": op.lease.fence if op.lease else 0,
        "pointer": pointer.mark() if pointer else None,
        "verdict": unsettled,
        "records": {release: records.export(op.paths, release) for release in sorted(known)},
    }


def _end_dead(ledger: Ledger, start: dict[str, Any], live: Pointer | None) -> None:
    serving = f"{live.release} is live" if live else "nothing is live"
    message = f"Its control machine was lost; {serving}."
    reached = any(event["op"] == start["op"] for event in ledger.of("live"))
    ledger.append(
        "end",
        op=start["op"],
        kind=start["kind"],
        outcome="interrupted, but live" if reached else "interrupted",
        code=int(Exit.INTERRUPTED),
        message=message,
        version=start["version"],
        release=live.release if live else "",
    )
    tell_interrupted(ledger.paths, start, message)


def _unsettled(op: Operation, order: Order, pointer: Pointer | None) -> dict[str, Any] | None:
    """The verdict of an edge's watch that nobody led; None for one that is in the ledger, and so was followed.

    This edge may have gone back by itself: then what is live here, and that the release is bad, was never written down.
    """
    if order.verdict is None:
        return None
    event = order.verdict["event"]
    if any(known.get("op") == event["op"] for known in op.ledger.of("verdict")):
        return None
    live = op.ledger.last_live()
    if pointer and live and live[0] == event["release"] != pointer.release and order.verdict["goes_back"]:
        op.ledger.append("live", op=event["op"], release=pointer.release, colour=pointer.colour)
        if event["verdict"] == "revert":
            op.ledger.append("bad", op=event["op"], release=event["release"], reason=event["reason"])
    return order.verdict


def _begin_tidying(op: Operation, order: Order, pointer: Pointer | None) -> dict[str, Any]:
    op.begin("", above=order.fence)
    return {"release": pointer.release if pointer else "", "version": ""}


def _begin_rollback(op: Operation, order: Order, pointer: Pointer | None) -> dict[str, Any]:
    if pointer is None:
        raise SwitchyardError(f"Nothing of {op.paths.name} is live: deploy a release first.", Exit.UNKNOWN_RELEASE)
    half_left = order.release == pointer.release
    target = records.load(op.paths, order.release) if half_left else rollback.choose(op, pointer, order.wanted)
    op.begin(target.version, take_over=True, above=order.fence)
    op.say(f"{order.kind}: this is operation {order.op}; it goes back to {target.id}")
    return {"release": target.id, "version": target.version}


def _begin_deploy(op: Operation, order: Order, pointer: Pointer | None) -> dict[str, Any]:
    request = parse_request(order.request)
    phases.refuse_older(request, pointer)
    phases.refuse_dirty(op, request)
    op.begin(request.version, above=order.fence)
    try:
        op.say("preflight: asking the registry for digests")
        found = preflight.ask_registry(request)
    except SwitchyardError as error:
        op.fail(error)
        op.end("failed")
        raise
    number = max(phases.next_number(op.paths, op.ledger), order.number + 1)
    digests = {name: image.digest for name, image in found.items()}
    return {
        "release": release_id(number, request.version),
        "version": request.version,
        "created": records.now(),
        "digests": digests,
        "architectures": {name: list(image.architectures) for name, image in found.items()},
        "migrates": is_pending(op.ledger, request, digests),
        "contracts": request.schema_epoch > op.ledger.schema_epoch()[0],
        # Whoever migrates may have an older copy of the ledger.
        "schema": list(op.ledger.of("migration", "restore")),
    }


def _end(op: Operation, order: Order) -> None:
    """Write how it ended, give the lease back, and hand out the ledger for the copies."""
    for key, value in order.result.items():
        setattr(op.result, key, value)
    unit, code = op.result.op, op.result.code
    _settle_here(op, order)
    op.end(order.outcome)
    op.result.op, op.result.code = unit, 0
    op.result.data = {"ledger": op.paths.ledger.read_text(), "ended_with": code}


# Any host


def _settle(op: Operation, order: Order) -> None:
    """Take the owner's ledger and what is live; remove what no rollback can need."""
    if order.ledger:
        replace_file(op.paths.ledger, order.ledger, step="ledger.copy", mode=0o640)
        op.ledger = Ledger.load(op.paths)
    _settle_here(op, order)
    if op.lease is not None:
        leases.release(op.paths, op.lease)


def _settle_here(op: Operation, order: Order) -> None:
    write_note(op.paths, phases.file_pointer(op.paths) or order.pointer, op.host)
    if order.retain == -1:
        return
    try:
        retain = prune.retained(op.paths) if order.retain < 0 else order.retain
        prune.prune(op.paths, op.ledger, retain, op.say)
    except SwitchyardError as error:
        op.result.data["warning"] = error.message
        op.say(f"WARNING: {error.message}")


def _prepare(op: Operation, order: Order) -> None:
    """Preflight, the release's record, and on application hosts secrets and images. Nothing that serves is touched."""
    request = parse_request(order.request)
    if "edge" in op.host.groups:
        edge.check_live(edge.master_pid())
    hashed = ""
    if "app" in op.host.groups:
        write_note(op.paths, order.pointer, op.host)
        hashed = _preflight(op, order, request)
        op.result.data["unchanged"] = not hashed
        if not hashed:
            return
        before = len(op.ledger.events)
        phases.place_secrets(op, order.release, request, note=order.gate)
        op.result.data["events"] = [*op.result.data.get("events", []), *op.ledger.events[before:]]
    number, _ = parse_release_id(order.release) or (0, "")
    record = records.create(op.paths, number, request, order.digests, hashed, created=order.created)
    if "app" in op.host.groups:
        phases.pull(op, record)


def _preflight(op: Operation, order: Order, request: Request) -> str:
    """Check what only this host can know; returns the configuration's hash, or '' when it already runs here."""
    live, instances = order.pointer, {name: service.instances for name, service in request.services.items()}
    running = records.find(op.paths, live.release) if live else None
    info = docker.info()
    preflight.require_architecture(request, order.architectures)
    preflight.check_secrets(op.paths, request)
    preflight.check_connections(request, order.hosts)
    _database(op, order)
    hashed = records.config_hash(request, order.digests, records.salt())
    if live and not order.again and phases.is_live(op.paths, live, hashed):
        return ""
    if order.gate:
        before = len(op.ledger.events)
        evidence = admit(op, request, order.digests, running, info)
        op.result.data |= {"evidence": evidence, "events": op.ledger.events[before:]}
    ports.ensure(op.paths.name, instances, op.host)
    preflight.check_space(request, order.digests, str(info["DockerRootDir"]), running)
    colour = _colour_of(order)
    if not request.rolling:
        preflight.check_memory(request, preflight.held_mb(op.paths.name, colour))
    preflight.check_ports(op.paths.name, request, colour, ports.load(), op.host)
    return hashed


def _database(op: Operation, _order: Order) -> None:
    """Refuse while a database on this host is not healthy, or was not proven to come back lately."""
    preflight.check_database(op.paths.name)
    require_recent_drill(settings.find(op.paths.name))


def _point(op: Operation, order: Order) -> None:
    """Make the restore point before a migration that runs on another host, and tell what that wrote into the ledger."""
    before = len(op.ledger.events)
    point.make(op, order.release, contracts=order.contracts)
    op.result.data = {"events": op.ledger.events[before:]}


def _colour_of(order: Order) -> Colour:
    if order.colour is None:
        raise SwitchyardError(f"The order to {order.verb} names no colour.", Exit.USAGE)
    return order.colour


def _migrate(op: Operation, order: Order) -> None:
    """Migrate from here for all; what that writes into this copy of the ledger goes back with the result."""
    before = len(op.ledger.events)
    try:
        migrate(op, records.load(op.paths, order.release), order.wanted)
    finally:
        op.result.data = {"events": op.ledger.events[before:]}


def _start(op: Operation, order: Order) -> None:
    """Bring a release up in a colour, unless it is warm there, and try it from this host."""
    require_group(op.host, "app", "start a release")
    record, colour = records.load(op.paths, order.release), _colour_of(order)
    ports.ensure(op.paths.name, record.instances, op.host)
    if order.stop:
        op.say(f"start: stopping {order.stop}")
        colours.stop(op.paths.name, order.stop)
    warm = colours.release_in(op.paths.name, colour) == (record.id, True)
    if warm and colours.publishes(op.paths.name, colour, colours.targets(record, colour, ports.load(), op.host)):
        op.say(f"start: {record.id} is warm on {colour}")
        phases.wait_until_healthy(op, record, colour)
    else:
        phases.pull(op, record)
        phases.start(op, record, colour)
    phases.verify(op, record, colour)
    if order.pointer:
        write_note(op.paths, order.pointer, op.host)
    op.result.data = {"targets": _targets(record, colour, op.host)}


def _abandon(op: Operation, order: Order) -> None:
    """Stop a release that shall not serve, and have the warm one back where it was."""
    colour = _colour_of(order)
    write_note(op.paths, order.pointer, op.host)
    colours.stop(op.paths.name, colour)
    previous = order.pointer.previous if order.pointer else ""
    record = records.find(op.paths, previous)
    if record and all(docker.image(record.pinned(service)) for service in record.request.services):
        op.say(f"{previous} is started on {colour} again, warm for a rollback")
        colours.start(record, colour, ports.load(), op.host)


# Edges


def _pointer_of(order: Order) -> Pointer:
    if order.pointer is None:
        raise SwitchyardError(f"The order to {order.verb} names no pointer.", Exit.USAGE)
    return order.pointer


def _drain(op: Operation, order: Order) -> None:
    """Wait until this edge uses none of these addresses any more."""
    phases.wait_until_idle(op, order.targets, order.within, "what is to be replaced")


def _check(op: Operation, order: Order) -> None:
    """See from this edge that every new address answers as it should, and that Nginx would take the pointer."""
    require_group(op.host, "edge", "switch")
    pointer = _pointer_of(order)
    site = phases.site_for(op.paths, op.host, pointer)
    new = {service: site.targets(site.live, service, pointer.colour) for service in site.live.request.services}
    for service, targets in new.items():
        health = site.live.request.services[service].health
        for target in targets:
            if wrong := judge_health(ask(target, health.path, timeout=health.timeout), health.path):
                raise SwitchyardError(
                    f"The edge {op.host.name} cannot use {service} at {target}: {wrong}.", Exit.UNHEALTHY
                )
    phases.smoke_all(op.paths, site.live, new)
    edge.try_out(op.paths, site, op.host)


def _switch(op: Operation, order: Order) -> None:
    """Make a pointer live on this edge and prove it, or go back to one without waiting for a proof."""
    require_group(op.host, "edge", "switch")
    if order.pointer is None:
        edge.unpoint(op.paths, op.host)
        op.say("switch: nothing was live before, so the edge serves nothing")
    else:
        site = phases.site_for(op.paths, op.host, order.pointer)
        switched = edge.point(op.paths, site, op.host, within=order.within)
        op.switched(switched.milliseconds)
        op.say(f"switch: {order.pointer.release} is live on {order.pointer.colour}")
    write_note(op.paths, order.pointer, op.host)
    for name, text in order.evidence.items():
        replace_file(op.paths.releases / order.release / name, text, step="record.evidence", mode=0o640)
    if order.owner and not order.quiet:
        _note_switch(op, order)


def _smoke(op: Operation, order: Order) -> None:
    """Smoke tests on what has just gone live, through this edge as users come."""
    pointer, now = _pointer_of(order), phases.live_pointer(op.paths)
    if now is None or now.release != pointer.release:
        raise SwitchyardError(f"{op.host.name}: {pointer.release} is not live there any more.", Exit.REVERTED)
    phases.verify_through_edge(op, records.load(op.paths, pointer.release))


def _promote(op: Operation, order: Order) -> None:
    """Give the canary that this edge has its next share of the clients."""
    pointer, now = _pointer_of(order), phases.live_pointer(op.paths)
    if now is None or replace(now, share=pointer.share) != pointer:
        raise SwitchyardError(f"{op.host.name}: {pointer.release} is no canary there any more.", Exit.REVERTED)
    edge.point(op.paths, phases.site_for(op.paths, op.host, pointer), op.host, within=order.within, unseen=True)
    write_note(op.paths, pointer, op.host)
    if order.owner:
        asked = {"who": order.asked_by} if order.asked_by else {}
        op.ledger.append("canary", op=op.id, release=pointer.release, share=pointer.share, **asked)
    op.say(f"canary: {pointer.release} has {pointer.share} % of the clients")


def _note_switch(op: Operation, order: Order) -> None:
    """Write a proven switch into the ledger, on the host that keeps it; this edge's watch may have made it already."""
    pointer, before = order.pointer, op.ledger.last_live()
    if pointer is None:
        op.ledger.append("live", op=op.id, release="", colour="")
    elif before != (pointer.release, pointer.colour):
        phases.note_live(op, records.load(op.paths, pointer.release), pointer.colour, share=pointer.share)
    # After the switch that took it back, by which a report knows the one from the other.
    if order.reason and before and (pointer is None or before[0] != pointer.release):
        op.ledger.append("bad", op=op.id, release=before[0], reason=order.reason)


def _watch(op: Operation, order: Order) -> None:
    """Probation on this edge, or a step of a canary. It goes back by itself at once; the coordinator sees to others."""
    pointer = _pointer_of(order)
    record = records.load(op.paths, pointer.release)
    try:
        phases.watch(op, record)
    except SwitchyardError as error:
        if error.code is Exit.REVERTED:
            with op.exclusively():
                _turn_back(op, order, error.message)
        raise
    finally:
        op.result.data["verdict"] = verdict(op.paths, op.host, op.id)
    if pointer.is_canary:
        return
    with op.exclusively():
        phases.conclude(op)
        write_note(op.paths, phases.file_pointer(op.paths), op.host)


def _turn_back(op: Operation, order: Order, reason: str) -> None:
    """Go back here, unless the watch did so by itself, and note it on the host that keeps the ledger."""
    bad, pointer = _pointer_of(order), phases.file_pointer(op.paths)
    back = replace(order, verb="switch", pointer=bad.back(), within=0.0, reason=reason)
    if pointer and pointer.release == bad.release and pointer.previous:
        _switch(op, back)
    elif order.owner and not order.quiet:
        _note_switch(op, back)


_BEGINNINGS: dict[str, Callable[[Operation, Order, Pointer | None], dict[str, Any]]] = {
    "deploy": _begin_deploy,
    "rollback": _begin_rollback,
    "recover": _begin_tidying,
    "prune": _begin_tidying,
}
_OF_DATABASE: dict[str, Callable[[Operation, Order], None]] = {"database": _database, "point": _point}
_VERBS: dict[str, Callable[[Operation, Order], None]] = {
    "prepare": _prepare,
    "migrate": _migrate,
    "start": _start,
    "drain": _drain,
    "check": _check,
    "switch": _switch,
    "smoke": _smoke,
    "promote": _promote,
    "abandon": _abandon,
    "end": _end,
    "settle": _settle,
}
