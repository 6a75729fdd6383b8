"""Every way in which a plain request can be lost is seen, and a clean server loses nothing."""

import asyncio
import json
import select
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.load import Load, LoadConfig, Report
from tests.load.certificates import self_signed
from tests.load.http1 import Http1, Malformed, Parser
from tests.load.link import Link
from tests.load.miniature import Miniature, Request, answer, chunk, no_fault
from tests.load.run import Run
from tests.load.target import targets
from tests.load.wire import Lost, connect

REQUESTS = 12
BROKEN = 5  # the number of the one request that each fault breaks


def settings(url: str, **changes: Any) -> LoadConfig:
    defaults: dict[str, Any] = {
        "app": "parcels",
        "workers": {"get": 1},
        "think": (0.0, 0.0),
        "max_requests": REQUESTS,
        "timeout": 60.0,
        "seed": 1,
    }
    return LoadConfig(url=url, **(defaults | changes))


async def complete(config: LoadConfig) -> Report:
    load = Load(config)
    await load.start()
    await load.finished()
    return await load.stop()


def run_against(app: Miniature, **changes: Any) -> Report:
    async def run() -> Report:
        async with app.listening():
            return await complete(settings(app.url, **changes))

    return asyncio.run(run())


def once(act: Callable[[Request], None]) -> Callable[[Request], Awaitable[bool]]:
    """Break one request in the middle of the run; the others must not be counted with it."""
    seen = 0

    async def fault(request: Request) -> bool:
        nonlocal seen
        seen += 1
        if seen != BROKEN:
            return False
        act(request)
        return True

    return fault


def reset(request: Request) -> None:
    request.reset()


def close(request: Request) -> None:
    request.writer.close()


def truncate(request: Request) -> None:
    request.writer.write(answer(200, b"[]", length=10))
    request.writer.close()


def truncate_head(request: Request) -> None:
    request.writer.write(answer(200, b"[]")[:20])
    request.writer.close()


def truncate_chunks(request: Request) -> None:
    head = b"HTTP/1.1 200 OK\r\nX-Release: 1\r\nX-Service: api\r\nTransfer-Encoding: chunked\r\n\r\n"
    request.writer.write(head + chunk(b"[]"))
    request.writer.close()


def overlong(request: Request) -> None:
    request.writer.write(answer(200, b"[]extra", length=2))


def unmeasured(request: Request) -> None:
    request.writer.write(b"HTTP/1.1 200 OK\r\nX-Release: 1\r\nX-Service: api\r\n\r\n[]")
    request.writer.close()


def bad_gateway(request: Request) -> None:
    request.writer.write(answer(502, b"<html>"))


def not_found(request: Request) -> None:
    request.writer.write(answer(404, b"[]"))


def other_service(request: Request) -> None:
    request.writer.write(answer(200, b"[]", service="web"))


def two_releases(request: Request) -> None:
    request.writer.write(answer(200, b"[]", release="1\r\nX-Release: 2"))


def no_json(request: Request) -> None:
    request.writer.write(answer(200, b"[half"))


FAULTS: dict[Callable[[Request], None], str] = {
    reset: "reset without an answer",
    close: "closed without an answer",
    truncate: "closed inside the answer",
    truncate_head: "closed inside the answer",
    truncate_chunks: "closed inside the answer",
    overlong: "malformed answer: more bytes than promised",
    unmeasured: "malformed answer: neither Content-Length nor chunked",
    bad_gateway: "answered 502",
    not_found: "answered 404",
    other_service: "answered by service web instead of api",
    two_releases: "no single X-Release in the answer",
    no_json: "the body is not JSON",
}


