"""DORA's figures, recomputed here from the raw lines by another way than the code's."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from statistics import mean, median
from typing import Any

import pytest

from switchyard.names import parse_release_id
from switchyard.report import dora, story
from tests.week import Week, week


def recomputed(text: bytes, since: datetime, until: datetime) -> dict[str, Any]:
    """Straight from the lines, by replaying them: no stays, no verdicts, one state that moves on."""
    lines = [json.loads(line) for line in text.splitlines()]
    kind = {line["op"]: line["kind"] for line in lines if line["event"] == "start"}
    marked = {(line["op"], line["release"]) for line in lines if line["event"] == "bad"}
    live, by, at = "", "", since
    deployments: list[datetime] = []
    leads, outages, failures = [], [], 0
    first: datetime | None = None
    for line in lines:
        if line["event"] != "live" or line["release"] == live:
            continue
        now = datetime.fromisoformat(line["time"])
        first = first or now
        went_back = kind.get(line["op"]) == "rollback" and parse_release_id(line["release"]) < parse_release_id(live)  # type: ignore[operator]
        reverted = (line["op"], live) in marked
        if by == "deploy" and (went_back or reverted) and since <= at < until:
            failures += 1
            outages.append((now - at).total_seconds())
        live, at = line["release"], now
        by = "revert" if reverted else kind.get(line["op"], "")
        if by == "deploy" and since <= now < until:
            deployments.append(now)
            if line["committed"]:
                leads.append((now - datetime.fromisoformat(line["committed"])).total_seconds())
    assert first is not None
    observed = (until - max(since, first)).total_seconds()
    return {
        "deployments": len(deployments),
        "deployments_per_day": round(len(deployments) / max(observed / 86400, 1), 3),
        "lead_time_seconds": round(median(leads), 1),
        "failures": failures,
        "change_failure_rate": round(failures / len(deployments), 4),
        "recovery_seconds": round(mean(outages), 1) if outages else None,
        "between_failures_seconds": round((observed - sum(outages)) / failures, 1) if failures else None,
    }


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("days", [3.0, 7.0, 30.0])
def test_the_figures_are_those_of_the_raw_lines(seed: int, days: float) -> None:
    made = week(seed)
    since = made.until - timedelta(days=days)
    ours = dora.as_json(dora.compute(made.events, since, made.until))
    theirs = recomputed(made.text, since, made.until)
    assert {key: ours[key] for key in theirs} == theirs


def test_the_weeks_hold_every_kind_of_ending() -> None:
    verdicts = {stay.verdict for seed in range(12) for stay in story.stays(week(seed).events)}
    assert verdicts == {"good", "bad", "left"}


def test_an_empty_ledger_has_no_figures() -> None:
    made = week()
    figures = dora.compute([], made.until - timedelta(days=7), made.until)
    assert (figures.deployments, figures.lead_time_seconds, figures.change_failure_rate) == (0, None, None)
    assert "change failure rate    -" in dora.text(figures)


def lines(*events: dict[str, Any]) -> list[dict[str, Any]]:
    start = datetime.fromisoformat("2026-01-01T10:00:00+00:00")
    return [{"time": (start + timedelta(minutes=i)).isoformat(), **event} for i, event in enumerate(events)]


def live(op: str, release: str) -> dict[str, Any]:
    return {"event": "live", "op": op, "release": release, "colour": "blue"}


def start(op: str, kind: str) -> dict[str, Any]:
    return {"event": "start", "op": op, "kind": kind, "who": "me", "version": ""}


A, B, C = "0001-1.0.0", "0002-1.1.0", "0003-1.2.0"


def test_a_release_that_recovery_took_back_is_a_failed_change() -> None:
    events = lines(
        start("a", "deploy"), live("a", A), start("b", "deploy"), live("b", B),
        live("recover", A), {"event": "bad", "op": "recover", "release": B, "reason": "503"},
    )  # fmt: skip
    assert [(s.release, s.kind, s.verdict) for s in story.stays(events)] == [
        (A, "deploy", "good"), (B, "deploy", "bad"), (A, "revert", "good")
    ]  # fmt: skip


def test_going_forward_again_by_rollback_is_no_failure_of_what_was_left() -> None:
    events = lines(
        start("a", "deploy"), live("a", A), start("b", "deploy"), live("b", B), start("c", "rollback"), live("c", A),
        start("d", "rollback"), live("d", B),
    )  # fmt: skip
    assert [s.verdict for s in story.stays(events)] == ["good", "left", "good", "good"]


def test_a_release_that_is_proven_again_stays_the_same_stay() -> None:
    events = lines(start("a", "deploy"), live("a", A), live("recover", A), start("b", "deploy"), live("b", B))
    assert [(s.release, s.op) for s in story.stays(events)] == [(A, "a"), (B, "b")]


def test_operations_are_starts_with_their_ends_and_other_rooms_events() -> None:
    events = lines(
        start("a", "deploy"), live("a", A), {"event": "end", "op": "a", "outcome": "live", "message": "done"},
        {"event": "drill", "subject": "restore", "outcome": "ok"}, live("recover", A), start("b", "deploy"),
    )  # fmt: skip
    told = [(o.op, o.kind, o.outcome, o.release) for o in story.operations(events)]
    assert told == [("a", "deploy", "live", A), ("drill", "drill", "ok", ""), ("b", "deploy", "running", "")]


@pytest.mark.parametrize("wanted", ["2", "0002", B, "b"])
def test_a_release_is_found_by_number_id_and_operation(wanted: str) -> None:
    events = lines(start("a", "deploy"), live("a", A), start("b", "deploy"), live("b", B))
    name, found = story.about(events, wanted)
    assert name == ("b" if wanted == "b" else B)
    assert [event["event"] for event in found] == ["start", "live"]


def test_an_unknown_one_is_not_found() -> None:
    assert story.about(lines(live("a", A)), "77") == ("77", [])


def test_the_same_seed_makes_the_same_week() -> None:
    assert week(3).text == week(3).text != Week(week().until, seed=4).text
