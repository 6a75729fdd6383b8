"""Nothing is lost over twenty switches; without the protecting directive something is, so the client can see it."""

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.held import Held
from tests.integration.conftest import NEW, OLD, Environment
from tests.loss import Switching


@pytest.fixture(scope="module")
def switching(released: Environment) -> Iterator[Switching]:
    """Both releases warm, the old one live, TLS on."""
    for version in (NEW, OLD):
        done = released.project.play("deploy", "-e", f"version={version}")
        assert done.returncode == 0, done.stdout + done.stderr
    switching = Switching(released.project, released.host, (OLD, NEW))
    switching.set_edge()
    yield switching
    switching.give_back()


def note(**figures: float) -> None:
    """Add figures to the file that the benchmark asks for."""
    if name := os.environ.get("SWITCHYARD_LOSS_REPORT"):
        path = Path(name)
        path.parent.mkdir(exist_ok=True)
        known = json.loads(path.read_text()) if path.is_file() else {}
        path.write_text(json.dumps(known | figures))


def test_twenty_switches_lose_and_repeat_nothing(switching: Switching) -> None:
    report = switching.run(switches=20, requests=30_000)
    note(sent=report.sent, lost=report.lost + report.duplicated)
    assert report.lossless, report.summary()
    assert report.sent >= 30_000
    assert report.non_monotonic == 0
    assert switching.missing_assets == []
    assert {OLD, NEW} <= set(report.by_release)


def test_the_control_without_the_directive_loses_requests(switching: Switching) -> None:
    switching.set_edge(edge_keepalive_min_seconds=0)
    try:
        lost = switching.control(wanted=5, limit=60)
    finally:
        switching.set_edge()
    note(control_lost=lost)
    assert lost >= 5, "the client saw no loss where there must be one"


@pytest.mark.parametrize("word", ["abort", "promote"])
def test_websockets_and_uploads_stay_where_they_began_when_a_canary_goes_and_when_it_gets_everybody(
    switching: Switching, released: Environment, word: str
) -> None:
    project, old = switching.project, released.live()
    new = NEW if old == OLD else OLD
    # For testers alone, until somebody promotes it.
    canary = {"app_canary": {"steps": [0], "manual": True, "tester": "canary"}, "app_probation_seconds": 3}
    done = project.play("deploy", "-e", f"version={new}", "-e", json.dumps(canary))
    assert done.returncode == 0, done.stdout + done.stderr

    async def hold() -> list[tuple[str, str]]:
        held = [await Held.open(released.host.address, "canary", side) for side in ("never", "always")]
        said = await asyncio.to_thread(project.run, "scripts/switchyard", word, "local")
        assert said.returncode == 0, said.stdout + said.stderr
        later = await Held.open(released.host.address, "canary", "always")
        assert await later.end() == later.began == (old if word == "abort" else new)
        return [(one.began, await one.end()) for one in held]

    assert asyncio.run(hold()) == [(old, old), (new, new)]
