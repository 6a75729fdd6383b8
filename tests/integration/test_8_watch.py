"""A release on probation, maintenance and the standing watch, on a real host: what is bad goes back by itself."""

import json
import time
import urllib.error
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.bed import Bed
from tests.lab import APP, RELOAD_EDGE, VERSIONS, Lab
from tests.pipeline.receiver import Receiver
from tests.project import Project
from tests.traffic import Traffic
from tests.web import opened

OLD, NEW = VERSIONS
TIMER = "switchyard-standing.timer"
PREVIEW = "preview-canary-4c1d90e2b7a35f68ab"


@pytest.fixture(scope="module")
def bed() -> Iterator[Bed]:
    with Bed.for_tests("watch") as bed:
        yield bed


@pytest.fixture(scope="module")
def receiver(bed: Bed) -> Iterator[Receiver]:
    """Where alerts and heartbeats of the standing watch end."""
    # This machine's address in the bed's network.
    with Receiver(str(next(bed.subnet.hosts()))) as receiver:
        yield receiver


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, bed: Bed, receiver: Receiver) -> Lab:
    project = Project(tmp_path_factory.mktemp("project"))
    inventory = {
        "edge_preview_secret": PREVIEW,
        "edge_tls": "self_signed",
        # As on any host, but for how long a test would wait.
        "engine_watch": {"interval": 2, "calm_seconds": 4},
        "notify_targets": [{"name": "team", "url": receiver.url, "format": "json", "events": ["alert.*"]}],
        "notify_heartbeat_url": receiver.url,
        "notify_heartbeat_seconds": 2,
    }
    lab = Lab.build(project, bed, inventory=inventory)
    assert lab.deploy(OLD, migration=None)["code"] == 0
    return lab


def compose(lab: Lab, version: str, **environment: str) -> str:
    """The compose text of a release with a fault."""
    document = yaml.safe_load(lab.request(version)["compose"])
    document["services"]["api-1"]["environment"] |= environment
    return str(yaml.safe_dump(document))


def deploy(lab: Lab, version: str, *, probation: float, fault: dict[str, str] | None = None, **more: Any) -> Any:
    """Deploy with a fault in the release."""
    text = compose(lab, version, **(fault or {}))
    # Asked through the edge right after the switch, it must not be what turns a faulty release back.
    more.setdefault("smoke_tests", [{"path": "/health"}])
    return lab.deploy(version, migration=None, compose=text, probation_seconds=probation, **more)


def fetch(lab: Lab, path: str = "") -> tuple[int, Any, str]:
    """One GET through the edge."""
    try:
        with opened(lab.url + path) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode()


def test_a_burst_of_errors_goes_back_by_itself(lab: Lab) -> None:
    with Traffic(lab.host.address, rate=100):
        # Longer than a verb of the lab may take: what comes back before that was no end of the probation.
        result = deploy(lab, NEW, probation=600, fault={"ERROR_PERCENT": "12"})
    assert result["code"] == 6, result
    assert "of" in result["message"] and "requests failed" in result["message"], result
    assert result["message"].endswith("is live again.")
    assert lab.status()["live"]["version"] == OLD
    verdicts = [row for row in ledger(lab) if row["event"] == "verdict"]
    assert verdicts[-1]["verdict"] == "revert" and verdicts[-1]["errors"] >= 5
    bad = [row for row in ledger(lab) if row["event"] == "bad"]
    assert bad[-1]["release"] == verdicts[-1]["release"]


def ledger(lab: Lab) -> list[dict[str, Any]]:
    """The ledger's lines."""
    text = lab.host.exec(["cat", f"/var/lib/switchyard/{APP}/ledger.jsonl"]).stdout
    return [json.loads(line) for line in text.splitlines()]


def test_a_clean_release_passes_although_its_watch_is_killed(lab: Lab) -> None:
    with Traffic(lab.host.address, rate=50) as traffic:
        began = deploy(lab, NEW, probation=15, watch="detached")
        assert began["code"] == 0 and "on probation" in began["message"], began
        assert lab.status()["probation"] is True
        lab.host.exec(["sh", "-c", f"systemctl kill --signal=KILL 'switchyard-watch-*'; {RELOAD_EDGE}"])
        deadline = time.monotonic() + 120
        while lab.status()["probation"]:
            assert time.monotonic() < deadline, "no verdict within 120 s"
            time.sleep(0.5)
    assert lab.status()["live"]["version"] == NEW
    assert [row["verdict"] for row in ledger(lab) if row["event"] == "verdict"][-1] == "pass"
    assert traffic.failed() == 0


def test_a_canary_is_promoted_by_hand_and_aborted_at_once(lab: Lab) -> None:
    lab.settle()
    canary = {"steps": [5, 50], "manual": True, "key": "header:X-Client", "tester": "canary"}
    result = deploy(lab, OLD, probation=5, canary=canary)
    assert result["code"] == 0 and "5 % of the clients" in result["message"], result
    assert answering(lab, "canary", "always") == OLD
    assert shares(lab) == pytest.approx(0.05, abs=0.05)
    assert lab.engine("promote", APP, check=True).returncode == 0
    assert shares(lab) == pytest.approx(0.5, abs=0.15)
    assert lab.engine("abort", APP, check=True).returncode == 0
    assert shares(lab) == 0
    assert lab.status()["live"]["version"] == NEW
    lab.settle()


