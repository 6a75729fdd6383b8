"""The smallest environment of several hosts: one deploy, one that breaks on a host, one rollback, under load."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bed import Bed
from tests.fleet import FleetLab
from tests.lab import PLAN, VERSIONS
from tests.load import LoadConfig, LoadProcess
from tests.project import Project

OLD, NEW = VERSIONS
EDGE, APPS = "fleet-edge-1", ["fleet-app-1", "fleet-app-2"]


@pytest.fixture(scope="module")
def lab() -> Iterator[FleetLab]:
    with tempfile.TemporaryDirectory() as folder, Bed.for_tests("fleet") as bed:
        lab = FleetLab.build(Project(Path(folder)), bed)
        lab.push(*VERSIONS)
        yield lab


def test_hosts_move_together_and_stay_together_when_one_breaks(lab: FleetLab) -> None:
    assert "is live on blue (fleet-app-1, fleet-app-2)" in lab.deploy(OLD)
    workers = {"get": 4, "post": 2, "new": 2}
    with LoadProcess(LoadConfig(url=lab.url(EDGE), workers=workers, think=(0.02, 0.1), drain=5)).start() as load:
        # The unit that starts the release on one host is killed.
        plan = json.dumps({"step": "lease.start", "nth": 1, "when": "after", "how": "kill"})
        lab.hosts[APPS[1]].exec(["sh", "-c", f"umask 077; mkdir -p /run/switchyard; cat > {PLAN}"], stdin=plan)
        text = lab.deploy(NEW, check=False)
        assert "0001-1.0.0 serves, on every edge that can be reached" in text, text
        assert (lab.versions(EDGE), lab.status()["mixed"]) == ({OLD}, False)
        assert "is live on green (fleet-app-1, fleet-app-2)" in lab.deploy(NEW)
        assert lab.versions(EDGE) == {NEW}
        assert lab.rollback()["code"] == 0
        assert lab.versions(EDGE) == {OLD}
        report = load.stop()
    assert report.lost == 0 and report.duplicated == 0, report.summary()
    assert set(report.by_release) == {OLD, NEW}
    assert lab.status()["disagreements"] == []
