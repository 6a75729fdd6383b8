"""The rows of edges: certificates of two edges, and the edge's own replacement under the strict client."""

import socket
import ssl
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import yaml

from tests import edges
from tests.acme import DIRECTORY, NAME, Pebble
from tests.bed import Bed, Host
from tests.bench.bars import Bench
from tests.bench.main import pytest_counts
from tests.lab import Lab
from tests.load import LoadConfig, LoadProcess, Report
from tests.project import Project

SITE = "trivial.test"
TAKE_OVERS = 10
_WORKERS = {"get": 24, "post": 8, "new": 16}


def tls(bench: Bench) -> None:
    """Every behaviour of certificates once, in the suite that CI runs."""
    good, bad = pytest_counts(bench, "tests/integration/test_6_tls.py")
    bench.add("certificates and edges: behaviours that failed", bad, 0, "failures", note=f"{good} cases")


def two_edges(bench: Bench) -> None:
    """Two edges of which the ACME server knows only the first: both are certified, then both are replaced."""
    with tempfile.TemporaryDirectory() as folder, Bed.for_tests("bench-tls") as bed:
        bench.say("provisioning two edges")
        second = bed.host("edge-2", image="docker-host", wait=False)
        lab = Lab.build(Project(Path(folder)), bed)
        # Once another edge has joined, no host releases by itself.
        assert lab.deploy("1.0.0")["code"] == 0
        second.wait()
        server = Pebble(lab.host)
        server.start({SITE: lab.host.address})
        Pebble.resolve(second, {NAME: lab.host.address})
        _join(lab.project, second)
        # The server stands on the first edge, whose firewall would keep the second one out.
        open_to_second = [{"ports": ["14000"], "from": [second.address]}]
        names = [SITE, lab.host.address, second.address]
        _secure(lab.project, server, names, app_publish_address=lab.host.address, firewall_allow=open_to_second)
        _play(lab, "--tags", "host,docker,engine,edge")
        authority = server.root(Path(folder) / "root.pem")
        shown = [_issued(host.address, authority) for host in (lab.host, second)]
        own = len({certificate for certificate in shown if certificate})
        bench.add("edges with an issued certificate of their own", own, 2, "edges", want=">=")
        load = _load(lab.host)
        before = {host.name: edges.only(host)["ID"] for host in (lab.host, second)}
        _play(lab, "--tags", "edge", "-e", "restart=edge", "-e", "edge_send_seconds=61", "-e", "edge_drain_seconds=20")
        report = load.stop()
        moved = sum(edges.only(host)["ID"] != before[host.name] for host in (lab.host, second))
        bench.add("two edges replaced one after the other", moved, 2, "edges", want=">=")
        note = f"of {report.sent} requests"
        bench.add("requests lost while two edges were replaced", report.lost, 0, "requests", note=note)


def upgrade(bench: Bench) -> None:
    """One edge, replaced again and again under load; then without the kernel's help, and by a plain restart."""
    with tempfile.TemporaryDirectory() as folder, Bed.for_tests("bench-edge") as bed:
        bench.say("provisioning a host for the trivial service")
        lab = Lab.build(Project(Path(folder)), bed)
        assert lab.deploy("1.0.0")["code"] == 0
        report = _replaced(lab.host, TAKE_OVERS)
        note = f"of {report.sent} requests, longest gap {report.longest_gap_ms:.0f} ms"
        bench.add(f"requests lost over {TAKE_OVERS} replacements of one edge", report.lost, 0, "requests", note=note)
        without = _under_load(lab.host, lambda: _without_migration(lab.host))
        bench.say(f"the same without tcp_migrate_req: {without.lost} of {without.sent} lost")
        plain = _under_load(lab.host, lambda: lab.host.exec(["docker", "restart", "switchyard-edge"]))
        bench.add("lost in the control, one plain restart", plain.lost, 5, "requests", want=">=")
    _, bad = pytest_counts(bench, "tests/faults/test_edge.py")
    bench.add("fault points of a replacement that did not serve or converge", bad, 0, "failures")


def _join(project: Project, host: Host) -> None:
    """Make a host the environment's second edge."""
    inventory = {
        "env_local": {"children": {"local_second_edge": {"hosts": {host.name: {"ansible_host": host.address}}}}},
        "edge": {"children": {"local_second_edge": {}}},
    }
    (project.folder / "inventories" / "second.yml").write_text(yaml.safe_dump(inventory))


def _secure(project: Project, server: Pebble, names: list[str], **more: object) -> None:
    settings = more | {
        "edge_tls": "acme",
        "edge_acme_directory": DIRECTORY,
        "edge_acme_authority": server.authority,
        "edge_server_names": names,
    }
    path = project.folder / "inventories" / "group_vars" / "env_local" / "zz_tls.yml"
    path.write_text(yaml.safe_dump(settings))


def _play(lab: Lab, *words: str) -> None:
    done = lab.project.play("provision", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Certificate:" not in done.stdout + done.stderr, done.stderr


def _issued(address: str, authority: Path) -> str:
    """The certificate that an edge shows, if its authority vouches for it."""
    found = ssl.get_server_certificate((address, 443), timeout=10)
    context = ssl.create_default_context(cafile=str(authority))
    context.check_hostname = False
    try:
        with socket.create_connection((address, 443), 10) as raw, context.wrap_socket(raw):
            return found
    except ssl.SSLError:
        return ""


def _load(host: Host) -> LoadProcess:
    return LoadProcess(LoadConfig(url=f"http://{host.address}/", workers=_WORKERS, max_duration=900)).start()


def _under_load(host: Host, act: Callable[[], object]) -> Report:
    load = _load(host)
    time.sleep(1)
    act()
    time.sleep(1)
    return load.stop()


def _replaced(host: Host, times: int) -> Report:
    def act() -> None:
        for number in range(times):
            done = edges.keep(host, 15_000 + number)
            assert done.returncode == 0, done.stdout
            edges.only(host)

    return _under_load(host, act)


def _without_migration(host: Host) -> None:
    setting = "/proc/sys/net/ipv4/tcp_migrate_req"
    host.exec(["sh", "-c", f"echo 0 > {setting}"])
    for number in range(TAKE_OVERS):
        assert edges.keep(host, 15_100 + number).returncode == 0
    host.exec(["sh", "-c", f"echo 1 > {setting}"])
