"""The gate: what its grammar lets through, what an order becomes, and who is refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from switchyard.engine import cli, follow, layout, lease
from switchyard.engine.operation import Result, write_result
from switchyard.errors import Exit, SwitchyardError
from switchyard.gate import access, definition, grammar, verbs
from switchyard.gate.grammar import Order
from switchyard.gate.grammar import parse as parse_line
from switchyard.names import check_operation
from switchyard.request import parse
from tests.pipeline.lines import ALLOWED, ATTACKS, VALID, lines
from tests.unit.engine_world import NAME, OPERATION, World, service

FUZZED = 10_000
FINGERPRINT = "SHA256:0123456789abcdefghijABCDEFGHIJ0123456789abc"


# The grammar


def test_nothing_outside_the_grammar_passes() -> None:
    passed = 0
    for line in lines(FUZZED, seed=5):
        try:
            order = parse_line(line)
        except SwitchyardError as error:
            assert error.code is Exit.USAGE and len(error.message) < 300, line
            assert not ALLOWED.fullmatch(line) or len(line) > grammar.LONGEST, line
            continue
        passed += 1
        assert ALLOWED.fullmatch(line), repr(line)
        said = order.version + order.commit + order.run_url + order.idempotency_key
        assert not set(said) & set(" \t\n\r\0;|&$`'\"\\<>(){}*?")
    assert len(VALID) <= passed < FUZZED / 2


@pytest.mark.parametrize("line", ATTACKS)
def test_what_attackers_say_is_refused(line: str) -> None:
    with pytest.raises(SwitchyardError, match=r"^Refused: .*status \| history \| logs\.$"):
        parse_line(line)


def test_every_valid_form_is_understood() -> None:
    assert [parse_line(line).verb for line in VALID[:5]] == ["status", "history", "logs", "deploy", "rollback"]
    whole = parse_line("deploy 1.4.0 --run https://ci.example.com/7 --commit 0123abcd")
    assert whole == Order("deploy", "1.4.0", "0123abcd", "https://ci.example.com/7")
    assert parse_line("rollback --commit 0123abcd") == Order("rollback", "", "0123abcd")
    key = f"20260102T030405-{'0a' * 16}"
    assert parse_line(f"rollback --idempotency-key {key}") == Order("rollback", idempotency_key=key)


# What it becomes


def test_a_version_is_released_as_the_newest_good_release_was(world: World) -> None:
    services = {
        "api": service(tag="2.0.0", secrets=["TOKEN"], env={"COLOUR": "red"}),
        "cache": service(image="redis", tag="7", routes=[], port=6379),
    }
    secrets = {"TOKEN": {"value": "from the vault", "uid": 5}}
    world.release(1, "blue")
    good = world.release(2, "green", services=services, secrets=secrets)
    bad = world.release(3, "blue")
    world.ledger().append("bad", op="x", release=bad.id, reason="slow")
    world.record(4)  # made, never live
    (world.paths.secrets).mkdir(parents=True)
    (world.paths.secrets / "TOKEN").write_text("today's")
    data = definition.request(world.paths, Order("deploy", "9.1.0", "0123abcd", "https://ci.example.com/7"), "ci:hub")
    request = parse(data)
    assert (request.version, request.who, request.revision) == ("9.1.0", "ci:hub", "0123abcd")
    assert {name: s.tag for name, s in request.services.items()} == {"api": "9.1.0", "cache": "7"}
    assert request.services["api"].env == good.request.services["api"].env == {"COLOUR": "red"}
    assert request.secrets["TOKEN"].value == "today's"
    assert request.image_policy.immutable_tags and request.explicit_version and request.compose == good.request.compose


def test_without_a_release_or_a_version_in_it_the_gate_says_what_to_do(world: World) -> None:
    with pytest.raises(SwitchyardError, match="never released here") as never:
        definition.request(world.paths, Order("deploy", "9.1.0"), "ci:hub")
    assert never.value.code is Exit.UNKNOWN_RELEASE
    world.release(1, "blue", services={"api": service(tag="latest")})
    with pytest.raises(SwitchyardError, match="a version alone changes nothing"):
        definition.request(world.paths, Order("deploy", "9.1.0"), "ci:hub")
    world.release(
        2, "green", services={"api": service(tag="2.0.0", secrets=["T"])}, secrets={"T": {"value": "", "uid": 1}}
    )
    with pytest.raises(SwitchyardError, match="secret T is not on this host"):
        definition.request(world.paths, Order("deploy", "9.1.0"), "ci:hub")


# Who may


@pytest.fixture
def gated(world: World) -> World:
    """A host that is alone and knows one key."""
    allow(["vm1"])
    return world


def allow(hosts: list[str]) -> None:
    access.FOLDER.mkdir(parents=True, exist_ok=True)
    (access.FOLDER / f"{NAME}.json").write_text(json.dumps({"hosts": hosts, "keys": {"hub": FINGERPRINT}}))


def gate(monkeypatch: pytest.MonkeyPatch, line: str, key: str = "hub") -> int:
    monkeypatch.setenv("SSH_ORIGINAL_COMMAND", line)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    return cli.main(["gate", str(NAME), key])


def test_a_fleet_a_strange_key_and_an_unprepared_host_are_refused(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gate(monkeypatch, "deploy 1.0.0") == Exit.FAILED
    assert "takes no orders here" in capsys.readouterr().err
    allow(["vm1", "vm2"])
    assert gate(monkeypatch, "deploy 1.0.0") == Exit.PREFLIGHT
    assert "ansible-playbook deploy.yml -e env=test -e version=1.0.0" in capsys.readouterr().err
    assert gate(monkeypatch, "status", key="gone") == Exit.USAGE
    assert "'gone' is not in deploy_access_keys" in capsys.readouterr().err
    assert world.ran("systemd-run") == []


def test_nothing_is_started_for_a_line_outside_the_grammar(
    gated: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for line in ATTACKS:
        assert gate(monkeypatch, line.replace("\0", "")) == Exit.USAGE or "\0" in line
    assert gated.docker.commands == [] and capsys.readouterr().out == ""


def test_an_order_is_followed_to_its_end_and_its_exit_code_is_the_operations(
    gated: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gated.release(1, "blue", version="1.0.0")
    started: list[tuple[str, dict[str, Any]]] = []

    def start(paths: Any, kind: str, request: dict[str, Any], operation: str = "") -> str:
        started.append((kind, request))
        result = Result(
            OPERATION, kind, int(Exit.UNHEALTHY), "0002-2.0.0 is sick.", "end of the log", phases={"start": 1}
        )
        write_result(paths, result)
        return operation or OPERATION

    monkeypatch.setattr(follow, "start", start)
    assert gate(monkeypatch, "deploy 2.0.0") == Exit.UNHEALTHY
    out, err = capsys.readouterr()
    assert json.loads(out)["message"] == "0002-2.0.0 is sick." and "details" not in json.loads(out)
    assert "failed in phase start, exit code 5" in err and "end of the log" in err
    assert gate(monkeypatch, "rollback 1.0.0 --commit 0123abcd") == Exit.UNHEALTHY
    assert started[1] == ("rollback", {"version": "1.0.0", "who": "ci:hub", "revision": "0123abcd", "run_url": ""})


def test_the_next_job_attaches_to_the_same_deploy_and_to_no_other(
    gated: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    gated.release(1, "blue", version="1.0.0")
    op = gated.operation()
    op.ledger = gated.ledger()
    op.begin("2.0.0")
    monkeypatch.setattr(lease, "_started", lambda _: "1")
    monkeypatch.setattr(lease.Lease, "process_alive", True)
    followed: list[str] = []

    def to_end(_: Any, operation: str, __: Any) -> dict[str, Any]:
        followed.append(operation)
        return vars(Result(operation, "deploy", 0, "done"))

    monkeypatch.setattr(follow, "to_end", to_end)
    assert gate(monkeypatch, "deploy 2.0.0") == 0
    assert followed == [OPERATION]
    assert gate(monkeypatch, "deploy 3.0.0") == Exit.BUSY
    assert gate(monkeypatch, "rollback") == Exit.BUSY
    assert followed == [OPERATION]


# The same order again, after a lost connection


def key_of(when: datetime | None = None, digits: str = "0a" * 16) -> str:
    """An idempotency key as a job chooses it."""
    return f"{when or datetime.now(UTC):%Y%m%dT%H%M%S}-{digits}"


@pytest.fixture
def started(gated: World, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of what was started on a host that served 1.0.0; each ends at once, and leaves its result."""
    gated.release(1, "blue", version="1.0.0")
    real, ids = follow.start, list[str]()

    def start(paths: Any, kind: str, request: dict[str, Any], operation: str = "") -> str:
        ids.append(real(paths, kind, request, operation))
        write_result(paths, Result(ids[-1], kind, message=f"{kind} {len(ids)}", changed=True, previous="0001-1.0.0"))
        return ids[-1]

    monkeypatch.setattr(follow, "start", start)
    return ids


