"""`make bench-watch`: what the watch over a release promises, by simulation and on a real host.

`make bench-watch ONLY=word,word` runs the parts whose names contain one of the words: ledger, alerts, simulation, cost,
reverts, clean, survival, canary.
"""

import http.client
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from switchyard.request import Slo
from switchyard.watch.accesslog import Follower, Place
from switchyard.watch.rule import Judge
from switchyard.watch.watcher import feed
from tests.bed import Bed
from tests.bench import ledger
from tests.bench.bars import Bench, chosen
from tests.lab import APP, VERSIONS, Lab
from tests.project import Project
from tests.simulation import BAD, CLEAN, run
from tests.traffic import Traffic

OLD, NEW = VERSIONS
SEEDS = range(50)
CLIENTS = 20_000
RATE = 2000


def simulation(bench: Bench) -> None:
    """Fifty seeded runs of each scenario."""
    for scenario in CLEAN:
        wrong = sum(run(scenario, seed).verdict.kind == "revert" for seed in SEEDS)
        bench.add(f"simulated, {scenario.name}: reverted wrongly in 50 runs", wrong, 0, "runs")
    for scenario in BAD:
        outcomes = [run(scenario, seed) for seed in SEEDS]
        missed = sum(outcome.verdict.kind != "revert" for outcome in outcomes)
        bench.add(f"simulated, {scenario.name}: not reverted in 50 runs", missed, 0, "runs")
        late = max(o.second - max(scenario.crossed, o.crossed or scenario.crossed) for o in outcomes)
        bench.add(f"simulated, {scenario.name}: slowest decision after crossing", late, 15, "s")


def cost(bench: Bench) -> None:
    """What reading and judging a minute of log at the fixed rate takes of one core."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "a.jsonl"
        line = {
            "msec": 0.0, "status": 200, "bytes": 512, "seconds": 0.012, "time": "2026-01-01T00:00:00+00:00",
            "id": "0" * 32, "client": "198.18.0.1", "host": "shop.example.com", "method": "GET", "path": "/api/v1/x",
            "protocol": "HTTP/1.1", "upstream": "127.0.0.1:18000", "upstream_status": "200",
            "upstream_seconds": "0.011", "connect_seconds": "0.000", "header_seconds": "0.010",
            "release": "0042-1.4.0", "colour": "blue",
        }  # fmt: skip
        with log.open("w") as file:
            file.writelines(json.dumps({**line, "msec": 1000 + n / RATE}) + "\n" for n in range(60 * RATE))
        judge, follower = Judge(Slo()), Follower(log, Place(log.stat().st_ino, 0))
        began = time.process_time()
        for entry in follower.read():
            feed(judge, entry, {"127.0.0.1:18000"}, {"127.0.0.1:18001"}, ["/api/v1/x"], 2.0)
        for _ in range(12):
            judge.evaluate(1060.0)
        share = (time.process_time() - began) / 60 * 100
    bench.add(f"CPU of the watch itself at {RATE} requests/s", share, 5, "% core")


def compose(lab: Lab, version: str, environment: dict[str, str], **service: Any) -> str:
    """The compose text of a release with a fault."""
    document = yaml.safe_load(lab.request(version)["compose"])
    document["services"]["api-1"]["environment"] |= environment
    document["services"]["api-1"] |= service
    return str(yaml.safe_dump(document))


def back_to_old(lab: Lab) -> None:
    """The old version live, nobody at work."""
    lab.settle()
    assert lab.deploy(OLD, migration=None, probation_seconds=0.0)["code"] in (0,)


def reverts(bench: Bench, lab: Lab) -> None:
    """Bad releases on a real host."""
    dies = ["sh", "-c", "serve & sleep 30; kill $!; sleep 600"]
    hungry = ["sh", "-c", "serve & sleep 12; x=xxxxxxxx; while :; do x=$x$x$x$x; done"]
    cases: list[tuple[str, str, float, float]] = [
        ("10 % errors", compose(lab, NEW, {"ERROR_PERCENT": "10"}), 100, 0),
        ("crash 30 s after the start", compose(lab, NEW, {}, entrypoint=dies, restart="no"), 50, 30),
        ("memory kill", compose(lab, NEW, {}, entrypoint=hungry, restart="no", mem_limit="48m", init=False), 50, 12),
        ("failing only without traffic", compose(lab, NEW, {"ERROR_PERCENT": "100"}), 0, 0),
    ]
    for name, text, rate, crossed in cases:
        back_to_old(lab)
        # Failing from the first second on, it would not pass the smoke test right after the switch.
        smoke = [{"path": "/"}] if rate == 0 else []
        more: dict[str, Any] = {"probation_seconds": 60.0, "compose": text, "smoke_tests": smoke, "migration": None}
        if rate:
            with Traffic(lab.host.address, rate=rate) as traffic:
                result = lab.deploy(NEW, **more)
            late = traffic.last(NEW) - result["switched_at"] - crossed
            note = f"{traffic.failed()} failed requests"
        else:
            result, note = lab.deploy(NEW, **more), ""
            late = 0.0 if result["code"] == 6 else 1e9
        bench.add(f"{name}: reverted", int(result["code"] == 6), 1, "yes", want=">=", note=result["message"][:90])
        bench.add(f"{name}: last answer of the bad release after crossing", late, 17, "s", note=note)


def clean(bench: Bench, lab: Lab) -> None:
    """Good releases on a real host, with traffic, with a spike, and without any."""
    for name, before, spike in (("with traffic", 50, 0), ("traffic spike x 5", 50, 250), ("at zero traffic", 0, 0)):
        back_to_old(lab)
        users = [Traffic(lab.host.address, rate=rate) for rate in (before, spike) if rate]
        for user in users:
            user.__enter__()
        result = lab.deploy(NEW, migration=None, probation_seconds=20.0)
        for user in users:
            user.__exit__(None, None, None)
        bench.add(f"clean release {name}: reverted wrongly", int(result["code"] != 0), 0, "times")
        bench.add(f"clean release {name}: failed requests", sum(user.failed() for user in users), 0, "requests")


def survival(bench: Bench, lab: Lab) -> None:
    """The verdict comes whatever dies in between; the control machine is gone in all of them."""

    def power() -> None:
        lab.host.power_cycle()

    def kill() -> None:
        lab.host.exec(["sh", "-c", "systemctl kill --signal=KILL 'switchyard-watch-*'"])

    def reload() -> None:
        lab.host.exec(
            ["sh", "-c", "docker kill --signal HUP switchyard-edge; logrotate -f /etc/logrotate.d/switchyard-edge"]
        )

    for name, disturb in (("watch killed", kill), ("edge reloaded, log rotated", reload), ("host rebooted", power)):
        for release, fault, wanted in ((NEW, {}, "pass"), (NEW, {"ERROR_PERCENT": "100"}, "revert")):
            back_to_old(lab)
            text = compose(lab, release, fault)
            smoke = [{"path": "/health"}]
            with Traffic(lab.host.address, rate=40):
                lab.deploy(
                    release, migration=None, compose=text, smoke_tests=smoke, probation_seconds=15.0, watch="detached"
                )
                disturb()
                verdict = wait_for_verdict(lab)
            bench.add(f"{name}: verdict is {wanted}", int(verdict == wanted), 1, "yes", want=">=", note=verdict)


def wait_for_verdict(lab: Lab, seconds: float = 120.0) -> str:
    """The last verdict in the ledger, once nothing is on probation."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if lab.status().get("probation") is False:
                text = lab.host.exec(["cat", f"/var/lib/switchyard/{APP}/ledger.jsonl"]).stdout
                rows = [json.loads(line) for line in text.splitlines()]
                return str([row["verdict"] for row in rows if row["event"] == "verdict"][-1])
        except (AssertionError, OSError, IndexError):
            pass
        time.sleep(1)
    return "none"


