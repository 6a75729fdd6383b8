"""How tests are spread over workers, and the host that suites share: it belongs to one worker."""

import os
import re
from collections.abc import Iterator

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.bed import Bed
from tests.lab import Lab
from tests.project import Project

_SHARED = (
    (r"tests/integration/test_[123]_", "main job"),
    (r"tests/integration/test_6_|tests/faults/", "faults"),
)
"""Files that share hosts, by the beginning of their path, and a name for all of them."""


class _ByHost(LoadScopeScheduling):
    """Gives a worker all tests of one host, in their order; without a shared host, all tests of one file."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        if file.startswith("tests/faults/") and os.environ.get("SWITCHYARD_FAULTS") != "smoke":
            # The whole campaign is worth a host for each worker, and every point of a deploy a worker of its own.
            return nodeid if file.endswith("test_every_point.py") else file
        return next((name for pattern, name in _SHARED if re.match(pattern, file)), file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> _ByHost | None:
    """Spread by host where the command line says `--dist loadscope`."""
    return _ByHost(config, log) if config.getvalue("dist") == "loadscope" else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Drop the cases that this run leaves out."""
    left_out = [i for i in items if any("empty parameter set" in str(mark.kwargs) for mark in i.iter_markers("skip"))]
    if left_out:
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One provisioned host with the trivial service."""
    with Bed.for_tests("faults") as bed:
        yield Lab.build(Project(tmp_path_factory.mktemp("project")), bed)