@pytest.mark.parametrize(("fault", "reason"), FAULTS.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_one_broken_answer_is_one_loss(fault: Callable[[Request], None], reason: str) -> None:
    report = run_against(Miniature(once(fault)))
    assert {name: losses.count for name, losses in report.loss_reasons.items()} == {reason: 1}
    assert (report.sent, report.answered, report.lost) == (REQUESTS, REQUESTS - 1, 1)
    assert not report.lossless
    assert report.idle_closes == 0  # a connection that died under a request was not idle
    example = report.loss_reasons[reason].examples[0]
    assert example.kind == "get"
    assert example.connection_age is not None
    assert example.bytes_sent > 0


@pytest.mark.parametrize("kind", ["get", "post", "new", "slow", "upload", "page"])
def test_a_clean_server_loses_nothing(kind: str) -> None:
    app = Miniature()
    report = run_against(app, workers={kind: 2}, upload_bytes=1000, upload_time=0.01)
    assert report.loss_reasons == {}
    assert report.lossless
    assert report.answered == report.sent >= REQUESTS
    assert report.by_release == {"1": report.sent}
    assert report.by_kind[kind].latency["max"] > 0
    # All of them really arrived, on as many connections as the kind says; the audit has one of its own.
    assert app.requests == report.sent + bool(app.writes) + (kind == "upload")
    if kind == "new":
        assert app.connections == len(report.new_connections) == report.sent
    else:
        assert app.connections <= 3
    if kind == "post":
        assert set(app.writes.values()) == {1}
        assert len(app.writes) == report.sent
    if kind == "page":
        assert report.assets == {"/assets/app-1a.css": ["1"], "/assets/app-1a.js": ["1"]}


def test_a_refused_connection_is_lost() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: nobody else can answer there
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/"
        report = asyncio.run(complete(settings(url, workers={"new": 1}, max_requests=3)))
    assert (report.sent, report.lost) == (3, 3)
    assert report.loss_reasons["connect: refused"].count == 3
    assert report.loss_reasons["connect: refused"].examples[0].connection_age is None


def test_a_reset_in_the_middle_of_an_upload_is_lost() -> None:
    async def run() -> Report:
        async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            await reader.read(1)
            writer.transport.abort()

        server = await asyncio.start_server(half, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        changes: dict[str, Any] = {"workers": {"upload": 1}, "max_requests": 1, "audit": False}
        async with server:
            return await complete(settings(url, **changes))

    report = asyncio.run(run())
    assert (report.sent, report.lost) == (1, 1)


def test_an_upload_that_arrived_differently_is_lost() -> None:
    def other_sum(request: Request) -> None:
        body = json.dumps({"bytes": len(request.body), "sha256": "0" * 64}).encode()
        request.writer.write(answer(201, body))

    report = run_against(Miniature(once(other_sum)), workers={"upload": 1}, upload_bytes=100, upload_time=0.0)
    assert report.lost == report.loss_reasons["the upload did not arrive as it was sent"].count == 1


def test_a_request_without_an_answer_is_lost_at_the_end() -> None:
    report = run_against(Miniature(once(lambda _: None)), workers={"get": 2}, finish_limit=0.05)
    assert report.sent == REQUESTS
    assert report.lost == report.loss_reasons["no complete answer before the end of the run"].count == 1


def test_the_audit_finds_a_duplicated_write() -> None:
    app = Miniature()

    def twice(request: Request) -> None:
        app.writes[request.headers["idempotency-key"]] += 2
        request.writer.write(answer(201, b"{}"))

    app.fault = once(twice)
    report = run_against(app, workers={"post": 1})
    assert (report.lost, report.duplicated) == (0, 1)
    assert not report.lossless
    assert app.writes[report.write_examples[0]] == 2


def test_the_audit_finds_a_lost_write() -> None:
    report = run_against(Miniature(once(lambda request: request.writer.write(answer(201, b"{}")))), workers={"post": 1})
    assert (report.answered, report.lost_writes, report.lost, report.duplicated) == (REQUESTS, 1, 1, 0)


def test_a_write_that_was_never_acknowledged_is_lost_only_once() -> None:
    report = run_against(Miniature(once(bad_gateway)), workers={"post": 1})
    assert (report.lost_requests, report.lost_writes, report.lost) == (1, 0, 1)


def test_a_write_without_an_answer_that_was_done_twice_is_duplicated() -> None:
    app = Miniature()

    def twice(request: Request) -> None:
        app.writes[request.headers["idempotency-key"]] += 2
        request.reset()

    app.fault = once(twice)
    report = run_against(app, workers={"post": 1})
    assert (report.lost, report.duplicated) == (1, 1)


def test_writes_that_cannot_be_looked_up_are_not_taken_as_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.load.audit._PAUSE", 0.0)

    async def no_audit(request: Request) -> bool:
        if request.path != "/api/v1/audit":
            return False
        request.writer.write(answer(503))
        return True

    report = run_against(Miniature(no_audit), workers={"post": 1})
    assert (report.lost, report.audit_error) == (0, "answered 503")
    assert not report.lossless


def arrived(there: socket.socket) -> None:
    """Wait, without a turn of the event loop, for the kernel to deliver what the other side did."""
    assert select.select([there], [], [], 60)[0]


class OneByOne:
    """A server on blocking sockets, so that a test decides when the kernel closes what."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        url = f"http://127.0.0.1:{self.listener.getsockname()[1]}/"
        config = settings(url, app="trivial")
        self.run = Run(config, targets(config))
        self.link = Link(self.run, self.run.targets.plain, None)

    @property
    def client(self) -> socket.socket:
        assert self.link._connection is not None
        return self.link._connection.wire._sock

    async def accept(self) -> socket.socket:
        connection, _ = await asyncio.get_running_loop().sock_accept(self.listener)
        return connection

    async def serve(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        assert await loop.sock_recv(connection, 65536)
        await loop.sock_sendall(connection, answer(200, b"ok"))

    def request(self) -> asyncio.Task[Any]:
        return asyncio.create_task(self.link.call("get", self.run.routes.read))


def test_an_answer_that_takes_too_long_is_lost() -> None:
    async def run() -> None:
        server = OneByOne()
        first = server.request()
        with await server.accept() as connection:
            await server.serve(connection)
            assert await first is not None
            patient = server.run.config
            # For this request alone: on a busy machine any other one may take as long.
            server.run.config = replace(patient, timeout=0.05)
            assert await server.request() is None
            server.run.config = patient
        third = server.request()
        with await server.accept() as connection:
            await server.serve(connection)
            assert await third is not None
        tally = server.run.tally
        assert (tally.sent, tally.answered, tally.lost) == (3, 2, 1)
        assert tally.losses["no complete answer in time"].count == 1
        server.link.close()
        server.listener.close()

    asyncio.run(run())


def test_a_clean_close_while_idle_is_no_loss() -> None:
    async def run() -> None:
        server = OneByOne()
        first = server.request()
        connection = await server.accept()
        await server.serve(connection)
        assert await first is not None
        # The close and the next request with no turn of the event loop between them: the client sees the
        # end only if it looks at the socket itself.
        connection.close()
        arrived(server.client)
        second = server.request()
        with await server.accept() as connection:
            await server.serve(connection)
            assert await second is not None
        assert (server.run.tally.sent, server.run.tally.lost, server.run.tally.idle_closes) == (2, 0, 1)
        server.link.close()
        server.listener.close()

    asyncio.run(run())


def test_a_close_after_sending_began_is_lost_and_not_sent_again() -> None:
    async def run() -> None:
        server = OneByOne()
        first = server.request()
        connection = await server.accept()
        await server.serve(connection)
        assert await first is not None
        second = server.request()
        await asyncio.sleep(0)  # it runs up to its wait for the answer
        arrived(connection)
        connection.close()  # with the request unread, so this is a reset
        assert await second is None
        tally = server.run.tally
        assert (tally.sent, tally.answered, tally.lost, tally.idle_closes) == (2, 1, 1, 0)
        assert list(tally.losses) == ["reset without an answer"]
        with pytest.raises(BlockingIOError):
            server.listener.accept()  # nobody came back with a second try
        server.listener.close()

    asyncio.run(run())


def test_a_new_connection_that_is_closed_before_the_request_is_a_loss() -> None:
    async def run() -> None:
        server = OneByOne()
        connection = await Http1.open(server.run.targets.plain, None, 5.0)
        (await server.accept()).close()
        arrived(connection.wire._sock)
        assert not connection.usable()
        with pytest.raises(Lost, match="closed before the request"):
            await connection.ask(b"GET / HTTP/1.1\r\n\r\n", 5.0)
        server.listener.close()

    asyncio.run(run())


def test_an_answer_that_came_before_the_reset_is_still_read() -> None:
    async def run() -> None:
        server = OneByOne()
        wire = await connect(server.run.targets.plain, None, 5.0)
        peer = await server.accept()
        peer.sendall(answer(200, b"early"))
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        response = await Http1(wire).ask(b"GET / HTTP/1.1\r\n\r\n", 5.0)  # this cannot be sent any more
        assert (response.status, response.body) == (200, b"early")
        wire.close()
        server.listener.close()

    asyncio.run(run())


def test_an_announced_close_is_honoured() -> None:
    async def closing(request: Request) -> bool:
        if request.path == "/api/v1/audit":
            return False
        request.writer.write(answer(200, b"[]", release="1\r\nConnection: close"))
        return True  # without closing: the announcement alone must do

    app = Miniature(closing)
    report = run_against(app)
    assert report.lossless
    assert app.connections == REQUESTS
    assert report.idle_closes == 0


def test_tls_verifies_the_server_and_loses_nothing(tmp_path: Path) -> None:
    context, authority = self_signed(tmp_path, "http/1.1")

    async def run(ca: str | None) -> Report:
        app = Miniature()
        async with app.listening(context):
            url = app.url.replace("http:", "https:")
            return await complete(settings(url, workers={"tls": 2}, ca=ca, audit=ca is not None))

    trusted = asyncio.run(run(authority))
    assert trusted.lossless
    assert trusted.answered == REQUESTS
    distrusted = asyncio.run(run(None))
    assert distrusted.lost == distrusted.sent == REQUESTS
    assert all("certificate" in reason for reason in distrusted.loss_reasons)


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_an_answer_is_the_same_however_it_is_cut_into_pieces(size: int) -> None:
    text = (
        b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Release:  7 \r\n\r\n"
        b"5;note=1\r\nhello\r\nA\r\n, world...\r\n0\r\nTrailer: 1\r\n\r\n"
    )
    parser = Parser()
    for start in range(0, len(text), size):
        assert not parser.done
        parser.feed(text[start : start + size])
    assert parser.done
    assert parser.response is not None
    assert (parser.response.status, parser.response.release) == (200, "7")
    assert parser.response.body == b"hello, world..."


@pytest.mark.parametrize(
    "text",
    [
        b"ICY 200 OK\r\n\r\n",
        b"HTTP/1.1 2x0 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabcd\r\n",
    ],
)
def test_what_is_not_http_is_refused(text: bytes) -> None:
    with pytest.raises(Malformed):
        Parser().feed(text)


def test_no_fault_is_no_fault() -> None:
    report = run_against(Miniature(no_fault), max_requests=3)
    assert report.lossless
    assert report.sent == 3
