"""The port plan: a port once given never moves and is never given twice."""

from __future__ import annotations

import json

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from switchyard.engine import layout, ports
from switchyard.engine.layout import HostConfig
from switchyard.engine.ports import Plan
from switchyard.errors import Exit, SwitchyardError
from switchyard.names import COLOURS, AppName
from tests.unit.engine_world import NAME, QUICK, World

SMALL = HostConfig("vm1", port_first=18000, port_last=18029)
names = st.builds(AppName, st.sampled_from(["a", "a-b", "b"]), st.sampled_from(["prod", "test"]))


class PlanMachine(RuleBasedStateMachine):
    """Applications come and grow in any order, on a host with thirty ports."""

    def __init__(self) -> None:
        super().__init__()
        self.plan: Plan = {}
        self.given: Plan = {}

    @rule(name=names, services=st.dictionaries(st.sampled_from(["api", "web", "b-api"]), st.integers(1, 4), max_size=3))
    def extend(self, name: AppName, services: dict[str, int]) -> None:
        before = dict(self.plan)
        try:
            self.plan = ports.extend(self.plan, name, services, SMALL)
        except SwitchyardError as error:
            missing = {
                key
                for service, count in services.items()
                for index in range(1, count + 1)
                for colour in COLOURS
                if (key := f"{name}/{service}/{index}/{colour}") not in before
            }
            assert len(before) + len(missing) > 30
            assert error.message == "No port is free between 18000 and 18029: widen engine_port_last."
            assert error.code is Exit.PREFLIGHT
            return
        for service, count in services.items():
            for colour in COLOURS:
                assert len(ports.addresses(self.plan, name, service, count, colour, "127.0.0.1")) == count

    @invariant()
    def no_port_moves(self) -> None:
        assert self.given.items() <= self.plan.items()
        self.given = dict(self.plan)

    @invariant()
    def no_port_is_given_twice_or_outside_the_range(self) -> None:
        assert len(set(self.plan.values())) == len(self.plan)
        assert all(18000 <= port <= 18029 for port in self.plan.values())


TestPlanMachine = PlanMachine.TestCase
TestPlanMachine.settings = settings(QUICK, max_examples=25, stateful_step_count=12)


def test_the_plan_that_is_extended_is_itself_left_alone() -> None:
    plan: Plan = {}
    ports.extend(plan, NAME, {"api": 1}, SMALL)
    assert plan == {}


def test_a_smaller_release_keeps_the_ports_of_the_larger_one() -> None:
    plan = ports.extend({}, NAME, {"api": 3}, SMALL)
    assert ports.extend(plan, NAME, {"api": 1}, SMALL) == plan


def test_addresses_follow_the_instances_in_order() -> None:
    plan = ports.extend({}, NAME, {"api": 2}, SMALL)
    found = ports.addresses(plan, NAME, "api", 2, "green", "10.0.0.5")
    assert found == [f"10.0.0.5:{plan[f'shop-test/api/{index}/green']}" for index in (1, 2)]


def test_an_ipv6_address_is_bracketed() -> None:
    plan = ports.extend({}, NAME, {"api": 1}, SMALL)
    assert ports.addresses(plan, NAME, "api", 1, "blue", "fd00::5") == ["[fd00::5]:18000"]


def test_ensure_writes_the_plan_once_and_says_whether_it_changed(world: World) -> None:
    assert ports.ensure(NAME, {"api": 1}, world.host, check=True)
    assert not layout.PORTS.exists()
    assert ports.ensure(NAME, {"api": 1}, world.host)
    assert json.loads(layout.PORTS.read_text()) == ports.load()
    assert not ports.ensure(NAME, {"api": 1}, world.host)
    assert not ports.ensure(NAME, {"api": 1}, world.host, check=True)


def test_an_unreadable_plan_is_an_error_and_no_empty_plan(world: World) -> None:
    layout.PORTS.write_text("{")
    with pytest.raises(SwitchyardError, match="cannot be read"):
        ports.ensure(NAME, {"api": 1}, world.host)
    assert layout.PORTS.read_text() == "{"


def test_a_plan_that_is_lost_while_something_is_live_is_not_made_anew(world: World) -> None:
    world.release(1, "blue")
    layout.PORTS.unlink()
    with pytest.raises(SwitchyardError, match="is missing although applications are live: 'switchyard recover'"):
        ports.load()


def test_a_busy_plan_is_not_written(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "exclusive", _busy)
    with pytest.raises(SwitchyardError, match="being changed by someone else"):
        ports.ensure(NAME, {"api": 1}, world.host)
    assert not layout.PORTS.exists()


def _busy(*_: object, busy: str, **__: object) -> None:
    raise SwitchyardError(busy, Exit.BUSY)
