"""Coordination: what an operator reads while an operation runs, and that a lost connection loses none of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchyard.control import fleet, operations
from switchyard.control.transport import ENGINE, SILENCE_SECONDS, Answer, ConnectionLost
from switchyard.engine.operation import Result
from switchyard.errors import Exit, SwitchyardError
from switchyard.names import check_operation
from tests.unit.engine_world import QUICK, Clock

Step = Callable[["Host"], Answer]


class Host:
    """A host whose engine writes `lines` one by one; each call sees as many more as `pace` says, or is lost."""

    host = "vm1"

    def __init__(self, lines: Sequence[str] = (), result: dict[str, Any] | None = None, pace: int = 2) -> None:
        self.lines, self.pace = list(lines), pace
        self.result = result or {**asdict(Result("", "deploy")), "message": "done"}
        self.written = 0
        self.calls: list[tuple[list[str], str]] = []
        self.losses: dict[int, ConnectionLost] = {}
        """By number of the call, from 1: what happens to it. A command that was sent has run."""
        self.starts: set[str] = set()

    def run(self, argv: Sequence[str], stdin: str = "", silence: float = SILENCE_SECONDS) -> Answer:  # noqa: ARG002 - a pretend host answers at once, so there is no silence to limit
        self.calls.append((list(argv), stdin))
        loss = self.losses.get(len(self.calls))
        if loss and not loss.sent:
            raise loss
        words = list(argv)
        if "--operation" in words:
            self.starts.add(words[words.index("--operation") + 1])
        self.written = min(self.written + self.pace, len(self.lines))
        if loss:
            raise loss
        # The offset stands for bytes; lines do as well here.
        offset = int(words[words.index("--offset") + 1]) if "--offset" in words else 0
        done = self.written == len(self.lines)
        answer = {
            "offset": self.written,
            "lines": self.lines[offset : self.written],
            "known": True,
            "done": done,
            "result": self.result if done else None,
        }
        return Answer(0, "a line of sudo's\n" + json.dumps(answer) + "\n", "")


class Scripted:
    """A host that answers each call with the next answer."""

    host = "vm1"

    def __init__(self, *answers: Answer | Exception) -> None:
        self.answers = list(answers)

    def run(self, argv: Sequence[str], stdin: str = "", silence: float = SILENCE_SECONDS) -> Answer:  # noqa: ARG002 - a pretend host answers at once, so there is no silence to limit
        assert argv and stdin is not None
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(operations, "time", clock)
    return clock


def members(*hosts: Any, groups: Sequence[str] = ("app", "edge", "db")) -> list[fleet.Member]:
    return [fleet.Member(frozenset(groups), host) for host in hosts]


REQUEST = {"app": "shop", "environment": "test", "secrets": {"TOKEN": {"value": "s3cret", "uid": 1}}}


def deploy(host: Any) -> tuple[list[str], dict[str, Any]]:
    said: list[str] = []
    result = fleet.deploy(members(host), REQUEST, said.append)
    return said, result


# Following


def test_every_line_is_said_once_and_in_order_and_the_result_is_returned() -> None:
    host = Host(["a", "b", "c", "d", "e"])
    said, result = deploy(host)
    assert said == ["a", "b", "c", "d", "e"]
    assert result["message"] == "done"


def test_the_request_goes_once_over_standard_input_and_never_into_the_command_line() -> None:
    host = Host(["a", "b", "c"], pace=1)
    deploy(host)
    first, *others = host.calls
    assert json.loads(first[1]) == REQUEST
    assert all(stdin == "" for _, stdin in others)
    assert not any("s3cret" in word for argv, _ in host.calls for word in argv)


def test_the_engine_is_called_as_the_deploy_user_may_call_it() -> None:
    host = Host(["a", "b", "c"], pace=1)
    deploy(host)
    assert all(argv[:3] == ["sudo", "-n", ENGINE] for argv, _ in host.calls)
    (operation,) = host.starts
    assert check_operation(operation) == operation
    assert host.calls[0][0][3:6] == ["deploy", "--json", "--operation"]
    assert host.calls[1][0][3:6] == ["follow", "shop-test", operation]


def test_a_rollback_names_application_version_and_who() -> None:
    host = Host(["a"])
    fleet.rollback(members(host), "shop-test", "1.3.2", "me@here", lambda _: None)
    assert host.calls[0][0][3:8] == ["rollback", "shop-test", "1.3.2", "--who", "me@here"]
    host = Host(["a"])
    fleet.rollback(members(host), "shop-test", "", "me@here", lambda _: None)
    assert host.calls[0][0][3:7] == ["rollback", "shop-test", "--who", "me@here"]


def test_a_failed_operation_is_a_result_and_no_exception() -> None:
    failed = {**asdict(Result("x", "deploy", 5, "not healthy")), "details": "log"}
    _, result = deploy(Host(["a"], failed))
    assert (result["code"], result["message"], result["details"]) == (5, "not healthy", "log")


# Lost connections


def test_a_connection_that_is_lost_on_the_way_is_said_and_survived() -> None:
    host = Host(["a", "b", "c", "d"], pace=1)
    host.losses = {2: ConnectionLost("reset by peer", sent=True), 3: ConnectionLost("no route", sent=False)}
    said, result = deploy(host)
    (operation,) = host.starts
    assert said == [
        "a",
        f"connection to vm1 lost (reset by peer); operation {operation} goes on there, reconnecting",
        "vm1 answers again",
        "b",
        "c",
        "d",
    ]
    assert result["message"] == "done"


def test_an_unreachable_host_is_said_at_once_and_nothing_is_tried_again() -> None:
    host = Host(["a"])
    host.losses = {1: ConnectionLost("connection refused", sent=False)}
    with pytest.raises(SwitchyardError) as error:
        deploy(host)
    assert (error.value.code, error.value.message) == (Exit.UNREACHABLE, "vm1 cannot be reached: connection refused.")
    assert len(host.calls) == 1


def test_a_start_that_may_have_arrived_is_repeated_under_the_same_id() -> None:
    host = Host(["a", "b"], pace=1)
    host.losses = {1: ConnectionLost("reset", sent=True)}
    said, result = deploy(host)
    assert len(host.starts) == 1
    assert json.loads(host.calls[1][1]) == REQUEST
    assert [line for line in said if len(line) == 1] == ["a", "b"] and result["message"] == "done"


def test_a_host_that_stays_away_is_given_up_with_what_goes_on_there(clock: Clock) -> None:
    host = Host([str(number) for number in range(1000)], pace=1)
    host.losses = {number: ConnectionLost("no route", sent=False) for number in range(3, 1000)}
    began = clock.now
    with pytest.raises(SwitchyardError) as error:
        deploy(host)
    assert error.value.code is Exit.UNREACHABLE
    assert "vm1 has not answered for 180 s" in error.value.message
    assert f"Operation {host.starts.pop()} finishes or reverts there by itself" in error.value.message
    assert 180 <= clock.now - began < 200


def test_two_short_losses_do_not_add_up(clock: Clock) -> None:
    host = Host([str(number) for number in range(200)], pace=1)
    lost = [number for number in range(2, 180) if number % 2]
    host.losses = {number: ConnectionLost("no route", sent=False) for number in lost}
    began = clock.now
    said, _ = deploy(host)
    assert clock.now - began > 170
    assert said.count("vm1 answers again") == len(lost)


@QUICK
@given(st.integers(0, 12), st.integers(1, 4), st.dictionaries(st.integers(2, 12), st.booleans()))
def test_whatever_is_lost_every_line_is_said_once_and_in_order(count: int, pace: int, losses: dict[int, bool]) -> None:
    lines = [f"{number:02d}" for number in range(count)]
    host = Host(lines, pace=pace)
    host.losses = {number: ConnectionLost("lost", sent=sent) for number, sent in losses.items()}
    said, result = deploy(host)
    assert [line for line in said if len(line) == 2] == lines
    assert result["message"] == "done" and len(host.starts) == 1


# What the engine says


def test_the_engines_own_sentence_and_code_pass_through() -> None:
    error = {"error": "Another operation is at work.", "code": 3, "details": "who"}
    with pytest.raises(SwitchyardError) as caught:
        deploy(Scripted(Answer(3, json.dumps(error), "")))
    assert (caught.value.message, caught.value.code, caught.value.details) == (error["error"], Exit.BUSY, "who")


@pytest.mark.parametrize(
    "said",
    ["sudo: /usr/local/sbin/switchyard: command not found", "sudo: a password is required",
     "bash: sudo: No such file or directory"],
)  # fmt: skip
def test_a_host_without_an_engine_is_told_to_be_provisioned(said: str) -> None:
    with pytest.raises(SwitchyardError, match=r"vm1 has no engine that this user may run \(.*\): run provision.yml"):
        deploy(Scripted(Answer(1, "", f"Warning\n{said}\n")))


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(1, "", "Traceback\nMemoryError\n"), "MemoryError"),
        (Answer(137, "", ""), "exit code 137"),
        (Answer(0, "{half", ""), "{half"),
    ],
)
def test_an_answer_that_is_none_is_named(answer: Answer, reason: str) -> None:
    with pytest.raises(SwitchyardError) as error:
        deploy(Scripted(answer))
    assert error.value.message == f"vm1: the engine did not answer: {reason}."
    assert error.value.code is Exit.FAILED


def test_a_plan_is_asked_for_and_returned() -> None:
    assert fleet.plan(members(Scripted(Answer(0, 'noise\n{"changed": true}\n', ""))), REQUEST) == {"changed": True}


# Which host


def test_the_host_that_is_edge_and_application_host_is_the_only_one() -> None:
    one = Host()
    db = fleet.Member(frozenset({"db"}), Host())
    assert fleet.single([db, *members(one, groups=["app", "edge"])]) is one


@pytest.mark.parametrize("groups", [[], [["db"]], [["app"], ["edge"]], [["app"]], [["app", "edge"], ["app"]]])
def test_other_shapes_have_no_only_host(groups: list[list[str]]) -> None:
    assert fleet.single([fleet.Member(frozenset(group), Host()) for group in groups]) is None
