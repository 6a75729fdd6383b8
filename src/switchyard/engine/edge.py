"""Changes what the edge serves: test, rename, reload, proof, in this order and under one lock.

Nginx's reload only signals: the command succeeds although the master may refuse the new configuration afterwards.
So nothing here believes a reload; a change counts when new connections prove it.
"""

import contextlib
import json
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from switchyard.engine import docker
from switchyard.engine.effects import Completed, exclusive, query, replace_file, run
from switchyard.engine.layout import (
    EDGE_CONTAINER,
    EDGE_LABEL,
    EDGE_LIVE,
    EDGE_LOCK,
    EDGE_SHADOW,
    EDGE_SOCKET,
    AppPaths,
    HostConfig,
)
from switchyard.engine.probe import ask, smoke
from switchyard.engine.site import Site
from switchyard.errors import Exit, SwitchyardError
from switchyard.request import SmokeTest

PROOF_SECONDS = 5.0
"""How long new connections may still be answered by the old configuration before the switch is taken back. Nginx's
old workers accept for 100 ms after the new ones started; the rest is room for a busy host."""

PROOF_CONNECTIONS = 6
"""Consecutive new connections per service that must prove the new release."""
_LINGER_SECONDS = 2.0
"""How long old workers that still take in connections are waited for after a proof."""


@contextlib.contextmanager
def edge_lock() -> Iterator[None]:
    """Hold the edge: applications share one Nginx, so test, rename, reload and proof are one step for all of them."""
    with exclusive(EDGE_LOCK, wait=60, busy="Another application is switching on this edge; try again in a minute."):
        yield


def containers() -> list[docker.Container]:
    """Every edge container on this host, running or not, newest first."""
    return sorted(docker.containers(EDGE_LABEL), key=lambda container: container.created, reverse=True)


def pid_of(container: docker.Container) -> int:
    """The Nginx master's process id on this host, or 0. A container that keeps restarting has none."""
    found = docker.inspect(container.id)
    return int(found["State"]["Pid"]) if found and found["State"]["Running"] else 0


def accepts(pid: int) -> bool:
    """Tell whether this one Nginx takes in connections: it answers on a socket that only its container has.

    One that drains has closed its sockets; one that could not bind a port never opened them.
    """
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(1.0)
        connection.connect(f"/proc/{pid}/root/{EDGE_SOCKET}")
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return connection.recv(64).startswith(b"HTTP/1.1 204")
    return False


def masters() -> list[int]:
    """Process ids of the Nginx masters that take in connections, newest first.

    One, or two while a container takes over from another, or none.
    """
    found = [pid for container in containers() if container.running and (pid := pid_of(container))]
    return found if len(found) < 2 else [pid for pid in found if accepts(pid)] or found


def master_pid() -> int:
    """The newest of them; raises `SwitchyardError` when the edge does not run."""
    found = masters()
    if not found:
        raise SwitchyardError(
            f"The edge does not run on this host (container {EDGE_CONTAINER}): run provision.yml, or "
            f"'docker start {EDGE_CONTAINER}'.",
            Exit.PREFLIGHT,
        )
    return found[0]


def _in_edge(pid: int, *argv: str) -> list[str]:
    # The container's own binary, files and /proc; `docker exec` does the same in ten times the time.
    return ["nsenter", "--target", str(pid), "--mount", "--pid", "--", *argv]


def _emergency(answer: Completed) -> str:
    """What Nginx objects to: its first emergency line, without time and process id."""
    lines = [line for line in answer.err.splitlines() if "[emerg]" in line]
    return lines[0].partition("[emerg]")[2].partition(": ")[2].strip() or lines[0] if lines else answer.reason


def check_live(pid: int) -> None:
    """Refuse to build on a configuration that Nginx would not start with: `nginx -t` on what is on disk."""
    answer = query(_in_edge(pid, "nginx", "-t", "-q", "-c", f"{EDGE_LIVE}/nginx.conf"))
    if answer.code != 0:
        raise SwitchyardError(
            f"The edge's configuration on disk is not valid ({_emergency(answer)}): run provision.yml, or 'switchyard "
            "recover' when it is a pointer file.",
            Exit.PREFLIGHT,
        )


def _is_secret(name: str) -> bool:
    """Whether a file of the edge's tree holds secrets or their hashes: no difference shows it."""
    return name.endswith((".preview", ".users"))


def _mode(name: str) -> int:
    # Nginx's master reads its configuration as root; the workers, who are somebody else, read who may see the report.
    return 0o600 if name.endswith(".preview") else 0o644


def _shown(name: str, text: str | None) -> str:
    return "(a secret)\n" if text and _is_secret(name) else text or ""


_CONFINED = (
    *("--read-only", "--tmpfs=/var/cache/nginx:mode=0755", "--tmpfs=/run:mode=0755"),
    # The test binds the ports, and makes logs and temporary files the worker's, as the edge does.
    *("--cap-drop=ALL", "--cap-add=NET_BIND_SERVICE", "--cap-add=CHOWN", "--cap-add=DAC_OVERRIDE"),
    *("--security-opt=no-new-privileges", "--memory=256m", "--pids-limit=64"),
    *("--log-opt=max-size=10m", "--log-opt=max-file=3"),
)
"""What a container that only tests a configuration may."""


