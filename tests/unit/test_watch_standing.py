"""The standing watch: when people are told, that they are told once, and what is measured for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pytest

from switchyard.data import settings as backups
from switchyard.engine import announce as announcing
from switchyard.engine import edge, maintenance, status
from switchyard.engine.announce import Severity
from switchyard.engine.site import Pointer
from switchyard.errors import SwitchyardError
from switchyard.notify import config as notify
from switchyard.report import host as hosts
from switchyard.report.traffic import log_of
from switchyard.watch import limits, measure, rounds, standing
from switchyard.watch.limits import Limits
from switchyard.watch.measure import Look
from switchyard.watch.standing import Finding, Standing
from tests.pipeline.receiver import Receiver
from tests.unit.engine_world import NAME, World

CALM, GAP = 60.0, 120.0
LOOK = 30


class Timeline:
    """Looks every 30 s at one thing, and keeps what people were told as `(second, what)`."""

    def __init__(self, after: float = 0.0) -> None:
        self.after = after
        self.now = 0.0
        self.standing = Standing()
        self.told: list[tuple[float, str]] = []

    def look(self, *findings: Finding, seen: tuple[str, ...] = ()) -> None:
        # As after a restart of the process: what is known is what the file says.
        known = standing.from_json(json.loads(json.dumps(asdict(self.standing))))
        for change in standing.judge(known, findings, seen, self.now, calm=CALM, gap=GAP):
            severity = change.condition.severity
            self.told.append((self.now, "over" if change.over else severity))
            standing.told(known, change)
        self.standing = known
        self.now += LOOK

    def see(self, problem: str, *, until: float, severity: Severity = "warning") -> Timeline:
        """Look until that second, and see this ('' is all well)."""
        while self.now < until:
            self.look(Finding("cpu", "", problem, self.after, severity))
        return self

    def blind(self, until: float) -> Timeline:
        """Look until that second, and measure nothing."""
        while self.now < until:
            self.look()
        return self


def test_a_service_that_is_down_is_told_at_once_and_once_and_so_is_its_recovery() -> None:
    timeline = Timeline().see("", until=90).see("down", until=600).see("", until=900)
    assert timeline.told == [(90, "warning"), (660, "over")]
    assert timeline.standing.conditions == {}


@pytest.mark.parametrize("after", [300.0, 900.0, 1800.0])
def test_what_has_to_last_is_told_when_it_has_lasted(after: float) -> None:
    timeline = Timeline(after).see("busy", until=after)
    assert timeline.told == []
    assert timeline.see("busy", until=after + 3600).told == [(after, "warning")]


def test_what_passes_in_time_is_never_told() -> None:
    timeline = Timeline(300).see("busy", until=270).see("", until=600).see("busy", until=870).see("", until=1200)
    assert timeline.told == [] and timeline.standing.conditions == {}


def test_a_moments_relief_hides_nothing_that_lasts() -> None:
    timeline = Timeline(300)
    for minute in range(10):
        timeline.see("busy", until=minute * 60 + 30).see("", until=minute * 60 + 60)
    assert timeline.told == [(300, "warning")]


def test_one_that_comes_and_goes_is_one_alert() -> None:
    timeline = Timeline()
    for minute in range(10):
        timeline.see("down", until=minute * 60 + 30).see("", until=minute * 60 + 60)
    assert timeline.see("", until=900).told == [(0, "warning"), (630, "over")]


def test_one_that_grows_graver_is_told_again_and_one_that_relaxes_is_not() -> None:
    timeline = Timeline().see("ends in 20 days", until=60).see("ends in 6 days", until=120, severity="critical")
    timeline.see("ends in 20 days", until=300)
    assert timeline.told == [(0, "warning"), (60, "critical")]


def test_what_could_not_be_measured_changes_nothing() -> None:
    told = Timeline().see("down", until=60).blind(until=3600)
    assert told.told == [(0, "warning")] and told.see("", until=3720).told[1:] == [(3660, "over")]


def test_what_happened_while_nobody_looked_is_not_counted() -> None:
    timeline = Timeline(900).see("busy", until=840)
    timeline.now += 3600  # the host was off
    began = timeline.now
    assert timeline.see("busy", until=began + 930).told == [(began + 900, "warning")]


def test_a_clock_that_was_set_back_neither_tells_nor_keeps_for_ever() -> None:
    timeline = Timeline().see("", until=86_400).see("down", until=86_460)
    timeline.now = 30.0
    assert timeline.see("down", until=90).see("", until=200).told == [(86_400, "warning"), (150, "over")]


def test_what_is_not_there_any_more_is_over_once_its_place_was_looked_at() -> None:
    timeline = Timeline()
    timeline.look(
        Finding("service:api", "shop-test", "api is down"), Finding("service:web", "shop-test", "web is down")
    )
    for _ in range(4):
        timeline.look(Finding("service:api", "shop-test", "api is down"), seen=("shop-test/service:",))
    assert [what for _, what in timeline.told] == ["warning", "warning", "over"]
    assert [alert.key for alert in timeline.standing.alerts()] == ["service:api"]


# Measuring


@pytest.fixture
def live(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A release of two instances on a host that is well."""
    monkeypatch.setattr(hosts, "processors", lambda: (100.0, 1000.0))
    monkeypatch.setattr(hosts, "memory", lambda: {"total": 100, "available": 70})
    monkeypatch.setattr(hosts, "disks", lambda: [hosts.Disk("/", 100, 70, 0.9, None)])
    world.clock.now = 1_800_000_000.0
    world.release(1, "blue", services={"api": service(), "web": service(routes=["/web/"], instances=2)})
    return world


