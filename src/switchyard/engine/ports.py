"""The port plan: every instance of every colour has its own `ip:port` on this host, for as long as it exists."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from switchyard.engine import docker
from switchyard.engine.effects import exclusive, replace_file
from switchyard.engine.layout import EDGE_LIVE, PORTS, PORTS_LOCK, STATE, HostConfig
from switchyard.errors import Exit, SwitchyardError
from switchyard.names import COLOURS, AppName, Colour

Plan = dict[str, int]


@dataclass(frozen=True)
class Wanted:
    """What `plan-ports` is asked for: an application's services, with the number of instances of each."""

    app: str
    environment: str
    services: dict[str, int]


def _key(name: AppName, service: str, instance: int, colour: Colour) -> str:
    return f"{name}/{service}/{instance}/{colour}"


def load() -> Plan:
    """Read the plan of this host; a lost or unreadable one is an error, since guessing would move live traffic."""
    try:
        data = json.loads(PORTS.read_text())
    except FileNotFoundError:
        if is_lost():
            raise SwitchyardError(
                f"{PORTS} is missing although applications are live: 'switchyard recover' reads it back from Docker."
            ) from None
        return {}
    except (OSError, ValueError) as error:
        raise SwitchyardError(
            f"{PORTS} cannot be read ({error}): move it away, then run 'switchyard recover'."
        ) from error
    return {str(key): int(port) for key, port in data.items()}


def is_lost() -> bool:
    """Tell whether the plan is missing although something is live."""
    if PORTS.is_file():
        return False
    pointers, notes = (EDGE_LIVE / "pointers").glob("*.conf"), STATE.glob("*/fleet.json")
    return any(_is_ours(path) for path in pointers) or any('"instances": true' in path.read_text() for path in notes)


def _is_ours(pointer: Path) -> bool:
    """Tell whether a pointer was made from this host's plan; one that lists members was not."""
    first, _, _ = pointer.read_text().partition("\n")
    return '"members"' not in first


def rebuild(containers: Sequence[docker.Container]) -> None:
    """Write a lost plan again from what the containers of both colours publish."""
    plan: Plan = {}
    for container in containers:
        labels, found = container.labels, docker.inspect(container.id)
        if found is None or "switchyard.colour" not in labels:
            continue
        name = AppName(labels["switchyard.app"], labels["switchyard.environment"])
        colour: Colour = "blue" if labels["switchyard.colour"] == "blue" else "green"
        for bindings in (found["HostConfig"]["PortBindings"] or {}).values():
            key = _key(name, labels["switchyard.service"], int(labels["switchyard.instance"]), colour)
            plan[key] = int(bindings[0]["HostPort"])
    replace_file(PORTS, json.dumps(plan, indent=1, sort_keys=True) + "\n", step="ports.rebuild")


def extend(plan: Plan, name: AppName, instances: Mapping[str, int], host: HostConfig) -> Plan:
    """Return `plan` with ports for every instance of `instances` (service to count); existing ones never move."""
    result = dict(plan)
    used = set(plan.values())
    free = (port for port in range(host.port_first, host.port_last + 1) if port not in used)
    for service, count in sorted(instances.items()):
        for instance in range(1, count + 1):
            for colour in COLOURS:
                key = _key(name, service, instance, colour)
                if key not in result:
                    port = next(free, None)
                    if port is None:
                        raise SwitchyardError(
                            f"No port is free between {host.port_first} and {host.port_last}: widen engine_port_last.",
                            Exit.PREFLIGHT,
                        )
                    result[key] = port
    return result


def ensure(name: AppName, instances: Mapping[str, int], host: HostConfig, *, check: bool = False) -> bool:
    """Make the plan cover `instances` and tell whether that changed it; with `check`, only tell."""
    if extend(load(), name, instances, host) == load():
        return False
    if not check:
        with exclusive(PORTS_LOCK, wait=10, busy="The port plan is being changed by someone else."):
            plan = extend(load(), name, instances, host)
            replace_file(PORTS, json.dumps(plan, indent=1, sort_keys=True) + "\n", step="ports.plan")
    return True


def addresses(plan: Plan, name: AppName, service: str, count: int, colour: Colour, address: str) -> list[str]:
    """The planned `ip:port` of each instance of one service and colour, in instance order."""
    host = f"[{address}]" if ":" in address else address
    return [f"{host}:{plan[_key(name, service, instance, colour)]}" for instance in range(1, count + 1)]
