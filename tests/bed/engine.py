"""The outer Docker Engine: found, or installed and started here, and the client that can build."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker

from tests.bed import subnets
from tests.bed.errors import BedError, say
from tests.bed.paths import locked, state_dir
from tests.bed.shell import apt_install, as_root, run

BUILDKIT_BUILT_IN_BEFORE = 23
START_SECONDS = 180


def ensure() -> None:
    """Make sure that an engine answers; a running one is left as it is."""
    if _answers():
        return
    if remote := os.environ.get("DOCKER_HOST"):
        raise BedError(f"DOCKER_HOST names {remote}, but no Docker Engine answers there.")
    with locked("engine"):
        if _answers():
            return
        if shutil.which("dockerd") is None:
            apt_install("docker.io", "iptables", why="no Docker Engine answers here, and hosts are containers")
            # The package starts its service where there is a systemd.
            if _answers():
                return
        _start()


def daemon_config() -> dict[str, Any]:
    """Return the configuration of an engine that the bed starts: its networks stay in the test range."""
    return {
        "bip": subnets.BRIDGE,
        "default-address-pools": [{"base": str(subnets.UNNAMED), "size": 24}],
        "log-driver": "json-file",
        "log-opts": {"max-size": "10m", "max-file": "2"},
    }


def _answers() -> bool:
    client = shutil.which("docker")
    if client is None:
        return False
    done = run([client, "info", "--format", "{{.ServerVersion}}"], check=False, timeout=120)
    if "permission denied" in done.stderr:
        raise BedError(
            "A Docker Engine runs here but refuses this user; add the user to the group docker, or use sudo."
        )
    return done.returncode == 0 and bool(done.stdout.strip())


def _start() -> None:
    if Path("/run/systemd/system").is_dir():
        say("starting the Docker Engine with systemctl")
        run(as_root(["systemctl", "start", "docker"]))
        _wait(lambda: None)
        return
    home = state_dir("engine")
    log, pidfile, config = home / "dockerd.log", home / "dockerd.pid", home / "daemon.json"
    config.write_text(json.dumps(daemon_config(), indent=2) + "\n")
    argv = as_root(["dockerd", "--config-file", str(config), "--pidfile", str(pidfile)])
    say(f"starting dockerd, its log is {log}")
    with log.open("ab") as output:
        # A session of its own: the engine outlives the command that needed it first, and its terminal.
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, cwd="/"
        )
    _wait(process.poll, log)


def _wait(ended: Callable[[], int | None], log: Path | None = None) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if _answers():
            return
        if ended() is not None:
            raise BedError(f"dockerd ended while starting{_last_line(log)}.")
        time.sleep(0.3)
    raise BedError(f"The Docker Engine did not answer within {START_SECONDS} s{_last_line(log)}.")


def _last_line(log: Path | None) -> str:
    lines = log.read_text(errors="replace").strip().splitlines() if log and log.exists() else []
    return f"; the last line of {log}: {lines[-1]}" if lines else ""


def can_build(version: str, has_buildx: bool) -> bool:
    """Tell whether a client can run BuildKit builds: old ones do it themselves, newer ones need buildx."""
    major = re.match(r"\d+", version)
    return has_buildx or (major is not None and int(major.group()) < BUILDKIT_BUILT_IN_BEFORE)


@functools.cache
def client() -> str:
    """Return the path of a Docker client that can build with secrets; the first on the path may not."""
    refused = []
    for candidate in _clients():
        version = run(
            [candidate, "version", "--format", "{{.Client.Version}}"], check=False, timeout=120
        ).stdout.strip()
        has_buildx = run([candidate, "buildx", "version"], check=False, timeout=120).returncode == 0
        if can_build(version, has_buildx):
            return candidate
        refused.append(f"{candidate} ({version or 'unknown version'})")
    raise BedError(
        f"No Docker client here can build with BuildKit: {', '.join(refused) or 'none was found'}; "
        "install docker-buildx (docker-buildx-plugin in Docker's own repository)."
    )


def _clients() -> list[str]:
    folders = [*os.environ.get("PATH", "").split(os.pathsep), "/usr/bin"]
    found = [str(Path(folder) / "docker") for folder in folders if folder]
    return [path for path in dict.fromkeys(found) if os.access(path, os.X_OK)]


@functools.cache
def api() -> Any:
    """Return the SDK's client, after making sure that an engine answers."""
    ensure()
    # A pull or an image removal may take minutes on a busy machine.
    return docker.from_env(timeout=300)


def cli(
    *arguments: str, check: bool = True, stdin: str | None = None, timeout: float = 600
) -> subprocess.CompletedProcess[str]:
    """Run the chosen Docker client."""
    return run([client(), *arguments], check=check, stdin=stdin, timeout=timeout)
