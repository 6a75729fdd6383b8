"""The report's arithmetic, the separate process, the command line, and what is refused."""

import asyncio
import json
import os
import re
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.load import BadUsage, Load, LoadConfig, LoadDied, LoadProcess, Report, Switch, mix
from tests.load.__main__ import main
from tests.load.keys import KeyBook
from tests.load.miniature import Fault, Miniature, Request, answer, no_fault
from tests.load.report import Connection, Ending, Example, Losses, NewConnection


class Background:
    """The application in a thread, for clients that are not in this event loop."""

    def __init__(self, fault: Fault = no_fault) -> None:
        self.app = Miniature(fault)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._ready.wait(60)

    async def _serve(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        async with self.app.listening():
            self._ready.set()
            await self._over.wait()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()


@pytest.fixture
def background() -> Iterator[Background]:
    server = Background()
    yield server
    server.close()


@pytest.fixture
def broken() -> Iterator[Background]:
    async def fault(request: Request) -> bool:
        request.writer.write(answer(502))
        return True

    server = Background(fault)
    yield server
    server.close()


def test_a_process_of_its_own_reports_what_the_server_saw(background: Background) -> None:
    config = LoadConfig(url=background.app.url, app="parcels", workers={"get": 1, "post": 1, "new": 1})
    load = LoadProcess(config).start()
    while load.snapshot().answered < 20:
        assert load._child is not None
        assert load._child.poll() is None
    report = load.stop([])
    assert report.lossless, report.summary()
    assert report.seed == config.seed
    assert report.non_monotonic == 0
    assert report.answered == report.sent == background.app.requests - 1  # the audit is the one more
    assert len(background.app.writes) == report.by_kind["post"].sent
    assert load._child is not None
    assert load._child.returncode == 0


def test_a_bound_ends_the_sending(background: Background) -> None:
    config = LoadConfig(url=background.app.url, workers={"get": 3}, max_requests=30, think=(0.0, 0.0))
    with LoadProcess(config) as load:
        while not load.snapshot().finished:
            pass
        assert load.stop().sent == 30


def test_the_time_bound_ends_the_sending(background: Background) -> None:
    async def run() -> Report:
        load = Load(LoadConfig(url=background.app.url, workers={"get": 1}, max_duration=0.05))
        await load.start()
        await load.finished()
        return await load.stop()

    report = asyncio.run(run())
    assert report.sent == background.app.requests > 0


def test_the_child_ends_with_its_parent(background: Background, tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, sys, time\n"
        "from tests.load import LoadConfig, LoadProcess\n"
        "load = LoadProcess(LoadConfig(url=sys.argv[1])).start()\n"
        "print(load._child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    root = Path(__file__).resolve().parents[2]
    parent = subprocess.Popen(
        [sys.executable, str(script), background.app.url],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    descriptor = os.pidfd_open(child)
    try:
        parent.kill()
        parent.wait()
        parent.stdout.close()
        readable, _, _ = select.select([descriptor], [], [], 60)
        assert readable, "the child lives on"
    finally:
        os.close(descriptor)


def test_a_load_that_was_started_has_one_child_only(background: Background) -> None:
    load = LoadProcess(LoadConfig(url=background.app.url)).start()
    child = load._child
    with load:
        assert load._child is child


def test_a_child_that_dies_is_no_success(background: Background) -> None:
    load = LoadProcess(LoadConfig(url=background.app.url)).start()
    assert load._child is not None
    os.kill(load._child.pid, signal.SIGKILL)
    # Gone for certain, so that nobody reads what it is told.
    os.waitid(os.P_PID, load._child.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(LoadDied):
        load.stop()


def test_a_failed_worker_is_no_success(background: Background, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setitem(sys.modules["tests.load.load"].WORKERS, "get", fail)

    async def run() -> None:
        load = Load(LoadConfig(url=background.app.url))
        await load.start()
        with pytest.raises(ZeroDivisionError):
            await load.stop()

    asyncio.run(run())


def test_the_command_says_the_verdict(
    background: Background, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    mixed = ["--mix", "get=1,post=1", "--app", "parcels", "--think", "0-5", "--max-requests", "20"]
    assert main(["--url", background.app.url, *mixed, "--json", str(out), "--seed", "7"]) == 0
    output = capsys.readouterr()
    assert output.out.splitlines()[-1] == "sent 20, lost 0, duplicated 0"
    assert "seed 7" in output.err
    # One line a second, and one at the end.
    told = [(int(sent), int(more)) for sent, more in re.findall(r"sent (\d+) \(\+(\d+)\)", output.err)]
    assert told[-1][0] == sum(more for _, more in told) == 20
    assert json.loads(out.read_text())["sent"] == 20


def test_the_command_fails_when_something_was_lost(broken: Background, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--url", broken.app.url, "--mix", "get=1", "--max-requests", "3"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "sent 3, lost 3, duplicated 0"
    assert "lost, answered 502: 3" in lines


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--url", "http://192.0.2.1/"], "192.0.2.1 is refused"),
        (["--url", "http://198.20.0.1/"], "198.20.0.1 is refused"),
        (["--url", "http://127.0.0.1/", "--connect", "192.0.2.1"], "192.0.2.1 is refused"),
        (["--url", "http://127.0.0.1/", "--connect", "elsewhere"], "must be an IP address"),
        (["--url", "http://127.0.0.1/", "--tls-url", "https://192.0.2.1/", "--tls", "1"], "192.0.2.1 is refused"),
        (["--url", "http://[::ffff:192.0.2.1]/"], "is refused"),
        (["--url", "http://127.0.0.1/path"], "must end after the host"),
        (["--url", "ftp://127.0.0.1/"], "not a URL of the form"),
        (["--url", "http://127.0.0.1:port/"], "not a URL"),
        (["--url", "http://127.0.0.1/", "--mix", "sometimes"], "A mix is"),
        (["--url", "http://127.0.0.1/", "--mix", "get=x"], "whole number"),
        (["--url", "http://127.0.0.1/", "--get", "-1"], "must not be negative"),
        (["--url", "http://127.0.0.1/", "--mix", "get=0"], "At least one worker"),
        (["--url", "http://127.0.0.1/", "--mix", "h2"], "needs an https URL"),
        (["--url", "http://127.0.0.1/", "--mix", "ws", "--app", "trivial"], "needs the sample application"),
        (["--url", "http://127.0.0.1/", "--think", "5-2"], "from a smaller to a larger"),
        (["--url", "http://127.0.0.1/", "--think", "soon"], "range of milliseconds"),
        (["--url", "http://127.0.0.1/", "--ca", "/nonexistent"], "There is no CA file"),
        (["--url", "http://127.0.0.1/", "--timeout", "0"], "more than zero"),
        (["--url", "http://127.0.0.1/", "--json", "/nonexistent/a.json"], "There is no directory"),
        (["--url", "http://127.0.0.1/", "--colour", "blue"], "Unrecognized arguments"),
        ([], "are required: --url"),
    ],
)
def test_bad_usage_is_one_sentence(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert words in output.err
    assert output.err.count("\n") == 1
    assert output.err.endswith(".\n")


@pytest.mark.parametrize(
    ("url", "connect", "address"),
    [
        ("http://127.8.9.1:81/", None, "127.8.9.1"),
        ("http://[::1]/", None, "::1"),
        ("http://198.18.0.1/", None, "198.18.0.1"),
        ("http://198.19.255.254/", None, "198.19.255.254"),
        ("http://parcels.test/", "198.18.7.7", "198.18.7.7"),
    ],
)
def test_home_addresses_are_accepted(url: str, connect: str | None, address: str) -> None:
    assert Load(LoadConfig(url=url, connect=connect))._targets.plain.address == address


def test_the_child_refuses_in_the_parent() -> None:
    with pytest.raises(BadUsage, match=r"192\.0\.2\.1 is refused"):
        LoadProcess(LoadConfig(url="http://192.0.2.1/")).start()


def test_a_mix_has_tls_only_where_there_is_tls() -> None:
    assert set(mix("full", tls=True)) - set(mix("full")) == {"tls", "h2"}
    assert mix("get=3,ws")["get"] == 3
    assert mix("get=3,ws")["ws"] > 0


def test_settings_survive_the_way_to_the_child() -> None:
    config = LoadConfig(url="http://127.0.0.1/", workers={"get": 2}, think=(0.5, 1.0), seed=5)
    assert LoadConfig.from_dict(json.loads(json.dumps(config.as_dict()))) == config


def test_a_report_survives_the_way_back() -> None:
    report = Report(seed=1, target="t", started=1.0, duration=2.0, drain=10, settle=0.5, sent=3, lost_requests=1)
    losses = Losses()
    losses.add(Example(1.5, "get", 0.25, 100, 0))
    report.request_losses["reset without an answer"] = losses
    report.connections.append(Connection("ws", "1", 1.0, 2.0, Ending.CUT, "reset"))
    report.new_connections.append(NewConnection(1.0, 1.25, "1"))
    report.judge()
    fields = json.loads(json.dumps(report.as_dict()))
    assert Report.from_dict(fields) == report
    assert fields["lost"] == 2 == sum(losses["count"] for losses in fields["loss_reasons"].values())
    assert len(fields["cuts"]) == 1


def test_only_the_first_losses_are_kept_in_full() -> None:
    losses = Losses()
    for number in range(50):
        losses.add(Example(number, "get", None, 0, 0))
    assert losses.count == 50
    assert [example.at for example in losses.examples] == list(range(20))


def answered(started: float, release: str) -> NewConnection:
    return NewConnection(started, started + 0.1, release)


@pytest.mark.parametrize(
    ("answers", "count"),
    [
        ([answered(9, "1"), answered(10, "2"), answered(10.2, "1"), answered(11, "2")], 0),  # still settling
        ([answered(10, "2"), answered(11, "1"), answered(12, "1")], 2),
        ([answered(11, "1"), answered(12, "1")], 0),  # the new release was never seen
        ([answered(10, "2"), answered(20, "1"), answered(22, "1")], 0),  # rolled back: 1 is right again
        ([answered(10, "2"), answered(20, "1"), answered(22, "2")], 1),
        ([answered(9.5, "2"), answered(19, "1")], 0),  # what was seen before the switch says nothing about it
    ],
)
def test_a_release_must_not_go_backwards(answers: list[NewConnection], count: int) -> None:
    report = Report(seed=1, target="", started=0, duration=1, drain=10, settle=0.5, new_connections=answers)
    assert report.judge([Switch(20, "2", "1"), Switch(10, "1", "2")]).non_monotonic == count
    assert report.judge().non_monotonic is None


def test_the_old_release_may_answer_until_the_switch_is_done() -> None:
    answers = [answered(10, "2"), answered(11, "1"), answered(12, "1")]
    report = Report(seed=1, target="", started=0, duration=1, drain=10, settle=0.5, new_connections=answers)
    assert report.judge([Switch(10, "1", "2", done=11.5)]).non_monotonic == 1


def test_keys_are_uuids_that_no_other_run_has() -> None:
    import uuid

    first, second = KeyBook(), KeyBook()
    numbers = [first.issue() for _ in range(3)]
    keys = [key for batch in first.batches(2) for key in batch]
    assert keys == [first.text(number) for number in numbers]
    assert [str(uuid.UUID(key)) for key in keys] == keys
    assert {uuid.UUID(key).version for key in keys} == {4}
    first.acknowledge(1)
    assert [first.acknowledged(key) for key in keys] == [False, True, False]
    assert not first.acknowledged(second.text(1))


def test_nothing_sent_is_no_success() -> None:
    assert not Report(seed=1, target="", started=0, duration=1, drain=10, settle=0.5).lossless
