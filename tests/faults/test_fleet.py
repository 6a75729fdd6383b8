"""Several real hosts as one: an edge, two application hosts, a database host; then a second edge and a third host."""

import contextlib
import json
import time
from collections.abc import Iterator

import pytest
import yaml

from tests.bed import Bed, Host, images
from tests.fleet import FleetLab
from tests.integration.conftest import NEW, OLD, SAMPLE
from tests.load import LoadConfig, LoadProcess
from tests.load.report import Losses
from tests.project import Project

pytestmark = pytest.mark.xdist_group("fleet")

EDGE, APPS, DB = "fleet-edge-1", ("fleet-app-1", "fleet-app-2"), "fleet-db-1"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetLab]:
    with Bed.for_tests("fleet") as bed:
        registry = bed.registry()
        for version in (OLD, NEW):
            for part in ("api", "web"):
                built = images.build(SAMPLE, f"sample-{part}", {"RELEASE": version}, dockerfile=f"{part}/Dockerfile")
                registry.push(built, f"sample-{part}", version)
        project = Project(tmp_path_factory.mktemp("fleet"))
        lab = FleetLab.build(project, bed, databases=1, variables={"app_probation_seconds": 1})
        for host in APPS:
            prepare(lab, host)
        yield lab


def prepare(lab: FleetLab, host: str) -> None:
    """What an administrator does: mount the storage that the application hosts share."""
    lab.hosts[host].exec(["sh", "-c", "mkdir -p /mnt/uploads && chown 10001:10001 /mnt/uploads"])


def served(lab: FleetLab) -> set[str]:
    """The addresses that answered at the edge, over new connections."""
    return {one.rpartition(":")[0] for one in instances(lab, asked=12)}


def instances(lab: FleetLab, asked: int = 60) -> set[str]:
    """Every `ip:port` that gave the last answers at the edge."""
    script = (
        f"for i in $(seq {asked}); do curl -s -o /dev/null -m 5 http://127.0.0.1/api/v1/parcels "
        f"-H 'Host: {lab.hosts[EDGE].address}'; done; sleep 1.2; "
        f"tail -n {asked} /var/log/switchyard/edge/sample-fleet.jsonl"
    )
    lines = lab.hosts[EDGE].exec(["sh", "-c", script]).stdout.splitlines()
    return {json.loads(line)["upstream"].rpartition(", ")[2] for line in lines}


def served_under_load(lab: FleetLab, *names: str) -> set[str]:
    """The same among other users' requests, until all of these have answered: the busiest are asked least."""
    seen, deadline = served(lab), time.monotonic() + 60
    while seen < addresses(lab, *names) and time.monotonic() < deadline:
        seen |= served(lab)
    return seen


def addresses(lab: FleetLab, *names: str) -> set[str]:
    return {lab.hosts[name].address for name in names or APPS}


def load(lab: FleetLab, **workers: int) -> LoadProcess:
    wanted = workers or {"get": 8, "post": 4, "new": 4}
    url = f"http://{lab.hosts[EDGE].address}/"
    return LoadProcess(LoadConfig(url=url, app="parcels", workers=wanted, think=(0.02, 0.08), drain=5)).start()


def test_a_release_reaches_the_database_from_every_host_and_the_edge_spreads_over_them(lab: FleetLab) -> None:
    text = lab.deploy(OLD)
    assert "is live on blue (fleet-app-1, fleet-app-2)" in text
    assert served(lab) == addresses(lab)
    report = lab.status()
    assert report["live"]["version"] == OLD
    assert not report["mixed"] and report["disagreements"] == []
    # What instances listen on is reached by the edge, and Postgres by the application hosts: nothing is on loopback.
    for host in APPS:
        ports = lab.hosts[host].exec(["sh", "-c", "ss -Hltn 'sport >= :18000 and sport <= :18999'"]).stdout
        assert "127.0.0.1" not in ports


def test_the_database_is_there_for_who_declares_it_alone(lab: FleetLab) -> None:
    for host in APPS:
        reached = {service: reaches(lab, host, service, lab.hosts[DB].address) for service in ("api", "web")}
        assert reached == {"api": True, "web": False}, host
    # Everything else outside is there for both.
    assert reaches(lab, APPS[0], "web", lab.registry.address.partition(":")[0], 5000)


def reaches(lab: FleetLab, host: str, service: str, address: str, port: int = 5432) -> bool:
    """Whether a connection from within a service's container comes about."""
    find = ["docker", "ps", "-q", "--filter", f"label=switchyard.service={service}"]
    container = lab.hosts[host].exec(find).stdout.split()[0]
    process = lab.hosts[host].exec(["docker", "inspect", "-f", "{{.State.Pid}}", container]).stdout.strip()
    knock = f"import socket; socket.create_connection(('{address}', {port}), timeout=2)"
    argv = ["nsenter", "--net", f"--target={process}", "python3", "-c", knock]
    return lab.hosts[host].exec(argv, check=False).returncode == 0


