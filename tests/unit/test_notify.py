"""News: left by an operation without waiting, delivered by another process, once it can be and in order."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from switchyard.engine import announce as announcing
from switchyard.engine import cli, effects
from switchyard.engine.announce import announce
from switchyard.engine.operation import Operation
from switchyard.errors import Exit, SwitchyardError
from switchyard.notify import config, courier, payload, send, spool
from switchyard.notify.config import Config, Target
from tests.pipeline.receiver import Receiver
from tests.unit.engine_world import NAME, World


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def host(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A host whose notifier is quick, and whose clock is the real one."""
    for module in (announcing, courier, spool, effects):
        monkeypatch.setattr(module, "time", time)
    for name in ("_LOOK_SECONDS", "_LINGER_SECONDS", "_FIRST_PAUSE"):
        monkeypatch.setattr(courier, name, 0.01)
    yield world
    over()


def target(receiver: Receiver, name: str = "team", **changes: Any) -> Target:
    return Target(name, receiver.url, **{"timeout": 30.0, **changes})


def over() -> None:
    """End the couriers, as the end of their process would."""
    for thread in threading.enumerate():
        if isinstance(thread, courier.Courier):
            thread.stop.set()
            thread.join(30)


def deliver(*targets: Target, **changes: Any) -> list[str]:
    said: list[str] = []
    courier.deliver(Config("vm1", list(targets), **changes), said.append)
    over()
    return said


def background(*targets: Target, **changes: Any) -> tuple[threading.Thread, list[str]]:
    said: list[str] = []
    settings = Config("vm1", list(targets), **changes)
    thread = threading.Thread(target=courier.deliver, args=(settings, said.append), daemon=True)
    thread.start()
    return thread, said


def until(condition: Any) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# What an operation leaves


def test_an_operation_tells_who_did_what_from_which_commit_and_how_it_ended(world: World) -> None:
    op = world.begun()
    op.commit, op.run_url = "0123abcd", "https://ci.example.com/7"
    op.result.release, op.result.message = "0001-1.0.0", "0001-1.0.0 is live on blue."
    op.end("live")
    first, last = world.news()
    assert (first["kind"], last["kind"]) == ("deploy.started", "deploy.live")
    assert last["title"] == f"{NAME}: 0001-1.0.0 is live on blue." and last["app"] == str(NAME)
    wanted = {"version": "1.0.0", "release": "0001-1.0.0", "who": "tester", "run_url": "", "commit": "0123abcd"}
    assert last["details"].items() >= (wanted | {"run_url": "https://ci.example.com/7"}).items()
    assert last["details"]["seconds"] is not None and first["details"]["seconds"] is None


@pytest.mark.parametrize(
    ("kind", "outcome", "told"),
    [
        ("deploy", "reverted", ("deploy.reverted", "critical")),
        ("deploy", "failed", ("deploy.failed", "critical")),
        ("rollback", "rolled back", ("rollback.live", "warning")),
        ("deploy", "unchanged", None),
    ],
)
def test_each_end_has_its_kind_and_loudness(
    world: World, kind: str, outcome: str, told: tuple[str, str] | None
) -> None:
    world.begun(kind).end(outcome)
    news = [(item["kind"], item["severity"]) for item in world.news()[1:]]
    assert news == ([told] if told else [])


def test_what_is_done_by_hand_is_no_news(world: World) -> None:
    world.begun("phase pull").end("done")
    assert world.news() == []


def test_announcing_never_stops_an_operation(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise SwitchyardError("disk full")

    monkeypatch.setattr(announcing, "replace_file", refuse)
    op: Operation = world.begun()
    op.end("live")
    assert [event["event"] for event in world.ledger().events] == ["start", "end"]


def test_a_spool_that_nobody_empties_stops_growing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announcing, "_MOST", 3)
    for _ in range(5):
        announce("test", "one more")
    assert len(world.news()) == 3


# Delivery


