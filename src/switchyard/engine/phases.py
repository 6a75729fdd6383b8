"""The phases of a deploy, each on its own: what it does on this host, and how it fails.

Every phase may be run again: it looks at what is there and does the rest.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from switchyard.data.settings import find as find_backup
from switchyard.data.state import require_recent_drill
from switchyard.engine import colour as colours
from switchyard.engine import docker, edge, ports, preflight, records
from switchyard.engine.effects import query, run
from switchyard.engine.layout import AppPaths, HostConfig
from switchyard.engine.ledger import Ledger
from switchyard.engine.migrate import dirty
from switchyard.engine.operation import Operation
from switchyard.engine.order import read_note
from switchyard.engine.probe import smoke, wait_healthy
from switchyard.engine.records import Record
from switchyard.engine.site import Pointer, Site
from switchyard.engine.site import read as read_pointer
from switchyard.errors import Exit, SwitchyardError
from switchyard.names import COLOURS, Colour, is_newer, other, release_id
from switchyard.request import Request, SmokeTest, route_owner
from switchyard.secrets import generations
from switchyard.trust.admit import admit

_PULL_TRIES = 3
_PULL_TIMEOUT = 1800.0


def live_pointer(paths: AppPaths) -> Pointer | None:
    """What is live: what the pointer file says, and nothing else. A host without an edge has its coordinator's word."""
    return file_pointer(paths) if paths.pointer.is_file() else read_note(paths)


def file_pointer(paths: AppPaths) -> Pointer | None:
    """What this host's own edge is pointed at."""
    return read_pointer(paths.pointer.read_text()) if paths.pointer.is_file() else None


def idle_colour(paths: AppPaths) -> Colour:
    """The colour that the next release goes to."""
    pointer = live_pointer(paths)
    return other(pointer.colour) if pointer else COLOURS[0]


def site_for(paths: AppPaths, host: HostConfig, pointer: Pointer) -> Site:
    """Gather what a pointer file is made from. A previous release whose record is gone is left out."""
    live = records.load(paths, pointer.release)
    previous = records.find(paths, pointer.previous)
    plan = {} if pointer.members else ports.load()
    return Site(pointer, live, previous, plan, host)


def prepare(op: Operation, request: Request) -> Record | None:
    """Preflight: refuse what can be known to go wrong, then write the new release's record.

    Returns None when the live release already is what is asked for. Nothing that serves has been touched.
    """
    pointer = live_pointer(op.paths)
    refuse_older(request, pointer)
    if pointer and pointer.probation:
        raise SwitchyardError(
            f"Release {pointer.release} is still on probation and needs both colours: wait for its verdict, or go back "
            "with scripts/rollback.sh.",
            Exit.BUSY,
        )
    refuse_dirty(op, request)
    info = docker.info()
    preflight.check_edge()
    preflight.check_secrets(op.paths, request)
    preflight.check_connections(request)
    preflight.check_database(op.paths.name)
    require_recent_drill(find_backup(op.paths.name))
    op.say("preflight: asking the registry for digests")
    digests = preflight.resolve(request)
    hashed = records.config_hash(request, digests, records.salt())
    if pointer and is_live(op.paths, pointer, hashed):
        return None
    live = records.find(op.paths, pointer.release) if pointer else None
    evidence = admit(op, request, digests, live, info)
    idle = idle_colour(op.paths)
    ports.ensure(op.paths.name, {n: s.instances for n, s in request.services.items()}, op.host)
    preflight.check_space(request, digests, str(info["DockerRootDir"]), live)
    preflight.check_memory(request, preflight.held_mb(op.paths.name, idle))
    preflight.check_ports(op.paths.name, request, idle, ports.load(), op.host)
    number = next_number(op.paths, op.ledger)
    place_secrets(op, release_id(number, request.version), request)
    return records.create(op.paths, number, request, digests, hashed, evidence)


def place_secrets(op: Operation, release: str, request: Request, *, note: bool = True) -> None:
    """Give this host the release's secrets; what is new since an earlier release goes into the ledger, by name."""
    placed = generations.place(op.paths, release, request)
    if note and op.ledger.last_live():
        for name, outcome in placed.items():
            op.ledger.append("key", op=op.id, who=op.who, subject=name, outcome=outcome)