def test_the_database_made_its_restore_point_before_the_migration(lab: FleetLab) -> None:
    ledger = lab.hosts[DB].exec(["cat", "/var/lib/switchyard/sample-fleet/ledger.jsonl"]).stdout
    (point,) = [event for event in map(json.loads, ledger.splitlines()) if event["event"] == "restore-point"]
    assert point["release"].endswith(f"-{OLD}")

    copy = lab.hosts[EDGE].exec(["cat", "/var/lib/switchyard/sample-fleet/ledger.jsonl"]).stdout
    events = [json.loads(line) for line in copy.splitlines()]
    kinds = [event["event"] for event in events]
    assert kinds.index("restore-point") < kinds.index("migration")


def test_deploy_and_rollback_under_load_lose_nothing(lab: FleetLab) -> None:
    with load(lab) as running:
        lab.deploy(NEW)
        back = lab.rollback()
        report = running.stop()
    assert back["code"] == 0, back
    assert report.lost == 0 and report.duplicated == 0, report.summary()
    assert {OLD, NEW} <= set(report.by_release)
    assert lab.status()["live"]["version"] == OLD


def test_an_unreachable_host_is_refused_by_name_then_excused_then_brought_up_to_date(lab: FleetLab) -> None:
    lab.hosts[APPS[1]].disconnect()
    try:
        text = lab.deploy(NEW, check=False)
        assert "fleet-app-2" in text and "allow_unreachable=fleet-app-2" in text
        assert lab.deploy(NEW, "-e", "allow_unreachable=fleet-app-2")
        assert served(lab) == addresses(lab, APPS[0])
    finally:
        lab.hosts[APPS[1]].connect()
    assert any("fleet-app-2" in item for item in lab.status()["disagreements"])
    lab.deploy(NEW)
    assert served(lab) == addresses(lab)


def test_after_a_reboot_the_live_colour_serves_without_anybody(lab: FleetLab) -> None:
    for name in (APPS[0], EDGE):
        lab.hosts[name].power_cycle()
        lab.hosts[name].wait()
    deadline = time.monotonic() + 60
    while (found := served(lab)) != addresses(lab):
        assert time.monotonic() < deadline, found
    assert lab.status()["disagreements"] == []


LATE_UNIT = """[Unit]
Description=An address that comes up late
Before=docker.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=ip address del {address} dev {device}
ExecStart=sh -c '(sleep {seconds}; ip address add {address} dev {device}; ip route replace default via {gateway}) &'

[Install]
WantedBy=multi-user.target
"""


@contextlib.contextmanager
def late_address(host: Host, seconds: int) -> Iterator[None]:
    """From the next boot on, the host's address is there only so many seconds after Docker wanted it."""
    (route,) = json.loads(host.exec(["ip", "-json", "route", "show", "default"]).stdout)
    (link,) = json.loads(host.exec(["ip", "-json", "-4", "address", "show", "dev", route["dev"]]).stdout)
    (length,) = [info["prefixlen"] for info in link["addr_info"] if info["local"] == host.address]
    unit = LATE_UNIT.format(
        address=f"{host.address}/{length}", device=route["dev"], gateway=route["gateway"], seconds=seconds
    )
    host.put("/etc/systemd/system/late-address.service", unit)
    host.exec(["systemctl", "enable", "--quiet", "late-address.service"])
    try:
        yield
    finally:
        host.exec(["systemctl", "disable", "--quiet", "late-address.service"])


@pytest.mark.parametrize(("name", "started"), [(APPS[0], "{release} on {colour}"), (DB, "sample-fleet-postgres")])
def test_an_address_that_comes_up_late_after_a_reboot_is_waited_for(lab: FleetLab, name: str, started: str) -> None:
    with late_address(lab.hosts[name], seconds=20):
        lab.hosts[name].power_cycle()
    # Docker tried once and gave up, so it was not Docker that brought it back.
    journal = lab.hosts[name].exec(["journalctl", "-b", "-o", "cat", "-u", "switchyard-recover"]).stdout
    assert f"recover: starting {started.format(**lab.status()['live'])}" in journal
    parcels = ["curl", "-sf", "-m", "5", "-H", f"Host: {lab.hosts[EDGE].address}", "http://127.0.0.1/api/v1/parcels"]
    deadline = time.monotonic() + 60
    while (found := served(lab)) != addresses(lab) or lab.hosts[EDGE].exec(parcels, check=False).returncode:
        assert time.monotonic() < deadline, found
    assert lab.status()["disagreements"] == []


@pytest.fixture
def three_each(lab: FleetLab) -> Iterator[None]:
    """The API in three instances on each host, and once again in one afterwards."""
    folder = lab.project.folder / "inventories" / "group_vars"
    services = yaml.safe_load((folder / "all" / "app.yml").read_text())["app_services"]
    services["api"] |= {"instances": 3, "database_connections": 4}
    services["api"]["env"]["DATABASE_POOL_SIZE"] = 4
    changed = folder / "env_fleet" / "zzz_instances.yml"
    changed.write_text(yaml.safe_dump({"app_services": services}))
    lab.deploy(NEW)
    yield
    changed.unlink()
    lab.deploy(NEW)


