"""The parts of the test bed that need no engine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import bcrypt
import pytest

from tests.bed import (
    cli,
    engine,
    facts,
    images,
    keys,
    owner,
    paths,
    pipconf,
    recipes,
    registry,
    resolvers,
    shell,
    subnets,
)
from tests.bed.errors import BedError
from tests.bed.hosts import Host, Place

Network = subnets.Network


# Names


def test_checkouts_at_two_places_have_two_ids() -> None:
    assert paths.checkout_id(Path("/a")) != paths.checkout_id(Path("/b"))
    assert len(paths.checkout_id()) == 8


def test_a_lock_is_held_by_one_and_free_after_its_holder_died(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from tests.bed.paths import locked\n"
        "with locked('x', Path(sys.argv[1])):\n  print('held', flush=True); os._exit(9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=paths.ROOT, capture_output=True, check=False)
    assert done.returncode == 9 and b"held" in done.stdout
    with paths.locked("x", tmp_path):
        pass


# Addresses


def test_every_range_of_the_bed_is_reserved_for_benchmarks() -> None:
    reserved = Network("198.18.0.0/15")
    ranges = [subnets.UNNAMED, subnets.BEDS, subnets.NESTED, subnets.NESTED_POOL]
    ranges += [Network(text, strict=False) for text in (subnets.BRIDGE, subnets.NESTED_BRIDGE)]
    assert all(net.subnet_of(reserved) for net in ranges)


def test_ranges_that_meet_on_one_machine_do_not_overlap() -> None:
    outer = [Network(subnets.BRIDGE, strict=False), subnets.UNNAMED, subnets.BEDS, subnets.NESTED]
    assert not any(a.overlaps(b) for i, a in enumerate(outer) for b in outer[i + 1 :])
    assert not Network(subnets.NESTED_BRIDGE, strict=False).overlaps(subnets.NESTED_POOL)


def test_the_engine_that_the_bed_starts_uses_no_other_range() -> None:
    config = engine.daemon_config()
    assert config["bip"] == subnets.BRIDGE
    assert [pool["base"] for pool in config["default-address-pools"]] == [str(subnets.UNNAMED)]


def test_the_first_free_subnet_is_taken_and_overlaps_are_seen() -> None:
    assert str(subnets.free_subnets([])[0]) == "198.18.64.0/24"
    taken = [Network("198.18.64.0/24"), Network("198.18.65.128/25"), Network("10.0.0.0/8")]
    assert str(subnets.free_subnets(taken)[0]) == "198.18.66.0/24"
    assert subnets.free_subnets([Network("198.18.0.0/15")]) == []


def test_routes_of_the_machine_count_but_its_default_route_does_not() -> None:
    table = (
        "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
        "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
        "tun0\t004012C6\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
    )
    assert subnets.routed(table) == [Network("198.18.64.0/24")]


def test_hosts_start_at_ten_and_fill_gaps() -> None:
    net = Network("198.18.70.0/24")
    assert subnets.address(net, subnets.REGISTRY) == "198.18.70.2"
    assert subnets.next_host(net, []) == "198.18.70.10"
    assert subnets.next_host(net, ["198.18.70.10", "198.18.70.12"]) == "198.18.70.11"
    with pytest.raises(ValueError, match="every host address"):
        subnets.next_host(net, [str(address) for address in net])
    with pytest.raises(ValueError, match=r"not \.255"):
        subnets.address(net, 255)


# Images


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    (tmp_path / "start").write_text("#!/bin/sh\n")
    return tmp_path


def test_an_images_name_follows_from_all_that_it_is_made_of(folder: Path) -> None:
    def name(args: dict[str, str] | None = None, parent: str = "p:1") -> str:
        return recipes.content_hash(folder, args or {}, parent)

    first = name()
    assert name() == first
    seen = {first, name({"RELEASE": "1"}), name({"RELEASE": "2"}), name(parent="p:2")}
    (folder / "start").chmod(0o755)
    seen.add(name())
    (folder / "start").write_text("#!/bin/sh\necho\n")
    seen.add(name())
    (folder / "start").rename(folder / "begin")
    seen.add(name())
    assert len(seen) == 7


def test_debris_of_work_does_not_change_an_image(folder: Path) -> None:
    before = recipes.content_hash(folder, {}, "p")
    for debris in ("__pycache__", "node_modules"):
        (folder / debris).mkdir()
        (folder / debris / "x").write_text("x")
    assert recipes.content_hash(folder, {}, "p") == before


def test_every_recipe_has_its_folder_and_ends_at_the_base() -> None:
    for recipe in recipes.RECIPES.values():
        assert (paths.RECIPES / (recipe.folder or recipe.name) / "Dockerfile").is_file()
        parent = recipe.parent
        while parent not in recipes.SUITES:
            parent = recipes.RECIPES[parent].parent


def test_one_switch_changes_the_bases_and_thereby_what_rests_on_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(images.SWITCH, raising=False)
    made = images.reference("base"), images.reference("edge"), images.reference("host")
    monkeypatch.setenv(images.SWITCH, "official")
    assert images.reference("base") == "debian:trixie-slim"
    assert images.reference("edge") == "nginx:1.30"
    assert images.reference("postgres") == "postgres:17-trixie"
    assert images.reference("host") not in made
    monkeypatch.setenv(images.SWITCH, "offical")
    with pytest.raises(BedError, match="can only be 'debian'"):
        images.reference("base")


def test_an_unknown_image_is_named_with_the_known_ones() -> None:
    with pytest.raises(BedError, match=r"no image 'hots'; known are base, base-debian12, host"):
        images.reference("hots")


# Build secrets


def test_pips_settings_reach_a_build_without_this_machines_folders() -> None:
    listing = (
        "global.cert='/etc/ca.crt'\n"
        "global.index-url='https://mirror.example/simple'\n"
        "global.extra-index-url='file:///srv/wheels https://two.example/simple /srv/more'\n"
        ":env:.timeout='60'\n"
        "global.timeout='15'\n"
        "global.find-links='/srv/wheels'\n"
    )
    text = pipconf.assemble(pipconf.parse(listing), with_ca=True)
    assert text == (
        "[global]\nindex-url = https://mirror.example/simple\ntimeout = 60\n"
        "extra-index-url = https://two.example/simple\ncert = /run/secrets/ca\n"
    )


def test_a_machine_without_settings_gives_an_empty_file() -> None:
    assert pipconf.assemble(pipconf.parse(""), with_ca=False) == "[global]\n"


def test_the_machines_authorities_are_found_where_it_names_them(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_text("x")
    assert pipconf.ca_bundle({"cert": str(bundle)}, {}) == bundle
    assert pipconf.ca_bundle({"cert": "/nowhere"}, {"SSL_CERT_FILE": str(bundle)}) == bundle
    assert pipconf.ca_bundle({}, {}) is None


def test_a_build_that_wants_no_secrets_gets_none() -> None:
    with pipconf.secrets(wanted=False) as arguments:
        assert arguments == []


# Engine


@pytest.mark.parametrize(
    ("version", "has_buildx", "able"),
    [("20.10.24+dfsg1", False, True), ("28.2.2", False, False), ("28.2.2", True, True), ("", False, False)],
)
def test_old_clients_build_by_themselves_and_new_ones_need_buildx(version: str, has_buildx: bool, able: bool) -> None:
    assert engine.can_build(version, has_buildx) is able


def test_the_client_is_the_one_that_can_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new, old = tmp_path / "new", tmp_path / "old"
    for path, version in ((new, "28.2.2"), (old, "20.10.24")):
        path.mkdir()
        script = path / "docker"
        script.write_text(f'#!/bin/sh\n[ "$1" = version ] && echo {version} || exit 1\n')
        script.chmod(0o755)
    monkeypatch.setattr(engine, "_clients", lambda: [str(new / "docker"), str(old / "docker")])
    engine.client.cache_clear()
    try:
        assert engine.client() == str(old / "docker")
        engine.client.cache_clear()
        monkeypatch.setattr(engine, "_clients", lambda: [str(new / "docker")])
        with pytest.raises(BedError, match=r"No Docker client .*28\.2\.2.*install docker-buildx"):
            engine.client()
    finally:
        engine.client.cache_clear()


def test_hosts_ask_real_name_servers_and_not_a_stub() -> None:
    text = "search x\nnameserver 127.0.0.53\nnameserver 192.0.2.53\nnameserver ::1\nnameserver\nnameserver nonsense\n"
    assert resolvers.parse(text) == ["192.0.2.53"]


# Keys, owners, registry, facts


def test_a_host_has_exactly_one_pinned_key() -> None:
    known = keys.pin("", "198.18.64.10", "ssh-ed25519 AAAA host")
    known = keys.pin(known, "198.18.64.1", "ssh-ed25519 BBBB other")
    known = keys.pin(known, "198.18.64.10", "ssh-ed25519 CCCC host")
    assert known == "198.18.64.1 ssh-ed25519 BBBB\n198.18.64.10 ssh-ed25519 CCCC\n"
    assert keys.unpin(known, "198.18.64.1") == "198.18.64.10 ssh-ed25519 CCCC\n"


def test_an_owner_is_a_process_and_not_its_number() -> None:
    assert owner.alive(owner.me())
    assert not owner.alive(f"{os.getpid()}:1")
    assert not owner.alive("nonsense")
    with subprocess.Popen(["true"]) as child:
        identity = f"{child.pid}:0"
    assert not owner.alive(identity)


def test_a_zombie_owns_nothing() -> None:
    child = subprocess.Popen(["sleep", "30"])
    identity = owner.of(child.pid)
    assert identity is not None and owner.alive(identity)
    child.kill()
    # Not reaped yet: the number is taken, but nobody works any more.
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not owner.alive(identity)
    child.wait()


def test_a_process_may_have_brackets_in_its_name() -> None:
    fields = " ".join(str(number) for number in range(4, 53))
    assert owner.parse_start(f"12 (a) b) (c) S {fields}") == "22"


def test_an_image_by_digest_loses_its_tag_and_keeps_the_registrys_port() -> None:
    pushed = registry.Pushed("198.18.64.2:5000/team/api:1.0.0", "sha256:ab")
    assert pushed.by_digest == "198.18.64.2:5000/team/api@sha256:ab"


def test_the_registry_lets_in_who_knows_the_password() -> None:
    user, _, hashed = registry.htpasswd("ci", "right").strip().partition(":")
    assert user == "ci"
    assert bcrypt.checkpw(b"right", hashed.encode())
    assert not bcrypt.checkpw(b"wrong", hashed.encode())


def test_facts_name_files_relative_to_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / ".switchyard" / "beds" / "x"
    monkeypatch.setattr(keys, "client_key", lambda home: home / "id_ed25519")
    host = Host(Place("id", "net", home, {}), "a1", "198.18.64.10")
    found = facts.inventory_facts(host, "198.18.64.2:5000", tmp_path)
    assert found == {
        "address": "198.18.64.10",
        "port": 22,
        "user": "admin",
        "private_key": ".switchyard/beds/x/id_ed25519",
        "known_hosts": ".switchyard/beds/x/known_hosts",
        "registry": "198.18.64.2:5000",
    }
    assert facts.relative(Path("/elsewhere/key"), tmp_path) == "/elsewhere/key"


# The command line


def test_a_failing_program_is_told_in_one_sentence() -> None:
    with pytest.raises(BedError, match=r"sh -c .* failed \(exit 3\): first \| second"):
        shell.run(["sh", "-c", "echo first >&2; echo second >&2; exit 3"])
    with pytest.raises(BedError, match="no-such-program is not installed"):
        shell.run(["no-such-program"])
    with pytest.raises(BedError, match="did not finish within 0 s"):
        shell.run(["sleep", "5"], timeout=0.1)


def test_the_command_line_answers_wrong_names_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status", "--name", "nobody-made-this"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "python -m tests.bed up --name nobody-made-this" in said


def test_wrong_usage_is_exit_code_two() -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["sideways"])
    assert stopped.value.code == 2
