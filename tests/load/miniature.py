"""The sample application's contract in miniature, with a place to break it: what the client is tested against."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import socket
import ssl
import struct
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import wsproto
import wsproto.events


@dataclass
class Request:
    """One request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    raw_head: bytes
    writer: asyncio.StreamWriter

    def reset(self) -> None:
        """End the connection as a killed process does: with RST instead of FIN."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


# A fault sees every request first; it returns True when it has dealt with it in its own bad way.
Fault = Callable[[Request], Awaitable[bool]]


async def no_fault(_: Request) -> bool:
    """Leave every request to the application."""
    return False


def answer(
    status: int, body: bytes = b"", *, release: str = "1", service: str = "api", length: int | None = None
) -> bytes:
    """Return an answer, with a false `length` if wanted."""
    length = len(body) if length is None else length
    head = f"HTTP/1.1 {status} Text\r\nX-Release: {release}\r\nX-Service: {service}\r\nContent-Length: {length}\r\n\r\n"
    return head.encode() + body


class Miniature:
    """Serves all the routes; everything it was asked and told can be looked at."""

    def __init__(self, fault: Fault = no_fault) -> None:
        self.fault = fault
        self.release = "1"
        self.writes: Counter[str] = Counter()
        self.connections = 0
        self.requests = 0
        self.port = 0

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}/"

    @asynccontextmanager
    async def listening(self, context: ssl.SSLContext | None = None) -> AsyncIterator[Miniature]:
        """Serve for the length of a block."""
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=context)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while not writer.is_closing():
                    await self._one(reader, writer)
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raw = await reader.readuntil(b"\r\n\r\n")
        first, *lines = raw.decode().strip().split("\r\n")
        method, path, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        request = Request(method, path, headers, body, raw, writer)
        self.requests += 1
        if await self.fault(request):
            return
        if path == "/api/v1/ws":
            await self._websocket(request, reader)
        elif path.startswith("/api/v1/events"):
            await self._events(writer)
        else:
            writer.write(self._answer(request))
        if headers.get("connection") == "close":
            writer.close()

    def _answer(self, request: Request) -> bytes:
        if request.path == "/" or request.path.startswith("/assets/"):
            page = b'<link href="/assets/app-1a.css"><script src="/assets/app-1a.js"></script>'
            return answer(200, page, release=self.release, service="web")
        status, document = self._api(request)
        return answer(status, json.dumps(document).encode(), release=self.release)

    def _api(self, request: Request) -> tuple[int, object]:
        match request.method, request.path:
            case "POST", "/api/v1/parcels":
                self.writes[request.headers["idempotency-key"]] += 1
                return 201, {}
            case "POST", "/api/v1/uploads":
                return 201, {"bytes": len(request.body), "sha256": hashlib.sha256(request.body).hexdigest()}
            case "POST", "/api/v1/audit":
                keys = json.loads(request.body)["keys"]
                missing = [key for key in keys if not self.writes[key]]
                return 200, {"missing": missing, "duplicated": [key for key in keys if self.writes[key] > 1]}
            case "GET", _:
                return 200, []
        return 404, {}

    async def _events(self, writer: asyncio.StreamWriter) -> None:
        writer.write(event_stream_head(self.release))
        for number in range(3):
            writer.write(event(number, self.release))
            await writer.drain()
        writer.write(chunk(b"event: end\ndata: {}\n\n") + chunk(b""))

    async def _websocket(self, request: Request, reader: asyncio.StreamReader) -> None:
        writer, protocol = request.writer, wsproto.WSConnection(wsproto.ConnectionType.SERVER)
        protocol.receive_data(request.raw_head)
        while not writer.is_closing():
            for item in protocol.events():
                match item:
                    case wsproto.events.Request():
                        writer.write(protocol.send(wsproto.events.AcceptConnection()))
                        greeting = wsproto.events.TextMessage(json.dumps({"release": self.release}))
                        writer.write(protocol.send(greeting))
                    case wsproto.events.TextMessage():
                        writer.write(protocol.send(wsproto.events.TextMessage(item.data)))
                    case wsproto.events.CloseConnection():
                        writer.write(protocol.send(item.response()))
                        writer.close()
                        return
            protocol.receive_data(await reader.read(65536) or None)


def chunk(data: bytes) -> bytes:
    """Return one chunk; the empty one is the last."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def event_stream_head(release: str) -> bytes:
    """Return the head of an event stream."""
    lines = f"X-Release: {release}\r\nX-Service: api\r\nTransfer-Encoding: chunked\r\n"
    return f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{lines}\r\n".encode()


def event(number: int, release: str) -> bytes:
    """Return one numbered event."""
    return chunk(b"data: %b\n\n" % json.dumps({"n": number, "release": release}).encode())
