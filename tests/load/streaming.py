"""The clients whose connections live on: WebSocket echoes and server-sent events."""

from __future__ import annotations

import asyncio
import contextlib
import time

from tests.load.events import EventReader
from tests.load.http1 import Http1
from tests.load.report import Connection, Ending
from tests.load.routes import document
from tests.load.run import Run
from tests.load.websocket import Ended, WebSocket
from tests.load.wire import Cut, Lost, connect

_WS_PATH = "/api/v1/ws"


async def websockets(run: Run) -> None:
    """Keep one WebSocket open and echo on it; connect again when the server has ended it."""
    while run.going():
        established = await _open_websocket(run)
        if established is None:
            await run.recover()
            continue
        socket, release = established
        opened = time.monotonic()
        closed, ending, reason = await _echo(run, socket)
        run.tally.connections.append(Connection("ws", release, opened, closed, ending, reason))


async def _open_websocket(run: Run) -> tuple[WebSocket, str] | None:
    target, timeout = run.targets.plain, run.config.timeout
    with contextlib.suppress(Lost), run.tally.attempt("ws") as attempt:
        wire = await connect(target, run.targets.plain_tls, timeout)
        try:
            attempt.on(wire)
            socket = WebSocket(wire, target.host, _WS_PATH)
            hello = document(await socket.greeting(timeout))
            if not isinstance(hello, dict) or not hello.get("release"):
                raise Lost("the first message names no release")
        except BaseException:
            wire.close()
            raise
        release = str(hello["release"])
        run.tally.answer(attempt, release)
        return socket, release
    return None


async def _echo(run: Run, socket: WebSocket) -> tuple[float, Ending, str]:
    number = 0
    try:
        while run.going():
            number += 1
            await socket.echo(f"echo {number}", run.config.timeout)
            run.tally.echoes += 1
            await asyncio.sleep(run.config.ws_interval)
        await socket.close()
    except Ended as ended:
        return ended.end.at, ended.end.ending, ended.end.reason
    finally:
        socket.wire.close()
    return time.monotonic(), Ending.STOPPED, "the run was over"


async def event_streams(run: Run) -> None:
    """Read one event stream after the other."""
    while run.going():
        if not await _read_events(run):
            await run.recover()


async def _read_events(run: Run) -> bool:
    """Return whether a stream was established; its end is then noted, otherwise the loss is."""
    target, route, timeout = run.targets.plain, run.routes.events, run.config.timeout
    established: list[Connection] = []
    connection: Http1 | None = None

    def ended(ending: Ending, reason: str) -> None:
        for stream in established:
            stream.closed, stream.end, stream.reason = time.monotonic(), ending, reason
            run.tally.connections.append(stream)

    with contextlib.suppress(Lost), run.tally.attempt("sse") as attempt:

        def begun(release: str) -> None:
            head = connection.head if connection is not None else None
            if head is not None and route.check(head) != release:
                raise Lost("events of another release than the header says")
            run.tally.answer(attempt, release)
            now = time.monotonic()
            established.append(Connection("sse", release, now, now, Ending.STOPPED, ""))

        reader = EventReader(begun)
        try:
            connection = await Http1.open(target, run.targets.plain_tls, timeout)
            attempt.on(connection.wire)
            head = route.head(target.host, close=True)
            response = await connection.ask(head, run.config.sse_seconds + timeout, on_body=reader.feed)
            route.check(response)
            if not established:
                raise Lost("no event in the answer")
        except Lost as verdict:
            if reader.ended:
                ended(Ending.CLOSED, "event: end")
            else:
                ended(Ending.CUT if isinstance(verdict, Cut) else Ending.WRONG, str(verdict))
            raise
        except asyncio.CancelledError:
            ended(Ending.STOPPED, "the run was over")
            raise
        finally:
            if connection is not None:
                connection.wire.close()
        if reader.ended:
            ended(Ending.CLOSED, "event: end")
        else:
            ended(Ending.CUT, "the answer ended without event: end")
    return bool(established)