def test_every_target_gets_what_it_wants_in_order_and_the_spool_is_empty_then(host: World, receiver: Receiver) -> None:
    with Receiver() as other:
        announce("deploy.started", "a deploy started", app="shop-test", version="1.0.0")
        announce("deploy.failed", "a deploy failed <b>&", severity="critical", run_url="https://ci.example.com/7")
        announce("disk.full", "the disk is full", severity="critical")
        wanting = target(other, "pager", format="json", events=["deploy.*"], severity="warning", headers={"X-Key": "k"})
        said = deliver(target(receiver), wanting)
        assert receiver.titles() == ["a deploy started", "a deploy failed &lt;b&gt;&amp;", "the disk is full"]
        ((path, headers, body),) = other.got
        assert path == "/services/T0/canary-hook-9c1e" and headers["X-Key"] == "k"
        assert (body["kind"], body["host"], body["id"]) == ("deploy.failed", "vm1", headers["Idempotency-Key"])
    assert spool.waiting() == [] and host.ran("rm")
    assert "canary-hook" not in "".join(said)


@pytest.mark.usefixtures("host")
def test_what_is_down_gets_it_later_and_delays_nobody(receiver: Receiver) -> None:
    with Receiver() as down:
        down.stop()
        announce("deploy.live", "one")
        announce("deploy.live", "two")
        thread, said = background(target(receiver), target(down, "down"))
        receiver.wait(2)
        assert spool.waiting()
        until(lambda: any("Connection refused" in line and "next attempt" in line for line in said))
        down.start()
        down.wait(2)
        thread.join(30)
    assert not thread.is_alive() and spool.waiting() == []
    assert down.titles() == ["one", "two"] == receiver.titles()


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize("trouble", ["500", "slow"])
def test_a_broken_or_slow_receiver_is_tried_again(receiver: Receiver, trouble: str) -> None:
    if trouble == "500":
        receiver.status = 500
    else:
        receiver.delay = 60.0
    announce("deploy.live", "one")
    thread, said = background(target(receiver, timeout=30.0 if trouble == "500" else 0.1))
    until(lambda: receiver.connections >= 2)
    receiver.status, receiver.delay = 200, 0.0
    thread.join(30)
    assert "one" in receiver.titles() and spool.waiting() == []
    assert any(("it answered 500" if trouble == "500" else "no answer within 0.1 s") in line for line in said)


@pytest.mark.usefixtures("host")
def test_a_message_that_is_refused_for_good_does_not_block_the_next(receiver: Receiver) -> None:
    receiver.status = 400
    announce("deploy.live", "never taken")
    assert any("is given up: it answered 400" in line for line in deliver(target(receiver)))
    receiver.status = 200
    announce("deploy.live", "taken")
    deliver(target(receiver))
    assert receiver.titles() == ["taken"]


def test_a_receiver_that_asks_for_a_pause_gets_it(receiver: Receiver) -> None:
    receiver.status, receiver.headers = 429, {"Retry-After": "7"}
    with pytest.raises(send.Undelivered) as error:
        send.send(target(receiver), {"title": "t"}, "vm1", "1")
    assert (error.value.pause, error.value.reason) == (7.0, "it answered 429")
    receiver.status, receiver.headers = 302, {"Location": "http://192.0.2.1/"}
    with pytest.raises(send.Undelivered, match="it answered 302"):
        send.send(target(receiver), {"title": "t"}, "vm1", "1")


@pytest.mark.usefixtures("host")
def test_a_killed_notifier_goes_on_where_it_was(receiver: Receiver) -> None:
    with Receiver() as down:
        down.stop()
        announce("deploy.live", "one")
        first = courier.Courier(target(receiver), "vm1", lambda _: None)
        first.start()
        receiver.wait(1)
        over()
        assert len(spool.waiting()) == 1  # the other target never had it
        down.start()
        deliver(target(receiver), target(down, "down"))
        assert (len(receiver.got), len(down.got)) == (1, 1)


@pytest.mark.usefixtures("host")
def test_too_old_and_too_many_are_dropped_and_said(receiver: Receiver) -> None:
    for number in range(6):
        announce("deploy.live", str(number))
    names = spool.waiting()
    os.utime(announcing.SPOOL / names[1], (0, 0))
    os.utime(announcing.SPOOL / names[3], (0, 0))
    receiver.status = 500
    thread, said = background(target(receiver), max_news=5)
    # A courier still sends what it had in hand when that was dropped: it has to be past it.
    until(lambda: all(any(words in line for line in said) for words in ("dropped", names[2])))
    receiver.status = 200
    thread.join(30)
    assert receiver.titles()[:3] == ["2", "4", "5"]
    assert receiver.titles()[3].startswith("3 pieces of news were dropped")
    assert len(receiver.got) == 4


