"""What a neighbour, a container and a reader of logs must not get, on the host of the main job."""

import http.client
import json
import re
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml

from tests.bed import Host, subnets
from tests.integration.conftest import NEW, OLD, Environment
from tests.integration.test_1_main_job import recap
from tests.load.certificates import certificate
from tests.scan import EVERY, answering, containers, force_routes, give_ipv6, ipv6_of
from tests.web import opened

DECLARED = [22, 80]
# What runs in containers and beside them; the rest of the range is scanned on the host's own addresses.
LIKELY = [22, 80, 443, 5432, 8000, 8080, 8901, *range(18000, 18010)]
FLUSH = ["nft", "delete", "table", "inet", "switchyard"]


@pytest.fixture(scope="module")
def neighbour(released: Environment) -> Host:
    """Another host on the same network, that sends everything through ours."""
    host = released.bed.host("neighbour")
    give_ipv6(host, released.host)
    force_routes(host, released.host)
    return host


def tags(environment: Environment, names: str, **more: object) -> subprocess.CompletedProcess[str]:
    return environment.project.play("provision", "--tags", names, "-e", json.dumps(more), ANSIBLE_TIMEOUT="30")


def restart_docker(host: Host) -> None:
    host.exec(["systemctl", "restart", "docker"])


def running(host: Host) -> set[str]:
    return set(host.exec(["docker", "ps", "--format", "{{.Names}}"], check=False).stdout.split())


def reboot(host: Host) -> None:
    """Cut the power; everything that ran comes back, also what was told by a signal to open its log again."""
    host.exec(["logrotate", "--force", "/etc/logrotate.d/switchyard-edge"])
    before = running(host)
    assert {"switchyard-edge", "sample-local-postgres"} <= before
    host.power_cycle()
    give_ipv6(host)
    deadline = time.monotonic() + 180
    while not before <= running(host) or not answers(host):
        assert time.monotonic() < deadline, f"{before - running(host) or 'the edge'} did not come back"
        time.sleep(0.5)


def answers(host: Host) -> bool:
    """One request on a new connection, which the kernel takes at once; what answers it may be kept waiting."""
    connection = http.client.HTTPConnection(host.address, timeout=2)
    try:
        connection.connect()
        connection.sock.settimeout(60)
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def test_a_neighbour_would_get_in_without_the_firewall(released: Environment, neighbour: Host) -> None:
    """The scans below can fail: Docker 26 lets forced routes through."""
    released.host.exec(FLUSH)
    assert [port for port in answering(neighbour, "127.0.0.1", LIKELY) if port >= 18000]
    assert any(answering(neighbour, address, LIKELY) for address in containers(released.host))
    # And Postgres is told to read its settings again, which must not keep it down after the reboot below.
    done = tags(released, "firewall,postgres")
    assert done.returncode == 0, done.stdout + done.stderr
    assert recap(done.stdout)["changed"] == 1, done.stdout


@pytest.mark.parametrize("event", [None, restart_docker, reboot], ids=["provisioned", "docker restarted", "rebooted"])
def test_only_what_the_inventory_declares_answers(
    released: Environment, neighbour: Host, event: Callable[[Host], None] | None
) -> None:
    host = released.host
    if event:
        event(host)
    # At boot, Docker and its ports come up after the firewall; what is scanned is the host that serves.
    assert answers(host)
    assert answering(neighbour, host.address) == DECLARED
    assert answering(neighbour, ipv6_of(host), EVERY if event is None else LIKELY) == [22]
    for address in ["127.0.0.1", *containers(host)]:
        assert answering(neighbour, address, LIKELY) == [], address


