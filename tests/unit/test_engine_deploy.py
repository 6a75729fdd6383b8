"""A deploy from end to end, and killed or failed at every single effect of it: it serves, and it converges."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import tempfile
from pathlib import Path

import pytest

from switchyard.engine import effects, lease, preflight, recover
from switchyard.engine.deploy import deploy
from switchyard.engine.operation import Result
from switchyard.engine.site import Pointer
from switchyard.errors import Exit
from switchyard.gate import access
from switchyard.report.traffic import log_of
from tests.unit.engine_world import MEMORY, NAME, World, make_request, make_world

A, B = "0001-1.0.0", "0002-2.0.0"
UP = {"service": "api", "command": ["up"], "current": ["current"]}


@pytest.fixture(autouse=True)
def roomy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host with room enough, whatever the machine is that runs the tests."""
    monkeypatch.setattr(preflight, "check_space", lambda *_: None)
    monkeypatch.setattr(preflight, "check_memory", lambda *_: None)
    monkeypatch.setattr(preflight, "check_ports", lambda *_: None)


def release(world: World, number: int, *, identity: str = "", **changes: object) -> Result:
    services = {"api": {"image": "registry.test/shop/api", "port": 8000, "tag": f"{number}.0.0", "routes": ["/"]}}
    request = make_request(version=f"{number}.0.0", **{"services": services, "migration": UP, **changes})
    op = world.operation(identity=identity or f"2026010{number}T000000-000000")
    deploy(op, request)
    return op.result


def ended(world: World) -> list[str]:
    return [event["outcome"] for event in world.ledger().of("end")]


def sound(world: World, release_id: str) -> None:
    """Pointer, ledger, edge and Docker agree; nothing is left open."""
    pointer = world.pointer()
    assert pointer is not None and (pointer.release, pointer.probation) == (release_id, False)
    assert world.ledger().last_live() == (release_id, pointer.colour)
    assert world.docker.serving() == release_id
    assert world.ledger().unfinished() == [] and lease.holder(world.paths) is None
    assert not any(path.name.endswith(".tmp") for path in world.root.rglob(".*"))


# What a deploy does


@pytest.mark.parametrize("text", ['{"hosts": ["vm1"], "keys": {"hub": "SHA256:one"}}', "{"])
def test_the_first_release_notes_which_keys_were_provisioned_and_a_damaged_list_stops_none(
    world: World, text: str
) -> None:
    access.FOLDER.mkdir(parents=True, exist_ok=True)
    (access.FOLDER / f"{NAME}.json").write_text(text)
    release(world, 1)
    sound(world, A)
    subjects = [event["subject"] for event in world.ledger().of("key")]
    assert subjects == (["ci:hub"] if text.endswith("}}") else [])


def test_a_first_deploy_and_a_second_one(world: World) -> None:
    first = release(world, 1)
    assert (first.code, first.message, first.changed) == (0, f"{A} is live on blue.", True)
    sound(world, A)
    second = release(world, 2)
    assert (second.code, second.previous, second.colour) == (0, A, "green")
    sound(world, B)
    # The previous colour stays running, outside the upstream.
    assert world.docker.containers[f"{NAME}-blue-api-1"]["State"] == "running"
    assert "backup" not in world.paths.pointer.read_text()
    assert ended(world) == ["live", "live"]
    assert list(second.phases) == ["preflight", "pull", "migrate", "start", "verify", "switch", "watch", "finish"]


def test_what_is_live_already_is_not_released_again(world: World) -> None:
    release(world, 1)
    again = release(world, 1, identity="20260109T000000-000000")
    assert (again.code, again.changed, again.release) == (0, False, A)
    assert again.message == f"No change: {A} already is what was asked for (1.0.0)."
    assert ended(world) == ["live", "unchanged"]
    sound(world, A)


def test_the_third_deploy_replaces_the_warm_release(world: World) -> None:
    for number in (1, 2, 3):
        assert release(world, number).code == 0
    sound(world, "0003-3.0.0")
    assert {c["Labels"]["switchyard.release"] for c in world.docker.containers.values()} == {B, "0003-3.0.0"}


def test_every_edge_step_is_tested_before_it_is_placed(world: World) -> None:
    release(world, 1)
    kinds = [argv[0] for argv in world.docker.commands if argv[0] in ("nsenter", "kill")]
    assert kinds[-2:] == ["nsenter", "kill"]


