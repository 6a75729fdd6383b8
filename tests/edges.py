"""Replaces the edge's container as the role does, without the time of a provision, and looks at what is there."""

import json
import re
import subprocess
from typing import Any

from tests.bed import Host

COMPOSE = "/var/lib/switchyard/edge/compose.yml"


def keep(host: Host, open_files: int, *, restart: bool = True, drain: float = 60) -> subprocess.CompletedProcess[str]:
    """Run the engine's verb with the compose file of the last provision, but another limit of open files.

    That is a setting which no reload can take. Returns the finished process; a killed engine's code is 137 or -9.
    """
    text = host.exec(["cat", COMPOSE]).stdout
    data = {
        "compose": re.sub(r"nofile: \d+", f"nofile: {open_files}", text),
        "image": re.search(r'image: "(.*)"', text)[1],  # type: ignore[index]  # every such file names one
        "drain_seconds": drain,
        "restart": restart,
    }
    return host.exec(["switchyard", "edge-keep", "--json"], stdin=json.dumps(data), check=False, timeout=180)


def containers(host: Host) -> list[dict[str, Any]]:
    """The edge's containers, running or not, newest first."""
    listed = host.exec(
        ["docker", "ps", "--all", "--no-trunc", "--filter", "label=switchyard.role=edge", "--format=json"]
    )
    return [json.loads(line) for line in listed.stdout.splitlines()]


def only(host: Host) -> dict[str, Any]:
    """The one edge container, which runs under its usual name."""
    (found,) = containers(host)
    assert (found["Names"], found["State"]) == ("switchyard-edge", "running"), found
    return found
