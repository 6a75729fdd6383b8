"""Preflight: every refusal says what is wrong and what to do, before anything was changed."""

from __future__ import annotations

import platform
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchyard.engine import layout, phases, ports, preflight
from switchyard.engine.site import Pointer
from switchyard.errors import Exit, SwitchyardError
from tests.unit.engine_world import NAME, QUICK, World, digest, make_request, service

GIB = 1 << 30


def refusal(check: Any, *arguments: Any) -> str:
    with pytest.raises(SwitchyardError) as error:
        check(*arguments)
    assert error.value.code is Exit.PREFLIGHT
    return error.value.message


# Images


def test_each_service_is_resolved_once(world: World) -> None:
    request = make_request(services={"api": service(), "web": service(image="registry.test/web", routes=["/w/"])})
    assert preflight.resolve(request) == {
        "api": digest("registry.test/shop/api:1.0.0"),
        "web": digest("registry.test/web:1.0.0"),
    }
    assert world.docker.commands == []


def test_an_image_of_another_architecture_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    world.docker.architectures = ("amd64", "riscv64")
    assert refusal(preflight.resolve, make_request()) == (
        "registry.test/shop/api:1.0.0 is built for amd64, riscv64, this host is arm64: push an image for arm64."
    )


@pytest.mark.parametrize(("machine", "name"), [("x86_64", "amd64"), ("aarch64", "arm64"), ("riscv64", "riscv64")])
def test_the_hosts_architecture_goes_by_the_registrys_name(
    world: World, monkeypatch: pytest.MonkeyPatch, machine: str, name: str
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    world.docker.architectures = ("other", name)
    assert preflight.resolve(make_request())


@pytest.mark.parametrize(
    ("status", "message", "reason"),
    [
        (403, "denied: access forbidden", "refuses this host's login: check docker_registry_logins for registry.test"),
        (401, "unauthorized: authentication required", "refuses this host's login"),
        (404, "manifest unknown", "has no such tag: push it first"),
        (500, "dial tcp: connection refused", "cannot be reached or answered badly (dial tcp: connection refused)"),
    ],
)
def test_tag_login_and_registry_are_told_apart(world: World, status: int, message: str, reason: str) -> None:
    world.docker.refused["registry.test/shop/api:1.0.0"] = (status, {"message": message})
    text = refusal(preflight.resolve, make_request())
    assert text.startswith("registry.test/shop/api:1.0.0: ") and reason in text


# Space


@pytest.fixture
def filesystems(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Free bytes and inodes of every file system, and whether it counts inodes."""
    table = {"free": 100 * GIB, "inodes": 1_000_000, "files": 2_000_000}

    def statvfs(_: Path) -> SimpleNamespace:
        return SimpleNamespace(
            f_bavail=table["free"] // 4096, f_frsize=4096, f_favail=table["inodes"], f_files=table["files"]
        )

    monkeypatch.setattr("switchyard.engine.preflight.os.statvfs", statvfs)
    return table


def check_space(world: World) -> None:
    preflight.check_space(make_request(), {"api": digest("api")}, str(world.root), None)


@pytest.mark.usefixtures("filesystems")
def test_room_enough_passes(world: World) -> None:
    check_space(world)


def test_an_image_that_is_not_here_needs_room(world: World, filesystems: dict[str, int]) -> None:
    filesystems["free"] = 999 << 20
    text = refusal(check_space, world)
    assert text.startswith(f"{world.root} (Docker's root) has 999 MiB free, this release needs 1000 MiB: ")
    assert "'switchyard prune'" in text


def test_an_image_that_is_here_needs_none(world: World, filesystems: dict[str, int]) -> None:
    filesystems["free"] = 999 << 20
    world.docker.images[f"registry.test/shop/api@{digest('api')}"] = {}
    check_space(world)


def test_an_image_is_measured_by_the_live_releases(world: World, filesystems: dict[str, int]) -> None:
    live = world.release(1, "blue")
    world.docker.images[live.pinned("api")] = {"Size": 700 << 20}
    filesystems["free"] = 1399 << 20
    digests = {"api": digest("new"), "web": digest("web")}
    needs = "this release needs 1400 MiB"
    assert needs in refusal(preflight.check_space, make_request(), digests, str(world.root), live)
    filesystems["free"] = 1400 << 20
    preflight.check_space(make_request(), digests, str(world.root), live)
    # A service that the live release lacks has nothing to be measured by.
    more = make_request(services={"api": service(), "web": service(routes=["/w/"])})
    assert "this release needs 2400 MiB" in refusal(preflight.check_space, more, digests, str(world.root), live)


def test_state_and_logs_need_room_as_well(world: World, filesystems: dict[str, int]) -> None:
    filesystems["free"] = 15 << 20
    world.docker.images[f"registry.test/shop/api@{digest('api')}"] = {}
    assert "(Switchyard's state) has 15 MiB free, this release needs 16 MiB" in refusal(check_space, world)


def test_inodes_count(world: World, filesystems: dict[str, int]) -> None:
    filesystems["inodes"] = 1999
    assert "has 1999 inodes free: remove small files there." in refusal(check_space, world)


def test_a_file_system_that_counts_no_inodes_passes(world: World, filesystems: dict[str, int]) -> None:
    filesystems.update(inodes=0, files=0)
    check_space(world)


# Memory


def meminfo(monkeypatch: pytest.MonkeyPatch, mib: int) -> None:
    text = f"MemTotal: 9999999 kB\nMemFree: 1 kB\nMemAvailable:   {mib * 1024} kB\n"
    original = Path.read_text
    monkeypatch.setattr(
        Path, "read_text", lambda path, *a, **k: text if str(path) == "/proc/meminfo" else original(path, *a, **k)
    )


def test_two_colours_have_to_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    request = make_request(services={"api": service(memory_mb=300, instances=2), "web": service(routes=["/w/"])})
    meminfo(monkeypatch, 855)
    text = refusal(preflight.check_memory, request, 0)
    assert "may use 856 MiB of memory (memory_mb x instances)" in text and "855 MiB are available" in text
    preflight.check_memory(request, 1)
    meminfo(monkeypatch, 856)
    preflight.check_memory(request, 0)


def test_the_warm_release_gives_its_memory_back(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, filesystems: dict[str, int]
) -> None:
    assert filesystems
    for module in ("_PROC", "_CGROUPS"):
        monkeypatch.setattr(preflight, module, tmp_path / module)
    for pid, mib in ((7, 200), (8, 100)):
        (tmp_path / "_PROC" / str(pid)).mkdir(parents=True)
        (tmp_path / "_PROC" / str(pid) / "cgroup").write_text(f"0::/system.slice/docker-{pid}.scope\n")
        group = tmp_path / "_CGROUPS" / "system.slice" / f"docker-{pid}.scope"
        group.mkdir(parents=True)
        (group / "memory.stat").write_text(f"anon {mib << 20}\nfile {999 << 20}\n")
    two = {"api": service(instances=2)}
    live, warm = world.release(2, "blue", services=two), world.record(1, services=two)
    world.start(warm, "green")
    pids = {"green-api-1": 7, "green-api-2": 8, "blue-api-1": 7}
    for name, pid in pids.items():
        world.docker.containers[f"shop-test-{name}"]["Pid"] = pid
    assert preflight.held_mb(NAME, "green") == 300
    # A container that does not run holds nothing.
    world.docker.containers["shop-test-green-api-2"]["Pid"] = 0
    assert preflight.held_mb(NAME, "green") == 200
    meminfo(monkeypatch, 400)
    op = world.begun()
    request = make_request(version="3.0.0", services={"api": service(tag="3.0.0", memory_mb=300, instances=2)})
    made = phases.prepare(op, request)
    assert made is not None and live.id != made.id
    meminfo(monkeypatch, 399)
    assert "599 MiB are available" in refusal(phases.prepare, op, request)


# Ports


def port_of(world: World, address: str) -> None:
    """Plan the port of `address` for blue."""
    port = int(address.rpartition(":")[2])
    layout.PORTS.write_text(f'{{"{NAME}/api/1/blue": {port}}}')
    assert ports.addresses(ports.load(), NAME, "api", 1, "blue", world.host.publish_address) == [address]


def test_a_taken_port_is_named_with_how_to_find_who_has_it(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        port_of(world, f"127.0.0.1:{number}")
        text = refusal(preflight.check_ports, NAME, make_request(), "blue", ports.load(), world.host)
        assert text == (
            f"127.0.0.1:{number}, planned for api of shop-test, is taken (Address already in use): "
            f"'ss -ltnp sport = :{number}' names the process to stop."
        )
        # What holds it is the idle colour itself: that is replaced.
        world.docker.add_instance("0001-1.0.0", "blue", "api-1", "127.0.0.1:1")
        preflight.check_ports(NAME, make_request(), "blue", ports.load(), world.host)
    world.docker.containers.clear()
    preflight.check_ports(NAME, make_request(), "blue", ports.load(), world.host)


# Connections


def budget(connections: int, instances: int, limit: int, *, migration: bool = False) -> None:
    preflight.check_connections(
        make_request(
            services={"api": service(database_connections=connections, instances=instances)},
            database={"max_connections": limit, "reserved": 13},
            migration={"service": "api", "command": ["up"]} if migration else None,
        )
    )


def test_two_colours_and_a_migration_have_to_fit_into_postgres() -> None:
    budget(10, 2, 53)
    text = refusal(lambda: budget(10, 2, 52))
    assert text.startswith("Two colours need 40 database connections (2 x 20 + migration) and Postgres has 39 for them")
    refusal(lambda: budget(10, 2, 54, migration=True))
    budget(10, 2, 55, migration=True)


def pooled(connections: int, clients: int, limit: int) -> None:
    services = {
        "api": service(database_connections=connections, database_pooled=True, instances=3),
        "jobs": service(database_connections=2, routes=["/jobs/"]),
    }
    database = {"max_connections": limit, "reserved": 13, "pool_connections": 20, "pool_clients": clients}
    migration = {"service": "api", "command": ["up"]}
    preflight.check_connections(make_request(services=services, database=database, migration=migration), hosts=2)


def test_behind_a_pooler_postgres_needs_room_for_the_pool_and_the_pool_for_two_colours() -> None:
    # 2 colours x 2 hosts: jobs 8, the pool 20, the migration 2.
    pooled(40, 480, 43)
    text = refusal(lambda: pooled(40, 480, 42))
    assert text.startswith("Two colours need 30 database connections (2 x 4 + 20 of PgBouncer + migration)")
    text = refusal(lambda: pooled(41, 491, 43))
    assert text.startswith("Two colours need 492 connections to PgBouncer (2 x 246) and it takes 491")


def test_without_a_database_there_is_no_budget() -> None:
    preflight.check_connections(make_request(services={"api": service(database_connections=10_000)}))


@QUICK
@given(st.integers(0, 60), st.integers(1, 5), st.integers(1, 300), st.booleans())
def test_the_budget_is_refused_exactly_when_it_does_not_fit(
    connections: int, instances: int, limit: int, migration: bool
) -> None:
    fits = 2 * connections * instances + (2 if migration else 0) <= limit - 13
    try:
        budget(connections, instances, limit, migration=migration)
    except SwitchyardError:
        assert not fits
    else:
        assert fits


# Database, secrets, edge


POSTGRES = {"switchyard.role": "postgres", "switchyard.app": "shop", "switchyard.environment": "test"}


@pytest.mark.parametrize(
    ("state", "status"), [("exited", "Exited (1)"), ("running", "Up (unhealthy)"), ("restarting", "Restarting")]
)
def test_a_database_that_is_not_well_stops_the_release(world: World, state: str, status: str) -> None:
    world.docker.add("shop-test-db", POSTGRES, state=state, status=status)
    assert refusal(preflight.check_database, NAME) == (
        f"The database is not healthy (container shop-test-db is {state}, {status}): "
        "'docker logs shop-test-db' says why."
    )


def test_a_healthy_database_or_one_of_another_app_does_not(world: World) -> None:
    preflight.check_database(NAME)
    world.docker.add("shop-test-db", POSTGRES, status="Up 3 hours (healthy)")
    world.docker.add("shop-prod-db", POSTGRES | {"switchyard.environment": "prod"}, state="exited")
    preflight.check_database(NAME)


def test_an_empty_secret_is_named_unless_the_host_has_one_from_before(world: World) -> None:
    request = make_request(secrets={"TOKEN": {"value": "", "uid": 1}, "KEY": {"value": "x", "uid": 1}})
    assert refusal(preflight.check_secrets, world.paths, request) == (
        "app_secrets.TOKEN is empty: give it a value in the environment's vault file."
    )
    world.paths.secrets.mkdir(parents=True)
    (world.paths.secrets / "TOKEN").write_text("old")
    preflight.check_secrets(world.paths, request)


def test_an_edge_that_does_not_run_is_named_with_how_to_start_it(world: World) -> None:
    world.docker.edge = False
    text = refusal(preflight.check_edge)
    assert "The edge does not run on this host (container switchyard-edge)" in text
    assert "'docker start switchyard-edge'" in text


def test_an_edge_whose_files_are_not_valid_is_not_built_on(world: World) -> None:
    world.docker.answers["nginx -t"] = (1, "", '2026/01/01 [emerg] 7#7: unknown directive "x" in /a:1\nfailed\n')
    text = refusal(preflight.check_edge)
    assert text.startswith(
        'The edge\'s configuration on disk is not valid (unknown directive "x" in /a:1): run provision.yml'
    )


# All of it, in order


@pytest.fixture
def roomy(monkeypatch: pytest.MonkeyPatch, filesystems: dict[str, int]) -> None:
    assert filesystems
    meminfo(monkeypatch, 10_000)


@pytest.mark.usefixtures("roomy")
def test_a_passed_preflight_leaves_a_record_ports_and_secrets(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("switchyard.engine.effects.os.fchown", lambda *_: None)
    record = phases.prepare(world.begun(), make_request(secrets={"TOKEN": {"value": "v", "uid": 1}}))
    assert record is not None and record.id == "0001-1.0.0"
    assert set(ports.load()) == {f"{NAME}/api/1/{colour}" for colour in ("blue", "green")}
    assert (world.paths.secrets / record.id / "TOKEN").read_text() == "v"
    assert not world.paths.pointer.exists()
    assert world.ran("docker", "compose") == []


@pytest.mark.usefixtures("roomy")
def test_what_is_live_already_makes_no_record(world: World) -> None:
    op = world.begun()
    record = phases.prepare(op, make_request())
    assert record is not None
    world.start(record, "blue")
    world.point(Pointer(record.id, "blue"))
    assert phases.prepare(op, make_request(who="somebody else")) is None
    world.docker.containers[f"{NAME}-blue-api-1"]["State"] = "exited"
    again = phases.prepare(op, make_request())
    assert again is not None and again.id == "0002-1.0.0"


@pytest.mark.usefixtures("roomy")
def test_a_release_on_probation_needs_both_colours(world: World) -> None:
    world.release(1, "blue")
    world.release(2, "green", previous="0001-1.0.0", probation=True)
    with pytest.raises(SwitchyardError, match="still on probation") as error:
        phases.prepare(world.begun(), make_request())
    assert error.value.code is Exit.BUSY


@pytest.mark.usefixtures("roomy")
def test_without_a_version_nothing_older_than_what_is_live_is_released(world: World) -> None:
    world.release(1, "blue", version="1.4.0")
    text = refusal(phases.prepare, world.begun(), make_request(version="1.3.9", explicit_version=False))
    assert text.startswith("1.4.0 is live and the inventory names 1.3.9: type '-e version=1.3.9'")
    made = phases.prepare(world.begun(), make_request(version="1.3.9", services={"api": service(tag="1.3.9")}))
    assert made is not None and made.id == "0002-1.3.9"


def test_a_number_is_not_used_again_after_its_directory_was_left_incomplete(world: World) -> None:
    (world.paths.releases / "0009-1.0.0").mkdir(parents=True)
    assert phases.next_number(world.paths, world.ledger()) == 10


def test_a_variable_that_the_image_demands_is_missed_by_name(world: World) -> None:
    record = world.record(1, services={"api": service(env={"A": "1", "C_FILE": "/run/secrets/c"})})
    labels = {"switchyard.required-env": "A, B ,C,"}
    world.docker.images[record.pinned("api")] = {"Config": {"Labels": labels}}
    text = refusal(phases.pull, world.begun(), record)
    assert text == "registry.test/shop/api:1.0.0 needs B: add it to app_services.api.env or secrets."


def test_a_pull_is_tried_three_times_and_then_named(world: World) -> None:
    record = world.record(1)
    world.docker.images.clear()
    world.docker.answers["docker pull"] = (1, "", "toomanyrequests: slow down\n")
    text = refusal(phases.pull, world.begun(), record)
    assert text.endswith("answered badly (toomanyrequests: slow down). The old release serves on.")
    assert len(world.ran("docker", "pull")) == 3
