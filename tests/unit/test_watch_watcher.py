"""The watch itself: what it takes in of log and probes, and what it makes of an edge that does not answer."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from switchyard.engine import cli, layout, phases, records
from switchyard.engine import colour as colours
from switchyard.engine.site import Pointer
from switchyard.errors import Exit, SwitchyardError
from switchyard.request import Slo
from switchyard.watch import probes, state, watcher
from switchyard.watch.accesslog import Entry
from switchyard.watch.probes import Found, Prober, Question
from switchyard.watch.rule import Judge, Side
from tests.unit.engine_world import NAME, OPERATION, World

A, B = "0001-1.0.0", "0002-2.0.0"
NEW, OLD, ELSEWHERE = "127.0.0.1:2", "127.0.0.1:1", "127.0.0.1:9"
SMOKE = {"path": "/health", "status": 200}


def on_probation(world: World, seconds: float = 30.0, **changes: Any) -> float:
    """B is live with A beside it, and about to be watched; returns the moment of the switch."""
    world.release(1, "blue", **changes)
    record = world.release(2, "green", previous=A, probation=True, probation_seconds=seconds, **changes)
    watcher.begin(world.paths, OPERATION, record, world.clock.now)
    return world.clock.now


def verdict(world: World) -> state.Probation:
    def say(text: str) -> None:
        # Whatever was down is back in time for what the verdict asks of it.
        world.docker.edge = world.docker.edge or "verdict" in text

    watcher.watch(world.paths, world.host, OPERATION, say)
    known = state.load(world.paths)
    assert known is not None and known.done
    return known


def down(world: World, since: float, until: float) -> Callable[[], None]:
    """The edge does not answer between these moments."""

    def act() -> None:
        world.docker.edge = not since <= world.clock.now < until

    return act


# An edge that does not answer


@pytest.mark.parametrize("name", ["/health", "/orders"])
def test_an_edge_that_is_away_for_a_moment_speaks_against_nobody(world: World, name: str) -> None:
    at = on_probation(world, smoke_tests=[SMOKE | {"path": name}])
    world.clock.on_sleep = down(world, at + 5, at + 11)
    assert (verdict(world).verdict, world.docker.serving()) == ("pass", B)


@pytest.mark.parametrize("name", ["/health", "/orders"])
def test_an_edge_that_stays_away_leaves_nothing_to_judge(world: World, name: str) -> None:
    at = on_probation(world, seconds=60.0, smoke_tests=[SMOKE | {"path": name}])
    world.clock.on_sleep = down(world, at + 5, at + 60)
    assert (verdict(world).verdict, world.docker.serving()) == ("inconclusive", B)


def test_a_smoke_test_that_gives_up_sooner_than_a_health_probe_is_not_judged_before_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen = on_probation(world) + 5

    def smoke() -> str:
        return "GET /: no answer (timed out)" if frozen <= world.clock.now < frozen + 9 else ""

    def health() -> str:
        return f"{probes.BLIND} (timed out)" if smoke() else ""

    asked = [Question("smoke test GET /", smoke, None), Question("health of api", health, None, health=True)]
    monkeypatch.setattr(watcher, "questions", lambda *_: asked)
    held: list[tuple[float, Callable[[], None]]] = []

    def launch(question: Question, deliver: Callable[[Found], None]) -> None:
        found = probes.ask_once(question)
        held.append((world.clock.now + (2.5 if found.new and question.health else 0.1), lambda: deliver(found)))

    def arrive() -> None:
        for one in [one for one in held if one[0] <= world.clock.now]:
            held.remove(one)
            one[1]()

    monkeypatch.setattr(probes, "launch", launch)
    world.clock.on_sleep = arrive
    assert verdict(world).verdict == "pass"


def test_a_smoke_test_that_fails_while_the_edge_answers_turns_the_release_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_probation(world)
    asked = [
        Question("smoke test GET /health", lambda: "GET /health: expected 200, got 500", None),
        Question("health of api", lambda: "", None, health=True),
    ]
    monkeypatch.setattr(watcher, "questions", lambda *_: asked)
    known = verdict(world)
    assert known.verdict == "revert" and known.reason.startswith("smoke test GET /health failed 3 times in a row")
    assert world.docker.serving() == A


def test_requests_from_before_the_switch_are_not_taken_in(world: World) -> None:
    at = on_probation(world)
    log = layout.LOGS / "edge" / f"{NAME}.jsonl"
    pointer = world.pointer()
    assert pointer
    target = phases.site_for(world.paths, world.host, pointer).live_targets("api")[0]
    line = {"status": 500, "seconds": 0.1, "upstream": target, "path": "/"}
    moments = [at - 2 + n / 100 for n in range(150)] + [at + 1 + n for n in range(3)]
    log.write_text("".join(json.dumps(line | {"msec": moment}) + "\n" for moment in moments))
    known = verdict(world)
    assert (known.verdict, known.figures["requests"]) == ("pass", 3)


# One line of the log


def entry(status: int = 200, upstream: tuple[str, ...] = (NEW,), seconds: float = 0.1, path: str = "/") -> Entry:
    return Entry(1000.0, status, upstream[0] if upstream else "", upstream, seconds, path)


@pytest.mark.parametrize(
    ("one", "side", "errors"),
    [
        (entry(), "new", 0),
        (entry(502), "new", 1),
        (entry(404), "new", 0),
        (entry(upstream=(NEW, OLD)), "new", 1),
        (entry(upstream=(NEW, NEW)), "new", 0),
        (entry(500, (OLD,)), "old", 1),
        (entry(499, seconds=3.0), "new", 0),
        (entry(499), None, 0),
        (entry(101), None, 0),
        (entry(upstream=(ELSEWHERE,)), None, 0),
        (entry(200, ()), None, 0),
    ],
)
def test_what_a_line_of_the_log_says_of_which_release(one: Entry, side: str | None, errors: int) -> None:
    judge = Judge(Slo())
    watcher.feed(judge, one, {NEW}, {OLD}, [], 2.0)
    counted = {name: judge.tally(name) for name in ("new", "old")}
    assert [name for name, tally in counted.items() if tally.requests] == ([side] if side else [])
    assert sum(tally.errors for tally in counted.values()) == errors


@pytest.mark.parametrize(("meant", "side"), [(B, "new"), (A, "old"), ("", "old")])
def test_an_answer_of_the_old_release_to_a_request_for_the_new_one_is_an_error_of_the_new_one(
    meant: str, side: Side
) -> None:
    judge = Judge(Slo())
    watcher.feed(judge, replace(entry(upstream=(OLD,)), meant=meant), {NEW}, {OLD}, [], 2.0, B)
    assert judge.tally(side).requests == 1 and judge.tally(side).errors == (side == "new")


def test_a_declared_route_has_figures_of_its_own() -> None:
    judge = Judge(Slo())
    for path in ("/api/pay/1", "/api/", "/other", "/api/pay/"):
        watcher.feed(judge, entry(path=path), {NEW}, {OLD}, ["/api/pay/", "/api/"], 2.0)
    assert [judge.tally("new", route).requests for route in ("", "/api/", "/api/pay/")] == [4, 1, 2]


# Probes


def test_each_question_is_asked_about_once_a_second_and_a_slow_one_delays_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def launch(question: Question, deliver: Callable[[Found], None]) -> None:
        asked.append(question.name)
        if question.name != "slow":
            deliver(probes.ask_once(question))

    monkeypatch.setattr(probes, "launch", launch)
    prober = Prober([Question("slow", lambda: "", None), Question("quick", lambda: "bad", lambda: "")])
    found = []
    for _ in range(12):
        found += prober.tick()
        world.clock.sleep(0.25)
    assert [asked.count(name) for name in ("slow", "quick")] == [1, 3]
    assert [(one.name, one.new, one.old) for one in found] == [("quick", "bad", "")] * 3


def test_a_question_that_cannot_be_asked_is_answered_badly_and_never_silent() -> None:
    def odd() -> str:
        raise RecursionError("maximum recursion depth exceeded")

    found = probes.ask_once(Question("health of api", odd, None, health=True))
    assert found.new.startswith("RecursionError") and not found.blind


def test_only_health_tells_that_the_edge_is_away() -> None:
    silent = f"{probes.BLIND} (Connection refused)"
    assert Found("health of api", silent, None, 0.0, health=True).blind
    assert not Found("health of api", "the new release answers 503", None, 0.0, health=True).blind
    assert not Found("smoke test GET /health", silent, None, 0.0).blind


# By hand


def test_who_promotes_a_canary_is_in_the_ledger_and_a_step_by_itself_names_nobody(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    layout.HOST_FILE.parent.mkdir(parents=True)
    layout.HOST_FILE.write_text(json.dumps({"name": "vm1", "groups": ["app", "edge"], "edge_image": "e@1"}))
    canary = {"steps": [5, 50], "seconds": 10.0}
    on_probation(world, canary=canary)
    world.point(Pointer(B, "green", A, probation=True, share=5))
    assert cli.main(["promote", str(NAME), "--who", "ann@desk"]) == 0
    assert verdict(world).verdict == "pass"
    told = [(event["op"], event["share"], event.get("who")) for event in world.ledger().of("canary")]
    assert told == [(OPERATION, 50, "ann@desk"), (OPERATION, 100, None)]


# Taken back by a person


def test_what_a_person_takes_back_is_stopped_once_nobody_uses_it(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    layout.HOST_FILE.parent.mkdir(parents=True, exist_ok=True)
    layout.HOST_FILE.write_text(json.dumps({"name": "vm1"}))
    on_probation(world)
    assert cli.main(["retire", str(NAME), B, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["stopped"] is False
    assert cli.main(["abort", str(NAME)]) == 0
    assert world.docker.serving() == A and B in world.ledger().bad()
    assert colours.release_in(NAME, "green") == (B, True)
    assert world.ran("systemd-run")[-1][-3:] == ["retire", str(NAME), B]
    capsys.readouterr()
    assert cli.main(["retire", str(NAME), B, "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["stopped"] is True
    assert colours.release_in(NAME, "green") == (B, False)
    assert world.ran("ss")


def test_a_watch_that_cannot_write_what_it_finds_is_not_waited_for_for_ever(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_probation(world)
    monkeypatch.setattr(watcher, "start", lambda *_: None)
    began = world.clock.now
    with pytest.raises(SwitchyardError, match=r"got no further for 60 s: is .* full") as caught:
        phases.watch(world.begun(), records.load(world.paths, B))
    assert caught.value.code is Exit.INCONCLUSIVE
    assert 60 <= world.clock.now - began < 70