@pytest.mark.usefixtures("three_each")
def test_users_are_spread_over_every_instance_and_one_that_dies_is_left_out(lab: FleetLab) -> None:
    every = instances(lab)
    assert len(every) == 6, every
    assert {one.rpartition(":")[0] for one in every} == addresses(lab)
    host = lab.hosts[APPS[0]]
    find = ["docker", "ps", "-q", "--filter", f"label=switchyard.colour={lab.status()['live']['colour']}"]
    labels = ["--filter", "label=switchyard.service=api", "--filter", "label=switchyard.instance=2"]
    victim = host.exec([*find, *labels]).stdout.strip()
    address = host.exec(["docker", "port", victim, "8000/tcp"]).stdout.split()[0]
    assert address in every
    with load(lab, get=8, new=4) as running:
        host.exec(["docker", "kill", victim])
        time.sleep(2)  # what it answered before is in the log by then
        others = instances(lab) & every
        report = running.stop()
    assert others == every - {address}
    # An answer that the instance had begun when it was killed ends there: nobody can have its rest from another one.
    begun = report.request_losses.get("closed inside the answer", Losses()).count
    assert report.lost == begun <= 2 and report.sent > 100, report.summary()
    host.exec(["docker", "start", victim])
    deadline = time.monotonic() + 60
    while instances(lab) != every:
        assert time.monotonic() < deadline, f"{address} is not asked again"


def test_hosts_are_moved_one_by_one_without_a_lost_request(lab: FleetLab) -> None:
    lab.deploy(NEW)
    with load(lab) as running:
        text = lab.deploy(OLD, "-e", "app_rolling=1", "-e", "app_probation_seconds=0")
        report = running.stop()
    assert text.count("drained, replaced, tried, put back") == len(APPS), text
    assert report.lost == 0 and report.duplicated == 0, report.summary()
    assert served(lab) == addresses(lab)
    # Nothing is warm: there was no room for two colours.
    assert all(found == {lab.status()["live"]["release"]} for found in lab.running(APPS).values())
    lab.deploy(NEW)


@contextlib.contextmanager
def killed_there(lab: FleetLab, host: str, version: str) -> Iterator[None]:
    """Whatever of a version runs on a host is killed at once."""
    mark = "/run/switchyard-killing"
    found = """docker ps --filter label=switchyard.colour --format '{{.ID}} {{.Label "switchyard.release"}}'"""
    kill = f"{found} | awk '/-{version}$/ {{print $1}}' | xargs -r docker kill"
    script = f'touch {mark}; setsid sh -c "$1" >/dev/null 2>&1 &'
    lab.hosts[host].exec(["sh", "-c", script, "sh", f"while test -e {mark}; do {kill}; sleep 0.2; done"])
    try:
        yield
    finally:
        lab.hosts[host].exec(["rm", "-f", mark])


def test_hosts_moved_one_by_one_go_back_without_a_lost_request_when_one_is_ill(lab: FleetLab) -> None:
    before = lab.status()["live"]["release"]
    with load(lab) as running:
        with killed_there(lab, APPS[1], OLD):
            text = lab.deploy(OLD, "-e", "app_rolling=1", "-e", "app_probation_seconds=0", check=False)
        assert served_under_load(lab, *APPS) == addresses(lab)
        report = running.stop()
    assert text.count("drained, replaced, tried, put back") == len(APPS), text
    assert f"Every host is back on {before}." in text, text
    assert report.lost == 0 and report.duplicated == 0, report.summary()
    # Both were at work: the first host had moved when the second one fell ill.
    assert {OLD, NEW} <= set(report.by_release)
    said = lab.status()
    assert (said["live"]["release"], said["mixed"], said["disagreements"]) == (before, False, [])
    assert lab.running(APPS) == {name: {before} for name in APPS}


def test_a_host_joins_a_live_environment_without_a_lost_request(lab: FleetLab) -> None:
    third = "fleet-app-3"
    lab.boot(third)
    prepare(lab, third)
    lab.groups["app"].append(third)
    lab.describe()
    with load(lab) as running:
        lab.provision()
        lab.deploy(NEW)
        assert served_under_load(lab, *lab.groups["app"]) == addresses(lab, *lab.groups["app"])
        report = running.stop()
    assert report.lost == 0 and report.duplicated == 0, report.summary()
    # And leaves again.
    lab.groups["app"].remove(third)
    lab.describe()
    lab.deploy(NEW)
    assert served(lab) == addresses(lab)
    lab.provision()
    lab.hosts.pop(third).destroy()
    said = lab.status()
    assert (said["unreachable"], said["disagreements"]) == ({}, [])


def test_a_lost_application_host_is_rebuilt_by_provision_and_deploy(lab: FleetLab) -> None:
    with load(lab) as running:
        lab.rebuild(APPS[1])
        prepare(lab, APPS[1])
        lab.provision("--limit", f"{APPS[1]},localhost")
        lab.deploy(NEW)
        assert served_under_load(lab, *APPS) == addresses(lab)
        report = running.stop()
    # What a host had under way dies with it; everybody else is served by the other one.
    assert report.lost <= 12, report.summary()