def answering(lab: Lab, header: str, value: str) -> str:
    """The version that answers whoever sends this header."""
    with opened(lab.url, headers={header: value}) as answer:
        return str(answer.headers["X-Release"])


def shares(lab: Lab) -> float:
    """The share of 200 clients that the old version, as a canary, answers."""
    seen = [answering(lab, "X-Client", f"client-{number}") for number in range(200)]
    return seen.count(OLD) / len(seen)


def preview(lab: Lab, secret: str = PREVIEW) -> str:
    """The version that answers whoever shows this secret."""
    return answering(lab, "X-Switchyard-Preview", secret)


def test_whoever_has_the_secret_sees_the_idle_colour_and_nobody_else(lab: Lab) -> None:
    lab.settle()
    live = lab.status()["live"]["version"]
    idle = OLD if live == NEW else NEW
    # The release that was aborted is stopped; this one leaves the live one warm on the idle colour.
    assert deploy(lab, idle, probation=0)["code"] == 0
    assert (fetch(lab)[1]["X-Release"], preview(lab), preview(lab, PREVIEW[:-1])) == (idle, live, idle)
    # At 0 % a new release is there for the preview alone.
    result = deploy(lab, live, probation=5, canary={"steps": [0, 50], "manual": True, "key": "header:X-Client"})
    assert result["code"] == 0 and "0 % of the clients" in result["message"], result
    seen = {answering(lab, "X-Client", f"client-{number}") for number in range(50)}
    assert (seen, preview(lab)) == ({idle}, live)
    lab.engine("abort", APP, check=True)
    lab.settle()
    places = "/var/log/switchyard /var/lib/switchyard /etc/switchyard /run/switchyard"
    script = f"grep -rl -F -- {PREVIEW} {places} | xargs -r stat -c '%a %n'; journalctl -q | grep -c -F -- {PREVIEW}"
    found = lab.host.exec(["sh", "-c", script], check=False).stdout.splitlines()
    kept = [line for line in found[:-1] if not line.startswith("600 /var/lib/switchyard/edge/")]
    assert (kept, found[-1]) == ([], "0"), found


def test_maintenance_closes_all_but_health(lab: Lab) -> None:
    lab.engine("maintenance", APP, "on", "--retry-after", "60", "--reason", "test", check=True)
    try:
        status, headers, body = fetch(lab)
        assert (status, headers["Retry-After"]) == (503, "60") and "maintenance" in body
        assert fetch(lab, "health")[0] == 200
        assert deploy(lab, OLD, probation=0)["code"] == 0
        assert fetch(lab)[0] == 503
    finally:
        lab.engine("maintenance", APP, "off", check=True)
    assert fetch(lab)[0] == 200
    assert [row["state"] for row in ledger(lab) if row["event"] == "maintenance"] == ["on", "off"]


def test_a_service_that_stops_is_told_once_and_so_is_its_recovery(lab: Lab, receiver: Receiver) -> None:
    lab.host.exec(["systemctl", "enable", "--now", "--quiet", TIMER])
    try:
        receiver.heard("is watched")
        assert deploy(lab, NEW, probation=2)["code"] == 0
        rounds = len(heartbeats(receiver))
        colour = lab.status()["live"]["colour"]
        # Between two looks: one in the middle would meet a port that is being closed, and name that.
        stop = f"docker stop --time 1 $(docker ps -q --filter label=switchyard.colour={colour})"
        state = "systemctl show --property ActiveState --value switchyard-standing.service"
        looking = f"{state} | grep -qxE 'active|activating|deactivating'"
        paused = f"systemctl stop {TIMER}; while {looking}; do sleep 0.1; done; {stop}; systemctl start {TIMER}"
        lab.host.exec(["sh", "-c", paused])
        told = receiver.heard("api is down", "through the edge", "Connection refused")
        assert (told["kind"], told["severity"], told["app"]) == ("alert.service", "critical", APP)
        shown = lab.project.control("status", "local")["standing"]
        assert [alert["alert"] for alert in shown["alerts"]] == ["service:api"] and not shown["problems"]
        while len(heartbeats(receiver)) < rounds + 5:
            time.sleep(0.1)
        assert heartbeats(receiver)[-1]["details"]["alerts"] == [told["title"]]
        # After a power cut the host still knows what it said; recovery at boot starts what is live.
        lab.host.power_cycle()
        over = receiver.heard("over after", "api is down", seconds=240)
        assert over["details"]["since"] == told["details"]["since"]
        alerts = [news["kind"] for _, _, news in receiver.got if news["kind"].startswith("alert.")]
        assert alerts == ["alert.service", "alert.service.over"]
        assert not lab.project.control("status", "local")["standing"]["alerts"]
    finally:
        lab.host.exec(["systemctl", "disable", "--now", "--quiet", TIMER])


def heartbeats(receiver: Receiver) -> list[dict[str, Any]]:
    """Those that came so far."""
    return [news for _, _, news in receiver.got if news["kind"] == "heartbeat"]