def refuse_dirty(op: Operation, request: Request) -> None:
    """A schema that nobody has vouched for waits for the operator's word."""
    state = op.ledger.schema()
    if state and state["state"] == "dirty" and not request.migration_decision and request.migration:
        raise dirty(state)


def refuse_older(request: Request, pointer: Pointer | None) -> None:
    """Without a version on the command line, never go below what somebody released by tag in between."""
    if request.explicit_version or pointer is None:
        return
    live = pointer.release.partition("-")[2]
    if is_newer(live, request.version):
        raise SwitchyardError(
            f"{live} is live and the inventory names {request.version}: type '-e version={request.version}' to go back "
            f"on purpose, or set app_version to {live}.",
            Exit.PREFLIGHT,
        )


def is_live(paths: AppPaths, pointer: Pointer, hashed: str) -> bool:
    """Tell whether the live release has this configuration hash and all of it runs."""
    record = records.find(paths, pointer.release)
    if record is None or record.config_hash != hashed:
        return False
    return colours.release_in(paths.name, pointer.colour) == (pointer.release, True)


def next_number(paths: AppPaths, ledger: Ledger) -> int:
    """The next release number: above every one in the ledger and every directory, complete or not."""
    taken = [int(path.name.partition("-")[0]) for path in paths.releases.glob("[0-9]*-*")]
    return max([ledger.next_number() - 1, *taken]) + 1


def pull(op: Operation, record: Record) -> None:
    """Get every image by digest; those already on the host are left alone. The registry may stumble, not fall."""
    for service in record.request.services:
        reference = record.pinned(service)
        if docker.image(reference) is None:
            op.say(f"pull: {reference}")
            _pull_one(op, reference)
        _require_environment(record, service)


def _pull_one(op: Operation, reference: str) -> None:
    for attempt in range(1, _PULL_TRIES + 1):
        done = run(["docker", "pull", "--quiet", reference], step="pull.image", timeout=_PULL_TIMEOUT, check=False)
        if done.code == 0:
            return
        op.say(f"pull: attempt {attempt} of {_PULL_TRIES} failed: {done.reason}")
        if attempt < _PULL_TRIES:
            time.sleep(attempt)
    reason = docker.registry_reason(done.err or done.out, reference)
    raise SwitchyardError(f"{reference} cannot be pulled: {reason}. The old release serves on.", Exit.PREFLIGHT)


def _require_environment(record: Record, service: str) -> None:
    """An image may name the variables it cannot start without, in the label `switchyard.required-env`."""
    spec = record.request.services[service]
    labels = (docker.image(record.pinned(service)) or {}).get("Config", {}).get("Labels") or {}
    required = {name.strip() for name in labels.get("switchyard.required-env", "").split(",") if name.strip()}
    # A secret file NAME satisfies NAME; so does NAME_FILE, the usual way to point at it.
    given = {*spec.env, *spec.secrets, *spec.secret_env}
    missing = sorted(name for name in required if name not in given and f"{name}_FILE" not in given)
    if missing:
        raise SwitchyardError(
            f"{spec.reference} needs {', '.join(missing)}: add it to app_services.{service}.env or secrets.",
            Exit.PREFLIGHT,
        )


def start(op: Operation, record: Record, colour: Colour | None = None) -> None:
    """Bring the release up in the idle colour (draining what is warm there) and wait until all of it is healthy."""
    idle, plan, pointer = colour or idle_colour(op.paths), ports.load(), live_pointer(op.paths)
    if colour is None and pointer and pointer.is_canary and record.id != pointer.previous:
        raise SwitchyardError(
            f"{pointer.previous} on {idle} has the clients that the canary {pointer.release} has not, and is not "
            "replaced: go back with scripts/rollback.sh, or promote the canary.",
            Exit.BUSY,
        )
    targets = colours.targets(record, idle, plan, op.host)
    resident, running = colours.release_in(op.paths.name, idle)
    if running and resident not in ("", record.id):
        # The ports belong to the colour, so those of the new record serve as well as one that cannot be read.
        drain(op, records.find(op.paths, resident) or record, idle, resident)
    op.say(f"start: {record.id} on {idle}: {', '.join(f'{name} {target}' for name, target in targets.items())}")
    colours.start(record, idle, plan, op.host)
    wait_until_healthy(op, record, idle)