def test_the_firewall_changes_without_cutting_anybody_off(released: Environment, neighbour: Host) -> None:
    """A held connection and new ones live through a reload of the table."""
    held = opened(f"{released.url}api/v1/events?seconds=600")
    added = {"ports": ["9100"], "from": [str(subnets.BEDS)]}
    changes = {"firewall_allow": [added], "firewall_ssh_per_minute": 30}
    process = released.project.start(
        *("ansible-playbook", "provision.yml", "-e", "env=local", "--tags", "firewall"),
        *("-e", json.dumps(changes)),
    )
    refused = asked = 0
    while process.poll() is None:
        asked += 1
        refused += not answers(released.host)
    assert process.returncode == 0, process.stdout.read() if process.stdout else ""
    assert (refused, asked > 20) == (0, True)
    assert held.readline()
    held.close()
    table = released.host.exec(["nft", "list", "table", "inet", "switchyard"]).stdout
    assert "tcp dport 9100 accept" in table
    # And who knocks too often is not let in, while others are. All at once: on a busy machine the minute's share grows.
    knocks = len(answering(neighbour, released.host.address, [22] * 40))
    assert 20 <= knocks < 40
    # Those that knocked are gone, but sshd may still be busy with them, and refuses by itself while it has too many.
    left = f"ss -Hnt 'sport = :22 and dst = {neighbour.address}' | grep -q ."
    released.host.exec(["sh", "-c", f"while {left}; do sleep 0.1; done"])
    assert released.host.ssh("true").returncode == 0
    done = tags(released, "firewall")
    assert recap(done.stdout)["changed"] == 1, done.stdout


def test_settings_that_lock_us_out_are_taken_back(released: Environment) -> None:
    done = tags(released, "ssh", ssh_settings={"AllowUsers": "nobody"})
    assert done.returncode == 2, done.stdout
    assert "lets nobody in with the new settings" in done.stdout, done.stdout
    assert "took them back by itself" in done.stdout, done.stdout
    again = tags(released, "ssh")
    assert again.returncode == 0, again.stdout + again.stderr
    assert recap(again.stdout)["changed"] == 0, again.stdout
    assert released.host.exec(["sh", "-c", "ls /var/lib/switchyard-guard"], check=False).stdout == ""


def test_the_database_is_there_for_who_declares_it_alone(released: Environment) -> None:
    names = released.host.exec(["docker", "ps", "--format", "{{.Names}}"]).stdout.split()
    database = next(name for name in names if name.endswith("-postgres"))
    inspect = ["docker", "inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", database]
    address = released.host.exec(inspect).stdout.strip()
    knock = f"import socket; socket.create_connection(('{address}', 5432), timeout=5)"
    reached = {}
    for service in ("api", "web"):
        name = next(name for name in names if f"-{service}-1" in name)
        process = released.host.exec(["docker", "inspect", "-f", "{{.State.Pid}}", name]).stdout.strip()
        argv = ["nsenter", "--net", f"--target={process}", "python3", "-c", knock]
        reached[service] = released.host.exec(argv, check=False).returncode == 0
    assert reached == {"api": True, "web": False}


_WATCH = r"""
import os, sys, time
# Every command line and environment that is ever there while a release is made.
until, seen = time.monotonic() + float(sys.argv[1]), set()
while time.monotonic() < until and not os.path.exists("/tmp/enough"):
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            for part in ("cmdline", "environ"):
                try:
                    # The database image's own entry point exports the superuser's password to the server that it
                    # starts; only that server's user and root can read it there.
                    if part == "environ" and os.stat(f"/proc/{entry.name}").st_uid == 999:
                        continue
                    with open(f"/proc/{entry.name}/{part}", "rb") as file:
                        seen.add(file.read())
                except OSError:
                    pass
    time.sleep(0.1)
if os.path.exists("/tmp/enough"):
    os.remove("/tmp/enough")
print(b"\n".join(seen).replace(b"\0", b" ").decode("utf-8", "replace"))
"""

