"""HTTP/2 with several streams on one connection, where GOAWAY decides what counts as attempted."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from dataclasses import dataclass, field
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions

from tests.load.http1 import Response
from tests.load.target import Endpoint
from tests.load.wire import Lost, Wire, connect

_GOAWAY = 0x7
_HEADER = 9


class NotProcessed(Exception):
    """The server has promised that it did nothing with this stream."""


class GoawayFilter:
    """Takes GOAWAY frames out of a byte stream.

    h2 shuts its state machine at GOAWAY and would then refuse the very answers that a graceful server still
    sends, so it must not see them.
    """

    def __init__(self) -> None:
        self.last_stream_id: int | None = None
        self._buffer = bytearray()

    def feed(self, data: bytes) -> bytes:
        """Return the whole frames that are no GOAWAY; the rest of a frame is kept for the next call."""
        self._buffer += data
        passed = bytearray()
        while len(self._buffer) >= _HEADER:
            size = _HEADER + int.from_bytes(self._buffer[:3], "big")
            if len(self._buffer) < size:
                break
            frame = self._buffer[:size]
            del self._buffer[:size]
            if frame[3] == _GOAWAY and size >= _HEADER + 8:
                last = int.from_bytes(frame[_HEADER : _HEADER + 4], "big") & 0x7FFFFFFF
                # A server may first announce the largest id and then lower it, never raise it.
                self.last_stream_id = last if self.last_stream_id is None else min(self.last_stream_id, last)
            else:
                passed += frame
        return bytes(passed)


@dataclass
class _Stream:
    answer: asyncio.Future[Response]
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)


class Http2:
    """A connection; any number of tasks may `ask` on it at the same time."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self._filter = GoawayFilter()
        self._streams: dict[int, _Stream] = {}
        self._window = asyncio.Event()
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        self._h2 = h2.connection.H2Connection(config)
        self._h2.initiate_connection()
        wire.attach(self)
        self._flush()

    @classmethod
    async def open(cls, endpoint: Endpoint, context: ssl.SSLContext | None, timeout: float) -> Http2:
        """Connect, or raise `Lost`."""
        wire = await connect(endpoint, context, timeout)
        if wire.alpn != "h2":
            wire.close()
            raise Lost("connect: the server does not offer HTTP/2")
        return cls(wire)

    def usable(self) -> bool:
        """Say whether a new stream may be opened, having looked at the socket itself first."""
        return self.wire.pump() and self._filter.last_stream_id is None

    async def ask(self, headers: list[tuple[str, str]], body: bytes, timeout: float) -> Response:
        """Send one request and return its complete answer; raise `Lost` or `NotProcessed`."""
        loop = asyncio.get_running_loop()
        if self.wire.closed:
            raise Lost("closed before the request")
        number = self._h2.get_next_available_stream_id()
        stream = self._streams[number] = _Stream(loop.create_future())
        timer = loop.call_later(timeout, self._fail, stream, Lost("no complete answer in time"))
        try:
            try:
                self._h2.send_headers(number, headers, end_stream=not body)
                self._flush()
                await self._send_body(number, stream, body)
            except h2.exceptions.ProtocolError as error:
                # Usually the stream was just reset; then its verdict is known already and stays.
                self._fail(stream, Lost(f"client: cannot send: {type(error).__name__}"))
            return await stream.answer
        finally:
            timer.cancel()
            self._streams.pop(number, None)
            if stream.answer.cancelled() or not stream.answer.done():
                self._abandon(number)
            else:
                stream.answer.exception()  # seen, so that asyncio does not report it as forgotten
            if self._filter.last_stream_id is not None and not self._streams:
                self.wire.close()

    def on_data(self, data: bytes) -> None:
        """Take in frames, then say what must be said about them."""
        try:
            for event in self._h2.receive_data(self._filter.feed(data)):
                self._on_event(event)
        except h2.exceptions.ProtocolError as error:
            self._fail_all(Lost(f"malformed answer: {type(error).__name__}"))
            self.wire.close()
            return
        last = self._filter.last_stream_id
        if last is not None:
            for number in [number for number in self._streams if number > last]:
                self._fail(self._streams[number], NotProcessed())
        self._flush()

    def on_close(self, reason: str) -> None:
        """Everything still open is lost: what GOAWAY took back has been sorted out before."""
        for stream in self._streams.values():
            self._fail(stream, Lost(f"{reason} {'inside the' if stream.status else 'without an'} answer"))

    def _on_event(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.WindowUpdated | h2.events.RemoteSettingsChanged):
            self._window.set()
            return
        stream = self._streams.get(getattr(event, "stream_id", None) or 0)
        if isinstance(event, h2.events.DataReceived):
            # Also for a stream that was given up: its bytes count against the connection's window.
            self._h2.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
            if stream is not None:
                stream.body += event.data or b""
        elif stream is None:
            return
        elif isinstance(event, h2.events.ResponseReceived):
            for name, value in event.headers or ():
                key = name.decode("latin-1") if isinstance(name, bytes) else name
                # Joined, a header that must be single (a release) no longer looks right.
                text = value.decode("latin-1") if isinstance(value, bytes) else value
                stream.headers[key] = f"{stream.headers[key]}, {text}" if key in stream.headers else text
            stream.status = int(stream.headers.pop(":status"))
        elif isinstance(event, h2.events.StreamReset):
            if event.error_code == h2.errors.ErrorCodes.REFUSED_STREAM:
                self._fail(stream, NotProcessed())
            else:
                self._fail(stream, Lost(f"stream reset with error {int(event.error_code or 0)}"))
        elif isinstance(event, h2.events.StreamEnded) and not stream.answer.done():
            stream.answer.set_result(Response(stream.status or 0, stream.headers, bytes(stream.body)))

    async def _send_body(self, number: int, stream: _Stream, body: bytes) -> None:
        position = 0
        while position < len(body) and not stream.answer.done() and not self.wire.closed:
            size = min(
                self._h2.local_flow_control_window(number),
                self._h2.max_outbound_frame_size,
                len(body) - position,
            )
            if size <= 0:
                self._window.clear()
                waiter = asyncio.create_task(self._window.wait())
                watched: list[asyncio.Future[Any]] = [waiter, stream.answer]
                await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
                waiter.cancel()
                continue
            last = position + size == len(body)
            self._h2.send_data(number, body[position : position + size], end_stream=last)
            position += size
            self._flush()

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data:
            self.wire.send(data)

    def _abandon(self, number: int) -> None:
        with contextlib.suppress(h2.exceptions.ProtocolError):
            self._h2.reset_stream(number, h2.errors.ErrorCodes.CANCEL)
            self._flush()

    def _fail(self, stream: _Stream, verdict: Exception) -> None:
        if not stream.answer.done():
            stream.answer.set_exception(verdict)

    def _fail_all(self, verdict: Exception) -> None:
        for stream in self._streams.values():
            self._fail(stream, verdict)