def wait_until_healthy(op: Operation, record: Record, colour: Colour) -> None:
    """Wait for a colour's instances; raises `SwitchyardError` with the tail of the containers' logs."""
    health = {
        f"{service}-{index}": spec.health
        for service, spec in record.request.services.items()
        for index in range(1, spec.instances + 1)
    }
    try:
        wait_healthy(
            colours.targets(record, colour, ports.load(), op.host),
            health,
            still_running=lambda: colours.exited(op.paths.name, colour),
            say=lambda text: op.say(f"start: {text}"),
        )
    except SwitchyardError as error:
        error.details = error.details or colours.log_tail(op.paths.name, colour)
        raise


def drain(op: Operation, record: Record, colour: Colour, resident: str) -> None:
    """Wait until nobody uses the warm colour any more, at most the drain time."""
    targets = colours.targets(record, colour, ports.load(), op.host).values()
    wait_until_idle(op, targets, record.request.drain_seconds, f"{resident} on {colour}")


def wait_until_idle(op: Operation, targets: Iterable[str], seconds: float, what: str) -> None:
    """Wait until this host has no connection with these `ip:port`s any more, at most so many seconds."""
    numbers = [target.rpartition(":")[2] for target in targets]
    if not numbers:
        return
    expression = " or ".join(f"sport = :{port} or dport = :{port}" for port in numbers)
    deadline = time.monotonic() + seconds
    said = False
    while (busy := query(["ss", "-Htn", "state", "established", f"( {expression} )"]).out.strip()) and (
        time.monotonic() < deadline
    ):
        if not said:
            op.say(f"start: draining {what}: {len(busy.splitlines())} connections")
            said = True
        time.sleep(0.2)


def verify(op: Operation, record: Record, colour: Colour) -> None:
    """Smoke tests against the colour, privately: every instance that would get the request must answer it."""
    plan, address = ports.load(), op.host.publish_address
    targets = {
        service: ports.addresses(plan, op.paths.name, service, count, colour, address)
        for service, count in record.instances.items()
    }
    try:
        count = smoke_all(op.paths, record, targets)
    except SwitchyardError as error:
        error.details = colours.log_tail(op.paths.name, colour)
        raise
    op.say(f"verify: {count} smoke tests passed on {colour}")


def smoke_all(paths: AppPaths, record: Record, targets: Mapping[str, Sequence[str]]) -> int:
    """Run each smoke test that comes before a switch on every `ip:port` of the service that has its route.

    Returns how many there are; raises `SwitchyardError` for one that fails. A host that is only an edge has no secrets,
    and leaves tests that log in to the application hosts.
    """
    tests = [test for test in record.request.smoke_tests if test.when != "after" and _can_ask(paths, record, test)]
    for test in tests:
        service = route_owner(record.request, test.path)
        for target in targets[service] if service else ():
            if wrong := smoke(target, test, login=_login_of(paths, record, test)):
                raise SwitchyardError(f"A smoke test failed on {service} ({target}): {wrong}.", Exit.UNHEALTHY)
    return len(tests)


def _can_ask(paths: AppPaths, record: Record, test: SmokeTest) -> bool:
    return not test.login or (generations.of(paths, record.id) / test.login).is_file()


def _login_of(paths: AppPaths, record: Record, test: SmokeTest) -> str:
    """The secret that a smoke test logs in with, as the release is started with it; '' when it needs none."""
    return generations.read(generations.of(paths, record.id), test.login) if test.login else ""


