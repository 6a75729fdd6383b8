"""The lease: one holder at a time, and a dead one loses the right by itself."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from switchyard.engine import lease, member
from switchyard.engine.lease import LEASE_SECONDS, Lease
from switchyard.engine.operation import Operation, Result
from switchyard.engine.order import Order, Verb
from switchyard.engine.site import Pointer
from switchyard.errors import Exit, SwitchyardError
from tests.unit.engine_world import NAME, OPERATION, World


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> dict[int, str]:
    """Processes by id with their start times; this one may be given another id."""
    table = {100: "5000"}
    monkeypatch.setattr(lease, "_started", lambda pid: table.get(pid, ""))
    monkeypatch.setattr(os, "getpid", lambda: next(iter(table)))
    return table


def acquire(world: World, op: str = "one", *, take_over: bool = False) -> Lease:
    return lease.acquire(world.paths, op=op, kind="deploy", who="me", take_over=take_over)


def refused(world: World, op: str = "two", *, take_over: bool = False) -> SwitchyardError:
    with pytest.raises(SwitchyardError) as error:
        acquire(world, op, take_over=take_over)
    assert error.value.code is Exit.BUSY
    return error.value


def test_nobody_holds_a_lease_at_first(world: World) -> None:
    assert lease.read(world.paths) is None and lease.holder(world.paths) is None


def test_a_taken_lease_names_its_holder_to_the_next_one(world: World) -> None:
    acquire(world)
    message = refused(world).message
    assert "Another operation holds shop-test: deploy one by me, in phase preflight" in message


def test_the_same_operation_may_take_its_lease_again(world: World) -> None:
    first = acquire(world)
    second = acquire(world)
    assert second.op == first.op and second.fence > first.fence


def test_a_released_lease_is_free_at_once_and_its_token_is_never_given_again(world: World) -> None:
    first = acquire(world)
    lease.release(world.paths, first)
    assert lease.holder(world.paths) is None
    assert acquire(world, "two").fence > first.fence


def test_renewing_tells_the_phase_and_keeps_the_token(world: World) -> None:
    first = acquire(world)
    world.clock.now += 30
    renewed = lease.renew(world.paths, first, "pull")
    assert (renewed.phase, renewed.fence, renewed.op) == ("pull", first.fence, "one")
    assert renewed.renewed - first.renewed >= 30
    assert lease.read(world.paths) == renewed


# Who is alive


def test_a_living_process_keeps_its_lease_for_ever(world: World, processes: dict[int, str]) -> None:
    acquire(world)
    world.clock.now += 100 * LEASE_SECONDS
    assert processes and refused(world)


def test_a_dead_holder_keeps_the_lease_for_its_time_and_no_longer(world: World, processes: dict[int, str]) -> None:
    acquire(world)
    del processes[100]
    processes[200] = "9000"
    world.clock.now += LEASE_SECONDS - 1
    assert "renewed 59 s ago" in refused(world).message
    world.clock.now += 1
    assert acquire(world, "two").fence == 2


def test_renewing_starts_the_time_anew(world: World, processes: dict[int, str]) -> None:
    held = acquire(world)
    world.clock.now += LEASE_SECONDS - 1
    lease.renew(world.paths, held, "pull")
    del processes[100]
    processes[200] = "9000"
    world.clock.now += LEASE_SECONDS - 1
    refused(world)


def test_another_process_with_the_same_id_is_not_the_holder(world: World, processes: dict[int, str]) -> None:
    held = acquire(world)
    assert held.process_alive
    processes[100] = "7777"
    assert not held.process_alive


def test_a_lease_of_another_boot_is_dead_at_once(
    world: World, processes: dict[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    held = acquire(world)
    monkeypatch.setattr(lease, "boot_id", lambda: "the boot after")
    assert processes[100] == held.pid_started
    assert not held.process_alive and not held.alive
    assert acquire(world, "two").op == "two"


def test_a_zombie_counts_as_dead() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    try:
        # It ends by itself and is not waited for, so it stays as a zombie.
        while Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            time.sleep(0.005)
        assert lease._started(child.pid) == ""
    finally:
        child.wait()


def test_this_process_has_a_start_time_and_a_gone_one_has_none() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert lease._started(os.getpid()).isdigit()
    assert lease._started(child.pid) == ""


def test_a_process_name_with_brackets_and_spaces_does_not_confuse_the_reader(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fields = " ".join(str(number) for number in range(4, 53))
    monkeypatch.setattr(Path, "read_text", lambda _: f"77 (a) Z (b) S {fields}")
    assert lease._started(77) == "22"


def test_the_boot_is_the_kernels_own_id() -> None:
    assert lease.boot_id() and lease.boot_id() == lease.boot_id()


def test_the_wall_clock_plays_no_part(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden() -> float:
        raise AssertionError("the lease looked at the wall clock")

    monkeypatch.setattr(time, "time", forbidden)
    held = acquire(world)
    lease.check(world.paths, lease.renew(world.paths, held, "pull"))
    assert held.alive
    lease.release(world.paths, held)


def test_time_is_the_boot_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def clock(which: int) -> float:
        asked.append(which)
        return 5.0

    monkeypatch.setattr(time, "clock_gettime", clock)
    assert lease._now() == 5.0
    assert asked == [time.CLOCK_BOOTTIME]


# Taking over, and the fence


def test_only_a_probation_that_is_merely_watched_can_be_taken_over(world: World) -> None:
    held = acquire(world)
    for phase in ("preflight", "pull", "migrate", "start", "verify", "switch", "finish"):
        held = lease.renew(world.paths, held, phase)
        refused(world, take_over=True)
    held = lease.renew(world.paths, held, "watch")
    refused(world, take_over=False)
    assert acquire(world, "two", take_over=True).fence == held.fence + 1


def test_who_was_taken_over_is_stopped_by_the_fence(world: World) -> None:
    old = lease.renew(world.paths, acquire(world), "watch")
    acquire(world, "two", take_over=True)
    for use in (lambda: lease.check(world.paths, old), lambda: lease.renew(world.paths, old, "finish")):
        with pytest.raises(SwitchyardError, match="taken over by deploy two") as error:
            use()
        assert error.value.code is Exit.INTERRUPTED


def test_who_was_taken_over_cannot_free_the_new_holders_lease(world: World) -> None:
    old = lease.renew(world.paths, acquire(world), "watch")
    new = acquire(world, "two", take_over=True)
    lease.release(world.paths, old)
    assert lease.read(world.paths) == new


def test_who_was_taken_over_is_stopped_also_after_the_new_holder_ended(world: World) -> None:
    old = lease.renew(world.paths, acquire(world), "watch")
    lease.release(world.paths, acquire(world, "two", take_over=True))
    with pytest.raises(SwitchyardError, match="taken over by recovery"):
        lease.check(world.paths, old)


def test_a_lease_whose_file_is_gone_is_lost(world: World) -> None:
    held = acquire(world)
    world.paths.lease.unlink()
    with pytest.raises(SwitchyardError):
        lease.check(world.paths, held)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"op": 1}', '"x"', '{"op":"a","extra":1}'])
def test_a_damaged_lease_file_is_nobodys_lease(world: World, text: str) -> None:
    world.paths.lease.parent.mkdir(parents=True, exist_ok=True)
    world.paths.lease.write_text(text)
    assert lease.read(world.paths) is None
    assert acquire(world).op == "one"


def test_the_lease_says_who_in_which_phase_and_how_long_ago(world: World) -> None:
    held = replace(lease.renew(world.paths, acquire(world), "pull"), who="")
    world.clock.now = held.renewed + 12
    assert held.describe() == "deploy one by unknown, in phase pull, renewed 12 s ago"


# The first of several hosts: its verbs' processes end, and the coordinator goes on


@pytest.fixture
def ended(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A host on which the process of every verb has ended."""
    monkeypatch.setattr(lease, "_started", lambda _: "")
    return world


