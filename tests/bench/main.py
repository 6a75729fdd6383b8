"""`make bench-main`: the bars of the main job, each timing a median beside its comparison in the same run.

`make bench-main ONLY=word,word` runs the parts whose names contain one of the words: loss, faults, deploy, rollback,
edge, input, demo.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from switchyard.errors import Exit
from tests.bed import Bed
from tests.bench.bars import Bench, chosen, median
from tests.lab import VERSIONS, Lab
from tests.project import ROOT, Project

RUNS = 7
FEWEST = 5
"""A median of fewer runs says too little."""
WRK_SECONDS = 8


def pytest_counts(bench: Bench, *words: str, **environment: str) -> tuple[int, int]:
    """Run a part of the test suite; returns how many passed and how many failed."""
    with tempfile.NamedTemporaryFile(suffix=".xml") as report:
        argv = [sys.executable, "-m", "pytest", "-q", "-o", "timeout=14400", f"--junitxml={report.name}", *words]
        subprocess.run(argv, cwd=ROOT, env={**os.environ, **environment}, check=False)
        text = Path(report.name).read_text()
    numbers = {
        key: sum(map(int, re.findall(rf'<testsuite [^>]*{key}="(\d+)"', text)))
        for key in ("tests", "failures", "errors")
    }
    bad = numbers["failures"] + numbers["errors"]
    bench.say(f"{' '.join(words)}: {numbers['tests'] - bad} passed, {bad} failed")
    return numbers["tests"] - bad, bad


def loss(bench: Bench) -> None:
    """Twenty switches under every kind of client, and the control."""
    path = ROOT / "build" / "loss.json"
    path.unlink(missing_ok=True)
    pytest_counts(bench, "tests/integration/test_2_loss.py", SWITCHYARD_LOSS_REPORT=str(path))
    figures = json.loads(path.read_text()) if path.is_file() else {"lost": 1e9, "sent": 0, "control_lost": 0}
    note = f"of {figures['sent']} requests"
    bench.add("lost or duplicated over 20 switches under load", figures["lost"], 0, "requests", note=note)
    bench.add("requests in those 20 switches", figures["sent"], 30_000, "requests", want=">=")
    bench.add("lost in the control, directive off", figures["control_lost"], 5, "requests", want=">=")


def faults(bench: Bench) -> None:
    """Every fault point, and the test that no effect bypasses the two functions."""
    # What takes longest comes first.
    files = [f"tests/faults/test_{name}.py" for name in ("every_point", "hosts", "fleet", "edge", "preflight")]
    _, bad = pytest_counts(bench, "-n", "2", "--dist", "loadscope", "--no-loadscope-reorder", *files)
    bench.add("fault points that did not converge or left users unserved", bad, 0, "failures")
    _, bad = pytest_counts(bench, "tests/unit", "-k", "bypass")
    bench.add("effects that bypass the two functions", bad, 0, "failures")


def bad_input(bench: Bench) -> None:
    """Every bad input's one clear sentence."""
    inventory = ("tests/unit/test_inventory.py", "tests/unit/test_inventory_playbooks.py")
    good, bad = pytest_counts(bench, *inventory, "tests/faults/test_preflight.py")
    bench.add("bad inputs without their one sentence, or with a change", bad, 0, "failures", note=f"{good} cases")


def deploy(bench: Bench, lab: Lab) -> None:
    """A whole deploy against a ping and a hand-run compose pull and up, alternating; and its remote tasks."""
    ours, by_hand, ping, remote = [], [], [], 0
    phases: dict[str, list[float]] = {}
    hand = (
        "sudo sh -c 'cd /root/hand && VERSION={0} docker compose pull -q "
        "&& VERSION={0} docker compose up -d --wait -t 1'"
    )
    image = f"{lab.registry.address}/trivial:$VERSION"
    compose = f'services: {{api: {{image: "{image}", ports: ["127.0.0.1:17999:8000"], init: true}}}}'
    lab.host.exec(["sh", "-c", "mkdir -p /root/hand && cat > /root/hand/compose.yml"], stdin=compose)
    for version in VERSIONS:
        assert lab.project.play("deploy", "-e", f"version={version}").returncode == 0
        lab.host.ssh(hand.format(version))
    for number in range(RUNS):
        version = VERSIONS[number % 2]
        started = time.monotonic()
        done = lab.project.play("deploy", "-e", f"version={version}")
        seconds = time.monotonic() - started
        assert done.returncode == 0, done.stdout
        end = lab.history()[-1]["end"]
        ours.append(seconds - end["phases"]["watch"])
        for name, value in end["phases"].items():
            phases.setdefault(name, []).append(value)
        remote = max(remote, len(re.findall(r"^(?:ok|changed): \[local-1\]", done.stdout, re.MULTILINE)))
        started = time.monotonic()
        done = lab.project.run("ansible", "local-1", "-e", "env=local", "-m", "ansible.builtin.ping")
        assert done.returncode == 0, done.stdout + done.stderr
        ping.append(time.monotonic() - started)
        started = time.monotonic()
        lab.host.ssh(hand.format(version))
        by_hand.append(time.monotonic() - started)
    lab.host.exec(["sh", "-c", "cd /root/hand && VERSION=1.0.0 docker compose down -t 1"])
    ratio = median([a / (b + c) for a, b, c in zip(ours, ping, by_hand, strict=True)])
    note = f"{median(ours):.2f} s against {median(ping):.2f} + {median(by_hand):.2f} s, probation excluded"
    bench.add("whole deploy against ansible ping + hand-run compose", ratio, 1.5, "x", note=note)
    split = ", ".join(f"{name} {median(values):.2f}" for name, values in phases.items() if name != "watch")
    bench.say(f"deploy by phase, seconds: {split}")
    bench.add("remote tasks on the deploy path, one host", remote, 3, "tasks")


