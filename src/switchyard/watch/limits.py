"""What the standing watch measures against: `/etc/switchyard/watch.json`, written by the role `engine`."""

import json
from dataclasses import dataclass
from pathlib import Path

from switchyard.errors import Exit, SwitchyardError
from switchyard.strict import build

FILE = Path("/etc/switchyard/watch.json")
VARIABLE = "engine_watch"


@dataclass(frozen=True)
class Limits:
    """Every limit, and how long it has to be passed before people are told. Shares are from 0 to 1."""

    interval: float = 30.0
    """Seconds between two looks; the unit's timer keeps them."""
    timeout: float = 5.0
    """Seconds that a service has for a healthy answer."""
    error_share: float = 0.01
    errors: int = 3
    """Fewest failed requests that count as a share."""
    requests: int = 20
    """Fewest requests whose response times are judged."""
    p95_seconds: float = 1.0
    traffic_seconds: float = 300.0
    """How long error share or response time have to be beyond their limit."""
    cpu_share: float = 0.8
    memory_share: float = 0.8
    load_seconds: float = 900.0
    """How long processors or memory have to be."""
    disk_share: float = 0.8
    disk_days: float = 1.0
    """A file system that will be full within so many days counts as full."""
    disk_seconds: float = 1800.0
    certificate_days: float = 21.0
    backup_hours: float = 26.0
    """A daily backup may be this late."""
    calm_seconds: float = 60.0
    """How long all has to be well before an alert is over."""


def parse(data: object, where: str = VARIABLE) -> Limits:
    """Validate limits; raises `SwitchyardError` naming the key and the rule."""
    # A key without a value says nothing, as everywhere in the inventory.
    given = {k: v for k, v in data.items() if v is not None} if isinstance(data, dict) else data
    limits = build(Limits, given, where)

    def require(key: str, least: float, most: float, unit: str) -> None:
        if not least <= vars(limits)[key] <= most:
            raise SwitchyardError(f"{where}.{key}: use {least:g} to {most:g}{unit}.", Exit.USAGE)

    require("interval", 1, 600, " seconds")
    require("timeout", 0.1, 60, " seconds")
    for key in ("error_share", "cpu_share", "memory_share", "disk_share"):
        require(key, 0.0001, 1, ", a share of the whole")
    require("errors", 1, 1_000_000, "")
    require("requests", 1, 1_000_000, "")
    require("p95_seconds", 0.001, 600, " seconds")
    for key in ("traffic_seconds", "load_seconds", "disk_seconds", "calm_seconds"):
        require(key, 0, 86_400, " seconds")
    require("disk_days", 0, 365, " days")
    require("certificate_days", 0, 365, " days")
    require("backup_hours", 1, 8760, " hours")
    return limits


def load() -> Limits:
    """Read the limits; a host that was provisioned before there were any has the usual ones."""
    try:
        data = json.loads(FILE.read_text())
    except FileNotFoundError:
        return Limits()
    except (OSError, ValueError) as error:
        raise SwitchyardError(f"{FILE} cannot be read ({type(error).__name__}): run provision.yml.") from error
    return parse(data)