def _test_shadow(pid: int | None, host: HostConfig, files: Mapping[str, str | None]) -> None:
    """Test the live tree with `files` changed, in a copy beside it: an invalid file is never on the live side."""
    run(["rm", "-rf", "--", str(EDGE_SHADOW)], step="edge.shadow_clear")
    run(["mkdir", "-p", str(EDGE_LIVE / "pointers"), str(EDGE_LIVE / "sites")], step="edge.directories")
    run(["cp", "-a", str(EDGE_LIVE), str(EDGE_SHADOW)], step="edge.shadow_copy")
    for name, text in files.items():
        if text is None:
            run(["rm", "-f", "--", str(EDGE_SHADOW / name)], step="edge.shadow_remove")
        else:
            replace_file(EDGE_SHADOW / name, text, step="edge.shadow_file", mode=_mode(name))
    test = ["nginx", "-t", "-q", "-c", f"{EDGE_SHADOW}/nginx.conf"]
    if pid is not None:
        argv = _in_edge(pid, *test)
    else:
        mounts = [
            "-v",
            f"{EDGE_LIVE.parent}:{EDGE_LIVE.parent}:ro",
            "-v",
            "/var/log/switchyard/edge:/var/log/switchyard/edge",
        ]
        argv = ["docker", "run", "--rm", "--network", "host", *_CONFINED, *mounts, host.edge_image, *test]
    answer = run(argv, step="edge.test", timeout=60, check=False)
    if answer.code != 0:
        raise SwitchyardError(f"Nginx refuses the new configuration: {_emergency(answer)}. Nothing was changed.")


def _place(files: Mapping[str, str | None], step: str) -> None:
    for name, text in files.items():
        if text is None:
            run(["rm", "-f", "--", str(EDGE_LIVE / name)], step=f"{step}.remove")
        else:
            replace_file(EDGE_LIVE / name, text, step=f"{step}.rename", mode=_mode(name))


def _reload(step: str) -> None:
    # Each of them, should one just take over from another: both serve users.
    if pids := masters():
        run(["kill", "-HUP", *map(str, pids)], step=f"{step}.reload")


@dataclass(frozen=True)
class Switched:
    """A proven switch, in milliseconds from the rename to the proof."""

    milliseconds: float


def point(
    paths: AppPaths, site: Site, host: HostConfig, *, within: float = PROOF_SECONDS, unseen: bool = False
) -> Switched:
    """Make `site` live: shadow test, rename, reload, proof. Puts the old pointer back when the proof fails.

    The proof may take `within` seconds; with 0 there is none, for going back to what served before. Nginx leaves its
    old workers their sockets for another tenth of a second (`ngx_master_process_cycle`), which is waited for, so that
    whoever connects after a switch gets the new release. For what is `unseen` by the proof, such as another share of
    the clients or whom a smoke test will reach, there is no other evidence: then a worker that stays is a failure.

    Raises `SwitchyardError`: nothing changed when the test fails, the old pointer again when the proof does.
    """
    name = str(paths.pointer.relative_to(EDGE_LIVE))
    with edge_lock():
        pid = master_pid()
        old = paths.pointer.read_text() if paths.pointer.is_file() else None
        text = site.render()
        _test_shadow(pid, host, {name: text})
        started = time.monotonic()
        before = set().union(*map(_workers, masters()))
        _place({name: text}, "switch")
        try:
            _reload("switch")
            _prove(site, host, within)
            if not _outlast(before, within if unseen else min(within, _LINGER_SECONDS)) and unseen:
                raise SwitchyardError("Nginx goes on with what it had before (its error log says why).", Exit.REVERTED)
        except SwitchyardError as error:
            _place({name: old}, "switch.undo")
            _reload("switch.undo")
            raise SwitchyardError(
                f"{error.message} The old pointer is back and serves.", Exit.REVERTED, error.details
            ) from error
        return Switched((time.monotonic() - started) * 1000)


def try_out(paths: AppPaths, site: Site, host: HostConfig) -> None:
    """Test a pointer file beside the live ones; nothing is changed."""
    with edge_lock():
        _test_shadow(master_pid(), host, {str(paths.pointer.relative_to(EDGE_LIVE)): site.render()})


def unpoint(paths: AppPaths, host: HostConfig) -> None:
    """Take an application off the edge: what a first deploy that failed its proof goes back to."""
    with edge_lock():
        pid = master_pid()
        files = {str(paths.pointer.relative_to(EDGE_LIVE)): None}
        _test_shadow(pid, host, files)
        _place(files, "unpoint")
        _reload("unpoint")


