"""One provisioned host with the trivial service for all fault tests."""

from collections.abc import Iterator

import pytest

from tests.bed import Bed
from tests.lab import Lab
from tests.project import Project


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Bed.for_tests("faults") as bed:
        yield Lab.build(Project(tmp_path_factory.mktemp("project")), bed)
