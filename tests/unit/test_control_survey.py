"""One screen of several hosts: what one host tells of itself is told of them, too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from switchyard.control import survey
from switchyard.engine import layout
from tests.unit.engine_world import NAME
from tests.unit.fleet_world import APP_1, APP_2, DB_1, EDGE_1, EDGE_2, Fleet, make_fleet

GROUPS = {EDGE_1: ["edge"], EDGE_2: ["edge"], APP_1: ["app"], APP_2: ["app"], DB_1: ["db"]}


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Fleet]:
    with make_fleet(monkeypatch, tmp_path, GROUPS) as fleet:
        yield fleet


def told(fleet: Fleet) -> tuple[dict[str, Any], list[str]]:
    report = survey.survey(fleet.members(), str(NAME))
    assert json.loads(json.dumps(report)) == report
    return report, survey.text(report).splitlines()


def test_the_screen_of_several_hosts_shows_what_that_of_one_does(fleet: Fleet) -> None:
    odd = {"exceptions": ["writable_root"], "secrets": ["TOKEN"], "secret_env": {"TOKEN": "TOKEN"}}
    secret = {"TOKEN": {"value": "unseen", "uid": 0}}
    assert fleet.deploy("1.0.0")["code"] == 0, fleet.said
    assert fleet.deploy("1.1.0", service=odd, secrets=secret)["code"] == 0, fleet.said
    job = {"job": "backup", "ok": True, "at": "2026-01-02T03:04:05+00:00", "succeeded_at": "2026-01-02T03:04:05+00:00"}
    with fleet.on(DB_1):
        state = layout.STATE / "backup" / str(NAME) / "state"
        state.mkdir(parents=True)
        (state / "backup.json").write_text(json.dumps(job))
    report, lines = told(fleet)
    assert lines[0] == "shop in test on 4 hosts"
    live = lines.index(next(line for line in lines if line.startswith("  live      0002-1.1.0 on green for ")))
    assert lines[live + 1].startswith("            api sha256:")
    assert lines[live + 2] == "  previous  0001-1.0.0 (warm)" and lines[live + 3].startswith("            api sha256:")
    # Each once, although both application hosts say so.
    assert lines.count("  exception api.writable_root") == 1
    assert lines.count("  env       api.TOKEN carries a secret in its environment") == 1
    for edge in (EDGE_1, EDGE_2):
        assert any(line.startswith(f"  {edge:<12} users     ") for line in lines)
    for host in GROUPS:
        assert any(line.startswith(f"  {host:<12} disk      / ") for line in lines)
    assert any(line.startswith(f"  {DB_1:<12} backup    ") for line in lines)
    assert report["disagreements"] == [] and report["unreachable"] == {}


def test_a_database_host_that_is_away_is_said(fleet: Fleet) -> None:
    fleet.deploy("1.0.0")
    fleet.wires[DB_1].cut = lambda _: "refused"
    report, lines = told(fleet)
    assert DB_1 in report["unreachable"] and f"  {DB_1:<12} UNREACHABLE Connection refused" in lines


def test_nothing_live_and_no_edge_that_answers_have_a_screen(fleet: Fleet) -> None:
    assert "  live      nothing yet" in told(fleet)[1]
    for edge in (EDGE_1, EDGE_2):
        fleet.wires[edge].cut = lambda _: "refused"
    assert f"  {EDGE_1:<12} UNREACHABLE Connection refused" in told(fleet)[1]