def test_a_release_that_does_not_get_healthy_leaves_the_old_one_and_its_warm_one(world: World) -> None:
    for number in (1, 2):
        release(world, number)
    world.docker.sick = {"0003-3.0.0"}
    failed = release(world, 3)
    assert failed.code == Exit.UNHEALTHY and failed.message.endswith("The old release serves on.")
    assert f"log of id-{NAME}-blue-api-1" in failed.details
    sound(world, B)
    # The warm release is back in the colour that was needed.
    assert world.docker.containers[f"{NAME}-blue-api-1"]["Labels"]["switchyard.release"] == A
    assert ended(world)[-1] == "failed"


def test_a_release_that_fails_on_probation_is_taken_back_and_marked(world: World) -> None:
    release(world, 1)
    world.clock.on_sleep = lambda: _sicken_when_live(world)
    failed = release(world, 2, probation_seconds=20.0)
    assert failed.code == Exit.REVERTED
    assert failed.message.endswith(f"{A} is live again.")
    assert ended(world)[-1] == "reverted" and B in world.ledger().bad()
    sound(world, A)


def test_a_secret_that_is_new_or_changed_is_in_the_ledger_by_name(world: World) -> None:
    def keys(number: int, **values: str) -> list[tuple[str, str]]:
        before = len(world.ledger().events)
        secrets = {name: {"value": value, "uid": os.getuid()} for name, value in values.items()}
        assert release(world, number, secrets=secrets).code == 0
        return [(e["subject"], e["outcome"]) for e in world.ledger().events[before:] if e["event"] == "key"]

    # The first release has nothing that could have changed.
    assert keys(1, TOKEN="unseen-1") == []
    assert keys(2, TOKEN="unseen-1", OTHER="unseen-2") == [("OTHER", "added")]
    assert keys(3, TOKEN="unseen-3", OTHER="unseen-2") == [("TOKEN", "changed")]
    assert "unseen" not in world.paths.ledger.read_text()


def test_the_end_tells_how_many_requests_the_watch_saw(world: World) -> None:
    release(world, 1)
    first, log = world.ledger().events[-1], log_of(world.paths)
    assert not {"requests", "errors"} & first.keys()
    line = {"method": "GET", "path": "/", "seconds": 0.02, "upstream": "127.0.0.1:18001", "header_seconds": "0.010"}

    def use() -> None:
        pointer = world.pointer()
        if pointer and pointer.release == B and pointer.probation and not log.read_text():
            entries = [line | {"msec": world.clock.now, "status": status} for status in (200, 200, 200, 502)]
            log.write_text("".join(json.dumps(entry) + "\n" for entry in entries))

    world.clock.on_sleep = use
    assert release(world, 2, probation_seconds=20.0).code == 0
    end = world.ledger().events[-1]
    assert (end["event"], end["requests"], end["errors"]) == ("end", 4, 1)
    # What came of it is the operation's own: the next one has none.
    release(world, 3, probation_seconds=0.0)
    assert "requests" not in world.ledger().events[-1]


@pytest.mark.parametrize(("canary", "serves"), [(None, B), ({"steps": [5, 50], "seconds": 60.0}, A)])
def test_what_cannot_be_judged_stays_and_a_canary_gives_its_clients_back(
    world: World, canary: dict[str, object] | None, serves: str
) -> None:
    release(world, 1)
    # A log that is none cannot be read.
    log_of(world.paths).unlink()
    log_of(world.paths).mkdir()
    unjudged = release(world, 2, probation_seconds=60.0, canary=canary or {})
    assert unjudged.code == Exit.INCONCLUSIVE and unjudged.release == serves
    assert "could not be judged" in unjudged.message and "both colours run" in unjudged.message.lower()
    assert ended(world)[-1] == "inconclusive" and world.ledger().bad() == {}
    sound(world, serves)
    assert {world.docker.containers[f"{NAME}-{colour}-api-1"]["State"] for colour in ("blue", "green")} == {"running"}


def _sicken_when_live(world: World) -> None:
    pointer = world.pointer()
    if pointer and pointer.release == B:
        world.docker.sick = {B}


def test_an_edge_that_does_not_take_the_switch_up_keeps_the_old_release(world: World) -> None:
    release(world, 1)
    world.docker.takes_up = False
    failed = release(world, 2)
    assert failed.code == Exit.REVERTED and failed.message.endswith("The old pointer is back and serves.")
    world.docker.takes_up = True
    sound(world, A)


def test_a_configuration_that_nginx_refuses_never_reaches_the_live_side(world: World) -> None:
    release(world, 1)
    before = world.paths.pointer.read_text()
    world.docker.answers[r"nginx -t .*shadow"] = (1, "", "nginx: [emerg] 1#1: bad thing\n")
    failed = release(world, 2)
    assert "Nginx refuses the new configuration: bad thing. Nothing was changed." in failed.message
    assert world.paths.pointer.read_text() == before
    assert world.docker.serving() == A


