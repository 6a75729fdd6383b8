"""The environment of the main job: a bare host, a registry with the sample's images, a project of its own."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.bed import Bed, Host, images
from tests.project import ROOT, Project

SAMPLE = ROOT / "examples" / "sample"
OLD, NEW, BROKEN = "1.0.0", "1.1.0", "1.2.0"
APP = "sample-local"
DRAIN = 60  # edge_drain_seconds


@dataclass(frozen=True)
class Environment:
    """What a test of the main job works with."""

    project: Project
    bed: Bed
    host: Host

    @property
    def url(self) -> str:
        """Where users come in."""
        return f"http://{self.host.address}/"

    def live(self) -> str:
        """The live version, by the engine's own report."""
        report = self.project.status()
        return str(report["live"]["version"]) if report.get("live") else ""

    def fingerprint(self) -> str:
        """Everything on the host that a plan must not change: files, containers, images."""
        script = (
            # Postgres writes its own files whenever it likes, and so do the timers that look and count.
            "find /etc /var/lib/switchyard /usr/local -path /var/lib/switchyard/postgres -prune -o "
            "-type f -not -path '*/traffic/*' -not -path '*/edge/report/*' -not -name disk.json "
            "-not -name standing.json -not -name 'ca-certificates*' -print0 | sort -z "
            "| xargs -0 sha256sum; docker ps -a --no-trunc --format '{{.ID}} {{.State}}'; docker images --no-trunc -q"
        )
        return self.host.exec(["sh", "-c", script]).stdout


@pytest.fixture(scope="session")
def bed() -> Iterator[Bed]:
    with Bed.for_tests("integration") as bed:
        registry = bed.registry()
        registry.push(images.ensure("edge"), "nginx", "1.30")
        registry.push(images.ensure("postgres"), "postgres", "17-trixie")
        for version in (OLD, NEW, BROKEN):
            for part in ("api", "web"):
                built = images.build(SAMPLE, f"sample-{part}", {"RELEASE": version}, dockerfile=f"{part}/Dockerfile")
                registry.push(built, f"sample-{part}", version)
            registry.push(images.trivial(version), "trivial", version)
        yield bed


@pytest.fixture(scope="session")
def bare(bed: Bed, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """A host with nothing but SSH, and a project that knows it."""
    project = Project(tmp_path_factory.mktemp("project"))
    host = bed.host("local-1")
    project.adopt(bed, host)
    return Environment(project, bed, host)


@pytest.fixture(scope="session")
def provisioned(bare: Environment) -> Environment:
    """The same host after its first provision."""
    done = bare.project.play("provision")
    assert done.returncode == 0, done.stdout + done.stderr
    return bare


@pytest.fixture(scope="session")
def released(provisioned: Environment) -> Environment:
    """The same host with the old version live."""
    done = provisioned.project.play("deploy", "-e", f"version={OLD}")
    assert done.returncode == 0, done.stdout + done.stderr
    return provisioned


def facts(path: Path) -> dict[str, str]:
    """The facts file of a project."""
    data: dict[str, str] = json.loads(path.read_text())
    return data
