"""One screen that tells the truth: what runs, what users got, and where stories differ."""

from __future__ import annotations

import json

import pytest

from switchyard.engine import status
from switchyard.report import traffic
from tests.unit.engine_world import NAME, World


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
