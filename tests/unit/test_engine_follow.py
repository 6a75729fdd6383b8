"""Starting an operation as a unit of its own, and following it: nothing twice, nothing lost, nothing half."""

from __future__ import annotations

import json
import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchyard.engine import follow, layout, lease
from switchyard.engine.operation import Result, write_result
from switchyard.errors import Exit, SwitchyardError
from switchyard.names import check_operation
from tests.unit.engine_world import OPERATION, QUICK, World

OTHER = "20260102T030405-000000"


@pytest.fixture
def running(world: World) -> World:
    """A host on which the operation's unit runs and has a log."""
    layout.OPERATION_LOGS.mkdir(parents=True)
    world.docker.answers["systemctl show"] = (0, "active\n", "")
    log("")
    return world


def log(text: str) -> None:
    (layout.OPERATION_LOGS / f"{OPERATION}.log").write_text(text)


def seen(world: World, offset: int = 0, wait: float = 0.0) -> tuple[list[str], int, bool]:
    answer = follow.follow(world.paths, OPERATION, offset, wait)
    return answer["lines"], answer["offset"], answer["done"]


# Starting


def test_a_start_hands_the_request_over_in_a_file_for_root_alone(world: World) -> None:
    operation = follow.start(world.paths, "deploy", {"version": "1.0.0"}, OPERATION)
    assert operation == OPERATION
    path = layout.REQUESTS / f"{OPERATION}.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text()) == {
        "op": OPERATION, "kind": "deploy", "app": "shop-test", "request": {"version": "1.0.0"},
    }  # fmt: skip


def test_the_unit_outlives_its_starter_recovers_at_its_end_and_carries_no_secret(world: World) -> None:
    follow.start(world.paths, "deploy", {"secrets": {"TOKEN": {"value": "s3cret"}}}, OPERATION)
    (argv,) = world.ran("systemd-run")
    assert f"--unit=switchyard-{OPERATION}" in argv and "--no-block" in argv
    assert argv[-2:] == ["perform", OPERATION]
    (stop,) = [word for word in argv if "ExecStopPost" in word]
    assert stop.endswith(f"recover --app shop-test --after {OPERATION}")
    assert not any("s3cret" in word for command in world.docker.commands for word in command)


def test_a_known_operation_is_not_started_twice(running: World) -> None:
    for _ in range(2):
        assert follow.start(running.paths, "deploy", {}, OPERATION) == OPERATION
    assert running.ran("systemd-run") == []


def test_an_operation_that_has_ended_is_not_started_again(world: World) -> None:
    write_result(world.paths, Result(OPERATION, "deploy"))
    follow.start(world.paths, "deploy", {}, OPERATION)
    assert world.docker.commands == [] and not layout.REQUESTS.exists()


def test_a_start_that_died_before_its_unit_may_be_repeated(world: World) -> None:
    layout.REQUESTS.mkdir(parents=True)
    (layout.REQUESTS / f"{OPERATION}.json").write_text("{}")
    follow.start(world.paths, "deploy", {}, OPERATION)
    assert len(world.ran("systemd-run")) == 1


def test_a_unit_that_exists_already_is_as_good_as_a_started_one(world: World) -> None:
    world.docker.answers["systemd-run"] = (1, "", "Failed: Unit switchyard-x.service was already loaded.")
    assert follow.start(world.paths, "deploy", {}, OPERATION) == OPERATION


def test_a_unit_that_cannot_be_started_is_an_error(world: World) -> None:
    world.docker.answers["systemd-run"] = (1, "", "Failed to connect to bus")
    with pytest.raises(SwitchyardError, match="systemd cannot start the operation: Failed to connect to bus"):
        follow.start(world.paths, "deploy", {}, OPERATION)


def test_two_starts_without_an_id_are_two_operations(world: World) -> None:
    first, second = (follow.start(world.paths, "deploy", {}) for _ in range(2))
    assert first != second
    assert check_operation(first) == first and check_operation(second) == second


@pytest.mark.parametrize("text", ["", "x", "../../etc/passwd", f"{OPERATION}\n", f"{OPERATION}.json", f" {OPERATION}"])
def test_what_is_no_operation_id_is_refused(world: World, text: str) -> None:
    with pytest.raises(SwitchyardError, match="is not a valid operation id") as error:
        check_operation(text)
    assert error.value.code is Exit.USAGE
    if text:
        with pytest.raises(SwitchyardError):
            follow.start(world.paths, "deploy", {}, text)


def test_while_an_operation_works_another_is_not_started(world: World) -> None:
    world.begun(identity=OTHER)
    with pytest.raises(SwitchyardError, match=f"right now: deploy {OTHER} by tester") as error:
        follow.start(world.paths, "deploy", {}, OPERATION)
    assert error.value.code is Exit.BUSY
    assert world.docker.commands == [] and not layout.REQUESTS.exists()


