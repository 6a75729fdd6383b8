"""Finds who still holds a secret value. Reads what the processes themselves would read, so the answer is the truth."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from switchyard.engine import docker
from switchyard.engine.layout import AppPaths
from switchyard.names import COLOURS
from switchyard.secrets import generations

PROC = Path("/proc")


@dataclass
class Holders:
    """Where any of the values that were asked about was found; the values themselves are never shown."""

    files: list[str] = field(default_factory=list)
    """Secrets of today's generation, which the next colour to start will get."""
    containers: dict[str, list[str]] = field(default_factory=dict)
    """Colour to the names of running containers."""


def holders(paths: AppPaths, values: Iterable[str]) -> Holders:
    """Search today's generation and every running container for these values, as files and as environment."""
    wanted = [value.encode() for value in values if value]
    found = Holders()
    now = generations.today(paths)
    if now.is_dir():
        found.files = sorted(path.name for path in now.iterdir() if _has(path, wanted))
    for colour in COLOURS:
        names = [c.name for c in docker.of_colour(paths.name, colour) if c.running and _container_has(c.id, wanted)]
        if names:
            found.containers[colour] = names
    return found


def _container_has(container: str, wanted: list[bytes]) -> bool:
    state = (docker.inspect(container) or {}).get("State", {})
    process = PROC / str(state.get("Pid", 0))
    # A mounted file stays what it was when the container started, also after its path got another content.
    mounted = process / "root" / "run" / "secrets"
    files = list(mounted.iterdir()) if mounted.is_dir() else []
    return any(_has(path, wanted) for path in (*files, process / "environ"))


def _has(path: Path, wanted: list[bytes]) -> bool:
    try:
        content = path.read_bytes()
    except OSError:
        return False
    return any(value in content for value in wanted)
