"""The bars of roles and hardening."""

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from switchyard.control.inventory import ROLES
from tests.bed import Bed, Host
from tests.bench.bars import Bench
from tests.bench.main import pytest_counts
from tests.fleet import TRIVIAL, FleetLab
from tests.lab import VERSIONS, Lab
from tests.project import ROOT, Project
from tests.scan import answering, containers, force_routes, give_ipv6, ipv6_of

DECLARED = [22, 80]
LINTED = ("roles", "playbooks", "plugins", "extensions")


def roles(bench: Bench) -> None:
    """Every role's scenario, whole, and Ansible's production profile."""
    passed = 0
    for role in ROLES:
        argv = [sys.executable, "-m", "tests.molecule", "run", role]
        passed += subprocess.run(argv, cwd=ROOT, check=False).returncode == 0
    note = "check on a bare host, converge, idempotence, verify, damage, repair"
    bench.add("roles whose scenario passes on real hosts", passed, len(ROLES), "roles", want=">=", note=note)
    done = subprocess.run(
        ["ansible-lint", "--offline", "-q", "--format=pep8"], cwd=ROOT, check=False, capture_output=True, text=True
    )
    findings = len(done.stdout.splitlines()) or int(done.returncode != 0)
    bench.add("ansible-lint, production profile", findings, 0, "findings")
    skipped = lint_skips(ROOT)
    bench.add("what ansible-lint is told to pass over", len(skipped), 0, "skips", note=", ".join(skipped))


def lint_skips(root: Path) -> list[str]:
    """Where ansible-lint is told to pass something over: for a line, by a rule's name, or whole files of ours."""
    settings = yaml.safe_load((root / ".ansible-lint").read_text())
    found = [str(rule) for key in ("skip_list", "warn_list") for rule in settings.get(key, [])]
    found += [path for path in settings.get("exclude_paths", []) if path.startswith(LINTED)]
    for name in (".ansible-lint-ignore", ".config/ansible-lint-ignore.txt"):
        if (root / name).is_file():
            found += [line for line in (root / name).read_text().splitlines() if line.partition("#")[0].strip()]
    for path in sorted(path for part in LINTED for path in (root / part).rglob("*.yml")):
        lines = enumerate(path.read_text().splitlines(), start=1)
        found += [f"{path.relative_to(root)}:{n}" for n, line in lines if re.search("noqa|skip_ansible_lint", line)]
    return found


def scan(bench: Bench) -> None:
    """All TCP ports, from a neighbour, IPv4 and IPv6, with and without forced routes, through restart and reboot."""
    with tempfile.TemporaryDirectory() as folder, Bed.for_tests("scan") as bed:
        lab = Lab.build(Project(Path(folder)), bed, inventory={"edge_ipv6": True})
        assert lab.project.play("deploy", "-e", f"version={VERSIONS[0]}").returncode == 0
        neighbour = bed.host("neighbour")
        give_ipv6(neighbour, lab.host)
        force_routes(neighbour, lab.host)
        for event in ("provisioned", "Docker restarted", "rebooted"):
            _happen(event, lab)
            found = _holes(neighbour, lab.host, DECLARED)
            missing = _missing(neighbour, lab.host, DECLARED)
            bench.add(f"undeclared ports that answer a neighbour, {event}", sum(map(len, found.values())), 0, "ports")
            bench.add(f"declared ports that do not, {event}", missing, 0, "ports")
        lab.host.exec(["nft", "delete", "table", "inet", "switchyard"])
        found = _holes(neighbour, lab.host, DECLARED)
        note = ", ".join(f"{address} {ports}" for address, ports in found.items() if ports)
        bench.add("the same without the firewall", sum(map(len, found.values())), 2, "ports", want=">=", note=note)


def scan_fleet(bench: Bench) -> None:
    """The same for an edge, an application host and a database host, of which only the edge is open to everybody."""
    declared = {"fleet-edge-1": DECLARED, "fleet-app-1": [22], "fleet-db-1": [22]}
    with tempfile.TemporaryDirectory() as folder, Bed.for_tests("scan-fleet") as bed:
        lab = FleetLab.build(Project(Path(folder)), bed, apps=1, databases=1, variables=TRIVIAL | {"edge_ipv6": True})
        lab.push(VERSIONS[0])
        lab.deploy(VERSIONS[0])
        neighbour, hosts = bed.host("neighbour"), list(lab.hosts.values())
        give_ipv6(neighbour, *hosts)
        for event in ("provisioned", "Docker restarted", "rebooted"):
            for host in hosts:
                _happen_to(event, host)
            _wait_for(hosts[0], event, *hosts[1:])
            found, missing = dict[str, list[int]](), 0
            for host in hosts:
                force_routes(neighbour, host)
                found |= {f"{host.name} {k}": v for k, v in _holes(neighbour, host, declared[host.name]).items() if v}
                missing += _missing(neighbour, host, declared[host.name])
            note = ", ".join(f"{where} {ports}" for where, ports in found.items())
            holes = sum(map(len, found.values()))
            bench.add(f"undeclared ports of edge, application and database host, {event}", holes, 0, "ports", note=note)
            bench.add(f"declared ports of the three that do not answer, {event}", missing, 0, "ports")


def _happen(event: str, lab: Lab) -> None:
    _happen_to(event, lab.host)
    _wait_for(lab.host, event)


def _happen_to(event: str, host: Host) -> None:
    if event == "Docker restarted":
        host.exec(["systemctl", "restart", "docker"])
    if event == "rebooted":
        host.power_cycle()
        host.wait()
        give_ipv6(host)


def _wait_for(edge: Host, event: str, *full: Host) -> None:
    """Wait until users are served, and containers have addresses that can be asked."""
    deadline = time.monotonic() + 90
    while not answering(edge, edge.address, [80]) or not all(containers(host) for host in full or (edge,)):
        assert time.monotonic() < deadline, f"the edge did not come back: {event}"
        time.sleep(1)


def _holes(neighbour: Host, host: Host, declared: list[int]) -> dict[str, list[int]]:
    """Ports that answer and should not, by address; the last ones are reached by forced routes alone."""
    found = {}
    for address in (host.address, ipv6_of(host), "127.0.0.1", *containers(host)):
        allowed = declared if address in (host.address, ipv6_of(host)) else []
        found[address] = [port for port in answering(neighbour, address) if port not in allowed]
    return found


def _missing(neighbour: Host, host: Host, declared: list[int]) -> int:
    """How many declared ports do not answer, on either address."""
    asked = (host.address, ipv6_of(host))
    return sum(len(set(declared) - set(answering(neighbour, address, declared))) for address in asked)


def secrets(bench: Bench) -> None:
    """Canaries in process lists, logs, Docker, records, ledger and Ansible's most talkative output."""
    words = ("tests/integration/test_5_hardening.py", "-k", "no_secret")
    good, bad = pytest_counts(bench, *words)
    bench.add("canary secrets found anywhere but in their own files", bad if good else 1e9, 0, "found")
