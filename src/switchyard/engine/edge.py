"""Changes what the edge serves: test, rename, reload, proof, in this order and under one lock.

Nginx's reload only signals: the command succeeds although the master may refuse the new configuration afterwards.
So nothing here believes a reload; a change counts when new connections prove it.
"""

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from switchyard.engine import docker
from switchyard.engine.effects import Completed, exclusive, query, replace_file, run
from switchyard.engine.layout import EDGE_CONTAINER, EDGE_LIVE, EDGE_LOCK, EDGE_SHADOW, AppPaths, HostConfig
from switchyard.engine.probe import ask
from switchyard.engine.site import Site
from switchyard.errors import Exit, SwitchyardError

PROOF_SECONDS = 5.0
"""How long new connections may still be answered by the old configuration before the switch is taken back. Nginx's
old workers accept for 100 ms after the new ones started; the rest is room for a busy host."""

PROOF_CONNECTIONS = 6
"""Consecutive new connections per service that must prove the new release."""


@contextlib.contextmanager
def edge_lock() -> Iterator[None]:
    """Hold the edge: applications share one Nginx, so test, rename, reload and proof are one step for all of them."""
    with exclusive(EDGE_LOCK, wait=60, busy="Another application is switching on this edge; try again in a minute."):
        yield


def _find_master() -> int | None:
    """The Nginx master's process id on this host, or None. A container that keeps restarting has none."""
    found = docker.inspect(EDGE_CONTAINER)
    return int(found["State"]["Pid"]) or None if found and found["State"]["Running"] else None


def master_pid() -> int:
    """The Nginx master's process id on this host; raises `SwitchyardError` when the edge does not run."""
    pid = _find_master()
    if pid is None:
        raise SwitchyardError(
            f"The edge does not run on this host (container {EDGE_CONTAINER}): run provision.yml, or "
            f"'docker start {EDGE_CONTAINER}'.",
            Exit.PREFLIGHT,
        )
    return pid


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


def _test_shadow(pid: int | None, host: HostConfig, files: Mapping[str, str | None]) -> None:
    """Test the live tree with `files` changed, in a copy beside it: an invalid file is never on the live side."""
    run(["rm", "-rf", "--", str(EDGE_SHADOW)], step="edge.shadow_clear")
    run(["mkdir", "-p", str(EDGE_LIVE / "pointers"), str(EDGE_LIVE / "sites")], step="edge.directories")
    run(["cp", "-a", str(EDGE_LIVE), str(EDGE_SHADOW)], step="edge.shadow_copy")
    for name, text in files.items():
        if text is None:
            run(["rm", "-f", "--", str(EDGE_SHADOW / name)], step="edge.shadow_remove")
        else:
            replace_file(EDGE_SHADOW / name, text, step="edge.shadow_file")
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
        argv = ["docker", "run", "--rm", "--network", "host", *mounts, host.edge_image, *test]
    answer = run(argv, step="edge.test", timeout=60, check=False)
    if answer.code != 0:
        raise SwitchyardError(f"Nginx refuses the new configuration: {_emergency(answer)}. Nothing was changed.")


def _place(files: Mapping[str, str | None], step: str) -> None:
    for name, text in files.items():
        if text is None:
            run(["rm", "-f", "--", str(EDGE_LIVE / name)], step=f"{step}.remove")
        else:
            replace_file(EDGE_LIVE / name, text, step=f"{step}.rename")


def _reload(pid: int, step: str) -> None:
    run(["kill", "-HUP", str(pid)], step=f"{step}.reload")


@dataclass(frozen=True)
class Switched:
    """A proven switch, in milliseconds from the rename to the proof."""

    milliseconds: float


def point(paths: AppPaths, site: Site, host: HostConfig) -> Switched:
    """Make `site` live: shadow test, rename, reload, proof. Puts the old pointer back when the proof fails.

    Raises `SwitchyardError`: nothing changed when the test fails, the old pointer again when the proof does.
    """
    name = str(paths.pointer.relative_to(EDGE_LIVE))
    with edge_lock():
        pid = master_pid()
        old = paths.pointer.read_text() if paths.pointer.is_file() else None
        text = site.render()
        _test_shadow(pid, host, {name: text})
        started = time.monotonic()
        _place({name: text}, "switch")
        try:
            _reload(pid, "switch")
            _prove(site, host)
        except SwitchyardError as error:
            _place({name: old}, "switch.undo")
            _reload(pid, "switch.undo")
            raise SwitchyardError(
                f"{error.message} The old pointer is back and serves.", Exit.REVERTED, error.details
            ) from error
        return Switched((time.monotonic() - started) * 1000)


def unpoint(paths: AppPaths, host: HostConfig) -> None:
    """Take an application off the edge: what a first deploy that failed its proof goes back to."""
    with edge_lock():
        pid = master_pid()
        files = {str(paths.pointer.relative_to(EDGE_LIVE)): None}
        _test_shadow(pid, host, files)
        _place(files, "unpoint")
        _reload(pid, "unpoint")


def _prove(site: Site, host: HostConfig) -> None:
    """Wait until new connections are answered by a new address alone and name the new release."""
    deadline = time.monotonic() + PROOF_SECONDS
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


def _workers(pid: int) -> set[str]:
    return set(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


@dataclass(frozen=True)
class Applied:
    """What `apply_files` did, or with `check` would do."""

    changed: bool
    reloaded: bool
    diff: list[dict[str, str]]


def apply_files(files: Mapping[str, str], host: HostConfig, *, check: bool = False) -> Applied:
    """Place the edge's own configuration (never a pointer): shadow test, renames, reload, proof by new workers.

    Raises `SwitchyardError` with the old files standing when Nginx refuses them or does not take them up.
    """
    for name in files:
        if name.startswith(("pointers", "/")) or ".." in Path(name).parts:
            raise SwitchyardError(f"'{name}' is not a file of the edge role.", Exit.USAGE)
    with edge_lock():
        old = {name: (EDGE_LIVE / name).read_text() if (EDGE_LIVE / name).is_file() else None for name in files}
        changed = {name: text for name, text in files.items() if old[name] != text}
        diff = [{"path": str(EDGE_LIVE / name), "before": old[name] or "", "after": changed[name]} for name in changed]
        if not changed or check:
            return Applied(bool(changed), reloaded=False, diff=diff)
        pid = _find_master()
        _test_shadow(pid, host, changed)
        # nginx.conf includes the others, so it comes last.
        _place({name: changed[name] for name in sorted(changed, key=lambda n: n == "nginx.conf")}, "edge_files")
        if pid is not None:
            before = _workers(pid)
            _reload(pid, "edge_files")
            deadline = time.monotonic() + PROOF_SECONDS
            while not _workers(pid) - before:
                if time.monotonic() > deadline:
                    _place({name: old[name] for name in changed}, "edge_files.undo")
                    raise SwitchyardError(
                        "Nginx did not take up the new configuration (its error log says why, usually an address in "
                        "use); the old files are back."
                    )
                time.sleep(0.02)
        return Applied(changed=True, reloaded=pid is not None, diff=diff)


def as_json(applied: Applied) -> str:
    """One JSON line for the edge role."""
    return json.dumps({"changed": applied.changed, "reloaded": applied.reloaded, "diff": applied.diff})
