"""An environment of several hosts in a bed: made from the example inventory, with the bed's addresses in it."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from tests.bed import Bed, Host, Registry, images
from tests.project import ROOT, Project

EXAMPLE = ROOT / "examples" / "fleet"
ENVIRONMENT = "fleet"
APP = "trivial-fleet"
PASSWORDS = (
    "postgres_superuser_password", "postgres_app_password", "postgres_migrate_password", "backup_passphrase",
)  # fmt: skip

TRIVIAL: dict[str, Any] = {
    "app_name": "trivial",
    "app_services": {
        "api": {"image": "{{ image_registry }}/trivial", "port": 8000, "routes": ["/"], "memory_mb": 64, "uid": 10001}
    },
    "app_secrets": {},
    "app_migration": None,
    "app_smoke_tests": [{"path": "/", "contains": "release"}],
    "app_probation_seconds": 1,
}
"""The trivial service, for what is about hosts."""


@dataclass
class FleetLab:
    """The hosts, and the project that knows them."""

    project: Project
    bed: Bed
    registry: Registry
    hosts: dict[str, Host] = field(default_factory=dict)
    groups: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def build(
        cls,
        project: Project,
        bed: Bed,
        *,
        edges: int = 1,
        apps: int = 2,
        databases: int = 0,
        variables: dict[str, Any] = TRIVIAL,
        **options: Any,
    ) -> "FleetLab":
        """Boot the hosts, write the inventory and provision all of them."""
        registry = bed.registry()
        registry.push(images.ensure("edge"), "nginx", "1.30")
        if databases:
            registry.push(images.ensure("postgres"), "postgres", "17-trixie")
        lab = cls(project, bed, registry)
        for group, count in (("edge", edges), ("app", apps), ("db", databases)):
            lab.groups[group] = [f"fleet-{group}-{number}" for number in range(1, count + 1)]
        lab.boot(*(name for names in lab.groups.values() for name in names), **options)
        lab.describe(variables)
        lab.provision()
        return lab

    def boot(self, *names: str, **options: Any) -> None:
        """Bare hosts with Docker's packages, side by side."""
        for name, host in zip(names, self.bed.boot(*names, image="docker-host", **options), strict=True):
            self.hosts[name] = host

    def describe(self, variables: dict[str, Any] | None = None) -> None:
        """Write the inventory: the example with other addresses, and what only a bed needs beside it."""
        inventories = self.project.folder / "inventories"
        document = yaml.safe_load((EXAMPLE / "fleet.yml").read_text())
        children = document["env_fleet"]["children"]
        for group, names in self.groups.items():
            children[f"fleet_{group}"]["hosts"] = {name: self._entry(group, name) for name in names}
        (inventories / "fleet.yml").write_text(yaml.safe_dump(document, sort_keys=False))
        folder = inventories / "group_vars" / "env_fleet"
        if not folder.is_dir():
            shutil.copytree(EXAMPLE / "group_vars" / "env_fleet", folder)
        if variables is not None:
            (folder / "zz_bed.yml").write_text(yaml.safe_dump(self._settings() | variables))

    def _entry(self, group: str, name: str) -> dict[str, str]:
        address = self.hosts[name].address
        private = {"app": "app_publish_address", "db": "postgres_publish_address"}.get(group)
        return {"ansible_host": address} | ({private: address} if private else {})

    def _settings(self) -> dict[str, Any]:
        host = next(iter(self.hosts.values()))
        known, key = str(host.place.known_hosts), str(host.place.private_key)
        databases = self.groups["db"]
        return {
            "ansible_user": host.user,
            "ansible_ssh_private_key_file": key,
            "ansible_ssh_common_args": f"-o UserKnownHostsFile={known} -o GlobalKnownHostsFile=/dev/null "
            "-o StrictHostKeyChecking=yes -o IdentitiesOnly=yes",
            "engine_known_hosts": known,
            "firewall_ssh_per_minute": 1000,  # tests log in far more often than people do
            "host_deploy_authorized_keys": [host.place.private_key.with_suffix(".pub").read_text().strip()],
            "image_registry": self.registry.address,
            "docker_registry_logins": [],
            "docker_insecure_registries": [self.registry.address],
            "docker_bridge_address": "198.19.0.1/24",
            "docker_address_pools": [{"base": "198.19.128.0/17", "size": 24}],
            "edge_image": "{{ image_registry }}/nginx:1.30",
            "edge_server_names": [self.hosts[name].address for name in self.groups["edge"]],
            "edge_drain_seconds": 5,
            "app_shared_volumes": {"uploads": "/mnt/uploads"},
            "app_database_address": self.hosts[databases[0]].address if databases else "",
            "postgres_image": "{{ image_registry }}/postgres:17-trixie",
            "postgres_memory_mb": 256,
            "backup_jitter_seconds": 0,
            **{name: f"{name.replace('_', '')}0123456789" for name in PASSWORDS},
        }

    def provision(self, *extra: str) -> str:
        """Run provision.yml; returns what it printed."""
        done = self.project.play("provision", *extra, env=ENVIRONMENT)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def push(self, *versions: str) -> None:
        """Push releases of the trivial service."""
        for version in versions:
            self.registry.push(images.trivial(version), "trivial", version)

    def deploy(self, version: str, *extra: str, check: bool = True) -> str:
        """Run deploy.yml; returns what it printed."""
        done = self.project.play("deploy", "-e", f"version={version}", *extra, env=ENVIRONMENT)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def rollback(self, *words: str) -> dict[str, Any]:
        """Run rollback.sh; returns its document."""
        done = self.project.run("scripts/rollback.sh", ENVIRONMENT, *words, "--json")
        document: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        return document

    def status(self) -> dict[str, Any]:
        """What the environment says of itself."""
        return self.project.control("status", ENVIRONMENT)

    def url(self, edge: str) -> str:
        """Where users come in at one edge."""
        return f"http://{self.hosts[edge].address}/"

    def versions(self, edge: str, asked: int = 8) -> set[str]:
        """The versions of the trivial service that an edge's users get, asked there on new connections."""
        script = f"for i in $(seq {asked}); do curl -s -m 5 http://{self.hosts[edge].address}/; echo; done"
        lines = self.hosts[edge].exec(["sh", "-c", script]).stdout.split("\n")
        return {line.removeprefix("release ") for line in lines if line.startswith("release ")}

    def running(self, hosts: Sequence[str]) -> dict[str, set[str]]:
        """The release labels that run on application hosts."""
        words = ["docker", "ps", "--filter", "label=switchyard.colour", "--format", '{{.Label "switchyard.release"}}']
        return {name: set(self.hosts[name].exec(words).stdout.split()) for name in hosts}

    def rebuild(self, name: str) -> None:
        """Lose a host for good, and have a bare one in its place."""
        self.hosts[name].destroy()
        self.boot(name)
