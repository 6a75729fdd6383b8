"""Starts and stops one colour: a Compose project whose instances answer on their planned ports."""

from collections.abc import Callable, Iterable

from switchyard.engine import docker, ports, records
from switchyard.engine.effects import query, run
from switchyard.engine.layout import AppPaths, HostConfig
from switchyard.engine.ports import Plan, addresses
from switchyard.engine.records import Record, variable
from switchyard.names import AppName, Colour
from switchyard.secrets import generations

_START_SECONDS = 300.0
_STOP_SECONDS = 110.0
"""What Docker is given beside the time that the containers themselves may take to stop."""
_GRACE = 10.0
"""Docker's own, for a container that names none."""


def environment(record: Record, colour: Colour, plan: Plan, host: HostConfig) -> dict[str, str]:
    """The variables that the record's compose file leaves open: colour, addresses, secrets, migration container."""
    values = {
        "SWITCHYARD_COLOUR": colour,
        "SWITCHYARD_MIGRATE_NAME": migrate_name(record),
        "SWITCHYARD_SECRETS": str(generations.of(AppPaths(record.name), record.id)),
    }
    for service, count in record.instances.items():
        targets = addresses(plan, record.name, service, count, colour, host.publish_address)
        for instance, target in enumerate(targets, start=1):
            values[f"SWITCHYARD_PUBLISH_{variable(service)}_{instance}"] = target
    return values


def migrate_name(record: Record) -> str:
    """Name of the one-shot migration container of a release."""
    return f"{record.name}-migrate-{record.id.partition('-')[0]}"


def compose(record: Record, project: str, *words: str) -> list[str]:
    """The argv of a compose command on a record."""
    return ["docker", "compose", "--project-name", project, "--file", str(record.compose_file), *words]


def start(record: Record, colour: Colour, plan: Plan, host: HostConfig, *, keep: bool = False) -> None:
    """Bring a colour up with this record; what ran in it before is replaced. Images are already on the host.

    With `keep`, containers that are there stay as they are, and only what is down or missing is started.
    """
    words = ("up", "--detach", "--remove-orphans", "--pull", "never", *(["--no-recreate"] if keep else []))
    run(
        compose(record, record.name.project(colour), *words),
        step="colour.start",
        # What runs there now is stopped first.
        timeout=_START_SECONDS + _grace(docker.of_colour(record.name, colour)),
        environment=environment(record, colour, plan, host),
    )


def start_if_down(paths: AppPaths, host: HostConfig, release: str, colour: Colour, say: Callable[[str], None]) -> None:
    """Start a release in its colour unless all of it runs."""
    resident, running = release_in(paths.name, colour)
    if (resident, running) != (release, True):
        say(f"recover: starting {release} on {colour}")
        # Its other instances serve: today's secrets, when it was started with older ones, must not replace them all.
        keep = resident == release and any(container.running for container in docker.of_colour(paths.name, colour))
        start(records.load(paths, release), colour, ports.load(), host, keep=keep)


def stop(name: AppName, colour: Colour) -> None:
    """Stop a colour's containers and keep them for inspection; a stopped colour does not come back at boot."""
    found = docker.of_colour(name, colour)
    running = [container.name for container in found if container.running]
    if running:
        run(["docker", "stop", *running], step="colour.stop", timeout=_STOP_SECONDS + _grace(found))


def _grace(containers: Iterable[docker.Container]) -> float:
    """The seconds that the slowest of these containers may take to stop: its `stop_grace_seconds`."""
    given = [(docker.inspect(c.id) or {}).get("Config", {}).get("StopTimeout") for c in containers if c.running]
    return max((_GRACE if seconds is None else float(seconds) for seconds in given), default=0.0)


def targets(record: Record, colour: Colour, plan: Plan, host: HostConfig) -> dict[str, str]:
    """Every instance of a colour on this host, `api-1` to its `ip:port`."""
    return {
        f"{service}-{index}": target
        for service, count in record.instances.items()
        for index, target in enumerate(
            addresses(plan, record.name, service, count, colour, host.publish_address), start=1
        )
    }


def release_in(name: AppName, colour: Colour) -> tuple[str, bool]:
    """Release id found in a colour (empty when there is none, or a mix) and whether all of it runs."""
    found = docker.of_colour(name, colour)
    releases = {container.release for container in found}
    return (releases.pop() if len(releases) == 1 else "", bool(found) and all(c.running for c in found))


def publishes(name: AppName, colour: Colour, wanted: dict[str, str]) -> bool:
    """Tell whether a colour's containers listen where they shall; a new publish address moves them."""
    found = set()
    for container in docker.of_colour(name, colour):
        for bindings in ((docker.inspect(container.id) or {})["HostConfig"]["PortBindings"] or {}).values():
            address = bindings[0]["HostIp"]
            found.add(f"{f'[{address}]' if ':' in address else address}:{bindings[0]['HostPort']}")
    return found == set(wanted.values())


def exited(name: AppName, colour: Colour) -> str:
    """Say which container of a colour is not running or keeps restarting; empty while all is well."""
    for container in docker.of_colour(name, colour):
        if container.state in ("exited", "dead", "restarting"):
            if (docker.inspect(container.id) or {}).get("State", {}).get("OOMKilled"):
                return f"container {container.name} was killed for using more than its memory limit: raise memory_mb"
            # A restart between the two looks forgets that flag, but 128 + SIGKILL stays in the status.
            hint = "; 137 means killed, mostly for want of memory: see memory_mb" if "(137)" in container.status else ""
            return f"container {container.name} is {container.state} ({container.status}{hint})"
    return ""


def log_tail(name: AppName, colour: Colour, lines: int = 8) -> str:
    """The end of each container's log in a colour, for the error that is shown to the operator."""
    parts = []
    for container in docker.of_colour(name, colour):
        answer = query(["docker", "logs", "--tail", str(lines), container.id])
        parts.append(f"--- {container.name} ({container.status})\n{(answer.out + answer.err).strip()}")
    return "\n".join(parts)