def _prove(site: Site, host: HostConfig, within: float) -> None:
    """Wait until new connections are answered by a new address alone and name the new release."""
    if not within:
        return
    deadline = time.monotonic() + within
    for service in site.live.request.services:
        expected = set(site.live_targets(service))
        streak, wrong = 0, "no answer"
        while streak < PROOF_CONNECTIONS:
            wrong = prove_once(site, host, service, expected)
            streak = 0 if wrong else streak + 1
            if wrong:
                if time.monotonic() > deadline:
                    raise SwitchyardError(f"The switch could not be proven for {service}: {wrong}.", Exit.REVERTED)
                time.sleep(0.01)


def _outlast(workers: set[str], within: float) -> bool:
    """Wait until none of these takes in connections; tells whether that is so."""
    deadline = time.monotonic() + within
    while any(map(_takes_in, workers)):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.01)
    return True


def prove_once(site: Site, host: HostConfig, service: str, expected: set[str]) -> str:
    """Ask once through the real upstream on a new connection; return what contradicts the proof, or ''."""
    answer = ask(f"127.0.0.1:{host.status_port}", f"/{service}", host=f"{site.name}.proof", timeout=2.0)
    if answer.problem:
        return f"the edge does not answer ({answer.problem})"
    release = answer.headers.get("x-switchyard-release", "")
    upstream = answer.headers.get("x-switchyard-upstream", "")
    if release != site.pointer.release:
        return f"the edge still names release {release or 'none'}"
    # A comma or another address: `backup` had to step in.
    if upstream not in expected:
        return f"answered by {upstream or 'nobody'} instead of {', '.join(sorted(expected))}"
    return "" if 200 <= answer.status < 300 else f"the new release answers {answer.status}"


def smoke_through(site: Site, service: str, test: SmokeTest, *, login: str = "") -> str:
    """Run a smoke test on the live release through the real upstream; return what is wrong, or ''."""
    address = f"127.0.0.1:{site.host.status_port}"
    return smoke(address, test, login=login, host=f"{site.name}.proof", prefix=f"/via/{service}")


def _workers(pid: int) -> set[str]:
    with contextlib.suppress(OSError):
        return set(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return set()


def _takes_in(worker: str) -> bool:
    """Tell whether a worker still has its listening sockets: one that closed them says so in its title, or is gone."""
    try:
        return b"shutting down" not in Path(f"/proc/{worker}/cmdline").read_bytes()
    except OSError:
        return False


@dataclass(frozen=True)
class Files:
    """What `edge-apply` is asked for: texts by path below the edge's tree; null removes one."""

    files: dict[str, str | None]
    check: bool = False


@dataclass(frozen=True)
class Applied:
    """What `apply_files` did, or with `check` would do."""

    changed: bool
    reloaded: bool
    diff: list[dict[str, str]]


def apply_files(files: Mapping[str, str | None], host: HostConfig, *, check: bool = False) -> Applied:
    """Place the edge's own configuration (never a pointer): shadow test, renames, reload, proof by new workers.

    None removes a file. Raises `SwitchyardError` with the old files standing when Nginx refuses them or does not take
    them up.
    """
    for name in files:
        if name.startswith(("pointers", "/")) or ".." in Path(name).parts:
            raise SwitchyardError(f"'{name}' is not a file of the edge role.", Exit.USAGE)
    with edge_lock():
        old = {name: (EDGE_LIVE / name).read_text() if (EDGE_LIVE / name).is_file() else None for name in files}
        changed = {name: text for name, text in files.items() if old[name] != text}
        diff = [
            {"path": str(EDGE_LIVE / name), "before": _shown(name, old[name]), "after": _shown(name, text)}
            for name, text in changed.items()
        ]
        if not changed or check:
            return Applied(bool(changed), reloaded=False, diff=diff)
        pids = masters()
        if pids or "nginx.conf" in files or (EDGE_LIVE / "nginx.conf").is_file():
            _test_shadow(pids[0] if pids else None, host, changed)
        # nginx.conf includes the others, so it comes last.
        _place({name: changed[name] for name in sorted(changed, key=lambda n: n == "nginx.conf")}, "edge_files")
        try:
            take_up("edge_files")
        except SwitchyardError:
            _place({name: old[name] for name in changed}, "edge_files.undo")
            raise
        return Applied(changed=True, reloaded=bool(pids), diff=diff)


def take_up(step: str) -> None:
    """Reload what is on disk and wait until new workers alone take in connections; the caller holds the edge.

    The old ones stop 100 ms after the new ones started. Raises `SwitchyardError` when a master goes on with the old
    configuration.
    """
    before = {pid: _workers(pid) for pid in masters()}
    _reload(step)
    deadline = time.monotonic() + PROOF_SECONDS
    while not all(_workers(pid) - old and not any(map(_takes_in, old)) for pid, old in before.items()):
        if time.monotonic() > deadline:
            raise SwitchyardError(
                "Nginx did not take up the new configuration (its error log says why, usually an address in use); the "
                "old files are back."
            )
        time.sleep(0.02)


def as_json(applied: Applied) -> str:
    """One JSON line for the edge role."""
    return json.dumps({"changed": applied.changed, "reloaded": applied.reloaded, "diff": applied.diff})
