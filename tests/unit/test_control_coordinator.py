"""Several hosts as one: whatever breaks on one of them, all end on one release."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from switchyard import chain
from switchyard.control import edges, survey
from switchyard.data import point
from switchyard.engine import lease
from switchyard.engine.ledger import Ledger
from switchyard.engine.operation import Operation
from switchyard.engine.probe import Answer
from switchyard.errors import Exit, SwitchyardError
from switchyard.names import COLOURS
from switchyard.report import story
from switchyard.watch import state
from tests.unit.engine_world import NAME
from tests.unit.fleet_world import ADDRESSES, APP_1, APP_2, APP_3, DB_1, EDGE_1, EDGE_2, Fleet, Killed, Wire, make_fleet

SMALL = {EDGE_1: ["edge"], APP_1: ["app"], APP_2: ["app"]}
PAIR = {**SMALL, EDGE_2: ["edge"]}


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Fleet]:
    with make_fleet(monkeypatch, tmp_path, SMALL) as fleet:
        yield fleet


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Fleet]:
    with make_fleet(monkeypatch, tmp_path, PAIR) as fleet:
        yield fleet


def hosts(*addresses: str) -> list[str]:
    return [name for address in addresses for name, known in ADDRESSES.items() if address.startswith(f"{known}:")]


def whole(fleet: Fleet, version: str) -> None:
    """Every edge serves this version from every application host, and nothing else is in the upstream."""
    for edge in fleet.names("edge"):
        pointer = fleet.pointer(edge)
        assert pointer is not None
        assert fleet.serves(edge) == version
        assert not pointer.probation and not pointer.rolling
        assert hosts(*fleet.upstream(edge)) == fleet.names("app")
        for app in fleet.names("app"):
            assert fleet.runs(app, pointer.colour) == version


# The healthy way


def test_a_release_goes_to_every_host_and_the_edge_spreads_over_them(fleet: Fleet) -> None:
    done = fleet.deploy("1.0.0")
    assert (done["code"], done["message"]) == (0, "0001-1.0.0 is live on blue (app1, app2)."), fleet.said
    whole(fleet, "1.0.0")
    done = fleet.deploy("1.1.0")
    assert (done["code"], done["release"], done["previous"], done["colour"]) == (0, "0002-1.1.0", "0001-1.0.0", "green")
    whole(fleet, "1.1.0")
    assert [fleet.runs(app, "blue") for app in fleet.names("app")] == ["1.0.0", "1.0.0"]


def test_what_is_asked_for_already_changes_nothing(fleet: Fleet) -> None:
    fleet.deploy("1.0.0")
    done = fleet.deploy("1.0.0")
    assert (done["code"], done["changed"], done["release"]) == (0, False, "0001-1.0.0")
    whole(fleet, "1.0.0")


def test_rounds_do_not_grow_with_the_hosts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rounds = set()
    for count in (1, 2, 3):
        groups = {EDGE_1: ["edge"]} | {name: ["app"] for name in (APP_1, APP_2, APP_3)[:count]}
        with make_fleet(monkeypatch, tmp_path / str(count), groups) as fleet:
            fleet.deploy("1.0.0")
            rounds.add(fleet.deploy("1.1.0")["data"]["rounds"])
    assert len(rounds) == 1


def test_several_instances_are_each_in_the_upstream_and_ejected_one_by_one(fleet: Fleet) -> None:
    fleet.deploy("1.0.0", service={"instances": 3})
    text = fleet.machines[EDGE_1].loaded["shop-test"]
    assert len(fleet.upstream(EDGE_1)) == 6
    assert text.count("max_fails=2 fail_timeout=5s") == 6


def test_every_host_that_is_both_edge_and_application_host_is_a_fleet_as_well(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with make_fleet(monkeypatch, tmp_path, {APP_1: ["app", "edge"], APP_2: ["app", "edge"]}) as fleet:
        for version in ("1.0.0", "1.1.0"):
            assert fleet.deploy(version)["code"] == 0, fleet.said
            whole(fleet, version)
        assert fleet.rollback()["code"] == 0
        whole(fleet, "1.0.0")


def test_the_ledger_is_on_every_host_the_same_and_secrets_are_on_application_hosts_alone(pair: Fleet) -> None:
    secret: dict[str, Any] = {
        "secrets": {"TOKEN": {"value": "unseen", "uid": 0}},
        "service": {"secrets": ["TOKEN"]},
    }
    assert pair.deploy("1.0.0", **secret)["code"] == 0, pair.said
    ledgers = {host: pair.history(host) for host in PAIR}
    assert all(ledger == ledgers[EDGE_1] for ledger in ledgers.values())
    assert [event["event"] for event in ledgers[EDGE_1]] == ["start", "live", "end"]
    for host, groups in PAIR.items():
        found = [path for path in (pair.root / host).rglob("*") if path.is_file() and b"unseen" in path.read_bytes()]
        assert [path.name for path in found] == (["TOKEN"] if "app" in groups else [])


def test_a_secret_that_changed_is_in_the_ledger_of_every_host_once(fleet: Fleet) -> None:
    for version, value in (("1.0.0", "unseen-1"), ("1.1.0", "unseen-2")):
        secret: dict[str, Any] = {"secrets": {"TOKEN": {"value": value, "uid": 0}}, "service": {"secrets": ["TOKEN"]}}
        assert fleet.deploy(version, **secret)["code"] == 0, fleet.said
    for host in SMALL:
        keys = [(e["subject"], e["outcome"]) for e in fleet.history(host) if e["event"] == "key"]
        assert keys == [("TOKEN", "changed")]


# A database on a host of its own

MIGRATION = {"service": "api", "command": ["up"], "current": ["current"]}


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Fleet]:
    def make(op: Operation, release: str, *, contracts: bool) -> None:
        # Elsewhere there is no backup, so nothing is made.
        if op.host.name == DB_1:
            op.ledger.append("restore-point", op=op.id, release=release, contracts=contracts)

    monkeypatch.setattr(point, "make", make)
    with make_fleet(monkeypatch, tmp_path, SMALL | {DB_1: ["db"]}) as fleet:
        yield fleet


def points(fleet: Fleet, host: str) -> list[tuple[str, bool]]:
    return [(e["release"], e["contracts"]) for e in fleet.history(host) if e["event"] == "restore-point"]


def test_its_restore_point_is_made_before_a_migration_that_runs_elsewhere(apart: Fleet) -> None:
    # What a host of the database alone is asked has nothing to do with instances.
    apart.machines[APP_1].revisions = ["r1", "r2"]
    assert apart.deploy("1.0.0", migration=MIGRATION)["code"] == 0, apart.said
    assert apart.calls.index((DB_1, "point")) < apart.calls.index((APP_1, "migrate"))
    assert [points(apart, host) for host in (DB_1, EDGE_1, APP_2)] == [[("0001-1.0.0", False)]] * 3
    assert apart.deploy("1.1.0", migration=MIGRATION, schema_epoch=2)["code"] == 0, apart.said
    assert points(apart, DB_1) == points(apart, EDGE_1) == [("0001-1.0.0", False), ("0002-1.1.0", True)]
    # What migrated already needs none.
    assert apart.deploy("1.1.0", migration=MIGRATION, schema_epoch=2, probation_seconds=1.0)["code"] == 0, apart.said
    assert len(points(apart, DB_1)) == 2
    assert [event["event"] for event in apart.history(DB_1)] == ["restore-point", "restore-point"]


def test_no_migration_begins_without_it(apart: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    apart.deploy("1.0.0", migration=MIGRATION)

    def refuse(*_: object, **__: object) -> None:
        raise SwitchyardError("No restore point could be made.", Exit.MIGRATION)

    monkeypatch.setattr(point, "make", refuse)
    apart.calls.clear()
    done = apart.deploy("1.1.0", migration=MIGRATION)
    assert (done["code"], done["message"].partition(".")[0]) == (Exit.MIGRATION, "db1: No restore point could be made")
    assert (APP_1, "migrate") not in apart.calls
    whole(apart, "1.0.0")


def test_a_deploy_needs_it_unless_it_is_excused_and_going_back_does_not(apart: Fleet) -> None:
    for version in ("1.0.0", "1.1.0"):
        apart.deploy(version, migration=MIGRATION)
    apart.wires[DB_1].cut = lambda _: "refused"
    with pytest.raises(SwitchyardError, match=r"db1 .*allow_unreachable=db1"):
        apart.deploy("1.2.0", migration=MIGRATION)
    assert apart.rollback()["code"] == 0, apart.said
    assert apart.deploy("1.2.0", migration=MIGRATION, excused=[DB_1])["code"] == 0, apart.said
    assert any("db1 takes no part, so no restore point" in line for line in apart.said)
    whole(apart, "1.2.0")


def test_what_a_restore_took_back_is_migrated_again(apart: Fleet) -> None:
    apart.deploy("1.0.0", migration=MIGRATION)
    until = apart.history(EDGE_1)[0]["time"]
    with apart.on(DB_1) as paths:
        Ledger.load(paths).append("restore", op="by-hand", until=until)
    apart.calls.clear()
    assert apart.deploy("1.1.0", service={"tag": "1.0.0"}, migration=MIGRATION)["code"] == 0, apart.said
    assert (DB_1, "point") in apart.calls
    clean = [e["release"] for e in apart.history(EDGE_1) if e["event"] == "migration" and e["state"] == "clean"]
    assert clean == ["0001-1.0.0", "0002-1.1.0"]


def test_it_is_made_as_well_for_one_host_that_is_everything_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def make(op: Operation, release: str, *, contracts: bool) -> None:
        if op.host.name == DB_1:
            op.ledger.append("restore-point", op=op.id, release=release, contracts=contracts)

    monkeypatch.setattr(point, "make", make)
    with make_fleet(monkeypatch, tmp_path, {APP_1: ["app", "edge"], DB_1: ["db"]}) as fleet:
        for version in ("1.0.0", "1.1.0", "1.1.0"):
            assert fleet.release(version, migration=MIGRATION)["code"] == 0, fleet.said
        assert points(fleet, DB_1) == [("0001-1.0.0", False), ("0002-1.1.0", False)]
        assert fleet.serves(APP_1) == "1.1.0"
        fleet.wires[DB_1].cut = lambda _: "refused"
        with pytest.raises(SwitchyardError, match=r"db1 cannot be reached.* Nothing was changed") as error:
            fleet.release("1.2.0", migration=MIGRATION)
        assert error.value.code is Exit.UNREACHABLE and fleet.serves(APP_1) == "1.1.0"
        assert fleet.release("1.2.0", excused=[DB_1], migration=MIGRATION)["code"] == 0, fleet.said
        assert fleet.serves(APP_1) == "1.2.0"


# Going back


def test_a_rollback_flips_every_edge_to_the_warm_release(pair: Fleet) -> None:
    pair.deploy("1.0.0")
    pair.deploy("1.1.0")
    done = pair.rollback()
    assert (done["code"], done["release"]) == (0, "0001-1.0.0"), pair.said
    whole(pair, "1.0.0")
    assert pair.rollback("1.1.0")["code"] == 0
    whole(pair, "1.1.0")


def test_a_rollback_to_an_older_release_starts_it_everywhere(fleet: Fleet) -> None:
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        fleet.deploy(version)
    assert fleet.rollback("1.0.0")["code"] == 0, fleet.said
    whole(fleet, "1.0.0")


def test_a_rollback_that_cannot_be_is_refused_with_its_own_code(fleet: Fleet) -> None:
    fleet.deploy("1.0.0")
    for wanted, code in (("1.0.0", Exit.ALREADY_LIVE), ("7.7.7", Exit.UNKNOWN_RELEASE), ("", Exit.UNKNOWN_RELEASE)):
        with pytest.raises(SwitchyardError) as error:
            fleet.rollback(wanted)
        assert error.value.code is code
    assert fleet.deploy("1.1.0")["code"] == 0


# One host broken in every phase


def killed(fleet: Fleet, host: str, verb: str) -> None:
    def cut(what: dict[str, Any]) -> str:
        if what["verb"] == verb:
            fleet.machines[host].dies_after = 1
            fleet.wires[host].cut = lambda _: ""
        return ""

    fleet.wires[host].cut = cut


def _from(fleet: Fleet, host: str, verb: str, act: Callable[[], str]) -> None:
    begun: list[str] = []

    def cut(what: dict[str, Any]) -> str:
        begun.extend([verb] if what["verb"] == verb else [])
        return act() if begun else ""

    fleet.wires[host].cut = cut


def ssh_gone(fleet: Fleet, host: str, verb: str) -> None:
    _from(fleet, host, verb, lambda: "refused")


def frozen(fleet: Fleet, host: str, verb: str) -> None:
    def act() -> str:
        fleet.machines[host].up = False
        return "gone"

    _from(fleet, host, verb, act)


def docker_gone(fleet: Fleet, host: str, verb: str) -> None:
    def act() -> str:
        fleet.machines[host].docker = False
        return ""

    _from(fleet, host, verb, act)


def disk_full(fleet: Fleet, host: str, verb: str) -> None:
    def act() -> str:
        fleet.machines[host].full = True
        return ""

    _from(fleet, host, verb, act)


def unhealthy(fleet: Fleet, host: str, verb: str) -> None:
    def act() -> str:
        fleet.machines[host].sick |= {"0002-1.1.0", "0003-1.2.0"}
        return ""

    _from(fleet, host, verb, act)


def ill(fleet: Fleet, host: str, verb: str) -> None:
    def act() -> str:
        fleet.machines[host].sick |= {"0001-1.0.0", "0002-1.1.0"}
        return ""

    _from(fleet, host, verb, act)


def heal(fleet: Fleet) -> None:
    for name, machine in fleet.machines.items():
        machine.up, machine.docker, machine.full, machine.dies_after = True, True, False, -1
        machine.sick.clear()
        fleet.wires[name].cut = lambda _: ""


CASES = [(APP_2, verb) for verb in ("prepare", "start", "settle")] + [
    (EDGE_1, verb) for verb in ("begin", "check", "switch", "watch", "end")
]
BREAKAGES = [killed, ssh_gone, frozen, docker_gone, disk_full, unhealthy]


@pytest.mark.parametrize("breakage", BREAKAGES, ids=lambda f: f.__name__)
@pytest.mark.parametrize(("host", "verb"), CASES)
def test_a_deploy_ends_on_one_release_whatever_breaks(
    fleet: Fleet, host: str, verb: str, breakage: Callable[[Fleet, str, str], None]
) -> None:
    fleet.deploy("1.0.0")
    breakage(fleet, host, verb)
    try:
        done = fleet.deploy("1.1.0")
        code = done["code"]
    except SwitchyardError as error:
        code = int(error.code)
    # An edge alone that is cut off in the middle cannot be put back; what it serves is one whole release all the same.
    assert fleet.serves(EDGE_1) == ("1.1.0" if code == 0 else fleet.serves(EDGE_1)) in ("1.0.0", "1.1.0")
    heal(fleet)
    fleet.expire()
    report = survey.survey(fleet.members(), "shop-test")
    assert not report["mixed"]
    assert fleet.deploy("1.1.0")["code"] == 0, fleet.said
    whole(fleet, "1.1.0")


@pytest.mark.parametrize("breakage", BREAKAGES[:5], ids=lambda f: f.__name__)
@pytest.mark.parametrize(("host", "verb"), [(APP_2, "start"), (APP_2, "settle"), (EDGE_1, "check"), (EDGE_1, "switch")])
def test_a_rollback_ends_on_one_release_whatever_breaks(
    fleet: Fleet, host: str, verb: str, breakage: Callable[[Fleet, str, str], None]
) -> None:
    fleet.deploy("1.0.0")
    fleet.deploy("1.1.0")
    breakage(fleet, host, verb)
    done = fleet.rollback()
    assert fleet.serves(EDGE_1) == "1.0.0" if done["code"] == 0 else fleet.serves(EDGE_1) in ("1.0.0", "1.1.0")
    heal(fleet)
    fleet.expire()
    if fleet.serves(EDGE_1) == "1.1.0":
        assert fleet.rollback("1.0.0")["code"] == 0, fleet.said
    fleet.deploy("1.0.0")
    whole(fleet, "1.0.0")


def test_a_release_that_is_not_healthy_on_one_host_goes_nowhere(fleet: Fleet) -> None:
    fleet.deploy("1.0.0")
    fleet.machines[APP_2].sick.add("0002-1.1.0")
    done = fleet.deploy("1.1.0")
    assert done["code"] == Exit.UNHEALTHY
    assert done["message"].startswith("app2: ") and done["message"].endswith(
        "0001-1.0.0 serves, on every edge that can be reached."
    )
    whole(fleet, "1.0.0")
    assert [fleet.runs(app, "green") for app in fleet.names("app")] == ["", ""]


def verdicts(fleet: Fleet) -> list[dict[str, Any]]:
    """What the ledger has of the watches."""
    return [event for event in fleet.history(EDGE_1) if event["event"] == "verdict"]


def test_a_release_that_passes_its_probation_leaves_the_verdict_in_the_ledger(pair: Fleet) -> None:
    pair.deploy("1.0.0")
    assert pair.deploy("1.1.0", probation_seconds=10.0)["code"] == 0, pair.said
    (found,) = verdicts(pair)
    assert (found["release"], found["verdict"], found["host"]) == ("0002-1.1.0", "pass", EDGE_1)
    assert {"requests", "errors", "p95", "old_requests", "old_errors", "seconds"} <= found.keys()
    assert [event for event in pair.history(EDGE_1) if event["event"] == "end"][-1].get("requests") == 0


def test_the_end_in_the_ledger_counts_the_requests_of_all_edges() -> None:
    told: list[dict[str, Any]] = [
        {"event": {"requests": 100, "errors": 1, "p95": 0.1}},
        {"event": {"requests": 20, "errors": 0}},
        {"event": {}},
    ]
    assert edges.seen(told) == {"requests": 120, "errors": 1}
    assert edges.seen([{"event": {}}]) == {}


def test_a_release_that_fails_on_probation_is_taken_back_everywhere_and_marked_bad(pair: Fleet) -> None:
    pair.deploy("1.0.0")

    def sicken() -> None:
        for machine in pair.machines.values():
            if (pointer := pair.pointer(EDGE_2)) and pointer.release == "0002-1.1.0":
                machine.sick.add("0002-1.1.0")

    pair.clock.on_sleep = sicken
    done = pair.deploy("1.1.0", probation_seconds=10.0)
    assert done["code"] == Exit.REVERTED, pair.said
    whole(pair, "1.0.0")
    assert [event["release"] for event in pair.history(EDGE_2) if event["event"] == "bad"] == ["0002-1.1.0"]
    assert [stay.verdict for stay in story.stays(pair.history(EDGE_1))] == ["good", "bad", "good"]
    assert [event["verdict"] for event in verdicts(pair)] == ["revert"]
    with pytest.raises(SwitchyardError) as error:
        pair.rollback("1.1.0")
    assert error.value.code is Exit.NEVER_HEALTHY


# Two edges


def dying_at(fleet: Fleet, verb: str) -> Callable[[dict[str, Any]], str]:
    """The coordinator dies when an edge is given this order: from then on nobody hears of it."""

    def cut(what: dict[str, Any]) -> str:
        if what["verb"] != verb:
            return ""
        for wire in fleet.wires.values():
            wire.cut = lambda _: "refused"
        return "refused"

    return cut


def test_when_one_edge_cannot_follow_all_go_back(pair: Fleet) -> None:
    pair.deploy("1.0.0")
    pair.machines[EDGE_2].takes_up = False
    done = pair.deploy("1.1.0")
    assert done["code"] == Exit.REVERTED
    whole(pair, "1.0.0")


@pytest.mark.parametrize("late", [EDGE_1, EDGE_2])
@pytest.mark.parametrize("answers", [True, False])
def test_an_edge_that_has_moved_does_not_wait_for_one_that_is_silent(
    pair: Fleet, late: str, answers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair.deploy("1.0.0")
    monkeypatch.setattr(edges, "ANSWER_SECONDS", 0.05)
    other = EDGE_2 if late == EDGE_1 else EDGE_1
    seen: list[str] = []
    back, passed = threading.Event(), {edge: pair.wires[edge].run for edge in (late, other)}

    def look(argv: Any, stdin: str = "", *_: float) -> Any:
        answer = passed[other](argv, stdin)
        seen.append(pair.serves(other))
        if seen[-1] == "1.0.0" and "1.1.0" in seen:
            back.set()
        return answer

    def wait(argv: Any, stdin: str = "", *_: float) -> Any:
        if '"verb": "switch"' in stdin and not back.is_set():
            assert back.wait(30), "the other edge goes on with what this one does not have"
            if not answers:
                pair.wires[late].cut = lambda _: "refused"
        return passed[late](argv, stdin)

    monkeypatch.setattr(pair.wires[other], "run", look)
    monkeypatch.setattr(pair.wires[late], "run", wait)
    done = pair.deploy("1.1.0")
    assert done["code"] == Exit.REVERTED and late in done["message"], done
    assert {pair.serves(edge) for edge in (late, other)} == {"1.0.0"}
    monkeypatch.setattr(edges, "ANSWER_SECONDS", 600.0)
    heal(pair)
    pair.expire()
    assert pair.deploy("1.1.0")["code"] == 0, pair.said
    whole(pair, "1.1.0")


@pytest.mark.parametrize("first", [EDGE_1, EDGE_2])
@pytest.mark.parametrize("again", ["deploy", "rollback", "rollback 1.0.0", "rollback 0001-1.0.0", "other", "recover"])
def test_a_coordinator_that_dies_between_two_edges_leaves_a_lease_that_ends_and_the_next_command_converges(
    pair: Fleet, first: str, again: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair.deploy("1.0.0")
    second = EDGE_2 if first == EDGE_1 else EDGE_1

    # The other edge has its order already when the coordinator dies.
    pair.wires[second].cut = dying_at(pair, "switch")
    late = pair.wires[first].run
    switched: list[str] = []

    def run(argv: Any, stdin: str = "", *_: float) -> Any:
        if '"verb": "switch"' in stdin and not switched:
            switched.append(first)
            with pair.lock:
                pair.at(first, list(argv[3:]), stdin)
            raise Killed
        return late(argv, stdin)

    monkeypatch.setattr(pair.wires[first], "run", run)
    with pytest.raises(Killed):
        pair.deploy("1.1.0")
    heal(pair)
    assert {pair.serves(first), pair.serves(second)} == {"1.0.0", "1.1.0"}
    report = survey.survey(pair.members(), "shop-test")
    assert report["mixed"] and "mixed" in report["disagreements"][0]
    with pytest.raises(SwitchyardError, match="Another operation holds") as error:
        pair.deploy("1.1.0")
    assert error.value.code is Exit.BUSY
    pair.expire()
    if again == "recover":
        assert pair.coordinator().tidy("recover", "tester", -1)["code"] == 0
        wanted = "1.1.0" if first == EDGE_1 else "1.0.0"
    elif again.startswith("rollback"):
        assert pair.rollback(again.removeprefix("rollback").strip())["code"] == 0, pair.said
        wanted = "1.0.0"
    else:
        wanted = "1.1.0" if again == "deploy" else "1.2.0"
        assert pair.deploy(wanted)["code"] == 0, pair.said
    whole(pair, wanted)
    assert not survey.survey(pair.members(), "shop-test")["mixed"]


def lose_control(fleet: Fleet, verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The coordinator dies when every edge has this order: they carry it out, and nobody hears of it."""
    every = threading.Barrier(len(fleet.names("edge")))

    def carried_out_unheard(wire: Wire) -> Callable[..., Any]:
        late = wire.run

        def run(argv: Any, stdin: str = "", *_: float) -> Any:
            if f'"verb": "{verb}"' not in stdin:
                return late(argv, stdin)
            # An order that is still waiting for its thread when another one's has died is never given.
            every.wait(60)
            with fleet.lock:
                fleet.at(wire.host, list(argv[3:]), stdin)
            monkeypatch.setattr(wire, "run", late)
            raise Killed

        return run

    for edge in fleet.names("edge"):
        monkeypatch.setattr(fleet.wires[edge], "run", carried_out_unheard(fleet.wires[edge]))