def service(**changes: Any) -> dict[str, Any]:
    return {"image": "registry.test/shop/api", "port": 8000, "tag": "1.0.0", "routes": ["/"], **changes}


def stop(world: World, *instances: str) -> None:
    for instance in instances:
        world.docker.containers[f"{NAME}-blue-{instance}"]["State"] = "exited"


def one_round(world: World, seconds: float = 30.0) -> list[str]:
    """One round; returns what was announced in it."""
    before = len(world.news())
    said: list[str] = []
    rounds.run(world.host, said.append)
    world.clock.now += seconds
    return [str(item["title"]) for item in world.news()[before:]]


def test_all_is_well_and_nobody_hears_anything(live: World) -> None:
    assert [one_round(live) for _ in range(3)] == [[], [], []]
    report = status.status(live.paths, live.host)["standing"]
    assert report["alerts"] == [] and report["problems"] == [] and report["looked_at"].startswith("2027-")


def test_a_dead_service_is_one_alert_that_names_both_ways_and_status_shows_it(live: World) -> None:
    stop(live, "api-1")
    assert one_round(live) == [
        f"{NAME}: api is down (through the edge: /health answers 502; "
        "api-1 at 127.0.0.1:18000: no answer (Connection refused))."
    ]
    news = live.news()[-1]
    assert (news["kind"], news["severity"], news["app"]) == ("alert.service", "critical", str(NAME))
    assert [one_round(live) for _ in range(5)] == [[]] * 5
    report = status.status(live.paths, live.host)
    assert [alert["alert"] for alert in report["standing"]["alerts"]] == ["service:api"]
    assert f"  ALERT     {NAME}: api is down" in status.text(report)
    live.docker.containers[f"{NAME}-blue-api-1"]["State"] = "running"
    told = [one_round(live) for _ in range(4)]
    assert [len(titles) for titles in told] == [0, 0, 1, 0] and told[2][0].startswith("over after ")
    assert live.news()[-1]["kind"] == "alert.service.over"
    assert status.status(live.paths, live.host)["standing"]["alerts"] == []


def test_one_instance_of_two_is_a_warning_and_the_second_makes_it_grave(live: World) -> None:
    stop(live, "web-2")
    assert "web has lost 1 of 2 instances (web-2 at " in one_round(live)[0]
    stop(live, "web-1")
    assert "web is down (through the edge: " in one_round(live)[0]
    assert [item["severity"] for item in live.news()] == ["warning", "critical"]


def test_one_wrong_answer_is_no_alert(live: World, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, int] = {}
    real = live.docker.ask

    def flaky(address: str, path: str, **more: Any) -> Any:
        asked[address + path] = asked.get(address + path, 0) + 1
        return real("198.18.0.1:1" if asked[address + path] == 1 else address, path, **more)

    monkeypatch.setattr(measure, "ask", flaky)
    assert one_round(live) == []


@pytest.mark.parametrize("work", ["operation", "probation", "maintenance"])
def test_work_on_the_application_alerts_nobody(live: World, monkeypatch: pytest.MonkeyPatch, work: str) -> None:
    if work == "operation":
        live.begun()
    elif work == "probation":
        live.record(2)
        live.point(Pointer("0001-1.0.0", "blue", "0002-2.0.0", probation=True))
    else:
        monkeypatch.setattr(maintenance, "is_on", lambda _: True)
    stop(live, "api-1")
    live.docker.edge = False
    # The lease ends by itself a minute after its holder's last sign; this one's process lives.
    assert [one_round(live) for _ in range(20)] == [[]] * 20
    later = [title for _ in range(120) for title in one_round(live)]
    # What a person announced may last; an operation of more than an hour is not waited for.
    assert len(later) == (0 if work == "maintenance" else 2), later


