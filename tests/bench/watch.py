"""`make bench-watch`: what the watch over a release promises, by simulation and on a real host.

`make bench-watch ONLY=word,word` runs the parts whose names contain one of the words: ledger, alerts, simulation, cost
(two parts), reverts, crash, clean, survival, canary, edges.
"""

import contextlib
import http.client
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from switchyard.request import Slo
from switchyard.watch.accesslog import Follower, Place
from switchyard.watch.rule import Judge
from switchyard.watch.watcher import feed
from tests.bed import Bed
from tests.bed.errors import BedError
from tests.bench import ledger
from tests.bench.bars import Bench, chosen, median
from tests.fleet import APP as FLEET_APP
from tests.fleet import ENVIRONMENT, TRIVIAL, FleetLab
from tests.lab import APP, RELOAD_EDGE, VERSIONS, Lab
from tests.load import LoadConfig, LoadProcess
from tests.project import Project
from tests.simulation import BAD, CLEAN, run
from tests.traffic import Traffic

OLD, NEW = VERSIONS
SEEDS = range(50)
CLIENTS = 20_000
RATE = 2000
_WRITERS = {"get": 8, "post": 8}
ROUNDS, SECONDS = 5, 8
Crossing = Callable[[Lab, dict[str, Any], list[Traffic]], float]
"""When a release fell short, in seconds since 1970, from the result of its deploy and its users."""


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


def logging(bench: Bench, lab: Lab) -> None:
    """What access log and watch take together, at a fixed rate: with both, and with neither, in turns."""
    lab.host.exec(["sh", "-c", "command -v hey || (apt-get update -qq && apt-get install -y -qq hey)"], timeout=300)
    back_to_old(lab)
    assert lab.deploy(NEW, migration=None, probation_seconds=3600.0, watch="detached")["code"] == 0
    pointer = f"/var/lib/switchyard/edge/live/pointers/{APP}.conf"
    lab.host.exec(
        ["sh", "-c", f"cp {pointer} /root/full; sed 's/^    access_log .*/    access_log off;/' {pointer} > /root/bare"]
    )
    found: dict[str, list[tuple[float, float, float]]] = {"full": [], "bare": []}
    signals = {"bare": "STOP", "full": "CONT"}
    for name in [*signals] * ROUNDS:
        watch = f"systemctl kill -s {signals[name]} 'switchyard-watch-*'"
        lab.host.exec(["sh", "-c", f"cp /root/{name} {pointer}; {RELOAD_EDGE}; {watch}"])
        # Workers of before the reload end, and the watch catches up.
        time.sleep(3)
        found[name].append(_under_load(lab))
    lab.engine("abort", APP, check=True)
    lab.settle()
    slowest = min(rate for name in found for rate, _, _ in found[name])
    bench.add(f"requests/s while it was measured, of {RATE}", slowest, 0.95 * RATE, "1/s", want=">=")
    (_, full_p99, full_took), (_, bare_p99, bare_took) = (zip(*found[name], strict=True) for name in ("full", "bare"))
    more = median([full - bare for full, bare in zip(full_took, bare_took, strict=True)])
    note = f"edge and watch {median(full_took):.1f} %, without log and watch {median(bare_took):.1f} %"
    bench.add(f"CPU of JSON log and watch at {RATE} requests/s", more, 5, "% core", note=note)
    ratio = median([full / bare for full, bare in zip(full_p99, bare_p99, strict=True)])
    note = f"{median(full_p99):.2f} ms against {median(bare_p99):.2f} ms"
    bench.add("p99 with JSON log and watch against without", ratio, 1.1, "x", note=note)


