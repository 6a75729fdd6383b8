"""Starting and stopping a colour: how long Docker may take for it."""

from __future__ import annotations

from typing import Any

import pytest

from switchyard.engine import colour, ports
from switchyard.engine.effects import Completed
from tests.unit.engine_world import NAME, World, service


@pytest.mark.parametrize(("grace", "expected"), [((None, None), 10), ((70, 5), 70), ((5, 900), 900), ((0, 0), 0)])
def test_docker_is_waited_for_longer_than_the_containers_may_take_to_stop(
    world: World, monkeypatch: pytest.MonkeyPatch, grace: tuple[int | None, int | None], expected: int
) -> None:
    record = world.release(1, "blue", services={"api": service(instances=2)})
    for index, seconds in enumerate(grace, start=1):
        world.docker.containers[f"shop-test-blue-api-{index}"]["StopTimeout"] = seconds
    given: dict[str, float] = {}

    def run(_: object, *, step: str, timeout: float, **__: Any) -> Completed:
        given[step] = timeout
        return Completed(0, "", "")

    monkeypatch.setattr(colour, "run", run)
    colour.stop(NAME, "blue")
    colour.start(record, "blue", ports.load(), world.host)
    colour.start(record, "green", ports.load(), world.host)
    assert given["colour.stop"] == 110 + expected
    # The last one started where nothing runs that would have to be stopped first.
    assert given["colour.start"] == 300
