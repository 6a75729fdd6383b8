"""Generations of secrets: what a release is started with, and what is left for one that never went live."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchyard.engine import colour, ports, recover
from switchyard.engine.colour import environment
from switchyard.engine.deploy import deploy
from switchyard.engine.prune import prune
from switchyard.engine.rollback import rollback
from switchyard.secrets import generations
from switchyard.secrets.refresh import refresh_by_hand
from tests.unit.engine_world import QUICK, World, make_request, service

A, B, C = "0001-1.0.0", "0002-2.0.0", "0003-3.0.0"


@pytest.fixture
def owners(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[int, int]]:
    """Who was made owner of which temporary file; nobody has to be root for it."""
    table: dict[str, tuple[int, int]] = {}

    def fchown(descriptor: int, uid: int, gid: int) -> None:
        table[Path(f"/proc/self/fd/{descriptor}").readlink().name] = (uid, gid)

    monkeypatch.setattr(os, "fchown", fchown)
    return table


@pytest.fixture(autouse=True)
def anybody(owners: dict[str, tuple[int, int]]) -> None:
    """Nobody has to be root here."""
    assert owners == {}


def secret(value: str) -> dict[str, dict[str, object]]:
    return {"TOKEN": {"value": value, "uid": 10001}}


def release(world: World, number: int, token: str, **changes: object) -> int:
    """Deploy a version with this secret; returns the exit code."""
    services = {"api": service(tag=f"{number}.0.0", secrets=["TOKEN"])}
    request = make_request(version=f"{number}.0.0", secrets=secret(token), **{"services": services, **changes})
    op = world.operation(identity=f"2026010{number}T000000-000000")
    deploy(op, request)
    return op.result.code


def mounted(world: World, name: str) -> str:
    """The secret that a container gets when it starts now: Docker looks its path up again."""
    return Path(world.docker.containers[f"shop-test-{name}-api-1"]["Mounts"][0]["Source"]).read_text()


def test_a_secrets_file_belongs_to_its_container_alone(world: World, owners: dict[str, tuple[int, int]]) -> None:
    generations.place(world.paths, A, make_request(secrets=secret("s3cret-value")))
    path = world.paths.secrets / A / "TOKEN"
    assert path.read_text() == "s3cret-value"
    assert stat.S_IMODE(path.stat().st_mode) == 0o400
    assert owners == {f".TOKEN.{os.getpid()}.tmp": (10001, 10001)}


def test_an_env_file_is_for_root_alone(world: World, owners: dict[str, tuple[int, int]]) -> None:
    services = {"api": service(secret_env={"API_TOKEN": "TOKEN"})}
    generations.place(world.paths, A, make_request(secrets=secret("s3cret-value"), services=services))
    path = world.paths.secrets / A / "api.env"
    assert path.read_text() == 'API_TOKEN="s3cret-value"\n'
    assert stat.S_IMODE(path.stat().st_mode) == 0o400
    assert not any(name.startswith(".api.env") for name in owners)


def test_a_secret_without_a_value_stays_what_it_is_today(world: World) -> None:
    services = {"api": service(secret_env={"API_TOKEN": "TOKEN"})}
    generations.place(world.paths, A, make_request(secrets=secret("today's"), services=services))
    world.ledger().append("live", op="x", release=A, colour="blue")
    generations.place(world.paths, B, make_request(secrets=secret(""), services=services))
    assert (world.paths.secrets / B / "TOKEN").read_text() == "today's"
    assert (world.paths.secrets / B / "api.env").read_text() == 'API_TOKEN="today\'s"\n'


def test_what_a_release_names_no_more_is_there_for_one_that_does(world: World) -> None:
    generations.place(world.paths, A, make_request(secrets=secret("x") | {"GONE": {"value": "y", "uid": 10001}}))
    world.ledger().append("live", op="x", release=A, colour="blue")
    generations.place(world.paths, B, make_request(secrets=secret("z")))
    world.ledger().append("live", op="x", release=B, colour="green")
    today = generations.of(world.paths, A)
    assert (today.name, (today / "GONE").read_text(), (today / "TOKEN").read_text()) == (B, "y", "z")


# What a release is started with


def made(world: World, *releases: str) -> None:
    for name in releases:
        generations.place(world.paths, name, make_request(secrets=secret(name)))


def test_a_new_release_has_its_own_generation_before_it_is_live_and_an_old_one_todays(world: World) -> None:
    made(world, A, B, C)
    world.ledger().append("live", op="x", release=B, colour="blue")
    assert generations.today(world.paths).name == B
    assert [generations.of(world.paths, name).name for name in (A, B, C)] == [B, B, C]
    given = environment(world.record(3), "green", ports.load(), world.host)
    assert given["SWITCHYARD_SECRETS"] == str(world.paths.secrets / C)


def test_a_release_that_was_taken_back_takes_its_secrets_with_it(world: World) -> None:
    made(world, A, B)
    for name in (A, B):
        world.ledger().append("live", op="x", release=name, colour="blue")
    world.ledger().append("bad", op="x", release=B, reason="5xx")
    assert generations.of(world.paths, A).name == A


def test_a_host_without_generations_keeps_the_files_that_it_has(world: World) -> None:
    assert generations.of(world.paths, A) == world.paths.secrets


# Whole deploys


@pytest.fixture
def roomy(monkeypatch: pytest.MonkeyPatch) -> None:
    for check in ("check_space", "check_memory", "check_ports"):
        monkeypatch.setattr(f"switchyard.engine.preflight.{check}", lambda *_: None)


UP = {"service": "api", "command": ["up"], "current": ["current"]}


@pytest.mark.usefixtures("roomy")
@pytest.mark.parametrize("where", ["migrate", "start"])
def test_a_refused_release_leaves_every_other_one_its_secrets(world: World, where: str) -> None:
    assert release(world, 1, "good") == release(world, 2, "better") == 0
    if where == "migrate":
        world.docker.migration_exit = 1
    else:
        world.docker.sick.add(C)
    assert release(world, 3, "wrong", migration=UP if where == "migrate" else None) != 0
    assert (mounted(world, "green"), world.docker.serving()) == ("better", B)
    # The warm release was never touched by the first; after the other it was started again, with today's.
    assert mounted(world, "blue") == ("good" if where == "migrate" else "better")
    assert generations.today(world.paths).name == B


@pytest.mark.usefixtures("roomy")
def test_a_rotated_secret_does_not_come_back_and_leaves_the_host(world: World) -> None:
    assert release(world, 1, "old") == release(world, 2, "new") == 0
    assert (mounted(world, "blue"), mounted(world, "green")) == ("old", "new")
    assert refresh_by_hand(world.operation("refresh", "20260105T000000-000000")) == A
    assert mounted(world, "blue") == "new"
    assert [path.name for path in world.paths.secrets.iterdir()] == [B]
    op = world.operation("rollback", "20260106T000000-000000")
    rollback(op, "")
    assert (op.result.code, op.result.release, mounted(world, "blue")) == (0, A, "new")


@pytest.mark.usefixtures("roomy")
def test_what_a_container_was_started_with_is_not_pruned(world: World) -> None:
    assert release(world, 1, "old") == release(world, 2, "new") == 0
    prune(world.paths, world.ledger(), 0, lambda _: None)
    assert (mounted(world, "blue"), mounted(world, "green")) == ("old", "new")
    assert release(world, 3, "newest") == 0
    assert sorted(path.name for path in world.paths.secrets.iterdir()) == [B, C]


@pytest.mark.usefixtures("roomy")
def test_one_instance_that_is_down_does_not_have_the_others_replaced(world: World) -> None:
    assert release(world, 1, "old", services={"api": service(instances=2, secrets=["TOKEN"])}) == 0
    world.docker.containers["shop-test-blue-api-2"]["State"] = "exited"
    colour.start_if_down(world.paths, world.host, A, "blue", lambda _: None)
    assert world.ran("docker", "compose")[-1][-1] == "--no-recreate"
    for name in ("api-1", "api-2"):
        world.docker.containers[f"shop-test-blue-{name}"]["State"] = "exited"
    recover.recover(world.paths, world.host, lambda _: None)
    assert "--no-recreate" not in world.ran("docker", "compose")[-1]


# The env file, as Compose reads it


def compose_reads(text: str) -> dict[str, str]:
    r"""Read double-quoted assignments by Compose's rules: a backslash escapes `\\`, `"`, `$`, `n` and `r`."""
    letters = {"n": "\n", "r": "\r"}
    found, rest = {}, text
    while rest:
        match = re.match(r'([A-Za-z_][A-Za-z0-9_]*)="((?:\\.|[^"\\$])*)"\n', rest)
        assert match, f"Compose would refuse {rest!r}"
        found[match[1]] = re.sub(r"\\(.)", lambda pair: letters.get(pair[1], pair[1]), match[2])
        rest = rest[match.end() :]
    return found


