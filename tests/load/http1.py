"""HTTP/1.1, read strictly: an answer is complete to the last promised byte or it is none."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tests.load.target import Endpoint
from tests.load.wire import Cut, Lost, Wire, connect

_MAX_HEAD = 65536
_HEX = frozenset(b"0123456789abcdefABCDEF")


@dataclass(slots=True)
class Response:
    """One complete answer; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes = b""

    @property
    def release(self) -> str | None:
        """The release that says it answered."""
        return self.headers.get("x-release")


class Malformed(Exception):
    """The bytes are no HTTP/1.1 answer; the text says why."""


class Parser:
    """Reads one answer from pieces of any size.

    With `on_body` the body is passed on as it arrives instead of being collected.
    """

    def __init__(self, on_body: Callable[[bytes], None] | None = None) -> None:
        self.response: Response | None = None
        self.done = False
        self._buffer = bytearray()
        self._body = bytearray()
        self._on_body = on_body if on_body is not None else self._body.extend
        self._remaining = 0
        self._step = self._head

    @property
    def begun(self) -> bool:
        """Whether any part of an answer has arrived."""
        return self.response is not None or bool(self._buffer)

    def feed(self, data: bytes) -> None:
        """Take in more bytes; `done` is set with the last one."""
        if self.done:
            raise Malformed("more bytes than promised")
        self._buffer += data
        while not self.done and self._step():
            pass
        if self.done and self._buffer:
            raise Malformed("more bytes than promised")

    def _line(self) -> bytes | None:
        end = self._buffer.find(b"\r\n")
        if end < 0:
            if len(self._buffer) > _MAX_HEAD:
                raise Malformed("a line without end")
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    def _head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > _MAX_HEAD:
                raise Malformed("a head without end")
            return False
        lines = self._buffer[:end].decode("latin-1").split("\r\n")
        del self._buffer[: end + 4]
        status = _status(lines[0])
        headers = _headers(lines[1:])
        if status in {100, 102, 103}:
            return True
        self.response = Response(status, headers)
        self._choose_body(status, headers)
        return True

    def _choose_body(self, status: int, headers: dict[str, str]) -> None:
        length = headers.get("content-length")
        coding = headers.get("transfer-encoding")
        if status in {101, 204, 304}:
            self._finish()
        elif coding is not None:
            if length is not None or coding.lower() != "chunked":
                raise Malformed("contradictory body headers")
            self._step = self._chunk_size
        elif length is not None:
            if not (length.isascii() and length.isdigit()):
                raise Malformed("bad Content-Length")
            self._remaining = int(length)
            self._step = self._counted
            if not self._remaining:
                self._finish()
        else:
            # A body that ends with the connection cannot be told from a truncated one.
            raise Malformed("neither Content-Length nor chunked")

    def _take(self) -> bool:
        if self._remaining and self._buffer:
            piece = bytes(self._buffer[: self._remaining])
            del self._buffer[: len(piece)]
            self._remaining -= len(piece)
            self._on_body(piece)
        return not self._remaining

    def _counted(self) -> bool:
        if self._take():
            self._finish()
        return False

    def _chunk_size(self) -> bool:
        line = self._line()
        if line is None:
            return False
        digits = line.partition(b";")[0].strip()
        if not digits or not _HEX.issuperset(digits) or len(digits) > 8:
            raise Malformed("bad chunk size")
        self._remaining = int(digits, 16)
        self._step = self._chunk if self._remaining else self._trailer
        return True

    def _chunk(self) -> bool:
        if not self._take() or len(self._buffer) < 2:
            return False
        if self._line() != b"":
            raise Malformed("a chunk longer than its size")
        self._step = self._chunk_size
        return True

    def _trailer(self) -> bool:
        line = self._line()
        if line == b"":
            self._finish()
        return bool(line)

    def _finish(self) -> None:
        if self.response is not None:
            self.response.body = bytes(self._body)
        self.done = True


def _status(line: str) -> int:
    version, _, rest = line.partition(" ")
    code = rest[:3]
    if version not in {"HTTP/1.1", "HTTP/1.0"} or not code.isdecimal() or rest[3:4] not in {"", " "}:
        raise Malformed("no HTTP status line")
    return int(code)


def _headers(lines: Iterable[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name[0] in " \t" or name[-1] in " \t":
            raise Malformed("bad header line")
        name = name.lower()
        value = value.strip(" \t")
        # Joined, a header that must be single (a length, a release) no longer looks right.
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


class Http1:
    """A connection that carries one request at a time."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self._parser: Parser | None = None
        self._answer: asyncio.Future[Response] | None = None
        self._keep = True
        wire.attach(self)

    @classmethod
    async def open(cls, endpoint: Endpoint, context: ssl.SSLContext | None, timeout: float) -> Http1:
        """Connect, or raise `Lost`."""
        return cls(await connect(endpoint, context, timeout))

    @property
    def keep(self) -> bool:
        """Whether the last answer left the connection open for another request."""
        return self._keep

    @property
    def head(self) -> Response | None:
        """The head of the answer that is arriving."""
        return self._parser.response if self._parser is not None else None

    def usable(self) -> bool:
        """Say whether another request may be sent, having looked at the socket itself first.

        A close that is already there to be read makes this False: the request is then not attempted here.
        """
        return self._keep and self.wire.pump()

    async def ask(
        self,
        head: bytes,
        timeout: float,
        *,
        pieces: Iterable[bytes] = (),
        pause: float = 0.0,
        on_body: Callable[[bytes], None] | None = None,
    ) -> Response:
        """Send one request, its body in `pieces` with pauses between, and return the complete answer."""
        loop = asyncio.get_running_loop()
        self._parser = Parser(on_body)
        answer: asyncio.Future[Response] = loop.create_future()
        self._answer = answer
        if self.wire.closed:
            answer.set_exception(Lost("closed before the request"))
        timer = loop.call_later(timeout, self._fail, Lost("no complete answer in time"))
        try:
            self.wire.send(head)
            for piece in pieces:
                await asyncio.sleep(pause)
                if answer.done():
                    break
                self.wire.send(piece)
            return await answer
        except Lost:
            self.wire.close()
            raise
        finally:
            timer.cancel()
            if not answer.cancelled() and answer.done():
                answer.exception()  # seen, so that asyncio does not report it as forgotten
            self._parser = self._answer = None

    def on_data(self, data: bytes) -> None:
        """Take in bytes of the answer."""
        parser, answer = self._parser, self._answer
        if parser is None or answer is None:
            self.wire.close()  # bytes that nobody asked for: never send another request here
            return
        if answer.done():
            self._keep = False  # something follows what was already a complete answer
            return
        try:
            parser.feed(data)
        except Malformed as error:
            self._fail(Lost(f"malformed answer: {error}"))
            return
        except Lost as error:
            self._fail(error)
            return
        if parser.done and parser.response is not None:
            response = parser.response
            self._keep = response.headers.get("connection", "keep-alive").lower() == "keep-alive"
            answer.set_result(response)

    def on_close(self, reason: str) -> None:
        """Turn the end of the connection into the fate of the request on it."""
        if self._parser is not None:
            where = "inside the answer" if self._parser.begun else "without an answer"
            self._fail(Cut(f"{reason} {where}"))

    def _fail(self, verdict: Lost) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(verdict)