@pytest.mark.usefixtures("host")
def test_a_rubbish_file_and_a_killed_writer_do_not_stop_it(receiver: Receiver) -> None:
    announcing.SPOOL.mkdir(parents=True)
    (announcing.SPOOL / "1-1.json").write_text("{half")
    left = announcing.SPOOL / ".2-2.json.99.tmp"
    left.write_text("")
    os.utime(left, (0, 0))
    announce("deploy.live", "well")
    deliver(target(receiver))
    assert receiver.titles() == ["well"]
    assert list(announcing.SPOOL.iterdir()) == []


@pytest.mark.usefixtures("host")
def test_two_notifiers_do_not_deliver_twice(receiver: Receiver) -> None:
    with effects.exclusive(courier.LOCK, wait=0, busy=""), pytest.raises(SwitchyardError, match="Another notifier"):
        deliver(target(receiver))


@pytest.mark.usefixtures("host")
def test_without_targets_news_end_in_the_log() -> None:
    announce("deploy.live", "nobody asked", app="shop-test")
    assert deliver() == ["info: shop-test: nobody asked"]
    assert spool.waiting() == []


@pytest.mark.usefixtures("host")
def test_a_new_configuration_is_taken_up(receiver: Receiver) -> None:
    config.FILE.parent.mkdir(parents=True, exist_ok=True)
    config.FILE.write_text("{}")
    receiver.status = 500
    announce("deploy.live", "one")
    thread, _ = background(target(receiver))
    until(lambda: receiver.connections)
    os.utime(config.FILE, (1, 1))
    thread.join(30)
    assert not thread.is_alive() and spool.waiting()


# Configuration, messages, and the verb


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"url": "ftp://canary-hook"}, "url: this is no http"),
        ({"format": "smoke"}, "format: use one of"),
        ({"severity": "loud"}, "severity: use one of"),
        ({"name": "../x"}, "name it a-z"),
        ({"timeout": 0.0}, "timeout: use 0.1"),
        ({"evnts": []}, "did you mean 'events'"),
    ],
)
def test_a_wrong_configuration_is_named_without_its_secret(
    world: World, changes: dict[str, Any], sentence: str
) -> None:
    config.FILE.parent.mkdir(parents=True, exist_ok=True)
    config.FILE.write_text(json.dumps({"targets": [{"name": "team", "url": "https://x/canary-hook", **changes}]}))
    with pytest.raises(SwitchyardError, match=sentence) as error:
        config.load()
    assert "canary-hook" not in error.value.message
    assert world.docker.commands == []


def test_no_configuration_is_no_target(world: World) -> None:
    assert config.load().targets == [] and world.docker.commands == []


def test_a_message_shows_what_matters_first_and_cannot_be_made_to_link_elsewhere() -> None:
    details = {"version": "1.0.0", "who": "a<b", "zeta": 1, "empty": "", "nested": {"a": 1}, "seconds": 3.14159}
    news = {"title": "t", "severity": "critical", "details": {**details, "run_url": "https://x/|<!channel>"}}
    (shown,) = payload.slack(news, "vm1")["attachments"]
    fields = {field["title"]: field["value"] for field in shown["fields"]}
    assert fields == {"version": "1.0.0", "by": "a&lt;b", "took": "3.1 s", "zeta": "1"}
    assert shown["color"] == "danger"
    assert len(payload.slack({"title": "x" * 5000}, "")["text"]) <= 300


def test_the_verb_tries_every_target_and_says_how_it_went(
    world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert cli.main(["notify", "--test"]) == Exit.USAGE
    config.FILE.parent.mkdir(parents=True, exist_ok=True)
    targets = [{"name": "team", "url": receiver.url}, {"name": "gone", "url": "http://127.0.0.1:9/canary-hook"}]
    config.FILE.write_text(json.dumps({"host": "vm1", "targets": targets}))
    assert cli.main(["notify", "--test"]) == Exit.FAILED
    out, err = capsys.readouterr()
    assert out.splitlines() == ["team: delivered", "gone: Connection refused"]
    assert "canary-hook" not in out + err
    assert len(receiver.got) == 1 and world.docker.commands == []


def test_a_deploy_opens_no_connection() -> None:
    """What an operation runs does not know how to send: only the notifier's own package imports the sender."""
    package = Path(send.__file__).parent.parent
    for path in package.rglob("*.py"):
        if path.parent.name not in ("notify", "control") and "notify" in path.read_text():
            assert path.name in ("cli.py", "announce.py", "rounds.py"), path
