"""Molecule's scenarios on hosts of the test bed: `python -m tests.molecule {run,create,destroy}`.

`run` is what `make molecule` calls: the scenarios of the named roles, or of all, one after the other. In a smoke
(tests/integration/test_4_roles.py) all of them share one host, on which each role stands on those before it.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import testinfra.host

from switchyard.control.inventory import ROLES
from tests.bed import Bed, Host, Registry, images, keys
from tests.project import ROOT, TOOLS

SCENARIOS = ROOT / "extensions" / "molecule"
STATE = ROOT / ".switchyard" / "molecule"

ON_DEBIAN_12 = ("host", "ssh", "firewall", "updates", "engine", "notify", "deploy_access")
"""Roles that are run on Debian 12 as well. The others need Compose v2, or collectors of a Postgres exporter later than
0.11, which its packages do not have."""

IMAGES = {
    "edge": "nginx:1.30",
    "backup": "postgres:17-trixie",
    "postgres": "postgres:17-trixie",
    "docker": "trivial:1.0.0",
}
"""What a role's scenario pulls from the bed's registry: its own image of the bed, or the tiny service."""


BUILT = {"backup": "postgres"}
"""Roles whose image of the bed has another name."""


def main(argv: Sequence[str] | None = None) -> int:
    """Do what was asked for."""
    top = argparse.ArgumentParser(prog="python -m tests.molecule", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    commands.add_parser("run", help="run scenarios").add_argument("roles", nargs="*", metavar="ROLE")
    for name in ("create", "reboot", "destroy"):
        commands.add_parser(name, help=f"{name} a scenario's hosts (what Molecule calls)").add_argument("role")
    options = top.parse_args(argv)
    if options.command == "create":
        create(_bed(options.role), [options.role])
        return 0
    if options.command == "reboot":
        for host in _bed(options.role).hosts().values():
            host.power_cycle()
        return 0
    if options.command == "destroy":
        _bed(options.role).down()
        return 0
    unknown = set(options.roles) - set(ROLES)
    if unknown:
        print(f"molecule: no role is called '{min(unknown)}'; there are {', '.join(ROLES)}", file=sys.stderr)
        return 2
    return run(role for role in ROLES if role in options.roles or not options.roles)


def run(roles: Iterable[str]) -> int:
    """Every scenario whole, each on hosts of its own."""
    started = time.monotonic()
    results = [scenario(role) for role in roles]
    print(f"molecule: {sum(results)} of {len(results)} roles passed in {time.monotonic() - started:.0f} s")
    return 0 if all(results) else 1


def create(bed: Bed, roles: Sequence[str], *, smoke: bool = False) -> None:
    """Boot the hosts of scenarios and write the inventories that Molecule and testinfra read."""
    registry = bed.registry()
    for role in set(roles) & set(IMAGES):
        name, _, tag = IMAGES[role].partition(":")
        registry.push(images.trivial(tag) if name == "trivial" else images.ensure(BUILT.get(role, role)), name, tag)
    known = set(bed.hosts())
    hosts = [bed.host("debian13", image="docker-host" if smoke else "host")]
    if not smoke and set(roles) <= set(ON_DEBIAN_12):
        hosts.append(bed.host("debian12", image="host-debian12"))
    for role in roles:
        _write_inventory(role, hosts, registry)
    print("made" if {host.name for host in hosts} - known else "there")


def _write_inventory(role: str, hosts: Sequence[Host], registry: Registry) -> None:
    path = _inventory_of(role)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = (SCENARIOS / "variables.json").read_text().replace("REGISTRY", registry.address)
    variables = json.loads(text.replace("KEY", keys.public(hosts[0].place.private_key)))
    children: dict[str, Any] = {
        group: {"hosts": {host.name: {} for host in hosts}} for group in ("target", "app", "edge", "db")
    }
    document = {"all": {"hosts": {host.name: reach(host) for host in hosts}, "vars": variables, "children": children}}
    path.write_text(json.dumps(document, indent=1))


def reach(host: Host) -> dict[str, Any]:
    """How Ansible, and testinfra after it, log in."""
    return {
        "ansible_host": host.address,
        "ansible_port": host.port,
        "ansible_user": host.user,
        "ansible_ssh_private_key_file": str(host.place.private_key),
        "ansible_ssh_common_args": (
            f"-o UserKnownHostsFile={host.place.known_hosts} -o GlobalKnownHostsFile=/dev/null "
            "-o StrictHostKeyChecking=yes -o IdentitiesOnly=yes"
        ),
    }


def address(host: testinfra.host.Host) -> str:
    """Where the host is."""
    return str(_inventory()["hosts"][host.backend.get_hostname()]["ansible_host"])


def registry() -> str:
    """The bed's registry, as the hosts name it."""
    return str(_inventory()["vars"]["docker_insecure_registries"][0])


def _inventory() -> dict[str, Any]:
    path = _inventory_of(os.environ["MOLECULE_SCENARIO_NAME"])
    found: dict[str, Any] = json.loads(path.read_text())["all"]
    return found


def _inventory_of(role: str) -> Path:
    return STATE / role / "hosts.json"


def login(host: testinfra.host.Host, user: str, command: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Log in as another user with the bed's key, as a person would; for tests, which judge the exit code."""
    facts = _inventory()["hosts"][host.backend.get_hostname()]
    argv = ["ssh", "-F", "none", "-i", facts["ansible_ssh_private_key_file"], "-p", str(facts["ansible_port"])]
    argv += [*shlex.split(facts["ansible_ssh_common_args"]), "-o", "BatchMode=yes", "-o", "ConnectTimeout=30", *options]
    argv += [f"{user}@{facts['ansible_host']}", command]
    return subprocess.run(argv, check=False, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)


def _bed(role: str) -> Bed:
    return Bed(f"molecule-{role.replace('_', '-')}")


def scenario(role: str, *, smoke: bool = False) -> bool:
    """Run one scenario, as a smoke on hosts that are there; its output is shown when it fails."""
    started = time.monotonic()
    inventory = _inventory_of(role)
    if not inventory.is_file():
        # Ansible refuses an inventory that is not there, and `create`, which writes it, is a playbook itself.
        inventory.parent.mkdir(parents=True, exist_ok=True)
        inventory.write_text('{"all": {"hosts": {}}}')
    environment = {
        # The verifier is a pytest of its own.
        **{key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "PYTEST_"))},
        "PATH": f"{TOOLS}:{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}",
        "NO_COLOR": "1",
        "ANSIBLE_NOCOLOR": "1",
        # Otherwise below the home of the user, where two checkouts of the same name meet.
        "MOLECULE_EPHEMERAL_DIRECTORY": str(inventory.with_name("run")),
    }
    argv = [str(TOOLS / "molecule"), "--base-config", str(SCENARIOS / "config.yml")]
    argv += ["--base-config", str(SCENARIOS / "smoke.yml")] if smoke else []
    argv += ["test", "--scenario-name", role, "--destroy", "never" if smoke else "always"]
    done = subprocess.run(
        argv, cwd=ROOT, env=environment, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    passed = done.returncode == 0
    print(f"{'ok     ' if passed else 'FAILED '} {role} ({time.monotonic() - started:.0f} s)", flush=True)
    if not passed:
        print("\n".join((done.stdout + done.stderr).splitlines()[-80:]), flush=True)
    return passed


if __name__ == "__main__":
    sys.exit(main())