def test_a_failed_migration_stops_before_anything_is_started(world: World) -> None:
    release(world, 1)
    world.docker.migration_exit = 1
    failed = release(world, 2)
    assert failed.code == Exit.MIGRATION
    sound(world, A)
    assert not any("green" in name for name in world.docker.containers)


def test_a_second_deploy_at_the_same_time_is_refused(world: World) -> None:
    release(world, 1)
    world.begun(identity="20260109T000000-000000")
    before = len(world.ledger().events)
    assert release(world, 2).code == Exit.BUSY
    assert len(world.ledger().events) == before
    assert world.docker.serving() == A


def test_a_dead_docker_refuses_before_anything_is_changed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    release(world, 1)
    monkeypatch.setattr(world.docker, "get", lambda *_, **__: (500, {"message": "no"}))
    monkeypatch.setattr("switchyard.engine.docker._get", world.docker.get)
    assert release(world, 2).code == Exit.PREFLIGHT
    assert world.docker.serving() == A


# Killed and failed everywhere


class Killed(BaseException):
    """The process is gone: nothing of the engine may catch this."""


class Striker:
    """Passes effects until one of them is due; then the process dies, or the effect fails."""

    def __init__(self, due: int, how: type[BaseException]) -> None:
        self.due, self.how, self.passed = due, how, 0
        self.struck = ""

    def point(self, step: str, when: str, _: float) -> None:
        # Death after an effect finds the host as death before the next one does: nothing changes in between.
        self.passed += when == "before"
        if self.passed == self.due and not self.struck:
            self.struck = f"{when} {step}"
            raise self.how(5, "injected")


class Again:
    """One live release on a host, to be had again and again without deploying it again."""

    def __init__(self, world: World) -> None:
        assert release(world, 1).code == 0
        self.world = world
        self.files = {path: path.read_bytes() for path in world.root.rglob("*") if path.is_file()}
        self.docker = copy.deepcopy(vars(world.docker))

    def restore(self) -> World:
        for path in [*self.world.root.rglob("*")]:
            if path.is_file():
                path.unlink()
        for path, content in self.files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        # What is left of a deploy are empty directories, and a directory counts as a release's number.
        for path in sorted(self.world.root.rglob("*"), reverse=True):
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
        vars(self.world.docker).update(copy.deepcopy(self.docker))
        return self.world


def strike(world: World, patch: pytest.MonkeyPatch, striker: Striker) -> None:
    """Let the second release meet its fate, recover, and deploy it again."""
    patch.setattr(effects, "_faults", striker)
    with contextlib.suppress(Killed):
        release(world, 2)
    striker.due = 0
    # However it ended, its process is gone: another one has its id and another start time.
    patch.setattr(lease, "_started", lambda _: "the next process")
    where = striker.struck
    assert world.docker.serving() in (A, B), where
    recover.recover(world.paths, world.host, lambda _: None, after="20260102T000000-000000")
    world.run_watches()
    live = world.ledger().last_live()
    assert live is not None, where
    sound(world, live[0])
    starts, ends = ({event["op"] for event in world.ledger().of(kind)} for kind in ("start", "end"))
    assert starts <= ends, where
    again = release(world, 2, identity="20260103T000000-000000")
    assert again.code == 0, (where, again.message)
    pointer = world.pointer()
    assert pointer is not None and pointer.release.endswith("-2.0.0"), where
    sound(world, pointer.release)


@pytest.mark.parametrize("how", [Killed, OSError])
def test_struck_at_any_effect_it_serves_recovers_and_converges(how: type[BaseException]) -> None:
    with pytest.MonkeyPatch.context() as outer, tempfile.TemporaryDirectory(dir=MEMORY) as directory:
        before = Again(make_world(outer, Path(directory)))
        due, struck = 0, True
        while struck:
            due += 1
            striker = Striker(due, how)
            with pytest.MonkeyPatch.context() as patch:
                strike(before.restore(), patch, striker)
            struck = bool(striker.struck)
        # The last one was not reached: it was a deploy without a fault, and every effect before it was struck.
        assert due > 25


def test_a_release_between_rename_and_reload_is_seen_by_nobody(world: World) -> None:
    release(world, 1)
    second = world.record(2)
    world.start(second, "green")
    text = world.site(Pointer(B, "green", A), second).render()
    effects.replace_file(world.paths.pointer, text, step="test")
    assert world.docker.serving() == A