def test_the_reader_here_follows_what_compose_was_seen_to_do() -> None:
    assert compose_reads('VAR="\\$OTHER"\n') == {"VAR": "$OTHER"}
    assert compose_reads('VAR="a\\\\b"\n') == {"VAR": "a\\b"}
    assert compose_reads('VAR="some\\nvalue"\n') == {"VAR": "some\nvalue"}
    assert compose_reads('A="x # y"\nB=""\n') == {"A": "x # y", "B": ""}


def env_file(values: dict[str, str]) -> str:
    request = make_request(
        secrets={name: {"value": "x", "uid": 1} for name in values},
        services={"api": service(secret_env={name: name for name in values})},
    )
    return generations.environment_file(request.services["api"], values)


@pytest.mark.parametrize(
    "value",
    ["", "plain", "$HOME", "${X:-y}", "$$", "a b", " a ", "#x", "a # b", "it's", "'", "''", '"', '"x"', "a=b", "`id`",
     "two\nlines", "\n", "-----BEGIN KEY-----\nabc\n-----END KEY-----\n", "ü€", "a,b;c", "!", "%s", "{{ x }}",
     "a\\b", "end\\", "\\n", "\\'", '\\"'],
)  # fmt: skip
def test_a_value_reaches_the_application_as_it_is(value: str) -> None:
    assert compose_reads(env_file({"A": value})) == {"A": value}


@QUICK
@given(
    st.dictionaries(
        st.sampled_from(["A", "B", "C_2"]), st.text(st.characters(exclude_categories=["Cs"]), max_size=30), min_size=1
    )
)
def test_any_values_reach_the_application_as_they_are(values: dict[str, str]) -> None:
    assert compose_reads(env_file(values)) == values


def test_the_env_file_has_a_fixed_order() -> None:
    assert env_file({"B": "2", "A": "1"}) == 'A="1"\nB="2"\n'