def rollback(bench: Bench, lab: Lab) -> None:
    """A warm rollback: the flip, and the whole command."""
    moved, whole = [], []
    for number in range(RUNS):
        started = time.monotonic()
        done = lab.project.run("scripts/rollback.sh", "local", VERSIONS[number % 2], "--json")
        seconds = time.monotonic() - started
        result = json.loads(done.stdout)
        # What was live before may be what the first one asks for.
        assert result["code"] in (Exit.OK, Exit.ALREADY_LIVE), result
        if result["code"] == Exit.OK:
            whole.append(seconds)
            moved.append(result["live_ms"] / 1000)
    assert len(whole) >= FEWEST, f"only {len(whole)} rollbacks moved anything"
    bench.add("warm rollback, engine start to old release on new connections", median(moved), 0.5, "s")
    bench.add("warm rollback, whole command", median(whole), 1.2, "s", note=f"{len(whole)} runs")


def edge(bench: Bench, lab: Lab) -> None:
    """Throughput through the edge with full logging against the upstream itself, alternating in one run."""
    lab.host.exec(["sh", "-c", "command -v wrk || (apt-get update -qq && apt-get install -y -qq wrk)"], timeout=300)
    ports = json.loads(lab.host.exec(["cat", "/var/lib/switchyard/ports.json"]).stdout)
    port = ports[f"trivial-local/api/1/{lab.status()['live']['colour']}"]
    rates: dict[str, list[float]] = {"edge": [], "direct": []}
    targets = {"edge": f"http://{lab.host.address}/", "direct": f"http://127.0.0.1:{port}/"}
    for _ in range(5):
        for name, url in targets.items():
            out = lab.host.exec(["wrk", "-t2", "-c40", f"-d{WRK_SECONDS}s", url], timeout=60).stdout
            rates[name].append(float(re.findall(r"Requests/sec:\s+([\d.]+)", out)[0]))
            assert "Non-2xx" not in out, out
    share = median([a / b for a, b in zip(rates["edge"], rates["direct"], strict=True)])
    note = f"{median(rates['edge']):.0f}/s against {median(rates['direct']):.0f}/s"
    bench.add("edge throughput with full logging against the upstream", share, 0.4, "x", want=">=", note=note)


def demo(bench: Bench) -> None:
    """What `make demo` runs, from nothing but the outer engine, and again; in a Python environment of its own."""
    subprocess.run([sys.executable, "-m", "tests.bed", "down", "--name", "local", "--images"], cwd=ROOT, check=True)
    with tempfile.TemporaryDirectory() as venv:
        python = f"{venv}/bin/python"
        environment = {**os.environ, "VENV": venv, "SWITCHYARD_PYTHON": python}
        commands = (["scripts/setup.sh", "run"], [python, "scripts/demo.py", "up"])
        for name, limit in (("on a fresh machine (images and environment removed before)", 10.0), ("again", 3.0)):
            started = time.monotonic()
            well = all(
                subprocess.run(argv, cwd=ROOT, env=environment, check=False).returncode == 0 for argv in commands
            )
            minutes = (time.monotonic() - started) / 60
            bench.add(f"make demo {name}", minutes if well else 1e9, limit, "min")
    figures = json.loads((ROOT / "build" / "demo.json").read_text())
    note = f"of {figures['requests']} requests"
    bench.add("make demo: lost or duplicated", figures["lost"] + figures["duplicated"], 0, "requests", note=note)


ALONE: dict[str, Callable[[Bench], None]] = {"loss": loss, "input": bad_input, "demo": demo, "faults": faults}
WITH_LAB: dict[str, Callable[[Bench, Lab], None]] = {"deploy": deploy, "rollback": rollback, "edge": edge}


def main() -> int:
    """Run the parts that ONLY names, or all."""
    names, bench = chosen([*WITH_LAB, *ALONE]), Bench("main")
    if with_lab := [name for name in names if name in WITH_LAB]:
        with tempfile.TemporaryDirectory() as folder, Bed.for_tests("bench") as bed:
            bench.say("provisioning a host for the trivial service")
            lab = Lab.build(Project(Path(folder)), bed)
            for version in VERSIONS:
                assert lab.project.play("deploy", "-e", f"version={version}").returncode == 0
            for name in with_lab:
                with bench.part(name):
                    WITH_LAB[name](bench, lab)
    for name in names:
        if name in ALONE:
            with bench.part(name):
                ALONE[name](bench)
    return bench.finish()


if __name__ == "__main__":
    sys.exit(main())
