"""A release's record that was removed or damaged: it is named, and stops neither what serves nor what comes next."""

from __future__ import annotations

import pytest

from switchyard.engine import layout, plan, preflight, records, recover, status
from switchyard.engine.deploy import deploy
from switchyard.engine.prune import prune
from switchyard.errors import Exit
from tests.unit.engine_world import World, make_request, service

A, B, C, D = (f"{number:04d}-{number}.0.0" for number in (1, 2, 3, 4))


@pytest.fixture(autouse=True)
def roomy(monkeypatch: pytest.MonkeyPatch) -> None:
    for check in ("check_space", "check_memory", "check_ports"):
        monkeypatch.setattr(preflight, check, lambda *_: None)


@pytest.fixture
def three(world: World) -> World:
    """Three releases: an old one, the previous one (warm), the live one."""
    for number in (1, 2, 3):
        assert release(world, number) == 0
    return world


def release(world: World, number: int, **changes: object) -> int:
    data = {"services": {"api": service(tag=f"{number}.0.0")}, "retain": 1, **changes}
    op = world.operation(identity=f"2026010{number}T000000-000000")
    deploy(op, make_request(version=f"{number}.0.0", **data))
    return op.result.code


def damage(world: World, which: str, how: str) -> None:
    path = world.paths.releases / which / "release.json"
    if how == "removed":
        path.unlink()
    else:
        path.write_text(how)


HOWS = ["removed", "garbage", "{}", "[]", '{"id": 1, "request": 7}']
every = pytest.mark.parametrize("how", HOWS)


@every
@pytest.mark.parametrize("which", [C, B])
def test_status_names_it(three: World, which: str, how: str) -> None:
    damage(three, which, how)
    report = status.status(three.paths, three.host)
    assert (report["live"]["release"], report["live"]["version"], report["live"]["colour"]) == (C, "3.0.0", "blue")
    assert report["disagreements"] == [
        f"the pointer names {which}, whose record is missing or damaged: deploy again to have one"
    ]
    assert f"live      {C} on blue" in status.text(report)


@every
@pytest.mark.parametrize("which", [C, B, A])
def test_the_next_deploy_makes_a_new_record(three: World, which: str, how: str) -> None:
    damage(three, which, how)
    assert plan.plan(three.paths, make_request(version="4.0.0"))["changed"]
    assert release(three, 4) == 0
    assert (three.docker.serving(), three.ledger().last_live()) == (D, (D, "green"))
    assert D in records.ids(three.paths)
    again = [text for text in status.disagreements(three.paths, three.ledger()) if which not in text]
    assert again == []


@every
def test_the_live_one_is_released_again_when_it_is_asked_for(three: World, how: str) -> None:
    damage(three, C, how)
    recover.recover(three.paths, three.host, lambda _: None)
    assert three.docker.serving() == C
    op = three.operation(identity="20260107T000000-000000")
    deploy(op, make_request(version="3.0.0", services={"api": service(tag="3.0.0")}))
    assert (op.result.code, op.result.release, op.result.changed) == (0, "0004-3.0.0", True)
    assert three.docker.serving() == "0004-3.0.0"


@every
def test_an_older_version_is_still_refused(three: World, how: str) -> None:
    damage(three, C, how)
    assert release(three, 2, explicit_version=False) == Exit.PREFLIGHT
    assert three.docker.serving() == C


def test_pruning_skips_it_and_says_so(three: World) -> None:
    damage(three, A, "garbage")
    said: list[str] = []
    assert prune(three.paths, three.ledger(), 0, said.append) == []
    assert said == [
        f"WARNING: the record of {A} cannot be read, so it stays: remove {layout.STATE}/shop-test/releases/{A}"
    ]
    assert (three.paths.releases / A).is_dir()
