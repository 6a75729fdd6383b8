"""Starts the live release's own services against a restored copy, where nothing but the copy can be reached."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from switchyard.data.copy import Copy
from switchyard.data.trial import Traces
from switchyard.engine import colour as colours
from switchyard.engine import docker, phases, ports, probe, records
from switchyard.engine.effects import replace_file, run
from switchyard.engine.layout import AppPaths, HostConfig
from switchyard.engine.records import Record
from switchyard.errors import SwitchyardError
from switchyard.names import COLOURS
from switchyard.request import route_owner

Say = Callable[[str], None]


@dataclass(frozen=True)
class Trial:
    """One start of a release against a copy."""

    paths: AppPaths
    host: HostConfig
    record: Record
    copy: Copy
    services: list[str]
    """Those that use the database; the others prove nothing here."""

    @property
    def traces(self) -> Traces:
        """What it leaves on the host while it runs."""
        return Traces(self.paths.name)

    def run(self, say: Say) -> list[str]:
        """Start, wait until healthy, run the smoke tests; returns what went wrong. Leaves nothing behind."""
        try:
            self._start()
            addresses = self._addresses()
            health = {name: self.record.request.services[name.rpartition("-")[0]].health for name in addresses}
            probe.wait_healthy(
                addresses, health, still_running=self._exited, say=lambda text: say(f"drill: application: {text}")
            )
            return self._smoke(addresses)
        except SwitchyardError as error:
            return [error.message]
        finally:
            self.traces.remove(self.copy.name)

    def _start(self) -> None:
        self.traces.remove(self.copy.name)
        run(["docker", "network", "create", "--internal", self.traces.project], step="trial.network")
        # "none" admits no other network beside it.
        run(["docker", "network", "disconnect", "none", self.copy.name], step="trial.lone", check=False)
        run(
            ["docker", "network", "connect", "--alias", "postgres", self.traces.project, self.copy.name],
            step="trial.connect",
        )
        given = run(
            colours.compose(self.record, self.traces.project, "config", "--format", "json"),
            step="trial.config",
            environment=colours.environment(self.record, COLOURS[0], ports.load(), self.host),
        )
        self._start_pooler()
        text = json.dumps(alone(json.loads(given.out), self.services, self.traces.project))
        replace_file(self.traces.file, text, step="trial.file", mode=0o600)
        run([*self._compose, "up", "--detach", "--pull", "never"], step="trial.start", timeout=300)

    def _start_pooler(self) -> None:
        """Have the live pooler's image and settings before the copy: to a release that uses it, nothing differs."""
        backup = self.copy.backup
        live = docker.inspect(f"{self.paths.name}-pooler")
        if live is None:
            return
        settings = f"type=bind,source={backup.home / 'pooler'},target=/etc/pgbouncer,readonly"
        user = f"{backup.uid}:{backup.uid}"
        argv = ["docker", "run", "--detach", "--name", self.traces.pooler, "--init", "--user", user, "--read-only"]
        argv += ["--cap-drop=ALL", "--security-opt=no-new-privileges", "--memory=64m", "--mount", settings]
        argv += [f"--tmpfs=/run/pgbouncer:uid={backup.uid},gid={backup.uid},mode=0700"]
        argv += ["--mount", f"type=tmpfs,target={backup.data_path}", "--log-opt=max-size=10m"]
        argv += ["--log-opt=max-file=3", "--pids-limit=64"]
        argv += [
            "--network",
            self.traces.project,
            "--network-alias",
            "pooler",
            str(live["Image"]),
            "/etc/pgbouncer/pgbouncer.ini",
        ]
        run(argv, step="trial.pooler", timeout=60)

    @property
    def _compose(self) -> list[str]:
        return ["docker", "compose", "--project-name", self.traces.project, "--file", str(self.traces.file)]

    def _addresses(self) -> dict[str, str]:
        """Each instance's address in the network, which the host reaches although it has no way out."""
        found = {}
        for container in self.traces.containers():
            name = container.labels["com.docker.compose.service"]
            networks: dict[str, Any] = (docker.inspect(container.id) or {})["NetworkSettings"]["Networks"]
            port = self.record.request.services[name.rpartition("-")[0]].port
            found[name] = f"{networks[self.traces.project]['IPAddress']}:{port}"
        return found

    def _exited(self) -> str:
        gone = [container.name for container in self.traces.containers() if not container.running]
        return f"container {gone[0]} ended" if gone else ""

    def _smoke(self, addresses: dict[str, str]) -> list[str]:
        problems = []
        for test in self.record.request.smoke_tests:
            owner = route_owner(self.record.request, test.path)
            for name, target in addresses.items():
                if name.rpartition("-")[0] == owner and (wrong := probe.smoke(target, test)):
                    problems.append(f"smoke test on {name}: {wrong}")
        return problems


def alone(config: dict[str, Any], services: list[str], network: str) -> dict[str, Any]:
    """A release's compose configuration, cut down to some services that reach one network and nothing of the live ones.

    No published ports, no shared directories (an empty one instead), no other network, no restarts.
    """
    kept: dict[str, Any] = {}
    for name, service in config["services"].items():
        if name.rpartition("-")[0] not in services or not name.rpartition("-")[2].isdigit():
            continue
        mounted = [volume["target"] for volume in service.get("volumes") or [] if volume.get("type") == "bind"]
        # Labels are what the engine finds a colour's containers by; these are none of any colour.
        dropped = ("ports", "volumes", "networks", "labels", "container_name", "restart", "depends_on")
        kept[name] = {key: value for key, value in service.items() if key not in dropped} | {
            "networks": {"drill": {}},
            "restart": "no",
            "tmpfs": [*(service.get("tmpfs") or []), *(f"{target}:mode=1777" for target in mounted)],
        }
    return {
        "services": kept,
        "secrets": config.get("secrets") or {},
        "networks": {"drill": {"name": network, "external": True}},
    }


def live_trial(paths: AppPaths, host: HostConfig, copy: Copy, services: list[str]) -> Trial | None:
    """The trial of what is live; None when nothing is, or when it does not use the database."""
    pointer = phases.live_pointer(paths)
    if pointer is None or not services:
        return None
    return Trial(paths, host, records.load(paths, pointer.release), copy, services)
