"""One screen that tells the truth: what runs, what users got, and where stories differ."""

from __future__ import annotations

import json

import pytest

from switchyard.engine import status
from switchyard.engine.site import Pointer
from switchyard.report import traffic
from switchyard.watch import state
from tests.unit.engine_world import NAME, OPERATION, World, service


def line(world: World, release: str, code: int = 200) -> bytes:
    entry = {"msec": world.clock.now - 5, "status": code, "seconds": 0.02, "release": release}
    return json.dumps(entry).encode() + b"\n"


@pytest.fixture
def live(world: World) -> str:
    return world.release(1, "blue").id


def test_the_screen_shows_release_users_jobs_and_disks(world: World, live: str) -> None:
    log = traffic.log_of(world.paths)
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_bytes(line(world, live) * 98 + line(world, live, 502) * 2)
    state = world.root / "var/lib/switchyard/backup" / str(NAME) / "state"
    state.mkdir(parents=True)
    job = {
        "job": "drill", "ok": False, "at": "2026-01-02T03:04:05+00:00", "succeeded_at": "2026-01-02T03:04:05+00:00",
        "message": "no space", "details": {"rto_seconds": 240, "rpo_seconds": 31},
    }  # fmt: skip
    (state / "drill.json").write_text(json.dumps(job))
    (state / "alert-drill.json").write_text('{"problem": ""}')
    report = status.status(world.paths, world.host)
    text = status.text(report)
    assert report["traffic"]["releases"][live]["error_share"] == 0.02
    assert f"users     {live}: 100 requests" in text and "2.00% errors, p50 " in text
    assert "RTO 4.0 min, RPO 31 s; the last one FAILED: no space" in text
    assert "disk      / " in text
    assert report["disagreements"] == []
    assert json.loads(json.dumps(report)) == report


def test_a_ledger_that_was_changed_is_a_disagreement(world: World, live: str) -> None:
    world.ledger().append("drill", subject="x")
    text = world.paths.ledger.read_text()
    world.paths.ledger.write_text(text.replace(live, "0009-9.9.9", 1))
    found = status.disagreements(world.paths, world.ledger())
    assert any(item.startswith("the ledger: line ") for item in found)


def test_an_application_that_was_never_released_has_a_screen(world: World) -> None:
    text = status.text(status.status(world.paths, world.host))
    assert "live      nothing yet" in text and "no request in the last 5.0 min" in text


def test_what_is_not_the_rule_is_listed(world: World) -> None:
    api = service(exceptions=["writable_root"], secrets=["TOKEN"], secret_env={"TOKEN": "TOKEN"})
    world.release(1, "blue", services={"api": api}, secrets={"TOKEN": {"value": "unseen", "uid": 1}})
    text = status.text(status.status(world.paths, world.host))
    assert "\n  exception api.writable_root\n" in text
    assert "\n  env       api.TOKEN carries a secret in its environment\n" in text


@pytest.mark.parametrize("manual", [True, False])
def test_a_canary_shows_its_share_and_whether_somebody_has_to_promote_it(world: World, manual: bool) -> None:
    old = world.release(1, "blue")
    new = world.release(2, "green", canary={"steps": [5, 50], "seconds": 10.0, "manual": manual})
    world.point(Pointer(new.id, "green", old.id, probation=True, share=5))
    known = state.Probation(OPERATION, new.id, world.clock.now, 60.0)
    state.save(world.paths, known, "begin", observed=9.0)
    assert "5 % of the clients, the previous one the others\n" in status.text(status.status(world.paths, world.host))
    state.save(world.paths, known, "progress", observed=10.0)
    report = status.status(world.paths, world.host)
    assert (report["share"], report["waits"]) == (5, manual)
    assert ("; it waits for 'switchyard promote test'" in status.text(report)) == manual


def test_the_last_verdict_is_shown_with_its_reason(world: World, live: str) -> None:
    known = state.Probation(OPERATION, live, world.clock.now, 60.0)
    state.save(world.paths, known, "verdict", verdict="revert", reason="12 % errors")
    assert f"\n  verdict   revert for {live}: 12 % errors\n" in status.text(status.status(world.paths, world.host))