def obey(world: World, verb: Verb, **fields: Any) -> Result:
    op = world.operation("deploy")
    member.perform(op, Order(str(NAME), OPERATION, "deploy", "me", verb, **fields))
    return op.result


def test_a_verb_that_took_longer_than_the_lease_leaves_it_alive(ended: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def pull(_: Operation, __: Order) -> None:
        ended.clock.now += LEASE_SECONDS + 10
        # What the coordinator's beats meet meanwhile: the lock is taken.
        assert lease.beat(ended.paths, 3, "start")

    monkeypatch.setitem(member._VERBS, "prepare", pull)
    assert obey(ended, "prepare", fence=3).code == 0
    assert "renewed 0 s ago" in refused(ended).message
    ended.clock.now += LEASE_SECONDS
    assert acquire(ended, "two").fence == 4


def test_a_verb_that_failed_after_long_leaves_the_lease_alive(ended: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: Operation, __: Order) -> None:
        ended.clock.now += LEASE_SECONDS + 10
        raise SwitchyardError("not healthy", Exit.UNHEALTHY)

    monkeypatch.setitem(member._VERBS, "start", start)
    assert obey(ended, "start", fence=3).code == Exit.UNHEALTHY
    assert "in phase start, renewed 0 s ago" in refused(ended).message


def test_a_beginning_that_took_long_leaves_the_lease_alive(ended: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(op: Operation, _: Order, __: Pointer | None) -> dict[str, Any]:
        op.begin("1.0.0")
        ended.clock.now += LEASE_SECONDS + 10
        return {"release": "", "version": "1.0.0"}

    monkeypatch.setitem(member._BEGINNINGS, "deploy", begin)
    assert obey(ended, "begin").code == 0
    refused(ended)


@pytest.mark.parametrize("verb", ["settle", "end"])
def test_a_lease_that_a_verb_gave_back_stays_free(ended: World, verb: Verb) -> None:
    assert obey(ended, verb, fence=3, outcome="done").code == 0
    assert lease.holder(ended.paths) is None
    assert acquire(ended, "two").op == "two"


def test_a_lease_that_cannot_be_renewed_hides_nothing(ended: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: Operation, __: Order) -> None:
        monkeypatch.setattr(lease, "replace_file", full)
        raise SwitchyardError("not healthy", Exit.UNHEALTHY)

    def full(*_: object, **__: object) -> None:
        raise SwitchyardError("no space left")

    monkeypatch.setitem(member._VERBS, "start", start)
    assert obey(ended, "start", fence=3).message == "not healthy"


def test_a_verb_does_not_renew_what_somebody_else_has_taken(world: World) -> None:
    old = acquire(world)
    new = acquire(world, "one")
    world.clock.now += 30
    lease.prolong(world.paths, old)
    assert lease.read(world.paths) == new
