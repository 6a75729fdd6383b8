"""The control command: what people type, what they read, and the exit code they get."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from switchyard import chain
from switchyard.control import cli, fleet, ledger
from switchyard.control.hosts import Environment, HostEntry, load
from switchyard.control.ssh import FabricTransport
from switchyard.control.transport import SILENCE_SECONDS, Answer, ConnectionLost
from switchyard.engine.operation import Result
from switchyard.errors import Exit, SwitchyardError

ENVIRONMENT = Environment("test", "shop", [HostEntry("vm1", "198.18.0.5", "deploy", groups=["app", "edge"])])


class Recorder:
    """A host that answers everything with the same answer, or fails the same way."""

    host = "vm1"

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.silences: list[float] = []
        self.ledger = b""
        self.answer: Answer | Exception = Answer(0, "", "")

    def run(self, argv: Sequence[str], stdin: str = "", silence: float = SILENCE_SECONDS) -> Answer:
        assert stdin == ""
        if argv[3] == "ledger":
            # What every command asks for at its end, to keep this side's copy.
            return Answer(0, json.dumps(chain.portion(self.ledger, int(argv[6]))), "")
        self.calls.append(list(argv)[3:])
        self.silences.append(silence)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def ends_with(self, **result: Any) -> None:
        whole = {**asdict(Result("x", "rollback")), **result}
        answer = {"offset": 0, "lines": ["10:00:00 switch: done"], "known": True, "done": True, "result": whole}
        self.answer = Answer(0, json.dumps(answer), "")


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Recorder:
    recorder = Recorder()
    monkeypatch.setattr(ledger, "copy_file", lambda *_: tmp_path / "copy.jsonl")
    monkeypatch.setattr(cli, "load", lambda _: ENVIRONMENT)
    monkeypatch.setattr(cli, "_members", lambda _: [fleet.Member(frozenset({"app", "edge"}), recorder)])
    return recorder


Read = Callable[[], tuple[str, str]]


@pytest.fixture
def read(capsys: pytest.CaptureFixture[str]) -> Read:
    def both() -> tuple[str, str]:
        captured = capsys.readouterr()
        return captured.out, captured.err

    return both


# Verbs


def test_a_rollback_tells_progress_on_one_stream_and_the_outcome_on_the_other(host: Recorder, read: Read) -> None:
    host.ends_with(message="0001-1.0.0 is live again on blue.", switch_ms=41.6)
    assert cli.main(["rollback", "test"]) == 0
    out, err = read()
    assert out == "rollback: 0001-1.0.0 is live again on blue. Traffic moved in 42 ms.\n"
    assert err == "10:00:00 switch: done\n"
    assert host.calls[0][:2] == ["rollback", "shop-test"] and host.calls[0][2] == "--who"


def test_a_rollback_to_a_version_passes_it_on(host: Recorder) -> None:
    host.ends_with()
    assert cli.main(["rollback", "test", "1.3.2"]) == 0
    assert host.calls[0][:3] == ["rollback", "shop-test", "1.3.2"]


def test_a_rollback_as_json_is_one_document(host: Recorder, read: Read) -> None:
    host.ends_with(message="done", release="0001-1.0.0")
    assert cli.main(["rollback", "test", "--json"]) == 0
    assert json.loads(read()[0])["release"] == "0001-1.0.0"


@pytest.mark.parametrize(
    "code", [Exit.UNKNOWN_RELEASE, Exit.ALREADY_LIVE, Exit.NEVER_HEALTHY, Exit.SCHEMA, Exit.REVERTED]
)
def test_the_outcome_of_a_rollback_is_the_exit_code(host: Recorder, read: Read, code: Exit) -> None:
    host.ends_with(code=int(code), message="Not possible.", details="log tail")
    assert cli.main(["rollback", "test"]) == int(code)
    out, err = read()
    assert out == "" and "rollback: Not possible.\nlog tail\n" in err


@pytest.mark.parametrize("version", ["1.0; rm -rf /", "../1", "$(id)", "1.0\n"])
def test_an_injected_version_reaches_no_host(host: Recorder, read: Read, version: str) -> None:
    assert cli.main(["rollback", "test", version]) == int(Exit.USAGE)
    assert "is not a valid version" in read()[1]
    assert host.calls == []


@pytest.mark.parametrize(
    ("typed", "called"),
    [
        (["status", "test"], ["status", "shop-test"]),
        (["status", "test", "--json"], ["status", "shop-test", "--json"]),
        (["history", "test", "--limit", "5"], ["history", "shop-test", "--limit", "5"]),
        (["logs", "test"], ["logs", "shop-test", "--tail", "100"]),
        (["logs", "test", "--tail", "7", "--service", "api"], ["logs", "shop-test", "--tail", "7", "--service", "api"]),
        (["logs", "test", "--json"], ["logs", "shop-test", "--tail", "100", "--json"]),
        (["recover", "test"], ["recover", "--app", "shop-test"]),
        (["show", "test", "42"], ["show", "shop-test", "42"]),
        (["dora", "test", "--days", "7", "--json"], ["dora", "shop-test", "--days", "7.0", "--json"]),
        (["prune", "test", "--retain", "1", "--json"], ["prune", "shop-test", "--retain", "1", "--json"]),
        (["promote", "test"], ["promote", "shop-test", "--who", "me@here"]),
        (["abort", "test", "--json"], ["abort", "shop-test", "--who", "me@here", "--json"]),
    ],
)
def test_the_other_verbs_are_the_engines_own(
    host: Recorder, monkeypatch: pytest.MonkeyPatch, typed: list[str], called: list[str]
) -> None:
    monkeypatch.setattr(fleet, "who", lambda: "me@here")
    assert cli.main(typed) == 0
    assert host.calls == [called]


@pytest.mark.parametrize(("options", "line"), [([], "vm1 | x\n"), (["--json"], "x\n")])
def test_lines_of_several_hosts_say_whose_they_are_unless_they_do_so_themselves(
    host: Recorder, read: Read, monkeypatch: pytest.MonkeyPatch, options: list[str], line: str
) -> None:
    hosts = [fleet.Member(frozenset({"app"}), host), fleet.Member(frozenset({"app", "edge"}), host)]
    monkeypatch.setattr(cli, "_members", lambda _: hosts)
    host.answer = Answer(0, "x\n", "")
    assert cli.main(["logs", "test", *options]) == 0
    assert read()[0] == line * 2


def test_one_edge_of_several_is_never_moved_alone(host: Recorder, read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    edges = [fleet.Member(frozenset({"app", "edge"}), host), fleet.Member(frozenset({"edge"}), host)]
    monkeypatch.setattr(cli, "_members", lambda _: edges)
    assert cli.main(["abort", "test"]) == Exit.USAGE
    assert "With several hosts" in read()[1] and host.calls == []
    # A promotion waits there for the deploy that moves all of them.
    assert cli.main(["promote", "test"]) == 0
    assert [call[:2] for call in host.calls][:1] == [["promote", "shop-test"]]


def test_what_the_engine_says_is_passed_through_with_its_code(host: Recorder, read: Read) -> None:
    host.answer = Answer(3, "out\n", "err\n")
    assert cli.main(["status", "test"]) == 3
    assert read() == ("out\n", "err\n")


# The copy of the ledger


def lines(count: int) -> bytes:
    text = b""
    for number in range(count):
        n, prev = chain.following("shop-test", text)
        text += json.dumps({"time": "t", "event": "end", "op": str(number), "n": n, "prev": prev}).encode() + b"\n"
    return text


def test_every_command_brings_the_copy_up_to_date(host: Recorder, tmp_path: Path) -> None:
    for count in (3, 5, 5):
        host.ledger = lines(count)
        assert cli.main(["status", "test"]) == 0
        assert (tmp_path / "copy.jsonl").read_bytes() == lines(count)


def test_a_copy_that_is_contradicted_is_kept_as_evidence(host: Recorder, read: Read, tmp_path: Path) -> None:
    host.ledger = lines(5)
    cli.main(["status", "test"])
    host.ledger = lines(3)
    assert cli.main(["status", "test"]) == 0
    assert "is not what it was: 'switchyard verify test' compares" in read()[1]
    assert (tmp_path / "copy.jsonl").read_bytes() == lines(5)


def test_verify_names_what_the_copy_has_and_the_ledger_has_not(host: Recorder, read: Read, tmp_path: Path) -> None:
    host.ledger = lines(5)
    assert cli.main(["verify", "test"]) == 0
    assert "There is no copy to compare with" in read()[0]
    assert cli.main(["status", "test"]) == 0
    host.ledger = lines(3)
    assert cli.main(["verify", "test", "--json"]) == int(Exit.FAILED)
    (finding,) = json.loads(read()[0])["findings"]
    assert (finding["line"], finding["kind"]) == (4, "missing")
    # A check changes no evidence.
    assert (tmp_path / "copy.jsonl").read_bytes() == lines(5)
    (tmp_path / "backup").write_bytes(lines(4))
    cli.main(["verify", "test", "--against", str(tmp_path / "backup"), "--json"])
    assert json.loads(read()[0])["copies"] == {str(tmp_path / "copy.jsonl"): 5, str(tmp_path / "backup"): 4}
    assert cli.main(["verify", "test", "--against", "/nowhere"]) == int(Exit.USAGE)


# Errors


@pytest.mark.parametrize(
    ("typed", "works"),
    [
        (["recover", "test"], True),
        (["prune", "test"], True),
        (["promote", "test"], True),
        (["abort", "test"], True),
        (["maintenance", "test", "on"], True),
        (["history", "test"], False),
        (["status", "test"], False),
    ],
)
def test_a_host_may_be_silent_for_longer_than_its_locks_while_it_works(
    host: Recorder, typed: list[str], works: bool
) -> None:
    assert cli.main(typed) == 0
    assert (host.silences[0] > 60) is works


def test_ssh_waits_for_as_long_as_a_command_may_be_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    channel = MagicMock()
    channel.makefile.return_value.read.side_effect = TimeoutError
    connection = MagicMock()
    connection.client.get_transport.return_value.open_session.return_value = channel
    transport = FabricTransport("vm1", "198.18.0.5", 22, "deploy", "", "")
    monkeypatch.setattr(transport, "_connect", lambda: connection)
    for seconds in (15, 600):
        with pytest.raises(ConnectionLost, match=f"no answer within {seconds} s"):
            transport.run(["true"], silence=seconds)
        channel.settimeout.assert_called_with(seconds)


@pytest.mark.parametrize("verb", ["rollback", "status", "history", "logs", "recover", "prune"])
def test_an_unreachable_host_has_its_own_exit_code(host: Recorder, read: Read, verb: str) -> None:
    host.answer = ConnectionLost("connection refused", sent=False)
    assert cli.main([verb, "test"]) == int(Exit.UNREACHABLE)
    out, err = read()
    assert out == "" and "cannot be reached" in err and "connection refused" in err
    assert len(err.splitlines()) == 1


def test_an_error_as_json_has_code_message_and_details(
    host: Recorder, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: str) -> Environment:
        raise SwitchyardError("No such thing.", Exit.SCHEMA, "evidence")

    monkeypatch.setattr(cli, "load", refuse)
    assert cli.main(["status", "test", "--json"]) == 13
    out, err = read()
    assert json.loads(out) == {"code": 13, "message": "No such thing.", "details": "evidence"}
    assert err == "" and host.calls == []


def test_an_error_for_people_names_the_verb_and_shows_the_evidence_below(
    host: Recorder, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: str) -> Environment:
        raise SwitchyardError("No such thing.", Exit.SCHEMA, "evidence")

    monkeypatch.setattr(cli, "load", refuse)
    assert cli.main(["status", "test"]) == 13
    assert read() == ("", "status: No such thing.\nevidence\n")
    assert host.calls == []


def test_an_unknown_environment_is_a_usage_error(tmp_path: Path, read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "load", lambda name: load(name, tmp_path))
    assert cli.main(["status", "tset"]) == int(Exit.USAGE)
    assert "Unknown environment 'tset'" in read()[1]


@pytest.mark.parametrize("typed", [[], ["nonsense", "test"], ["status"], ["status", "test", "--nonsense"]])
def test_what_is_no_command_is_a_usage_error(typed: list[str], read: Read) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(typed)
    assert ended.value.code == 2
    assert "usage: switchyard" in read()[1]


@pytest.mark.parametrize("typed", [["--help"], ["rollback", "--help"], ["status", "--help"]])
def test_help_names_every_exit_code(typed: list[str], read: Read) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(typed)
    assert ended.value.code == 0
    text = read()[0]
    for code in Exit:
        assert f" {int(code)} " in text


def test_ctrl_c_stops_the_following_and_says_that_the_operation_goes_on(
    host: Recorder, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> Answer:
        raise KeyboardInterrupt

    monkeypatch.setattr(host, "run", interrupted)
    assert cli.main(["rollback", "test"]) == 130
    assert "What was started goes on on the host" in read()[1]


def test_ctrl_c_on_several_hosts_says_what_was_done(
    read: Read, monkeypatch: pytest.MonkeyPatch, host: Recorder
) -> None:
    def interrupted(*_: object, **__: object) -> dict[str, Any]:
        raise KeyboardInterrupt("Interrupted by the operator. 0001-1.0.0 serves.")

    assert host.calls == []
    monkeypatch.setattr(fleet, "rollback", interrupted)
    assert cli.main(["rollback", "test"]) == 130
    assert read() == ("", "\nInterrupted by the operator. 0001-1.0.0 serves.\n")


def test_who_asks_is_a_person_at_a_machine() -> None:
    assert fleet.who().count("@") == 1 and all(fleet.who().split("@"))


@pytest.mark.parametrize("error", [KeyError("getpwuid(): uid not found: 12345"), OSError("No username set")])
def test_a_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def nobody() -> str:
        raise error

    monkeypatch.setattr("getpass.getuser", nobody)
    assert fleet.who().startswith(f"uid-{os.getuid()}@")