def test_an_operation_that_begins_while_services_are_asked_alerts_nobody(
    live: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = measure.services

    def interrupted(*arguments: Any) -> list[Finding]:
        found = real(*arguments)
        live.begun()
        return found

    stop(live, "api-1")
    monkeypatch.setattr(measure, "services", interrupted)
    one_round(live)
    assert [item["kind"] for item in live.news()] == ["deploy.started"]


def log(world: World, count: int, *, status: int = 200, seconds: float = 0.05, ago: float = 1.0) -> None:
    entry = {
        "msec": world.clock.now - ago, "status": status, "seconds": seconds, "upstream": "127.0.0.1:18000",
        "path": "/", "header_seconds": str(seconds),
    }  # fmt: skip
    with log_of(world.paths).open("a") as file:
        file.write((json.dumps(entry) + "\n") * count)


@pytest.mark.parametrize(
    ("bad", "kind"), [({"status": 500}, "alert.errors"), ({"seconds": 3.0}, "alert.response")], ids=["errors", "slow"]
)
def test_what_users_get_is_told_after_five_minutes(live: World, bad: dict[str, Any], kind: str) -> None:
    told = []
    for number in range(14):
        log(live, 90)
        log(live, 10, **bad)
        told += [(number * 30, title) for title in one_round(live)]
    ((at, title),) = told
    assert live.news()[-1]["kind"] == kind and "requests of the last 1.0 min" in title
    assert at == 300


def test_a_burst_of_errors_is_not_told(live: World) -> None:
    log(live, 100)
    log(live, 100, status=502)
    assert [one_round(live) for _ in range(20)] == [[]] * 20


def test_little_traffic_that_always_fails_is_told(live: World) -> None:
    told = []
    for _ in range(20):
        log(live, 1, status=500)
        told += one_round(live)
    assert len(told) == 1 and "100.0% of" in told[0]


def test_what_a_release_did_to_users_is_not_the_standing_watchs_business(live: World) -> None:
    op = live.begun()
    for _ in range(10):
        log(live, 100, status=500)
        assert one_round(live) == []
    op.end("live")
    live.paths.lease.unlink()
    assert [one_round(live) for _ in range(12)] == [[]] * 12


def test_the_hosts_own_figures_have_their_own_times(live: World, monkeypatch: pytest.MonkeyPatch) -> None:
    busy: Iterator[float] = iter(range(0, 1_000_000, 29))
    whole: Iterator[float] = iter(range(0, 1_000_000, 30))
    monkeypatch.setattr(hosts, "processors", lambda: (float(next(busy)), float(next(whole)) + 1))
    monkeypatch.setattr(hosts, "memory", lambda: {"total": 100, "available": 10})
    full = [hosts.Disk("/", 100, 3, 0.9, None), hosts.Disk("/data", 100, 70, 0.05, None)]
    monkeypatch.setattr(hosts, "disks", lambda: [*full, hosts.Disk("/var/log", 100, 70, 0.9, 0.5)])
    told = []
    for minute in range(80):
        told += [(minute / 2, title) for title in one_round(live)]
    at = {title.partition(" (")[0]: minutes for minutes, title in told}
    assert at == {
        "vm1: 90% of the memory are in use": pytest.approx(15, abs=0.5),
        "vm1: the processors are 97% busy": pytest.approx(15, abs=1),
        "vm1: the file system of / is 97% full": pytest.approx(30, abs=0.5),
        "vm1: the file system of /data has 5% of its inodes left.": pytest.approx(30, abs=0.5),
        "vm1: the file system of /var/log will be full in 12 h at its present rate.": pytest.approx(30, abs=0.5),
    }
    assert len(told) == 5


def test_a_backup_a_dump_and_a_drill_that_are_late_are_told(live: World) -> None:
    settings = {
        "app": NAME.app, "environment": NAME.environment, "image": "i", "database": "d", "uid": 999, "data_path": "/",
        "pgdata": "/", "repositories": [{"name": "local"}], "directory": str(live.root / "backups"),
    }  # fmt: skip
    backups.FOLDER.mkdir(parents=True)
    (backups.FOLDER / f"{NAME}.json").write_text(json.dumps(settings))
    state = live.root / "var/lib/switchyard/backup" / str(NAME) / "state"
    state.mkdir(parents=True)
    long_ago = {"ok": False, "at": "2020-01-01T00:00:00+00:00", "succeeded_at": "2020-01-01T00:00:00+00:00"}
    for job in ("backup", "dump", "drill"):
        (state / f"{job}.json").write_text(json.dumps({"job": job, "message": "no", **long_ago}))
    first, second, third = one_round(live)
    assert first.startswith(f"{NAME}: the last backup that succeeded is ") and "at most 26 h" in first
    assert second.startswith(f"{NAME}: the last logical dump that succeeded is ") and "at most 192 h" in second
    assert third.startswith(f"{NAME}: the last restore drill that succeeded is ") and "at most 192 h" in third
    (backups.FOLDER / f"{NAME}.json").unlink()
    told = [title for _ in range(24) for title in one_round(live)]
    assert len(told) == 3 and all(title.startswith("over after ") for title in told)


def test_what_cannot_be_looked_at_is_told_in_the_end(live: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> list[Finding]:
        raise SwitchyardError("the port plan is missing.")

    monkeypatch.setattr(measure, "services", refuse)
    told = [title for _ in range(12) for title in one_round(live)]
    assert told == [f"{NAME}: its services cannot be looked at: the port plan is missing."]


def test_an_application_that_left_this_host_leaves_no_alert(live: World) -> None:
    stop(live, "api-1")
    assert len(one_round(live)) == 1
    live.paths.ledger.unlink()
    told = [title for _ in range(4) for title in one_round(live)]
    assert len(told) == 1 and told[0].startswith("over after ")


def test_an_edge_that_is_down_takes_every_service_with_it(live: World) -> None:
    live.docker.edge = False
    assert len(one_round(live)) == 2
    assert all("is down (through the edge: the edge does not answer" in item["title"] for item in live.news())
    with pytest.raises(SwitchyardError):
        edge.master_pid()


# Telling


def test_a_spool_that_takes_nothing_only_delays_an_alert(live: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise SwitchyardError("disk full")

    stop(live, "api-1")
    with monkeypatch.context() as full:
        full.setattr(announcing, "replace_file", refuse)
        assert one_round(live) == []
    assert len(one_round(live)) == 1


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"looked_at": "x"}'])
def test_a_damaged_file_is_begun_anew(live: World, text: str) -> None:
    standing.FILE.write_text(text)
    assert one_round(live) == []
    assert standing.load().looked_at > 0


def test_two_rounds_at_a_time_are_one(live: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def again(*_: object) -> Look:
        with pytest.raises(SwitchyardError, match="at work"):
            rounds.run(live.host, lambda _: None)
        return Look()

    monkeypatch.setattr(measure, "look", again)
    assert one_round(live) == []


def test_status_says_when_nobody_looks(live: World) -> None:
    one_round(live)
    live.clock.now += 600
    report = status.status(live.paths, live.host)
    (problem,) = report["standing"]["problems"]
    assert problem == "nobody has looked for 10.5 min: 'systemctl status switchyard-standing.timer'"
    assert f"  watch     {problem}" in status.text(report).splitlines()


def test_the_heartbeat_goes_out_on_time_and_says_what_stands(live: World) -> None:
    with Receiver() as receiver:
        notify.FILE.parent.mkdir(parents=True, exist_ok=True)
        notify.FILE.write_text(json.dumps({"host": "vm1", "heartbeat_url": receiver.url}))
        stop(live, "api-1")
        for _ in range(6):
            one_round(live)
        assert len(receiver.got) == 3
        _, _, body = receiver.got[-1]
        assert (body["kind"], body["host"]) == ("heartbeat", "vm1")
        assert body["details"]["alerts"][0].startswith(f"{NAME}: api is down")
        receiver.status = 503
        one_round(live)
        one_round(live)
    text = status.text(status.status(live.paths, live.host))
    assert "the heartbeat is not delivered (it answered 503)" in text or "(Connection refused)" in text
    assert "canary-hook" not in text + standing.FILE.read_text()


def test_limits_come_from_the_role_and_a_wrong_one_is_one_sentence(live: World) -> None:
    limits.FILE.parent.mkdir(parents=True, exist_ok=True)
    assert limits.load() == Limits()
    limits.FILE.write_text('{"interval": 5, "timeout": null}')
    assert limits.load() == Limits(interval=5.0)
    limits.FILE.write_text('{"memory_share": 80}')
    with pytest.raises(SwitchyardError, match=r"^engine_watch.memory_share: use 0.0001 to 1, a share of the whole.$"):
        limits.load()
    assert "engine_watch.memory_share" in status.text(status.status(live.paths, live.host))