@pytest.mark.parametrize("bad", [EDGE_1, EDGE_2])
@pytest.mark.parametrize("again", ["deploy", "rollback", "recover"])
def test_what_one_edge_took_back_while_nobody_led_is_taken_back_by_all(
    pair: Fleet, bad: str, again: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair.deploy("1.0.0")

    def sicken() -> None:
        pointer = pair.pointer(bad)
        sick = pair._here == bad and pointer and pointer.release == "0002-1.1.0"
        for machine in pair.machines.values():
            machine.sick = {"0002-1.1.0"} if sick else set()

    pair.clock.on_sleep = sicken
    lose_control(pair, "watch", monkeypatch)
    with pytest.raises(Killed):
        pair.deploy("1.1.0", probation_seconds=10.0)
    pair.clock.on_sleep = lambda: None
    heal(pair)
    assert {edge: pair.serves(edge) for edge in (EDGE_1, EDGE_2)} == {EDGE_1: "1.1.0", EDGE_2: "1.1.0"} | {bad: "1.0.0"}
    assert "watch.revert" in pair.news(bad)
    pair.expire()
    if again == "recover":
        assert pair.coordinator().tidy("recover", "tester", -1)["code"] == 0, pair.said
    elif again == "rollback":
        assert pair.rollback()["code"] == 0, pair.said
    else:
        assert pair.deploy("1.2.0")["code"] == 0, pair.said
    whole(pair, "1.2.0" if again == "deploy" else "1.0.0")
    history = pair.history(EDGE_1)
    assert [(event["verdict"], event["host"]) for event in verdicts(pair)][:1] == [("revert", bad)]
    assert [stay.verdict for stay in story.stays(history)][:2] == ["good", "bad"]
    assert {event["release"] for event in history if event["event"] == "bad"} == {"0002-1.1.0"}
    assert "deploy.interrupted" in pair.news(EDGE_1)
    # It was followed once: what somebody makes live afterwards stays.
    pair.deploy("1.3.0")
    whole(pair, "1.3.0")
    assert [event["release"] for event in verdicts(pair)].count("0002-1.1.0") == 1


# Hosts that are away, new, or gone


def test_an_unreachable_host_is_named_and_nothing_is_changed(pair: Fleet) -> None:
    pair.deploy("1.0.0")
    pair.wires[APP_2].cut = lambda _: "refused"
    with pytest.raises(SwitchyardError, match=r"app2 .*allow_unreachable=app2") as error:
        pair.deploy("1.1.0")
    assert error.value.code is Exit.UNREACHABLE
    assert pair.serves(EDGE_1) == "1.0.0"
    assert [event["event"] for event in pair.history(EDGE_1)] == ["start", "live", "end"]


@pytest.mark.parametrize("act", ["deploy", "rollback", "recover"])
def test_a_host_whose_docker_does_not_answer_is_named_with_the_reason_and_may_be_excused(
    fleet: Fleet, act: str
) -> None:
    fleet.deploy("1.0.0")
    fleet.deploy("1.1.0")
    before = fleet.history(EDGE_1)
    fleet.machines[APP_2].docker = False

    def command(excused: list[str]) -> dict[str, Any]:
        if act == "deploy":
            return fleet.deploy("1.2.0", excused)
        return fleet.rollback("", excused) if act == "rollback" else fleet.coordinator(excused).tidy(act, "tester", -1)

    with pytest.raises(SwitchyardError, match=r"app2 \(Docker does not answer .*allow_unreachable=app2") as error:
        command([])
    assert error.value.code is Exit.UNREACHABLE and "nothing was changed" in error.value.message
    assert fleet.history(EDGE_1) == before
    assert command([APP_2])["code"] == 0, fleet.said
    assert hosts(*fleet.upstream(EDGE_1)) == ([APP_1, APP_2] if act == "recover" else [APP_1])
    heal(fleet)
    assert fleet.deploy("1.3.0")["code"] == 0, fleet.said
    whole(fleet, "1.3.0")


def test_a_host_with_another_engine_is_told_so_whoever_is_excused(fleet: Fleet) -> None:
    request = fleet.request("1.0.0") | {"engine": "switchyard-other.pyz"}
    with pytest.raises(SwitchyardError, match=r"has switchyard-test.pyz, .* run provision.yml first") as error:
        fleet.coordinator([APP_2]).deploy(request)
    assert error.value.code is Exit.ENGINE_MISMATCH


def test_an_excused_host_is_left_out_and_brought_up_to_date_by_the_next_deploy(fleet: Fleet) -> None:
    fleet.deploy("1.0.0")
    fleet.wires[APP_2].cut = lambda _: "refused"
    done = fleet.deploy("1.1.0", excused=[APP_2])
    assert done["code"] == 0 and "Without app2" in done["message"]
    assert hosts(*fleet.upstream(EDGE_1)) == [APP_1]
    heal(fleet)
    report = survey.survey(fleet.members(), "shop-test")
    assert any("app2 has no part in 0002-1.1.0" in item for item in report["disagreements"]), report
    assert fleet.deploy("1.1.0")["code"] == 0, fleet.said
    whole(fleet, "1.1.0")


def test_a_host_that_was_added_gets_the_next_release(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with make_fleet(monkeypatch, tmp_path, SMALL | {APP_3: ["app"]}) as fleet:
        third = fleet.wires.pop(APP_3)
        del fleet.groups[APP_3]
        fleet.deploy("1.0.0")
        fleet.wires[APP_3], fleet.groups[APP_3] = third, ["app"]
        assert fleet.deploy("1.0.0")["changed"], fleet.said
        whole(fleet, "1.0.0")
        assert fleet.deploy("1.0.0")["changed"] is False


@pytest.mark.parametrize("lost", [[APP_2], [EDGE_1], [EDGE_2], [EDGE_1, EDGE_2], [EDGE_1, APP_1, APP_2, EDGE_2]])
def test_hosts_that_were_lost_are_rebuilt_by_a_deploy(pair: Fleet, lost: list[str]) -> None:
    pair.deploy("1.0.0")
    pair.deploy("1.1.0")
    before = pair.history(EDGE_1)
    with pair.on(EDGE_1) as paths:
        pair.copy.write_bytes(paths.ledger.read_bytes())
    for host in lost:
        shutil.rmtree(pair.root / host)
        pair.build(host)
    done = pair.deploy("1.1.0")
    assert done["code"] == 0, pair.said
    whole(pair, "1.1.0")
    # A number never repeats, and the chain goes on where it ended.
    assert done["release"] == ("0002-1.1.0" if lost == [EDGE_2] else "0003-1.1.0")
    with pair.on(EDGE_1) as paths:
        assert paths.ledger.read_bytes().startswith(pair.copy.read_bytes())
        assert chain.check(str(NAME), paths.ledger.read_bytes()) == []
    assert pair.history(EDGE_1)[: len(before)] == before
    for colour in COLOURS:
        assert pair.runs(APP_1, colour) in ("", "1.0.0", "1.1.0")


def test_a_copy_that_was_changed_is_no_beginning(fleet: Fleet) -> None:
    fleet.deploy("1.0.0")
    with fleet.on(EDGE_1) as paths:
        fleet.copy.write_bytes(paths.ledger.read_bytes().replace(b"0001-1.0.0", b"0009-1.0.0", 1))
    for host in SMALL:
        shutil.rmtree(fleet.root / host)
        fleet.build(host)
    with pytest.raises(SwitchyardError, match=r"copy\.jsonl was changed \(line \d was edited.* move it away") as error:
        fleet.deploy("1.1.0")
    assert error.value.code is Exit.PREFLIGHT and fleet.history(EDGE_1) == []
    fleet.copy.unlink()
    assert fleet.deploy("1.1.0")["release"] == "0001-1.1.0"


def test_a_reboot_finds_what_is_live_without_anybody(fleet: Fleet) -> None:
    fleet.deploy("1.0.0")
    for container in fleet.machines[APP_1].containers.values():
        container["State"] = "exited"
    said = fleet.at(APP_1, ["recover", "--boot"])
    assert said.code == 0, said
    whole(fleet, "1.0.0")


# A canary on two edges


CANARY = {"steps": [5, 50], "seconds": 10.0}


def shares(fleet: Fleet) -> list[int]:
    """The percentage of the clients that the release on each edge has."""
    return [pointer.share for edge in fleet.names("edge") if (pointer := fleet.pointer(edge))]


def test_a_canary_takes_each_step_on_every_edge_before_the_next(pair: Fleet) -> None:
    pair.deploy("1.0.0", canary=CANARY)
    whole(pair, "1.0.0")
    seen: list[list[int]] = []

    def look(what: dict[str, Any]) -> str:
        if what["verb"] in ("watch", "end"):
            seen.append(shares(pair))
        return ""

    pair.wires[EDGE_1].cut = look
    done = pair.deploy("1.1.0", canary=CANARY)
    assert done["code"] == 0, pair.said
    # Each watch begins with all edges at the same share; only within a promotion may they differ.
    assert seen == [[5, 5], [50, 50], [100, 100], [100, 100]]
    assert [event["share"] for event in pair.history(EDGE_2) if event["event"] == "canary"] == [50, 100]
    whole(pair, "1.1.0")
    assert pair.rollback()["code"] == 0
    whole(pair, "1.0.0")


@pytest.mark.parametrize("bad", [EDGE_1, EDGE_2])
@pytest.mark.parametrize("share", [5, 50, 100])
def test_a_canary_that_one_edge_takes_back_is_taken_back_by_all(pair: Fleet, bad: str, share: int) -> None:
    pair.deploy("1.0.0")

    def sicken() -> None:
        pointer = pair.pointer(bad)
        sick = pair._here == bad and pointer and pointer.release == "0002-1.1.0" and pointer.share == share
        for machine in pair.machines.values():
            machine.sick = {"0002-1.1.0"} if sick else set()

    pair.clock.on_sleep = sicken
    done = pair.deploy("1.1.0", canary=CANARY, probation_seconds=10.0)
    assert done["code"] == Exit.REVERTED, pair.said
    assert done["message"].endswith("0001-1.0.0 is live again. 0001-1.0.0 serves, on every edge that can be reached.")
    whole(pair, "1.0.0")
    assert shares(pair) == [100, 100]
    assert [event["release"] for event in pair.history(EDGE_1) if event["event"] == "bad"] == ["0002-1.1.0"]


@pytest.mark.parametrize("first", [EDGE_1, EDGE_2])
@pytest.mark.parametrize("again", ["deploy", "rollback", "recover"])
def test_a_canary_whose_coordinator_dies_between_two_edges_goes_back_first(pair: Fleet, first: str, again: str) -> None:
    pair.deploy("1.0.0")
    second = EDGE_2 if first == EDGE_1 else EDGE_1

    pair.wires[second].cut = dying_at(pair, "promote")
    pair.deploy("1.1.0", canary=CANARY)
    heal(pair)
    pair.expire()
    if again == "recover":
        assert pair.coordinator().tidy("recover", "tester", -1)["code"] == 0, pair.said
        whole(pair, "1.0.0")
    elif again == "rollback":
        assert pair.rollback()["code"] == 0, pair.said
        whole(pair, "1.0.0")
    else:
        assert pair.deploy("1.1.0", canary=CANARY)["code"] == 0, pair.said
        whole(pair, "1.1.0")
    assert shares(pair) == [100, 100]


def dies_at_the_second_step(pair: Fleet, version: str) -> None:
    """The control machine is lost when the edges are to give a canary its next share."""

    def die(what: dict[str, Any]) -> str:
        if what["verb"] == "promote":
            raise Killed
        return ""

    for edge in (EDGE_1, EDGE_2):
        pair.wires[edge].cut = die
    with pytest.raises(Killed):
        pair.deploy(version, canary=CANARY)
    assert shares(pair) == [5, 5]


def test_a_canary_that_nobody_leads_on_goes_back_by_itself(pair: Fleet) -> None:
    pair.deploy("1.0.0")
    dies_at_the_second_step(pair, "1.1.0")
    for edge in (EDGE_1, EDGE_2):
        with pair.on(edge) as paths:
            known = state.load(paths)
        # What systemd does with a unit that died.
        assert known and pair.at(edge, ["watch", str(NAME), known.op]).code == 0
    whole(pair, "1.0.0")


# A canary that waits for a person

MANUAL = CANARY | {"manual": True}


def while_waiting(fleet: Fleet, act: Callable[[], object]) -> None:
    """Let something happen whenever the coordinator, and no host, waits."""

    def on_sleep() -> None:
        with fleet.lock:
            somewhere = fleet._here
        if not somewhere:
            act()

    fleet.clock.on_sleep = on_sleep


def watch_again(fleet: Fleet, edge: str) -> None:
    """What systemd does with a watch that died; in this world, one that waits has."""
    with fleet.on(edge) as paths:
        known = state.load(paths)
    assert known and fleet.at(edge, ["watch", str(NAME), known.op]).code == 0


def test_a_canary_by_hand_waits_for_a_person_at_each_step_and_moves_every_edge(pair: Fleet) -> None:
    pair.deploy("1.0.0")
    seen: list[list[int]] = []
    by = iter([EDGE_2, EDGE_1])

    def promote() -> None:
        seen.append(shares(pair))
        for edge in (EDGE_1, EDGE_2):
            with pair.on(edge) as paths:
                assert lease.holder(paths), edge
        # Far longer than a lease lives.
        if len(seen) % 100 == 0:
            assert pair.at(next(by), ["promote", str(NAME), "--who", "ann@desk"]).code == 0

    while_waiting(pair, promote)
    done = pair.deploy("1.1.0", canary=MANUAL)
    assert done["code"] == 0, pair.said
    assert seen == [[5, 5]] * 100 + [[50, 50]] * 100
    told = [(e["share"], e["who"], e["op"] == done["op"]) for e in pair.history(EDGE_2) if e["event"] == "canary"]
    assert told == [(50, "ann@desk", True), (100, "ann@desk", True)]
    reminded = [line for line in pair.said if "'scripts/switchyard promote test' gives it 50 %" in line]
    assert 1 < len(reminded) < 10
    whole(pair, "1.1.0")


@pytest.mark.parametrize("bad", [EDGE_1, EDGE_2])
def test_a_canary_that_one_edge_takes_back_while_it_waits_is_taken_back_by_all(pair: Fleet, bad: str) -> None:
    pair.deploy("1.0.0")

    def fail() -> None:
        for machine in pair.machines.values():
            machine.sick = {"0002-1.1.0"}
        watch_again(pair, bad)
        heal(pair)

    while_waiting(pair, fail)
    done = pair.deploy("1.1.0", canary=MANUAL)
    assert done["code"] == Exit.REVERTED and f"{bad}: 0002-1.1.0 failed as a canary: health of api" in done["message"]
    whole(pair, "1.0.0")
    assert [event["release"] for event in pair.history(EDGE_1) if event["event"] == "bad"] == ["0002-1.1.0"]
    assert [(event["verdict"], event["host"]) for event in verdicts(pair)] == [("revert", bad)]


def test_a_canary_that_waits_is_kept_while_it_is_led_and_goes_back_when_its_leader_dies(pair: Fleet) -> None:
    pair.deploy("1.0.0")

    def die() -> None:
        raise Killed

    while_waiting(pair, die)
    with pytest.raises(Killed):
        pair.deploy("1.1.0", canary=MANUAL)
    with pair.on(EDGE_1) as paths:
        held = lease.read(paths)
    assert held and shares(pair) == [5, 5]
    beaten: list[float] = []
    for edge in (EDGE_1, EDGE_2):
        until = pair.clock.now + 600

        def lead(edge: str = edge, until: float = until) -> None:
            if (beaten[-1] if beaten else 0.0) + 15 < pair.clock.now < until:
                beaten.append(pair.clock.now)
                pointer = pair.pointer(edge)
                assert pointer and pointer.share == 5
                pair.at(edge, ["beat", str(NAME), str(held.fence), "watch"])

        pair.clock.on_sleep = lead
        watch_again(pair, edge)
        assert pair.clock.now > until + 120
    assert len(beaten) > 60
    whole(pair, "1.0.0")


def test_nobody_promotes_what_nobody_leads_or_what_goes_on_by_itself(pair: Fleet) -> None:
    pair.deploy("1.0.0")
    refused: list[tuple[int, str]] = []

    def promote() -> None:
        answer = pair.at(EDGE_2, ["promote", str(NAME)])
        refused.append((answer.code, answer.err))
        raise Killed

    def early(what: dict[str, Any]) -> str:
        if what["verb"] == "promote" and what["order"]:
            promote()
        return ""

    pair.wires[EDGE_1].cut = early
    with pytest.raises(Killed):
        pair.deploy("1.1.0", canary=CANARY)
    assert refused[0][0] == Exit.USAGE and "follows by itself" in refused[0][1]
    heal(pair)
    pair.expire()

    def late() -> None:
        pair.expire()
        promote()

    while_waiting(pair, late)
    with pytest.raises(Killed):
        pair.deploy("1.2.0", canary=MANUAL)
    assert refused[1][0] == Exit.UNKNOWN_RELEASE and "deploy it again" in refused[1][1]


def test_a_rollback_ends_a_canary_that_waits_and_one_edge_is_never_aborted_alone(pair: Fleet) -> None:
    pair.deploy("1.0.0")
    done: list[dict[str, Any]] = []

    def go_back() -> None:
        answer = pair.at(EDGE_1, ["abort", str(NAME)])
        assert answer.code == Exit.USAGE and "scripts/rollback.sh test" in answer.err
        pair.clock.on_sleep = lambda: None
        done.append(pair.rollback())

    while_waiting(pair, go_back)
    deployed = pair.deploy("1.1.0", canary=MANUAL)
    assert (deployed["code"], done[0]["code"]) == (Exit.INTERRUPTED, 0), pair.said
    whole(pair, "1.0.0")
    assert shares(pair) == [100, 100]


def test_from_a_canary_every_edge_leaves_it_before_an_older_release_is_started(pair: Fleet) -> None:
    pair.deploy("1.0.0")
    pair.deploy("1.1.0")
    seen: list[tuple[str, str, list[int]]] = []

    def look(what: dict[str, Any]) -> str:
        if what["verb"] in ("drain", "start"):
            seen.append((what["verb"], pair.serves(EDGE_1) + pair.serves(EDGE_2), shares(pair)))
        return ""

    done: list[dict[str, Any]] = []

    def go_back() -> None:
        pair.clock.on_sleep = lambda: None
        for host in (EDGE_1, APP_1):
            pair.wires[host].cut = look
        done.append(pair.rollback("1.0.0"))

    while_waiting(pair, go_back)
    pair.deploy("1.2.0", canary=MANUAL)
    assert done[0]["code"] == 0, pair.said
    assert seen == [("drain", "1.1.01.1.0", [100, 100]), ("start", "1.1.01.1.0", [100, 100])]
    whole(pair, "1.0.0")
    assert {pair.runs(app, "green") for app in (APP_1, APP_2)} == {"1.1.0"}
    lives = [(event["release"], event.get("share")) for event in pair.history(EDGE_2) if event["event"] == "live"]
    assert lives[-3:] == [("0003-1.2.0", 5), ("0002-1.1.0", None), ("0001-1.0.0", None)]
    assert not [event for event in pair.history(EDGE_1) if event["event"] == "bad"]


@pytest.mark.parametrize("second", [EDGE_1, EDGE_2])
@pytest.mark.parametrize("again", ["", "1.0.0"])
def test_a_rollback_that_dies_while_edges_leave_a_canary_never_gives_it_to_everybody(
    pair: Fleet, second: str, again: str
) -> None:
    pair.deploy("1.0.0")
    pair.deploy("1.1.0")
    dies_at_the_second_step(pair, "1.2.0")
    heal(pair)
    pair.expire()
    pair.wires[second].cut = dying_at(pair, "switch")
    assert pair.rollback("1.0.0")["code"] != 0
    heal(pair)
    pair.expire()
    assert pair.rollback(again)["code"] == 0, pair.said
    whole(pair, again or "1.1.0")


def test_a_promotion_of_another_step_or_release_is_no_promotion(pair: Fleet) -> None:
    pair.deploy("1.0.0")
    others = iter([("0001-1.0.0", 50), ("0002-1.1.0", 5), ("0002-1.1.0", 100), ("0003-1.2.0", 50)])

    def promote() -> None:
        assert shares(pair) == [5, 5] or shares(pair) == [50, 50]
        if given := next(others, None):
            with pair.on(EDGE_1) as paths:
                state.give(paths, state.Promotion(*given, "somebody"))
            assert shares(pair) == [5, 5]
        else:
            pair.at(EDGE_1, ["promote", str(NAME)])

    while_waiting(pair, promote)
    assert pair.deploy("1.1.0", canary=MANUAL)["code"] == 0, pair.said
    assert next(others, None) is None
    whole(pair, "1.1.0")


def test_what_a_person_gave_every_client_is_judged_once_more(pair: Fleet) -> None:
    pair.deploy("1.0.0")

    def act() -> None:
        pointer = pair.pointer(EDGE_2)
        if not pair._here:
            pair.at(EDGE_1, ["promote", str(NAME)])
        elif pair._here == EDGE_2 and pointer and (pointer.release, pointer.share) == ("0002-1.1.0", 100):
            pair.machines[APP_1].sick = pair.machines[APP_2].sick = {"0002-1.1.0"}

    pair.clock.on_sleep = act
    done = pair.deploy("1.1.0", canary=MANUAL, probation_seconds=10.0)
    assert done["code"] == Exit.REVERTED, pair.said
    whole(pair, "1.0.0")


@pytest.mark.parametrize(("changes", "serves"), [({}, "1.1.0"), ({"canary": CANARY}, "1.0.0")])
def test_an_edge_that_cannot_measure_is_no_pass(pair: Fleet, changes: dict[str, Any], serves: str) -> None:
    pair.deploy("1.0.0")

    def blind() -> None:
        pointer = pair.pointer(EDGE_2)
        pair.machines[EDGE_2].edge = not (pair._here == EDGE_2 and pointer and pointer.probation)

    def back(what: dict[str, Any]) -> str:
        # It comes back when the coordinator has both verdicts.
        if what["verb"] == "switch" and not what["order"]["pointer"]["probation"]:
            pair.clock.on_sleep, pair.machines[EDGE_2].edge = lambda: None, True
        return ""

    pair.clock.on_sleep, pair.wires[EDGE_2].cut = blind, back
    done = pair.deploy("1.1.0", probation_seconds=60.0, **changes)
    assert done["code"] == Exit.INCONCLUSIVE, pair.said
    # Whoever has the clients, both run, and nobody is called bad who was not judged.
    whole(pair, serves)
    assert shares(pair) == [100, 100]
    runs = [{pair.runs(app, "blue"), pair.runs(app, "green")} for app in pair.names("app")]
    assert runs == [{"1.0.0", "1.1.0"}] * 2
    assert pair.history(EDGE_1)[-1]["outcome"] == "inconclusive"
    assert [event for event in pair.history(EDGE_1) if event["event"] == "bad"] == []
    assert [(event["verdict"], event["host"]) for event in verdicts(pair)] == [("inconclusive", EDGE_2)]
    assert (pair.news(EDGE_1) + pair.news(EDGE_2)).count("watch.inconclusive") == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"watch": "detached"}, "watch=detached' is for one host"),
        ({"rolling": 1}, "app_rolling leaves no old release to stand by"),
        ({"rolling": 1, "probation_seconds": 0.0, "canary": CANARY}, "app_rolling leaves no old release to stand by"),
    ],
)
def test_what_several_hosts_cannot_do_is_said_before_anything_is_asked(
    pair: Fleet, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(SwitchyardError, match=words) as error:
        pair.deploy("1.0.0", **changes)
    assert error.value.code is Exit.USAGE and pair.calls == []


def test_what_a_request_leaves_out_is_the_same_for_the_coordinator_as_for_hosts(pair: Fleet) -> None:
    pair.deploy("1.0.0")
    request = pair.request("1.1.0")
    del request["probation_seconds"]
    assert pair.coordinator().deploy(request)["code"] == 0
    assert "watch: 10 s on edge1, edge2" in pair.said
    whole(pair, "1.1.0")


def test_a_request_that_hosts_would_refuse_is_refused_before_anything_is_asked(pair: Fleet) -> None:
    with pytest.raises(SwitchyardError, match="app_retain: expected int") as error:
        pair.deploy("1.0.0", retain="3")
    assert error.value.code is Exit.USAGE and pair.calls == []


# Host after host


def test_rolling_moves_host_after_host_and_never_runs_both(fleet: Fleet) -> None:
    fleet.deploy("1.0.0")
    seen: list[tuple[list[str], str]] = []

    def look(what: dict[str, Any]) -> str:
        if what["verb"] == "start":
            seen.append((hosts(*fleet.upstream(EDGE_1)), what["order"]["release"]))
        return ""

    for app in (APP_1, APP_2):
        fleet.wires[app].cut = look
    done = fleet.deploy("1.1.0", rolling=1, probation_seconds=0.0)
    assert done["code"] == 0, fleet.said
    assert seen == [([APP_2], "0002-1.1.0"), ([APP_1], "0002-1.1.0")]
    whole(fleet, "1.1.0")
    assert [fleet.runs(app, "blue") for app in (APP_1, APP_2)] == ["", ""]
    assert fleet.rollback()["code"] == 0, fleet.said
    whole(fleet, "1.0.0")


@pytest.mark.parametrize("sick", [APP_1, APP_2])
def test_rolling_that_fails_on_a_host_goes_back_on_all(fleet: Fleet, sick: str) -> None:
    fleet.deploy("1.0.0")
    fleet.machines[sick].sick.add("0002-1.1.0")
    done = fleet.deploy("1.1.0", rolling=1, probation_seconds=0.0)
    assert done["code"] == Exit.REVERTED, fleet.said
    whole(fleet, "1.0.0")
    heal(fleet)
    assert fleet.deploy("1.1.0", rolling=1, probation_seconds=0.0)["code"] == 0
    whole(fleet, "1.1.0")


def outages(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Filled with every effect, on any host, at which an edge has nobody who answers."""
    seen: list[str] = []
    for machine in fleet.machines.values():

        def effect(name: str = machine.name, before: Callable[[], None] = machine.effect) -> None:
            before()
            seen.extend(f"{name}: {edge} serves nothing" for edge in fleet.names("edge") if not fleet.serves(edge))

        monkeypatch.setattr(machine, "effect", effect)
    return seen


@pytest.mark.parametrize("sick", [APP_1, APP_2])
def test_rolling_that_goes_back_never_stops_what_alone_serves(
    pair: Fleet, sick: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair.deploy("1.0.0")
    pair.machines[sick].sick.add("0002-1.1.0")
    nobody = outages(pair, monkeypatch)
    done = pair.deploy("1.1.0", rolling=1, probation_seconds=0.0)
    assert done["code"] == Exit.REVERTED and "Every host is back on 0001-1.0.0." in done["message"], pair.said
    assert nobody == []
    whole(pair, "1.0.0")
    # There is no room for both colours, so recovery has started none beside it.
    assert [pair.runs(app, "green") for app in pair.names("app")] == ["", ""]


def test_what_is_taken_back_is_drained_at_the_edge_first(fleet: Fleet) -> None:
    fleet.deploy("1.0.0")
    fleet.machines[APP_2].sick.add("0002-1.1.0")
    fleet.calls.clear()
    fleet.deploy("1.1.0", rolling=1, probation_seconds=0.0)
    orders = [call for call in fleet.calls if call[1] in ("start", "switch", "drain")]
    _, _, *back = [index for index, call in enumerate(orders) if call[1] == "start"]
    assert [orders[index - 2 : index + 1] for index in back] == [
        [(APP_2, "start"), (EDGE_1, "drain"), (APP_2, "start")],
        [(EDGE_1, "switch"), (EDGE_1, "drain"), (APP_1, "start")],
    ]


@pytest.mark.parametrize("breakage", [ssh_gone, docker_gone, ill], ids=lambda f: f.__name__)
def test_when_no_other_host_can_go_back_the_one_that_serves_goes_on(
    fleet: Fleet, breakage: Callable[[Fleet, str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.deploy("1.0.0")
    nobody = outages(fleet, monkeypatch)
    breakage(fleet, APP_2, "start")
    done = fleet.deploy("1.1.0", rolling=1, probation_seconds=0.0)
    assert done["code"] == Exit.FAILED and "No host could go back to 0001-1.0.0" in done["message"], fleet.said
    assert (fleet.serves(EDGE_1), nobody) == ("1.1.0", [])
    pointer = fleet.pointer(EDGE_1)
    assert pointer and not pointer.rolling and hosts(*fleet.upstream(EDGE_1)) == [APP_1]
    heal(fleet)
    assert fleet.deploy("1.1.0", rolling=1, probation_seconds=0.0)["code"] == 0, fleet.said
    whole(fleet, "1.1.0")


@pytest.mark.parametrize("again", ["deploy", "rollback"])
@pytest.mark.parametrize("all_moved", [False, True])
def test_rolling_whose_coordinator_dies_goes_back_first(fleet: Fleet, again: str, all_moved: bool) -> None:
    fleet.deploy("1.0.0")

    def die(what: dict[str, Any]) -> str:
        if what["verb"] == "start" or (what["verb"] == "switch" and not what["order"]["quiet"]):
            raise Killed
        return ""

    fleet.wires[EDGE_1 if all_moved else APP_2].cut = die
    with pytest.raises(Killed):
        fleet.deploy("1.1.0", rolling=1, probation_seconds=0.0)
    heal(fleet)
    fleet.expire()
    assert fleet.serves(EDGE_1) == "1.1.0"
    if again == "deploy":
        assert fleet.deploy("1.1.0", rolling=1, probation_seconds=0.0)["code"] == 0, fleet.said
        whole(fleet, "1.1.0")
    else:
        assert fleet.rollback()["code"] == 0, fleet.said
        whole(fleet, "1.0.0")


# Smoke tests through the edge


def smoke_test(**changes: Any) -> dict[str, Any]:
    return {"smoke_tests": [{"path": "/", "status": 418, "when": "after"} | changes]}


def wrong_through(fleet: Fleet, edge: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One edge answers what is asked through it otherwise than the instances do."""
    machine = fleet.machines[edge]
    before = machine.ask

    def ask(address: str, path: str, **options: Any) -> Answer:
        return Answer(500, {}, b"") if path.startswith("/via/") else before(address, path, **options)

    monkeypatch.setattr(machine, "ask", ask)


def bad(fleet: Fleet) -> list[str]:
    return [event["release"] for event in fleet.history(EDGE_1) if event["event"] == "bad"]


@pytest.mark.parametrize(
    "changes", [{"probation_seconds": 0.0}, {}, {"canary": CANARY}], ids=["plain", "watched", "canary"]
)
def test_what_fails_through_an_edge_after_the_switch_is_taken_back_on_all(pair: Fleet, changes: dict[str, Any]) -> None:
    pair.deploy("1.0.0")
    done = pair.deploy("1.1.0", **smoke_test(), **changes)
    assert done["code"] == Exit.REVERTED, pair.said
    assert "edge2: A smoke test failed through the edge: GET /: expected 418, got 200." in done["message"]
    assert "0001-1.0.0 is live again." in done["message"]
    whole(pair, "1.0.0")
    assert (bad(pair), done["release"]) == (["0002-1.1.0"], "0001-1.0.0")
    assert (pair.history(EDGE_1)[-1]["outcome"], verdicts(pair)) == ("reverted", [])
    assert [pair.runs(app, "green") for app in pair.names("app")] == ["", ""]


def test_what_fails_through_one_edge_alone_is_taken_back_on_all(pair: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    pair.deploy("1.0.0")
    wrong_through(pair, EDGE_2, monkeypatch)
    done = pair.deploy("1.1.0", smoke_tests=[{"path": "/"}])
    assert done["code"] == Exit.REVERTED and done["message"].startswith("edge2: A smoke test failed"), pair.said
    whole(pair, "1.0.0")


def test_an_edge_that_is_lost_before_it_was_asked_as_users_do_takes_the_release_back(pair: Fleet) -> None:
    pair.deploy("1.0.0")
    ssh_gone(pair, EDGE_2, "smoke")
    done = pair.deploy("1.1.0", **smoke_test(status=200))
    assert done["code"] == Exit.REVERTED, pair.said
    assert pair.serves(EDGE_1) == "1.0.0"
    heal(pair)
    assert pair.deploy("1.1.0", **smoke_test(status=200))["code"] == 0, pair.said
    whole(pair, "1.1.0")


def test_a_first_release_that_fails_through_an_edge_is_taken_off_all(pair: Fleet) -> None:
    done = pair.deploy("1.0.0", **smoke_test())
    assert done["code"] == Exit.REVERTED and "nothing serves" in done["message"], pair.said
    assert [pair.pointer(edge) for edge in pair.names("edge")] == [None, None]
    assert pair.deploy("1.0.0")["code"] == 0, pair.said
    whole(pair, "1.0.0")


def test_edges_are_asked_as_users_do_in_one_round_and_only_when_there_is_something_to_ask(pair: Fleet) -> None:
    pair.deploy("1.0.0")
    pair.deploy("1.1.0")
    rounds = pair.deploy("1.2.0", **smoke_test(when="before", status=200))["data"]["rounds"]
    assert "smoke" not in {verb for _, verb in pair.calls}
    assert pair.deploy("1.3.0", **smoke_test(status=200))["data"]["rounds"] == rounds + 1
    assert sorted(host for host, verb in pair.calls if verb == "smoke") == [EDGE_1, EDGE_2]
    whole(pair, "1.3.0")


@pytest.mark.parametrize("alone", [False, True])
def test_rolling_that_fails_through_an_edge_at_its_end_goes_back_on_all(
    pair: Fleet, alone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair.deploy("1.0.0")
    nobody = outages(pair, monkeypatch)
    if alone:
        wrong_through(pair, EDGE_2, monkeypatch)
    done = pair.deploy("1.1.0", rolling=1, probation_seconds=0.0, **smoke_test(status=200 if alone else 418))
    assert done["code"] == Exit.REVERTED and "Every host is back on 0001-1.0.0." in done["message"], pair.said
    assert (nobody, bad(pair), done["release"]) == ([], ["0002-1.1.0"], "0001-1.0.0")
    whole(pair, "1.0.0")


def test_rolling_leaves_what_serves_alone_when_the_only_edge_cannot_be_told_any_more(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with make_fleet(monkeypatch, tmp_path, {APP_1: ["app", "edge"], APP_2: ["app"]}) as fleet:
        fleet.deploy("1.0.0")

        def lose() -> str:
            fleet.machines[APP_1].docker = False
            return ""

        _from(fleet, APP_2, "start", lose)
        done = fleet.deploy("1.1.0", rolling=1, probation_seconds=0.0)
        assert done["code"] == Exit.FAILED, fleet.said
        assert fleet.serves(APP_1) == "1.1.0"
        heal(fleet)
        fleet.expire()
        assert fleet.deploy("1.1.0", rolling=1, probation_seconds=0.0)["code"] == 0, fleet.said
        whole(fleet, "1.1.0")


# Ctrl-C


def interrupting(fleet: Fleet, verb: str, **order: object) -> None:
    """The operator types Ctrl-C while hosts are at their part of one round, the first whose order says this."""
    typed: list[str] = []

    def cut(what: dict[str, Any]) -> str:
        if what["verb"] == verb and what["order"] and order.items() <= what["order"].items() and not typed:
            typed.append(verb)
            os.kill(os.getpid(), signal.SIGINT)
        return ""

    for wire in fleet.wires.values():
        wire.cut = cut


def settled(fleet: Fleet) -> dict[str, Any]:
    """The last operation has its end and nobody holds the lease; returns that end."""
    for edge in fleet.names("edge"):
        with fleet.on(edge) as paths:
            assert lease.holder(paths) is None, edge
    end = fleet.history(EDGE_1)[-1]
    assert end["event"] == "end"
    return end


@pytest.mark.parametrize(
    ("act", "verb"),
    [("deploy", verb) for verb in ("begin", "prepare", "start", "check")]
    + [("rollback", verb) for verb in ("begin", "start", "check")],
)
def test_ctrl_c_before_the_switch_ends_it_and_the_old_release_serves_on(pair: Fleet, act: str, verb: str) -> None:
    for version in ("1.0.0", "1.1.0"):
        pair.deploy(version)
    interrupting(pair, verb)
    with pytest.raises(KeyboardInterrupt, match=r"Interrupted by the operator. 0002-1.1.0 serves"):
        pair.deploy("1.2.0") if act == "deploy" else pair.rollback()
    heal(pair)
    whole(pair, "1.1.0")
    assert (settled(pair)["outcome"], settled(pair)["code"], bad(pair)) == ("failed", Exit.INTERRUPTED, [])
    # Nobody has to wait for a lease that ends.
    assert pair.deploy("1.3.0")["code"] == 0, pair.said
    assert any("interrupted: hosts end what they are at" in line for line in pair.said)


@pytest.mark.parametrize(
    ("verb", "changes"),
    [
        ("switch", {}),
        ("switch", smoke_test(status=200)),
        ("smoke", smoke_test(status=200)),
        ("watch", {}),
        ("watch", {"canary": CANARY}),
        ("promote", {"canary": CANARY}),
    ],
)
def test_ctrl_c_on_probation_takes_the_release_back_and_calls_it_not_bad(
    pair: Fleet, verb: str, changes: dict[str, Any]
) -> None:
    pair.deploy("1.0.0")
    interrupting(pair, verb)
    with pytest.raises(KeyboardInterrupt, match=r"Interrupted by the operator. 0001-1.0.0 is live again"):
        pair.deploy("1.1.0", **changes)
    heal(pair)
    whole(pair, "1.0.0")
    assert shares(pair) == [100, 100]
    assert (settled(pair)["outcome"], bad(pair)) == ("reverted", [])


def test_ctrl_c_while_a_canary_waits_for_a_person_takes_it_back(pair: Fleet) -> None:
    pair.deploy("1.0.0")
    while_waiting(pair, lambda: os.kill(os.getpid(), signal.SIGINT) if not pair.said[-1].startswith("inter") else None)
    with pytest.raises(KeyboardInterrupt, match=r"0001-1.0.0 is live again"):
        pair.deploy("1.1.0", canary=MANUAL)
    whole(pair, "1.0.0")
    assert (settled(pair)["outcome"], bad(pair)) == ("reverted", [])


@pytest.mark.parametrize("verb", ["switch", "end", "settle"])
def test_ctrl_c_when_nothing_is_left_to_stop_changes_nothing(pair: Fleet, verb: str) -> None:
    pair.deploy("1.0.0")
    interrupting(pair, verb)
    assert pair.deploy("1.1.0", probation_seconds=0.0)["code"] == 0, pair.said
    whole(pair, "1.1.0")
    assert settled(pair)["outcome"] == "live"


@pytest.mark.parametrize(("verb", "order"), [("start", {}), ("switch", {"quiet": False})], ids=["amid", "at the end"])
def test_ctrl_c_takes_a_rolling_release_back_on_all(pair: Fleet, verb: str, order: dict[str, Any]) -> None:
    pair.deploy("1.0.0")
    interrupting(pair, verb, **order)
    with pytest.raises(KeyboardInterrupt, match=r"Every host is back on 0001-1.0.0"):
        pair.deploy("1.1.0", rolling=1, probation_seconds=0.0, **smoke_test(status=200))
    heal(pair)
    whole(pair, "1.0.0")
    assert (settled(pair)["outcome"], bad(pair)) == ("reverted", [])


def test_ctrl_c_again_leaves_it_half_way_and_signals_are_python_s_own_afterwards(pair: Fleet) -> None:
    pair.deploy("1.0.0")
    interrupting(pair, "start")
    again: list[str] = []

    def cut(what: dict[str, Any]) -> str:
        if what["verb"] == "abandon" and what["order"] and not again:
            again.append("")
            os.kill(os.getpid(), signal.SIGINT)
        return ""

    pair.wires[APP_2].cut = cut
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match="Interrupted again, half-way"):
        pair.deploy("1.1.0")
    assert signal.getsignal(signal.SIGINT) is before
    heal(pair)
    pair.expire()
    assert pair.deploy("1.1.0")["code"] == 0, pair.said
    whole(pair, "1.1.0")