def canary(bench: Bench, lab: Lab) -> None:
    """Share and stickiness of each step, over many clients."""
    back_to_old(lab)
    steps = {"steps": [5, 25, 50], "manual": True, "key": "header:X-Client"}
    assert lab.deploy(NEW, migration=None, canary=steps, probation_seconds=5.0)["code"] == 0
    before: set[int] = set()
    for step in (5, 25, 50):
        chosen, again = draw(lab), draw(lab)
        expected = step / 100
        sigma = (expected * (1 - expected) / CLIENTS) ** 0.5
        off = abs(len(chosen) / CLIENTS - expected) / sigma
        bench.add(f"canary at {step} %: share off", off, 3, "sigma", note=f"{len(chosen)} of {CLIENTS} clients")
        moved = len(chosen ^ again) + len(before - chosen)
        bench.add(f"canary at {step} %: clients that changed sides", moved, 0, "clients")
        before = chosen
        lab.engine("promote", APP)
    lab.settle()


def draw(lab: Lab) -> set[int]:
    """The clients that the new version answers."""
    connection = http.client.HTTPConnection(lab.host.address, timeout=10)
    found = set()
    for number in range(CLIENTS):
        connection.request("GET", "/", headers={"X-Client": f"client-{number}"})
        answer = connection.getresponse()
        answer.read()
        if answer.headers["X-Release"] == NEW:
            found.add(number)
    return found


ALONE: dict[str, Callable[[Bench], None]] = {
    "ledger": ledger.ledger,
    "alerts": ledger.rules,
    "simulation": simulation,
    "cost": cost,
}
WITH_LAB: dict[str, Callable[[Bench, Lab], None]] = {
    "reverts": reverts,
    "clean": clean,
    "survival": survival,
    "canary": canary,
}


def main() -> int:
    """Run the parts that ONLY names, or all."""
    names, bench = chosen([*ALONE, *WITH_LAB]), Bench("watch")
    for name in names:
        if name in ALONE:
            with bench.part(name):
                ALONE[name](bench)
    if with_lab := [name for name in names if name in WITH_LAB]:
        with tempfile.TemporaryDirectory() as folder, Bed.for_tests("bench-watch") as bed:
            bench.say("provisioning a host for the trivial service")
            lab = Lab.build(Project(Path(folder)), bed)
            for name in with_lab:
                with bench.part(name):
                    WITH_LAB[name](bench, lab)
    return bench.finish()


if __name__ == "__main__":
    sys.exit(main())