def test_only_a_rollback_is_started_beside_a_probation(world: World) -> None:
    op = world.begun(identity=OTHER)
    assert op.lease is not None
    lease.renew(world.paths, op.lease, "watch")
    with pytest.raises(SwitchyardError):
        follow.start(world.paths, "deploy", {}, OPERATION)
    assert follow.start(world.paths, "rollback", {}, OPERATION) == OPERATION


# Following


def test_an_offset_continues_where_the_last_answer_ended(running: World) -> None:
    log("one\ntwo\n")
    lines, offset, done = seen(running)
    assert (lines, offset, done) == (["one", "two"], 8, False)
    assert seen(running, offset) == ([], 8, False)
    log("one\ntwo\nthree\n")
    assert seen(running, offset) == (["three"], 14, False)


def test_a_line_that_is_still_being_written_waits_for_its_end(running: World) -> None:
    log("one\ntw")
    lines, offset, _ = seen(running)
    assert (lines, offset) == (["one"], 4)
    log("one\ntwo\n")
    assert seen(running, offset)[0] == ["two"]


def test_with_the_result_the_last_line_counts_also_without_its_end(running: World) -> None:
    log("one\nlast")
    write_result(running.paths, Result(OPERATION, "deploy", 0, "done"))
    lines, _, done = seen(running)
    assert (lines, done) == (["one", "last"], True)


def test_the_result_is_given_whole(running: World) -> None:
    write_result(running.paths, Result(OPERATION, "deploy", 5, "not healthy", "log tail", release="0001-1.0.0"))
    answer = follow.follow(running.paths, OPERATION, 0, 0)
    assert (answer["done"], answer["known"], answer["op"]) == (True, True, OPERATION)
    assert answer["result"]["code"] == 5 and answer["result"]["details"] == "log tail"


def test_following_waits_for_the_result_but_not_longer_than_asked(running: World) -> None:
    running.clock.on_sleep = lambda: write_result(running.paths, Result(OPERATION, "deploy"))
    assert seen(running, wait=60.0)[2]
    assert running.clock.now < 1_010


def test_an_unknown_operation_is_said_to_be_unknown(world: World) -> None:
    world.docker.answers["systemctl show"] = (0, "inactive\n", "")
    answer = follow.follow(world.paths, OPERATION, 0, 0.1)
    assert (answer["known"], answer["done"], answer["lines"]) == (False, False, [])


def test_a_unit_that_is_gone_without_a_result_is_answered(running: World) -> None:
    running.docker.answers["systemctl show"] = (0, "inactive\n", "")
    log("one\n")
    answer = follow.follow(running.paths, OPERATION, 0, 0)
    assert answer["done"] and answer["result"]["code"] == int(Exit.INTERRUPTED)
    assert answer["result"]["message"].startswith("The operation died. It could not leave its result")
    log("12:00:00 FAILED: no space left.\nswitchyard: no space left.\n")
    answer = follow.follow(running.paths, OPERATION, 0, 0)
    assert answer["result"]["message"].startswith("no space left. It could not leave its result")


def test_without_room_for_a_log_the_unit_speaks_to_the_journal(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def room(inodes: int) -> None:
        full = os.statvfs_result((4096, 4096, 100, 50, 50, 1000, inodes, inodes, 0, 255))
        monkeypatch.setattr("switchyard.engine.follow.os.statvfs", lambda _: full)

    for inodes, output in ((1, f"append:{layout.OPERATION_LOGS}/{OPERATION}.log"), (0, "journal")):
        room(inodes)
        follow.start(world.paths, "rollback", {}, OPERATION)
        assert f"--property=StandardOutput={output}" in world.ran("systemd-run")[-1]


def test_a_started_operation_that_shows_nothing_ends_as_lost(world: World) -> None:
    world.docker.answers["systemctl show"] = (0, "inactive\n", "")
    assert follow.to_end(world.paths, OPERATION, print)["code"] == int(Exit.INTERRUPTED)


@pytest.mark.parametrize("state", ["active", "activating", "deactivating", "reloading"])
def test_a_unit_that_is_not_gone_is_waited_for(running: World, state: str) -> None:
    running.docker.answers["systemctl show"] = (0, f"{state}\n", "")
    assert not seen(running)[2]


def test_bytes_that_are_no_text_do_not_stop_the_follower(running: World) -> None:
    (layout.OPERATION_LOGS / f"{OPERATION}.log").write_bytes(b"a\xffb\n")
    assert seen(running)[0] == ["a\ufffdb"]


letters = st.text("ab\u00fc \t", max_size=6)


@QUICK
@given(st.lists(letters, max_size=6), st.data())
def test_every_line_is_seen_once_and_in_order_however_it_was_written(
    running: World, lines: list[str], data: st.DataObject
) -> None:
    whole = "".join(f"{line}\n" for line in lines).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=5)))
    found: list[str] = []
    offset = 0
    for cut in [*cuts, len(whole)]:
        (layout.OPERATION_LOGS / f"{OPERATION}.log").write_bytes(whole[:cut])
        new, offset, _ = seen(running, offset)
        found += new
    assert found == lines
