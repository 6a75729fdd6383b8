"""`make bench-ci`: the bars of the way from a push to production.

`make bench-ci ONLY=word,word` runs the parts whose names contain one of the words: gate, jobs, lint, thin,
trust, rotation, secrets.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.bed import Bed
from tests.bench.bars import Bench, median, run
from tests.bench.main import RUNS, pytest_counts
from tests.pipeline.estate import Estate
from tests.project import ROOT, Project


def trust(bench: Bench) -> None:
    """Every image and registry that must not get a release through, and rollbacks without any of it."""
    words = ("tests/integration/test_10_trust.py", "tests/faults/test_preflight.py", "-k", "test_10_trust or registry")
    good, bad = pytest_counts(bench, *words)
    bench.add(
        "images and registries not refused or not survived as they must be", bad, 0, "failures", note=f"{good} cases"
    )
    _, bad = pytest_counts(bench, "tests/unit/test_trust.py")
    bench.add("scanner reports and policies judged wrongly", bad, 0, "failures")


def rotation(bench: Bench) -> None:
    """The database password rotated, rolled back across and retired under load; and traces of the secrets."""
    path = ROOT / "build" / "rotation.json"
    path.unlink(missing_ok=True)
    _, bad = pytest_counts(bench, "tests/integration/test_7_rotation.py", SWITCHYARD_ROTATION_REPORT=str(path))
    figures = json.loads(path.read_text()) if path.is_file() else {"sent": 0, "failed": 1e9, "traces": 1e9}
    note = f"of {figures['sent']} requests"
    bench.add(
        "failed requests, password rotation under load and rollback across it",
        figures["failed"],
        0,
        "requests",
        note=note,
    )
    bench.add("steps of the rotation that went wrong", bad, 0, "failures")
    bench.add("secrets found in logs, processes, ledger, journal, Docker", figures["traces"], 0, "canaries")


def secrets(bench: Bench) -> None:
    """The scan of the repository, and whether it finds what is planted."""
    _, bad = pytest_counts(bench, "tests/unit/test_secret_scan.py")
    bench.add("planted canaries that the secret scan missed", bad, 0, "canaries")
    done = subprocess.run(
        [sys.executable, "scripts/ci/secret_scan.py"], cwd=ROOT, check=False, capture_output=True, text=True
    )
    lines = [line for line in done.stdout.splitlines() if ": " in line]
    bench.add("findings of the secret scan, and ignores without a reason", len(lines), 0, "findings")


PIPELINE = "tests/integration/test_9_pipeline.py"


def gate(bench: Bench) -> None:
    """Everything that a key may not do: lines in process and through sshd, other channels, other keys."""
    _, bad = pytest_counts(bench, "tests/unit/test_gate.py", "tests/unit/test_control_access.py")
    bench.add("of 10,000 lines in process, judged wrongly (and other faults of the gate)", bad, 0, "failures")
    words = "grammar or no_other_way or told_apart or leaked"
    _, bad = pytest_counts(bench, PIPELINE, "-k", words, SWITCHYARD_PIPELINE="whole")
    bench.add("of 200 lines through sshd, sftp, scp, forwards, pty, variables: let through", bad, 0, "failures")


def jobs(bench: Bench) -> None:
    """Pushes, tags, rollbacks; jobs that are killed in each phase; webhooks that are down; traces of secrets."""
    path = ROOT / "build" / "pipeline.json"
    path.unlink(missing_ok=True)
    words = "not (grammar or no_other_way or told_apart or leaked)"
    good, bad = pytest_counts(
        bench, PIPELINE, "-k", words, SWITCHYARD_PIPELINE="whole", SWITCHYARD_PIPELINE_REPORT=str(path)
    )
    bench.add("jobs that did not end as they must, or harmed users", bad, 0, "failures", note=f"{good} cases")
    figures: dict[str, float] = json.loads(path.read_text()) if path.is_file() else {}
    killed = [seconds for name, seconds in figures.items() if name.startswith("killed: ")] or [1e9]
    bench.add(
        "lease free after a job was killed, the slowest phase", max(killed), 60, "s", note=f"{len(killed)} phases"
    )
    for budget, limit in (("P1", 420), ("P2", 300), ("P3", 600)):
        name, seconds = next(((n, s) for n, s in figures.items() if n.startswith(budget)), (budget, 1e9))
        bench.add(name, seconds, limit, "s", note="without what a hosted runner adds")
    _, bad = pytest_counts(bench, "tests/unit/test_notify.py")
    bench.add("webhook down, slow, 500: news lost, or a deploy that waited", bad, 0, "failures")


def lint(bench: Bench) -> None:
    """Workflows: what is wrong, and what an attacker could use."""
    files = [str(path) for folder in (".github/workflows", "examples/github") for path in (ROOT / folder).glob("*.yml")]
    for name, argv in (
        ("actionlint", ["scripts/actionlint.sh"]),
        ("zizmor, offline", ["zizmor", "--offline", "--quiet", "--persona", "pedantic", "--format", "github"]),
    ):
        done = subprocess.run([*argv, *files], cwd=ROOT, check=False, capture_output=True, text=True)
        lines = [line for line in done.stdout.splitlines() if line.strip()]
        bench.add(f"findings of {name}", len(lines) or done.returncode, 0, "findings", note=f"{len(files)} files")
    left_out = sum("zizmor: ignore" in Path(file).read_text() for file in files)
    bench.add("findings that are ignored in a workflow", left_out, 0, "findings")


def thin(bench: Bench) -> None:
    """A deploy through the gate against the same phases by hand on the host, alternating, images on the host."""
    with tempfile.TemporaryDirectory() as folder, Bed.for_tests("thin") as bed:
        estate = Estate.build(Project(Path(folder)), bed, "staging")
        host, versions = estate.hosts["staging"], ("9.0.0", "9.0.1")
        for version in versions:
            estate.push(version)
            assert estate.gate("staging", f"deploy {version}").returncode == 0
        ours, by_hand = [], []
        for run in range(2 * RUNS):
            version = versions[run % 2]
            began = time.monotonic()
            if run % 4 < 2:
                done = estate.gate("staging", f"deploy {version}")
                ours.append(time.monotonic() - began)
            else:
                done = host.ssh(["sudo", "python3", "-", version], stdin=_BY_HAND, check=False)
                by_hand.append(time.monotonic() - began)
            assert done.returncode == 0, done.stdout + done.stderr
        estate.receiver.stop()
    note = f"{median(ours):.2f} s against {median(by_hand):.2f} s"
    bench.add(
        "thin job against the same phases by hand on the host", median(ours) / median(by_hand), 1.3, "x", note=note
    )


_BY_HAND = """
import json, subprocess, sys
sys.path.insert(0, "/usr/local/sbin/switchyard")
from switchyard.engine.layout import AppPaths
from switchyard.gate.definition import request
from switchyard.gate.grammar import Order
from switchyard.names import AppName

app = "trivial-staging"
data = json.dumps(request(AppPaths(AppName.parse(app)), Order("deploy", sys.argv[1]), "hand"))
run = lambda *words, **more: subprocess.run(["switchyard", *words], check=True, capture_output=True, text=True, **more)
said = run("preflight", "--json", input=data).stdout  # what it says while it works, then its answer
release = json.loads(said[said.index("{"):])["release"]
for phase in ("pull", "migrate", "start", "verify", "switch", "watch", "finish"):
    run("phase", app, phase, release)
"""


PARTS: dict[str, Callable[[Bench], None]] = {
    "gate": gate,
    "jobs": jobs,
    "lint": lint,
    "thin": thin,
    "trust": trust,
    "rotation": rotation,
    "secrets": secrets,
}


if __name__ == "__main__":
    sys.exit(run("ci", PARTS))