def test_a_rollback_said_again_after_it_ended_is_not_gone_back_once_more(
    started: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = f"rollback --idempotency-key {key_of()}"
    assert gate(monkeypatch, line) == gate(monkeypatch, line) == 0
    first, again = map(json.loads, capsys.readouterr().out.splitlines())
    assert len(started) == 1 and first == again and again["op"] == check_operation(started[0])
    # Somebody who means it says it with another key, or by hand with none.
    assert gate(monkeypatch, f"rollback --idempotency-key {key_of(digits='0b' * 16)}") == 0
    assert gate(monkeypatch, "rollback") == gate(monkeypatch, "rollback") == 0
    assert len(set(started)) == 4


def test_a_deploy_that_ended_meanwhile_is_answered_as_it_ended(
    started: list[str], gated: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = f"deploy 2.0.0 --idempotency-key {key_of()}"
    assert gate(monkeypatch, line) == 0
    capsys.readouterr()
    assert gate(monkeypatch, line) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["changed"] and told["previous"] == "0001-1.0.0", "the job could not go back"
    write_result(gated.paths, Result(started[0], "deploy", int(Exit.REVERTED), "2.0.0 was taken back."))
    # Also when nothing could be released any more: the answer needs no definition.
    monkeypatch.setattr(definition, "request", lambda *_: pytest.fail("it was asked what to release"))
    assert gate(monkeypatch, line) == Exit.REVERTED
    assert len(started) == 1


def test_what_began_and_left_neither_log_nor_result_is_not_begun_again(
    gated: World, started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = f"rollback --idempotency-key {key_of()}"
    assert gate(monkeypatch, line) == 0
    # A full disk, say; the ledger had room for its start.
    gated.paths.result(started[0]).unlink()
    gated.ledger().append("start", op=started[0], kind="rollback", who="ci:hub", version="1.0.0")
    gated.docker.answers["systemctl show"] = (0, "inactive\n", "")
    assert gate(monkeypatch, line) == Exit.INTERRUPTED and len(started) == 1


def test_an_order_that_attached_is_answered_by_the_same_operation_after_that_ended(
    started: list[str], gated: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    op = gated.operation()
    op.ledger = gated.ledger()
    op.begin("2.0.0")
    monkeypatch.setattr(lease, "_started", lambda _: "1")
    monkeypatch.setattr(lease.Lease, "process_alive", True)
    lost = SwitchyardError("The connection was lost.")
    with monkeypatch.context() as cut:
        cut.setattr(follow, "to_end", lambda *_: (_ for _ in ()).throw(lost))
        line = f"deploy 2.0.0 --idempotency-key {key_of()}"
        assert gate(monkeypatch, line) == Exit.FAILED
    op.result.code, op.result.message = int(Exit.REVERTED), "2.0.0 was taken back."
    op.end("reverted")
    op.write_result()
    capsys.readouterr()
    assert gate(monkeypatch, line) == Exit.REVERTED and started == []
    assert json.loads(capsys.readouterr().out)["op"] == OPERATION


def test_an_idempotency_key_names_nothing_of_another_key_application_or_order(
    started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    both = {"hosts": ["vm1"], "keys": {"hub": FINGERPRINT, "lab": FINGERPRINT}}
    for name in (str(NAME), "shop-other"):
        (access.FOLDER / f"{name}.json").write_text(json.dumps(both))
    key = key_of()
    for name, ci_key, order in (
        (str(NAME), "hub", "rollback"),
        (str(NAME), "lab", "rollback"),
        ("shop-other", "hub", "rollback"),
        (str(NAME), "hub", "rollback 1.0.0"),
        (str(NAME), "hub", "deploy 1.0.0"),
    ):
        monkeypatch.setenv("SSH_ORIGINAL_COMMAND", f"{order} --idempotency-key {key}")
        monkeypatch.setattr("os.geteuid", lambda: 0)
        assert cli.main(["gate", name, ci_key]) == 0
    assert len(set(started)) == 5
    # Ids that the engine makes are shorter: no key comes to one, however long somebody tries.
    assert all(len(operation) > len(OPERATION) for operation in started)


@pytest.mark.parametrize("days", [-2, 2])
def test_a_key_from_another_day_begins_nothing_and_still_finds_what_it_began(
    started: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], days: int
) -> None:
    line = f"rollback --idempotency-key {key_of(datetime.now(UTC) + timedelta(days=days))}"
    assert gate(monkeypatch, line) == Exit.USAGE
    assert "set the clock" in capsys.readouterr().err and started == []
    assert gate(monkeypatch, f"rollback --idempotency-key 20269999T999999-{'0a' * 16}") == Exit.USAGE
    monkeypatch.setattr(verbs, "_LASTS", timedelta(days=3))
    assert gate(monkeypatch, line) == 0
    monkeypatch.setattr(verbs, "_LASTS", timedelta(days=1))
    assert gate(monkeypatch, line) == 0 and len(started) == 1


def test_a_reader_who_is_gone_does_not_look_like_success(gated: World, monkeypatch: pytest.MonkeyPatch) -> None:
    gated.release(1, "blue", version="1.0.0")
    monkeypatch.setattr(follow, "start", lambda *_: OPERATION)
    write_result(gated.paths, Result(OPERATION, "deploy", 0, "live"))

    class Gone:
        def write(self, _: str) -> int:
            raise BrokenPipeError

        def flush(self) -> None:
            raise BrokenPipeError

    monkeypatch.setattr("sys.stderr", Gone())
    with pytest.raises((BrokenPipeError, SwitchyardError)):
        gate(monkeypatch, "deploy 2.0.0")


# What the ledger says of keys


def keys_in_ledger(world: World) -> list[tuple[str, str, str]]:
    return [(e["subject"], e["outcome"], e["fingerprint"]) for e in world.ledger().of("key")]


def test_keys_that_come_and_go_are_in_the_ledger_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    allow(["vm1"])
    layout.HOST_FILE.write_text(json.dumps({"name": "vm1"}))

    def noted() -> list[tuple[str, str, str]]:
        assert cli.main(["note-keys", str(NAME)]) == 0
        return [(event["subject"], event["outcome"], event["fingerprint"]) for event in world.ledger().of("key")]

    # Provision comes before the first release, which begins the ledger.
    assert noted() == [] and not world.paths.ledger.exists()
    world.release(1, "blue")
    added = ("ci:hub", "added", FINGERPRINT)
    assert noted() == noted() == [added]
    path = access.FOLDER / f"{NAME}.json"
    path.write_text(json.dumps({"hosts": ["vm1"], "keys": {"hub": "SHA256:new"}}))
    noted()
    path.unlink()
    assert noted() == [added, ("ci:hub", "changed", "SHA256:new"), ("ci:hub", "removed", "")]
