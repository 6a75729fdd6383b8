"""Every effect of a deploy and of a rollback, times {kill, error, hang}, times {before, after}.

The points are not listed here: they are taken from a run of the engine itself, so that a new effect is covered when
it is written. `SWITCHYARD_FAULTS=smoke` (what `make test` runs) kills after each effect once.
"""

import itertools
import os
from collections.abc import Iterator

import pytest

from tests.faults.invariants import check, converge
from tests.lab import VERSIONS, Fault, Lab
from tests.load import LoadConfig, LoadProcess

SMOKE = os.environ.get("SWITCHYARD_FAULTS") == "smoke"
WAYS = [("kill", "after")] if SMOKE else list(itertools.product(("kill", "error", "hang"), ("before", "after")))


def other(version: str) -> str:
    return VERSIONS[1] if version == VERSIONS[0] else VERSIONS[0]


def live(lab: Lab) -> str:
    return str(lab.status()["live"]["version"])


def traced(lab: Lab, operation: str) -> list[tuple[str, int]]:
    """The steps of one undisturbed operation, in order."""
    lab.settle()
    lab.arm(None, trace=True)
    result = lab.deploy(other(live(lab))) if operation == "deploy" else lab.rollback()
    assert result["code"] == 0, result
    lab.settle()
    steps = lab.steps()
    lab.disarm()
    # Numbered within each process. How often the notifier passes its steps depends on when it looked.
    return [(step, nth) for step, nth in dict.fromkeys(steps) if nth == 1 or not step.startswith("notify.")]


@pytest.fixture(scope="module")
def load(lab: Lab) -> Iterator[LoadProcess]:
    """Users, of whom nobody was unserved in the end."""
    for version in VERSIONS:
        assert lab.deploy(version)["code"] == 0
    config = LoadConfig(url=lab.url, workers={"get": 4, "post": 2, "new": 2}, max_duration=6 * 3600, think=(0.02, 0.05))
    process = LoadProcess(config).start()
    yield process
    report = process.stop()
    assert report.sent > 100 and report.lost == 0, report.summary()


@pytest.mark.timeout(1_200 if SMOKE else 4 * 3_600)
@pytest.mark.parametrize("operation", ["deploy", "rollback"])
def test_every_point(lab: Lab, load: LoadProcess, operation: str) -> None:
    steps = traced(lab, operation)
    assert len(steps) >= 15, f"the trace of a {operation} has only {steps}"
    silent = []
    for (step, nth), (how, when) in itertools.product(steps, WAYS):
        fault = Fault(step, nth, when, how)
        start = live(lab)
        wanted = other(start)
        # Only the migration's own points need one; without it the smoke run takes half the time.
        changes = {} if not SMOKE or "migrat" in step else {"migration": None}
        lab.arm(fault)
        result = lab.deploy(wanted, **changes) if operation == "deploy" else lab.rollback(wanted)
        lab.settle()
        if step.startswith("notify."):
            lab.await_notifier()
        if lab.disarm():
            silent.append(str(fault))
        check(lab, f"{fault} in a {operation} ({result.get('message') or result.get('error')})")
        lost = load.snapshot()
        assert lost.lost == 0, f"after {fault}: {lost}"
        # In the smoke run it is the next deploy that converges: it gets as far as the next effect, or is silent.
        if not SMOKE or operation == "rollback" or (step, nth) == steps[-1]:
            converge(lab, wanted, fault, **changes)
    print(f"{operation}: {len(steps)} effects, {len(steps) * len(WAYS) - len(silent)} faults")
    assert silent == [], "planned faults that never fired"
