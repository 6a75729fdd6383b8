"""Two environments as a team has them: staging and production, a host each, a registry, and a key for the CI system."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.bed import Bed, Host, Registry, images
from tests.bed.keys import generate, public
from tests.bed.shell import need
from tests.lab import SECRET
from tests.pipeline.receiver import Receiver
from tests.project import Project

APP = "trivial"
USER = "switchyard-ci"
FIRST = "1.0.0"
"""The version that is released by Ansible, after which the gate knows the application."""


def make_key(path: Path) -> Path:
    """Make a key pair without a passphrase; returns the private key's path."""
    generate(path, path.name)
    return path


@dataclass
class Estate:
    """The environments by name, and what a job is given of each."""

    project: Project
    bed: Bed
    registry: Registry
    receiver: Receiver
    keys: Path
    hosts: dict[str, Host] = field(default_factory=dict)
    access: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """`deploy_access_keys` by environment."""

    @classmethod
    def build(cls, project: Project, bed: Bed, *environments: str) -> Estate:
        """Make a registry, a receiver, and these environments."""
        registry = bed.registry()
        registry.push(images.ensure("edge"), "nginx", "1.30")
        registry.push(images.trivial(FIRST), APP, FIRST)
        receiver = Receiver(str(next(bed.subnet.hosts())))
        receiver.start()
        keys = project.folder / ".switchyard" / "keys"
        keys.mkdir(parents=True)
        estate = cls(project, bed, registry, receiver, keys)
        for name in environments:
            estate.add(name)
        return estate

    def add(self, name: str) -> None:
        """One more environment: its host, its keys, and the first version released with Ansible."""
        self.hosts[name] = self.bed.host(f"{name}-1", image="docker-host", engine_config=self.bed.engine_config())
        key = make_key(self.keys / name)
        self.access[name] = [
            {"name": "hub", "key": public(key)},
            {"name": "expired", "key": public(make_key(self.keys / f"{name}-expired")), "expires": "2020-02-29"},
            {"name": "elsewhere", "key": public(make_key(self.keys / f"{name}-elsewhere")), "from": ["192.0.2.7"]},
        ]
        self.describe(name)
        for playbook in ("provision", "deploy"):
            done = self.project.play(playbook, env=name)
            assert done.returncode == 0, done.stdout + done.stderr

    def describe(self, name: str, **changes: Any) -> None:
        """Write the inventory of an environment."""
        host, folder = self.hosts[name], self.project.folder / "inventories"
        groups = {group: {"hosts": {host.name: None}} for group in (f"{name}_app", f"{name}_edge")}
        hosts = {f"env_{name}": {"vars": {"ansible_group_priority": 10}, "children": groups}}
        members = {group: {"children": {f"{name}_{group}": None}} for group in ("app", "edge")}
        (folder / f"{name}.yml").write_text(yaml.safe_dump(hosts | members))
        variables = folder / "group_vars" / f"env_{name}"
        for path in variables.glob("*"):
            path.unlink()
        (variables / "trivial.yml").write_text(yaml.safe_dump(self._variables(name) | changes))

    def _variables(self, name: str) -> dict[str, Any]:
        host = self.hosts[name]
        place = host.place
        pinned = f"-o UserKnownHostsFile={place.known_hosts} -o GlobalKnownHostsFile=/dev/null"
        service = {
            "image": f"{self.registry.address}/{APP}",
            "port": 8000,
            "routes": ["/"],
            "memory_mb": 64,
            "uid": 10001,
            "secrets": ["TOKEN"],
            "health": {"start_timeout": 30},
        }
        return {
            "ansible_host": host.address,
            "ansible_user": host.user,
            "ansible_ssh_private_key_file": str(place.private_key),
            "ansible_ssh_common_args": f"{pinned} -o StrictHostKeyChecking=yes -o IdentitiesOnly=yes",
            "app_name": APP,
            "app_version": FIRST,
            "app_services": {"api": service},
            "app_secrets": {"TOKEN": SECRET},
            "app_migration": {"service": "api", "command": ["true"], "current": ["echo", "7"], "timeout": 30},
            "app_smoke_tests": [{"path": "/", "contains": "release"}],
            "app_probation_seconds": 1,
            "app_retain": 6,
            "deploy_access_keys": self.access[name],
            "docker_address_pools": [{"base": "198.19.128.0/17", "size": 24}],
            "docker_bridge_address": "198.19.0.1/24",
            "docker_insecure_registries": [self.registry.address],
            "edge_image": f"{self.registry.address}/nginx:1.30",
            "edge_server_names": [host.address, "localhost"],
            # This machine is busy with the tests themselves, and nobody here is to be told of it.
            "engine_watch": {"cpu_share": 1, "memory_share": 1, "disk_share": 1},
            "engine_known_hosts": str(place.known_hosts),
            "firewall_ssh_per_minute": 1000,
            "host_deploy_authorized_keys": [public(place.private_key)],
            "notify_targets": [{"name": "team", "url": self.receiver.url}],
        }

    def push(self, version: str, image: str = "") -> str:
        """What a build does: an image under its version; returns its digest."""
        return self.registry.push(image or images.trivial(version), APP, version).digest

    def secrets(self, name: str) -> dict[str, str]:
        """What the CI system keeps for the jobs of an environment."""
        host = self.hosts[name]
        return {
            "DEPLOY_SSH_KEY": (self.keys / name).read_text(),
            "DEPLOY_KNOWN_HOSTS": self.known_hosts(name),
            "DEPLOY_HOST": host.address,
            "DEPLOY_USER": USER,
        }

    def known_hosts(self, name: str) -> str:
        """The lines that pin the environment's host."""
        host = self.hosts[name]
        lines = host.place.known_hosts.read_text().splitlines()
        return "\n".join(line for line in lines if host.address in line.split()[0].split(",")) + "\n"

    def ssh_argv(self, name: str, *options: str, key: Path | None = None, user: str = USER) -> list[str]:
        """The argv that comes in at the gate with the environment's CI key, its host key checked."""
        place = self.hosts[name].place
        fixed = [
            "IdentitiesOnly=yes",
            "StrictHostKeyChecking=yes",
            "BatchMode=yes",
            "LogLevel=ERROR",
            "ConnectTimeout=30",
        ]
        flags = [part for option in (*fixed, f"UserKnownHostsFile={place.known_hosts}") for part in ("-o", option)]
        ssh = need("ssh", "openssh-client", "hosts are reached over SSH")
        return [
            ssh,
            "-F",
            "none",
            "-i",
            str(key or self.keys / name),
            *flags,
            *options,
            f"{user}@{self.hosts[name].address}",
        ]

    def gate(
        self, name: str, line: str, *, key: Path | None = None, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Say one line at the gate."""
        # What begins with a dash would be taken for an option of ssh itself.
        argv = [*self.ssh_argv(name, key=key), "--", line]
        return subprocess.run(
            argv,
            check=False,
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            errors="replace",
        )

    def live(self, name: str) -> str:
        """The version that is live, by the engine's own report."""
        report = self.project.control("status", name)
        return str(report["live"]["version"]) if report.get("live") else ""

    def history(self, name: str) -> list[dict[str, Any]]:
        """Every start with its end, oldest first."""
        rows: list[dict[str, Any]] = self.project.control("history", name, "--limit", "1000")["rows"]
        return rows