def _under_load(lab: Lab) -> tuple[float, float, float]:
    """Requests in a second, p99 in ms, and what edge and watch took of one core in %, at the fixed rate."""
    before, began = _ticks(lab), time.monotonic()
    workers = 20
    argv = ["hey", "-z", f"{SECONDS}s", "-c", str(workers), "-q", str(RATE // workers), f"http://{lab.host.address}/"]
    out = lab.host.exec(argv, timeout=60).stdout
    took = (_ticks(lab) - before) / (time.monotonic() - began)
    assert set(re.findall(r"\[(\d+)\]\s+\d+ responses", out)) == {"200"}, out
    rate = float(re.findall(r"Requests/sec:\s+([\d.]+)", out)[0])
    return rate, float(re.findall(r"99% in ([\d.]+) secs", out)[0]) * 1000, took


def _ticks(lab: Lab) -> float:
    """Hundredths of a second of CPU that the edge's Nginx and the watch have taken: per cent of a core, by second."""
    script = (
        "w=$(systemctl show -p MainPID --value 'switchyard-watch-*'); e=$(docker inspect -f '{{.State.Pid}}' "
        "switchyard-edge); cat /proc/$e/stat /proc/$w/stat $(sed 's/[0-9][0-9]*/\\/proc\\/&\\/stat/g' "
        "/proc/$e/task/$e/children)"
    )
    lines = lab.host.exec(["sh", "-c", script]).stdout.splitlines()
    return sum(sum(map(int, line.rpartition(")")[2].split()[11:13])) for line in lines)


def compose(lab: Lab, version: str, environment: dict[str, str], **service: Any) -> str:
    """The compose text of a release with a fault."""
    document = yaml.safe_load(lab.request(version)["compose"])
    document["services"]["api-1"]["environment"] |= environment
    document["services"]["api-1"] |= service
    return str(yaml.safe_dump(document))


def back_to_old(lab: Lab, environment: dict[str, str] | None = None) -> None:
    """The old version live, nobody at work."""
    lab.settle()
    result = lab.deploy(OLD, migration=None, probation_seconds=0.0, compose=compose(lab, OLD, environment or {}))
    assert result["code"] == 0, result


def decided(lab: Lab, result: dict[str, Any]) -> float:
    """When the watch decided, in seconds since 1970, by its own log, which has whole seconds."""
    log = f"/var/log/switchyard/ops/{result['op']}.watch.log"
    line = lab.host.exec(["grep", "-h", "watch: verdict", log], check=False).stdout
    if not line:
        return float("inf")
    day = datetime.fromtimestamp(result["switched_at"], UTC)
    moment = datetime.combine(day.date(), datetime.strptime(line.split()[0], "%H:%M:%S").time(), UTC)
    return (moment if moment > day - timedelta(hours=1) else moment + timedelta(days=1)).timestamp()


def nth(count: int, which: int = 0) -> Crossing:
    """The crossing is the bad release's answer of that number, to these users."""

    def found(_: Lab, __: dict[str, Any], users: list[Traffic]) -> float:
        return sorted(seen.at for seen in users[which].seen if seen.release == NEW)[count - 1]

    return found


def logged(lab: Lab, _: dict[str, Any], __: list[Traffic]) -> float:
    """The crossing is what a container wrote down itself."""
    script = "for c in $(docker ps -aq); do docker logs $c 2>&1 | grep '^crossed '; done; true"
    return max(float(line.split()[1]) for line in lab.host.exec(["sh", "-c", script]).stdout.splitlines())


def killed(lab: Lab, _: dict[str, Any], __: list[Traffic]) -> float:
    """The crossing is the end of a container that ran out of memory."""
    script = "docker ps -aq | xargs docker inspect --format '{{.State.OOMKilled}} {{.State.FinishedAt}}' | grep true"
    ends = [line.split()[1] for line in lab.host.exec(["sh", "-c", script]).stdout.splitlines()]
    return max(datetime.fromisoformat(f"{end[:19]}+00:00").timestamp() for end in ends)


def reverts(bench: Bench, lab: Lab) -> None:
    """Bad releases on a real host."""
    dies = ["sh", "-c", "serve & sleep 30; echo crossed $(busybox date +%s); kill $!; sleep 600"]
    # Compose reads "$$" as "$".
    hungry = ["sh", "-c", "serve & sleep 12; x=12345678; while :; do x=$$x$$x$$x$$x; done"]
    ill = ["sh", "-c", "serve & sleep 15; echo crossed $(busybox date +%s); touch /tmp/unhealthy; sleep 600"]
    alone, wide = {"rate": 100.0}, {"rate": 100.0, "workers": 40}
    wards = {"rate": 10.0, "path": "/wards", "workers": 1}
    slo = {"slo": {"routes": [{"path": "/wards"}]}}
    cases: list[tuple[str, str, list[dict[str, Any]], dict[str, Any], Crossing]] = [
        ("10 % errors", compose(lab, NEW, {"ERROR_PERCENT": "10"}), [alone], {}, nth(100)),
        ("3 s answers", compose(lab, NEW, {"PER_SECOND": "13"}), [wide], {}, nth(100)),
        ("crash 30 s after the start", compose(lab, NEW, {}, entrypoint=dies, restart="no"), [alone], {}, logged),
        (
            "memory kill",
            compose(lab, NEW, {}, entrypoint=hungry, restart="no", mem_limit="48m", init=False),
            [alone],
            {},
            killed,
        ),
        ("one declared route", compose(lab, NEW, {"BROKEN_PATH": "/wards"}), [alone, wards], slo, nth(20, 1)),
        ("failing without traffic", compose(lab, NEW, {}, entrypoint=ill, restart="no"), [], {}, logged),
    ]
    for name, text, traffic, more, crossing in cases:
        with bench.part(name):
            back_to_old(lab)
            # Asked right after the switch, they must not be what turns the release back.
            smoke = [{"path": "/health"}]
            with contextlib.ExitStack() as stack:
                users = [stack.enter_context(Traffic(lab.host.address, **one)) for one in traffic]
                result = lab.deploy(
                    NEW, compose=text, smoke_tests=smoke, migration=None, probation_seconds=60.0, **more
                )
            note = result["message"][:90]
            bench.add(f"{name}: reverted", int(result["code"] == 6), 1, "yes", want=">=", note=note)
            decision = decided(lab, result)
            late = decision - crossing(lab, result, users)
            bench.add(f"{name}: decision after crossing", late, 15, "s")
            if users:
                last = max(user.last(NEW) for user in users) - decision
                failed = sum(user.failed() for user in users)
                bench.add(f"{name}: last request that the bad release got after the decision", last, 2, "s")
                if crossing in (logged, killed):
                    # All of them may be asked again of the other colour.
                    bench.add(f"{name}: failed requests, none of which was a write", failed, 0, "requests")


def crash(bench: Bench, lab: Lab) -> None:
    """A crash under writes: nothing is lost but what was under way, and may not be sent twice."""
    back_to_old(lab)
    # All but this shell: a worker outlives its master.
    dies = ["sh", "-c", "serve & sleep 30; kill -9 -1; sleep 600"]
    load = LoadProcess(LoadConfig(url=f"http://{lab.host.address}/", workers=_WRITERS, max_duration=600)).start()
    result = lab.deploy(
        NEW, compose=compose(lab, NEW, {}, entrypoint=dies, restart="no"), smoke_tests=[{"path": "/health"}],
        migration=None, probation_seconds=60.0,
    )  # fmt: skip
    report = load.stop()
    bench.add(
        "crash under writes: reverted", int(result["code"] == 6), 1, "yes", want=">=", note=result["message"][:90]
    )
    reads, writes = report.by_kind["get"], report.by_kind["post"]
    bench.add("crash under writes: reads lost", reads.lost, 0, "requests", note=f"of {reads.sent}")
    # Each of these clients has one request under way.
    bench.add("crash under writes: writes lost", writes.lost, _WRITERS["post"], "requests", note=f"of {writes.sent}")


def clean(bench: Bench, lab: Lab) -> None:
    """Releases on a real host that are no worse than the old one: with traffic, with a spike, and without any."""
    few = {"ERROR_PERCENT": "1"}
    slow = {"PER_SECOND": "13"}
    fast, wide = {"rate": 50.0}, {"rate": 100.0, "workers": 40}
    cases: list[tuple[str, dict[str, str], dict[str, Any] | None, float]] = [
        ("with traffic", {}, fast, 0.0),
        ("traffic spike x 5", {}, fast, 200.0),
        ("at zero traffic", {}, None, 0.0),
        ("1 % errors in both", few, {"rate": 100.0}, 0.0),
        ("slow database for both", slow, wide, 0.0),
    ]
    for name, fault, traffic, spike in cases:
        with bench.part(name):
            back_to_old(lab, fault)
            with contextlib.ExitStack() as stack:
                users = [stack.enter_context(Traffic(lab.host.address, **traffic))] if traffic else []
                if traffic:
                    # The old release's own figures, which the new one is compared with.
                    time.sleep(15)
                if spike:
                    users.append(stack.enter_context(Traffic(lab.host.address, rate=spike, after=15)))
                result = lab.deploy(
                    NEW, migration=None, probation_seconds=20.0, compose=compose(lab, NEW, fault),
                    smoke_tests=[{"path": "/health"}],
                )  # fmt: skip
            note = result["message"][:90]
            bench.add(f"{name}: reverted wrongly", int(result["code"] not in (0, 9)), 0, "times", note=note)
            if not fault:
                bench.add(f"{name}: failed requests", sum(user.failed() for user in users), 0, "requests")


def survival(bench: Bench, lab: Lab) -> None:
    """The verdict comes whatever dies in between; the control machine is gone in all of them."""

    def power() -> None:
        lab.host.power_cycle()

    def kill() -> None:
        lab.host.exec(["sh", "-c", "systemctl kill --signal=KILL 'switchyard-watch-*'"])

    def reload() -> None:
        lab.host.exec(["sh", "-c", f"{RELOAD_EDGE}; logrotate -f /etc/logrotate.d/switchyard-edge"])

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
        except (AssertionError, BedError, OSError, ValueError, IndexError, subprocess.SubprocessError):
            # It boots, or an engine that was just killed says nothing.
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


def served(address: str) -> set[str]:
    """The versions that answer at an edge, on new connections."""
    found = set()
    for _ in range(8):
        connection = http.client.HTTPConnection(address, timeout=10)
        connection.request("GET", "/")
        found.add(str(connection.getresponse().headers["X-Release"]))
        connection.close()
    return found


def edges(bench: Bench) -> None:
    """A canary on two edges: all steps together, and a verdict of one edge that is the verdict of both."""
    with tempfile.TemporaryDirectory() as folder, Bed.for_tests("bench-edges") as bed:
        lab = FleetLab.build(Project(Path(folder)), bed, edges=2, apps=1)
        lab.push(*VERSIONS)
        names = lab.groups["edge"]
        settings = {"app_canary": {"steps": [20, 50], "seconds": 10}, "app_probation_seconds": 10}
        lab.deploy(OLD)
        with contextlib.ExitStack() as stack:
            users = [stack.enter_context(Traffic(lab.hosts[name].address, rate=50)) for name in names]
            text = lab.deploy(NEW, "-e", json.dumps(settings))
        bench.add("two edges, clean canary: failed requests", sum(u.failed() for u in users), 0, "requests")
        bench.say(", ".join(line.strip() for line in text.splitlines() if "% of the clients" in line)[:300])
        both = [served(lab.hosts[name].address) == {NEW} for name in names]
        bench.add("two edges, clean canary: edges on the new release", sum(both), 2, "edges", want=">=")
        bench.say(lab.rollback()["message"])
        _by_hand(bench, lab, settings)
        bench.say(lab.rollback()["message"])
        service = TRIVIAL["app_services"]["api"] | {"env": {"ERROR_PERCENT": "100"}}
        bad = {"app_services": {"api": service}, "app_smoke_tests": [{"path": "/health"}]}
        with contextlib.ExitStack() as stack:
            # Only the second edge has enough users to see it.
            quiet, busy = (
                stack.enter_context(Traffic(lab.hosts[n].address, rate=r)) for n, r in zip(names, (2, 100), strict=True)
            )
            text = lab.deploy(NEW, "-e", json.dumps(settings | bad), check=False)
        bench.add("two edges, one sees errors: reverted", int("is live again" in text), 1, "yes", want=">=")
        apart = abs(quiet.last(NEW) - busy.last(NEW))
        bench.add("two edges, one sees errors: between their last bad answers", apart, 3, "s")
        shown = [served(lab.hosts[name].address) for name in names]
        note = f"{shown}"
        bench.add(
            "two edges, one sees errors: edges on the old release", shown.count({OLD}), 2, "edges", want=">=", note=note
        )


def _by_hand(bench: Bench, lab: FleetLab, settings: dict[str, Any]) -> None:
    """A canary that waits for a person at each step, on both edges."""
    names, canary = lab.groups["edge"], settings["app_canary"] | {"manual": True}
    waited = 0
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(1) as pool:
        users = [stack.enter_context(Traffic(lab.hosts[name].address, rate=50)) for name in names]
        deploy = pool.submit(lab.deploy, NEW, "-e", json.dumps(settings | {"app_canary": canary}), check=False)
        for step in canary["steps"]:
            deadline = time.monotonic() + 180
            while [_step(lab, name)[1] for name in names] != [step] * 2 and not deploy.done():
                assert time.monotonic() < deadline, f"the canary does not hold at {step} %"
                time.sleep(0.5)
            # Longer than an edge is asked, so that one that went on by itself would be seen.
            time.sleep(5)
            waited += [_step(lab, name)[0] for name in names] == [step] * 2
            done = lab.project.run("scripts/switchyard", "promote", ENVIRONMENT)
            bench.say(f"{done.stdout}{done.stderr}".strip())
        text = deploy.result()
    steps = len(canary["steps"])
    bench.add("two edges, canary by hand: steps at which both waited", waited, steps, "steps", want=">=")
    told = sum("% of the clients, on" in line for line in text.splitlines())
    bench.add("two edges, canary by hand: steps that both took", told, steps, "steps", want=">=")
    bench.add("two edges, canary by hand: failed requests", sum(u.failed() for u in users), 0, "requests")
    both = [served(lab.hosts[name].address) == {NEW} for name in names]
    bench.add("two edges, canary by hand: edges on the new release", sum(both), 2, "edges", want=">=")


def _step(lab: FleetLab, name: str) -> tuple[int, int]:
    """The share of the clients that the release on an edge has, and the one at which it has held."""
    pointer = f"/var/lib/switchyard/edge/live/pointers/{FLEET_APP}.conf"
    probation = f"/var/lib/switchyard/{FLEET_APP}/probation.json"
    mark = lab.hosts[name].exec(["head", "-n", "1", pointer]).stdout.removeprefix("# switchyard ")
    known = lab.hosts[name].exec(["cat", probation], check=False).stdout
    return json.loads(mark).get("share", 100), json.loads(known or "{}").get("held", -1)


ALONE: dict[str, Callable[[Bench], None]] = {
    "ledger": ledger.ledger,
    "alerts": ledger.rules,
    "simulation": simulation,
    "cost": cost,
    "edges": edges,
}
WITH_LAB: dict[str, Callable[[Bench, Lab], None]] = {
    "cost of logging": logging,
    "reverts": reverts,
    "crash under writes": crash,
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