def verify_through_edge(op: Operation, record: Record) -> None:
    """Smoke tests on the release that just went live, through the edge as users come."""
    pointer = live_pointer(op.paths)
    tests = [test for test in record.request.smoke_tests if test.when != "before" and _can_ask(op.paths, record, test)]
    if pointer is None or pointer.release != record.id:
        return
    site = site_for(op.paths, op.host, pointer)
    for test in tests:
        service = route_owner(record.request, test.path)
        if service and (wrong := edge.smoke_through(site, service, test, login=_login_of(op.paths, record, test))):
            raise SwitchyardError(f"A smoke test failed through the edge: {wrong}.", Exit.REVERTED)
    if tests:
        op.say(f"switch: {len(tests)} smoke tests passed through the edge")


def switch(op: Operation, record: Record, colour: Colour, *, probation: bool, unseen: bool = False) -> None:
    """Point the edge at the colour, prove it, and write it into the ledger.

    With `unseen`, no worker from before takes in connections any more, so that a question through the edge is answered
    by what is live now.
    """
    pointer = live_pointer(op.paths)
    previous = pointer.release if pointer and pointer.release != record.id else ""
    if pointer and pointer.colour == colour and pointer.release == record.id:
        op.say(f"switch: {record.id} already is live")
        return
    steps = record.request.canary.steps if probation and previous else []
    new = Pointer(record.id, colour, previous, probation and bool(previous), share=steps[0] if steps else 100)
    switched = edge.point(op.paths, site_for(op.paths, op.host, new), op.host, unseen=unseen)
    op.switched(switched.milliseconds)
    note_live(op, record, colour, share=new.share)
    op.result.previous = previous
    op.say(f"switch: {record.id} is live on {colour}, proven in {switched.milliseconds:.0f} ms")


def note_live(op: Operation, record: Record, colour: Colour, *, share: int = 100) -> None:
    """Write a proven switch into the ledger; `share` is the percentage of the clients that a canary begins with."""
    op.ledger.append(
        "live",
        op=op.id,
        release=record.id,
        colour=colour,
        schema_epoch=record.request.schema_epoch,
        digests=record.digests,
        revision=record.request.revision or _revision(record),
        committed=record.request.committed,
        **({"share": share} if share < 100 else {}),
    )
    op.result.release, op.result.colour, op.result.changed = record.id, colour, True
    op.result.digests = record.digests


def _revision(record: Record) -> str:
    """The commit that an image names by the label of the OCI's image specification, or ''."""
    for service in record.request.services:
        labels = (docker.image(record.pinned(service)) or {}).get("Config", {}).get("Labels") or {}
        if revision := labels.get("org.opencontainers.image.revision"):
            return str(revision)
    return ""


def watch(op: Operation, record: Record) -> None:
    """Probation: have the release watched, and follow to the verdict.

    Raises `SwitchyardError`: reverted, inconclusive (both colours stay), or interrupted by another operation.
    """
    from switchyard.watch.attend import attend  # noqa: PLC0415 - the watch itself stands on these phases

    attend(op, record)


def conclude(op: Operation) -> None:
    """End a probation: take `backup` out; the previous colour stays warm outside the upstream."""
    pointer = live_pointer(op.paths)
    if pointer and pointer.probation:
        settled = replace(pointer, probation=False, share=100)
        edge.point(op.paths, site_for(op.paths, op.host, settled), op.host)


def take_back(op: Operation, reason: str, *, bad: bool = True, stop: bool = True) -> None:
    """Put the pointer back to the previous release; a `bad` one is marked so and, with `stop`, stopped."""
    pointer = live_pointer(op.paths)
    if pointer is None or not pointer.previous:
        return
    old = records.load(op.paths, pointer.previous)
    back = Pointer(old.id, other(pointer.colour))
    edge.point(op.paths, site_for(op.paths, op.host, back), op.host)
    note_live(op, old, back.colour)
    what = "stays beside it, without clients"
    if bad:
        op.ledger.append("bad", op=op.id, release=pointer.release, reason=reason)
        what = "is marked bad"
        if stop:
            colours.stop(op.paths.name, pointer.colour)
            what += " and kept stopped for inspection"
    op.say(f"watch: {old.id} is live again on {back.colour}; {pointer.release} {what}")
