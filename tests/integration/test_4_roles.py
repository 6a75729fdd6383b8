"""A smoke of every role: converge, idempotence and verify, on one host, each on what those before it left."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from switchyard.control.inventory import ROLES
from tests import molecule
from tests.bed import Bed


@pytest.fixture(scope="module", autouse=True)
def host() -> Iterator[None]:
    with Bed.for_tests("molecule") as bed:
        molecule.create(bed, ROLES, smoke=True)
        yield


@pytest.mark.parametrize("role", ROLES)
def test_a_role_converges_once_more_on_what_others_left(role: str) -> None:
    assert molecule.scenario(role, smoke=True)
