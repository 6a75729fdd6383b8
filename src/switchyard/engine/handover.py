"""Keeps the edge's container running, and replaces it while users keep coming in.

A second container opens the same ports beside the first (`reuseport`), proves that it answers, and only then the first
is told to finish what it has under way. Its listening sockets close; a connection that waits in one of them moves to
the other container's (`net.ipv4.tcp_migrate_req`, Linux 5.14). So nobody is refused, and there is never no edge.
"""

import json
import time
from dataclasses import dataclass

from switchyard.engine import docker, edge
from switchyard.engine.effects import query, replace_file, run
from switchyard.engine.layout import EDGE, EDGE_CONTAINER
from switchyard.errors import Exit, SwitchyardError

COMPOSE_FILE = EDGE / "compose.yml"
NEXT = f"{EDGE_CONTAINER}-next"
START_SECONDS = 15.0
"""How long a new edge may take until it answers."""
_SETTINGS = "switchyard.settings"
_PROJECTS = (EDGE_CONTAINER, f"{EDGE_CONTAINER}-2")
"""Compose knows a container by its project: two at the same time need two of them."""


@dataclass(frozen=True)
class Wanted:
    """What `edge-keep` is asked for; see `keep`."""

    compose: str
    image: str
    drain_seconds: float
    restart: bool = False
    check: bool = False


@dataclass(frozen=True)
class Kept:
    """What `keep` did, or with `check` would do."""

    changed: bool
    started: bool
    waiting: bool
    """The container runs with other settings than the inventory's, and nobody allowed to replace it."""
    diff: list[dict[str, str]]


def keep(text: str, image: str, drain: float, *, restart: bool, check: bool) -> Kept:
    """Have one edge running; replace it by one with new settings or a new image only when `restart` is set.

    `text` is the compose file, `drain` the seconds for which Nginx finishes what is under way. Raises
    `SwitchyardError` when a new edge does not answer; an old one then serves on.
    """
    wanted = settings(text, image)
    with edge.edge_lock():
        if not check:
            settle()
        before = COMPOSE_FILE.read_text() if COMPOSE_FILE.is_file() else ""
        diff = [{"path": str(COMPOSE_FILE), "before": before, "after": text}] if before != text else []
        running = [container for container in edge.containers() if container.running]
        stale = bool(running) and running[0].labels.get(_SETTINGS) != wanted
        starting = not running or (stale and restart)
        kept = Kept(bool(diff) or starting, starting, stale and not restart, diff)
        if check:
            return kept
        if diff:
            replace_file(COMPOSE_FILE, text, step="edge.compose", mode=0o640)
        if starting:
            _start(NEXT if running else EDGE_CONTAINER, wanted)
            settle()
    # Also when this run only finished what a killed one had begun.
    if len(edge.containers()) > 1:
        _await_drained(drain)
    return kept


def settings(text: str, image: str) -> str:
    """What a container was made from: Compose's hash of its service and the image's identity."""
    answer = query(
        ["docker", "compose", "--file", "-", "--project-name", "switchyard-edge", "config", "--hash", "*"], stdin=text
    )
    if answer.code != 0:
        raise SwitchyardError(f"Docker Compose refuses the edge's file: {answer.reason}.", Exit.USAGE)
    found = docker.image(image) or {"Id": ""}
    return f"{answer.out.split()[-1]} {found['Id']}"


def _start(name: str, wanted: str) -> None:
    """Start a container and wait until it answers for itself; a failed one is removed."""
    found = edge.containers()
    for container in found:
        if not container.running:
            _remove(container)
    taken = {container.labels.get("com.docker.compose.project") for container in found if container.running}
    project = next(project for project in _PROJECTS if project not in taken)
    words = ["docker", "compose", "--project-name", project, "--file", str(COMPOSE_FILE), "up", "--detach", "--no-deps"]
    names = {"SWITCHYARD_EDGE_CONTAINER": name, "SWITCHYARD_EDGE_SETTINGS": wanted}
    started = run(words, step="edge.up", environment=names, timeout=120, check=False)
    if started.code == 0 and _comes_up():
        return
    log = query(["docker", "logs", "--tail", "20", name]) if started.code == 0 else started
    for container in edge.containers():
        if container.id not in {old.id for old in found}:
            _remove(container)
    raise SwitchyardError(
        "The new edge container does not answer, so it was removed and "
        f"{'the old one serves on' if taken else 'nothing serves on this host'}: {log.reason}.",
        Exit.UNHEALTHY,
        (log.out + log.err).strip(),
    )


def _comes_up() -> bool:
    """Wait for the newest edge to answer for itself; an Nginx that ended at its start will end again."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        newest = edge.containers()[0]
        if edge.accepts(edge.pid_of(newest)):
            return True
        if newest.state in ("restarting", "exited", "dead") or time.monotonic() > deadline:
            return False
        time.sleep(0.05)


def settle(wait: float = 0.0) -> list[str]:
    """Finish a take-over that was interrupted, or undo it; the caller holds the edge. Returns what was done.

    The newest edge that answers stays. Older ones are told to finish what they have; what is dead is removed. Nothing
    is done while none answers; just after a boot it may take up to `wait` seconds until one does.
    """
    done = []
    deadline = time.monotonic() + wait
    while True:
        found = edge.containers()
        answering = [container for container in found if container.running and edge.accepts(edge.pid_of(container))]
        if answering:
            break
        if time.monotonic() >= deadline:
            return []
        time.sleep(0.1)
    stays, *older = answering
    for container in older:
        done.append(f"edge container {container.name} finishes what it has, {stays.name} serves")
        run(["docker", "kill", "--signal", "QUIT", container.id], step="edge.quit")
    for container in found:
        if not container.running or container.created > stays.created:
            done.append(f"edge container {container.name} is removed")
            _remove(container)
    if stays.name != EDGE_CONTAINER and not any(c.name == EDGE_CONTAINER for c in edge.containers()):
        run(["docker", "rename", stays.id, EDGE_CONTAINER], step="edge.rename")
    return done


def _remove(container: docker.Container) -> None:
    if container.running:
        run(["docker", "stop", "--time", "5", container.id], step="edge.stop", timeout=60)
    run(["docker", "rm", "--force", container.id], step="edge.remove")


def _await_drained(drain: float) -> None:
    """Wait for the old edge to end, without holding the edge: releases may switch meanwhile."""
    deadline = time.monotonic() + drain + 10
    while True:
        running = [container for container in edge.containers() if container.running]
        late = time.monotonic() > deadline
        if len(running) < 2 or late:
            break
        time.sleep(0.2)
    with edge.edge_lock():
        if late:
            for container in running[1:]:
                _remove(container)
        settle()


def as_json(kept: Kept) -> str:
    """One JSON line for the edge role."""
    return json.dumps({"changed": kept.changed, "started": kept.started, "waiting": kept.waiting, "diff": kept.diff})
