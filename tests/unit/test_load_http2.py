"""HTTP/2: GOAWAY decides which streams were attempts and which were never processed."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest
from hyperframe.frame import DataFrame, GoAwayFrame

from tests.load import Load, LoadConfig, Report
from tests.load.certificates import self_signed
from tests.load.http2 import GoawayFilter

STREAMS = 3
REQUESTS = 9


class Server(asyncio.Protocol):
    """Answers each stream, unless a test has put something else in the place of that."""

    def __init__(self, script: "Script") -> None:
        self.script = script
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self.open: list[int] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.script.connections.append(self)
        self.h2.initiate_connection()
        self.flush()

    def data_received(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            if isinstance(event, h2.events.StreamEnded):
                self.open.append(event.stream_id or 0)
                self.script.on_request(self)
        self.flush()

    def answer(self, stream: int, status: str = "200", *, end: bool = True) -> None:
        headers = [(":status", status), ("x-release", "1"), ("x-service", "api"), ("content-length", "2")]
        self.h2.send_headers(stream, headers)
        self.h2.send_data(stream, b"[]" if end else b"[", end_stream=end)
        self.open.remove(stream)

    def answer_all(self) -> None:
        for stream in list(self.open):
            self.answer(stream)
        self.flush()

    def goaway(self, last: int) -> None:
        # Written as a frame, because h2 itself could not go on to answer the streams below it.
        self.flush()
        self.transport.write(GoAwayFrame(0, last_stream_id=last).serialize())

    def flush(self) -> None:
        self.transport.write(self.h2.data_to_send())


class Script:
    """What the server does once `STREAMS` streams are open on its first connection."""

    def __init__(self, act: Callable[[Server], None]) -> None:
        self.act = act
        self.acted = False
        self.connections: list[Server] = []

    def on_request(self, server: Server) -> None:
        if self.acted:
            server.answer_all()
        elif len(server.open) == STREAMS:
            self.acted = True
            self.act(server)


def run_against(directory: Path, act: Callable[[Server], None], protocol: str = "h2") -> tuple[Report, Script]:
    context, authority = self_signed(directory, protocol)
    script = Script(act)

    async def run() -> Report:
        server = await asyncio.get_running_loop().create_server(lambda: Server(script), "127.0.0.1", 0, ssl=context)
        config = LoadConfig(
            url=f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/",
            workers={"h2": 1},
            streams=STREAMS,
            ca=authority,
            think=(0.0, 0.0),
            max_requests=REQUESTS,
            timeout=60.0,
            seed=1,
        )
        async with server:
            load = Load(config)
            await load.start()
            await load.finished()
            report = await load.stop()
            for connection in script.connections:
                connection.transport.abort()
            return report

    return asyncio.run(run()), script


def reasons(report: Report) -> dict[str, int]:
    return {name: losses.count for name, losses in report.loss_reasons.items()}


def test_a_clean_server_loses_nothing_on_one_connection(tmp_path: Path) -> None:
    report, script = run_against(tmp_path, Server.answer_all)
    assert report.lossless
    assert (report.sent, report.answered, report.refused_streams) == (REQUESTS, REQUESTS, 0)
    assert len(script.connections) == 1
    assert report.by_release == {"1": REQUESTS}


def test_a_graceful_goaway_loses_nothing(tmp_path: Path) -> None:
    def leave(server: Server) -> None:
        server.goaway(server.open[-1])
        server.answer_all()

    report, script = run_against(tmp_path, leave)
    assert report.lossless
    assert (report.answered, report.refused_streams) == (REQUESTS, 0)
    assert len(script.connections) == 2


def test_streams_above_the_last_id_are_sent_again_and_not_lost(tmp_path: Path) -> None:
    def leave(server: Server) -> None:
        first = server.open[0]
        server.goaway(first)
        server.answer(first)
        server.flush()

    report, script = run_against(tmp_path, leave)
    assert report.lossless
    assert (report.sent, report.answered, report.refused_streams) == (REQUESTS, REQUESTS, STREAMS - 1)
    assert len(script.connections) == 2


def test_a_stream_up_to_the_last_id_without_an_answer_is_lost(tmp_path: Path) -> None:
    def cut(server: Server) -> None:
        server.goaway(server.open[1])
        server.answer(server.open[0])
        server.flush()
        server.transport.close()

    report, _ = run_against(tmp_path, cut)
    # One of the three was answered, one was promised and cut, one was never processed.
    assert reasons(report) == {"closed without an answer": 1}
    assert (report.sent, report.answered, report.lost) == (REQUESTS, REQUESTS - 1, 1)
    assert report.refused_streams == 1


def test_without_goaway_every_open_stream_is_lost(tmp_path: Path) -> None:
    def cut(server: Server) -> None:
        server.answer(server.open[0], end=False)
        server.flush()
        server.transport.close()

    report, _ = run_against(tmp_path, cut)
    assert reasons(report) == {"closed without an answer": STREAMS - 1, "closed inside the answer": 1}
    assert report.refused_streams == 0


def test_a_reset_stream_is_lost_unless_it_was_refused(tmp_path: Path) -> None:
    def reset(server: Server) -> None:
        lost, refused, good = server.open
        server.h2.reset_stream(lost, 2)
        server.h2.reset_stream(refused, 7)
        server.open = [good]
        server.answer_all()

    report, _ = run_against(tmp_path, reset)
    assert reasons(report) == {"stream reset with error 2": 1}
    assert report.refused_streams == 1


def test_an_error_answer_is_lost(tmp_path: Path) -> None:
    def fail(server: Server) -> None:
        server.answer(server.open[0], "502")
        server.answer_all()

    report, script = run_against(tmp_path, fail)
    assert reasons(report) == {"answered 502": 1}
    assert len(script.connections) == 1


def test_what_is_not_http2_is_lost(tmp_path: Path) -> None:
    def babble(server: Server) -> None:
        server.transport.write(DataFrame(99, b"nobody asked").serialize())

    report, _ = run_against(tmp_path, babble)
    assert report.lost_requests == STREAMS
    assert all(reason.startswith("malformed answer") for reason in report.loss_reasons)


def test_a_server_without_http2_is_lost(tmp_path: Path) -> None:
    report, _ = run_against(tmp_path, Server.answer_all, protocol="http/1.1")
    assert reasons(report) == {"connect: the server does not offer HTTP/2": REQUESTS}


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_the_filter_passes_everything_but_goaway(size: int) -> None:
    frames: list[Any] = [DataFrame(1, b"one"), GoAwayFrame(0, last_stream_id=2**31 - 1)]
    frames += [DataFrame(3, b""), GoAwayFrame(0, last_stream_id=5), DataFrame(5, b"x" * 300)]
    text = b"".join(frame.serialize() for frame in frames)
    goaways = GoawayFilter()
    passed = b"".join(goaways.feed(text[start : start + size]) for start in range(0, len(text), size))
    assert passed == b"".join(frame.serialize() for frame in frames if isinstance(frame, DataFrame))
    assert goaways.last_stream_id == 5