_LOOK = r"""
exec 2>/dev/null
{
journalctl --no-pager -o cat
docker inspect $(docker ps -aq)
for name in $(docker ps -aq); do docker logs "$name"; done
docker images --no-trunc; docker network inspect $(docker network ls -q)
find /var/log /var/lib/switchyard /etc/switchyard /run/switchyard /run/systemd /etc/systemd /tmp /home \
  -type f -not -path '*/secrets/*' -not -name superuser-password -not -name secrets.conf \
  -not -name notify.json -not -name '*.preview' -not -name key.pem \
  -not -path '*/postgres/*/data/*' -print0 | xargs -0 cat
} | tr -cd '\11\12\40-\176'
"""


_OWN = r"""
find /var/lib/switchyard /etc/switchyard -type f \
  \( -path '*/secrets/*' -o -name superuser-password -o -name secrets.conf \
  -o -name notify.json -o -name '*.preview' -o -name key.pem \) -exec cat {} +
"""

_CARRIERS = ("--tags", "docker,engine,notify,postgres,edge,app")


@pytest.fixture
def planted(released: Environment) -> Iterator[dict[str, str]]:
    """Canaries for what this environment leaves off: a login, a webhook, the preview and a key for TLS."""
    public, private = certificate(released.host.address)
    registry = released.bed.registry().address
    canaries = {name: secrets.token_hex(20) for name in ("registry", "webhook", "preview")}
    variables = {
        "docker_registry_logins": [{"registry": registry, "username": "ci", "password": canaries["registry"]}],
        "notify_targets": [{"name": "team", "url": f"https://127.0.0.1:9/{canaries['webhook']}"}],
        "edge_preview_secret": canaries["preview"],
        "edge_tls": "files",
        "edge_tls_certificate": public,
        "edge_tls_key": private,
    }
    path = released.project.folder / "inventories" / "group_vars" / "env_local" / "zz_canaries.yml"
    path.write_text(yaml.safe_dump(variables))
    yield canaries | {"TLS key": private.splitlines()[1]}
    path.unlink()
    released.host.exec(["docker", "logout", registry], check=False)
    done = released.project.play("provision", *_CARRIERS)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.long
def test_no_secret_is_anywhere_but_in_its_own_file(released: Environment, planted: dict[str, str]) -> None:
    folder = released.project.folder / ".switchyard" / "secrets" / "local"
    made = {path.name: path.read_text().split()[0] for path in folder.iterdir()}
    assert len(made) >= 3
    canaries = made | planted
    before = released.live()
    said = []
    with ThreadPoolExecutor() as pool:
        watching = pool.submit(released.host.exec, ["python3", "-c", _WATCH, "300"], timeout=330)
        version = NEW if before == OLD else OLD
        release = ("-e", f"version={version}", "-e", "app_probation_seconds=1")
        for name, *extra in (("provision", *_CARRIERS), ("deploy", "--check", *release), ("deploy", *release)):
            done = released.project.play(name, "-vvv", "--diff", *extra)
            said.append(done.stdout + done.stderr)
            assert done.returncode == 0, said[-1]
        released.host.exec(["touch", "/tmp/enough"])
        processes = watching.result().stdout
    assert "switchyard" in processes
    # The search finds them where they belong; some of those made belong to what this environment leaves off, and the
    # login is kept encrypted.
    kept = released.host.exec(["sh", "-c", _OWN]).stdout
    assert sum(value in kept for value in made.values()) >= 3
    assert {name for name, value in planted.items() if value in kept} == {"webhook", "preview", "TLS key"}
    config = released.host.exec(["cat", "/root/.docker/config.json"]).stdout
    assert released.bed.registry().address in config
    back = released.project.run("scripts/rollback.sh", "local", before)
    assert back.returncode == 0, back.stdout + back.stderr
    status = released.project.run("scripts/switchyard", "status", "local", "--json")
    places = {
        "ansible's output": "".join(said),
        "process lists": processes,
        "the host": released.host.exec(["sh", "-c", _LOOK], timeout=120).stdout,
        "commands": back.stdout + back.stderr + status.stdout,
    }
    found = [(name, place) for name, value in canaries.items() for place, text in places.items() if value in text]
    assert found == []
    assert len(re.findall(r'"event": ?"live"', places["the host"])) > 1, "the ledger was not read"
