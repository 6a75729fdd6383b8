"""One TCP or TLS connection, driven by the event loop but readable at any moment.

asyncio's own transports are not used for two reasons, both about strictness. Before a request is sent, what
the other side has already said must be taken in *now* (`pump`), else a close that was there to be seen would
count as a lost request. And after a failed send, an answer that has already arrived must still be read.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from typing import Protocol

from tests.load.target import Endpoint

_READ_SIZE = 65536
_LATER = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Lost(Exception):
    """The attempt will get no complete and correct answer; the text is the reason that is counted."""


class Cut(Lost):
    """The connection ended under the attempt."""


class Receiver(Protocol):
    """What a connection tells the protocol that runs on it."""

    def on_data(self, data: bytes) -> None: ...

    def on_close(self, reason: str) -> None: ...


class Wire:
    """A connected, non-blocking socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.opened = time.monotonic()
        self.closed = False
        self.sent = 0
        self.received = 0
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._pending = bytearray()
        self._receiver: Receiver | None = None

    @property
    def alpn(self) -> str | None:
        """The protocol that TLS agreed on."""
        return self._sock.selected_alpn_protocol() if isinstance(self._sock, ssl.SSLSocket) else None

    def attach(self, receiver: Receiver) -> None:
        """Deliver what arrives from now on to `receiver`."""
        self._receiver = receiver
        self._loop.add_reader(self._sock.fileno(), self.pump)

    def pump(self) -> bool:
        """Take in all that can be read now; return False when the other side has closed."""
        while not self.closed:
            try:
                data = self._sock.recv(_READ_SIZE)
            except _LATER:
                break
            except OSError as error:
                self._end(describe(error))
                break
            if not data:
                self._end("closed")
                break
            self.received += len(data)
            if self._receiver is not None:
                self._receiver.on_data(data)
        return not self.closed

    def send(self, data: bytes) -> None:
        """Send, or keep for when the socket takes more; a failure is told through `on_close`."""
        if self.closed:
            return
        if self._pending:
            self._pending += data
            return
        count = self._push(data)
        if count < len(data) and not self.closed:
            self._pending += data[count:]
            self._loop.add_writer(self._sock.fileno(), self._writable)

    def close(self) -> None:
        """Close from this side, which the receiver is not told about."""
        if not self.closed:
            self.closed = True
            self._loop.remove_reader(self._sock.fileno())
            self._loop.remove_writer(self._sock.fileno())
            self._sock.close()

    def _push(self, data: bytes | bytearray) -> int:
        try:
            count = self._sock.send(data)
        except _LATER:
            return 0
        except OSError as error:
            # Not at once: the caller may be in the middle of on_data, and the answer may be in the socket.
            self._loop.call_soon(self._send_failed, describe(error))
            return len(data)
        self.sent += count
        return count

    def _writable(self) -> None:
        del self._pending[: self._push(self._pending)]
        if not self._pending and not self.closed:
            self._loop.remove_writer(self._sock.fileno())

    def _send_failed(self, reason: str) -> None:
        if self.pump():
            self._end(reason)

    def _end(self, reason: str) -> None:
        self.close()
        if self._receiver is not None:
            self._receiver.on_close(reason)


async def connect(endpoint: Endpoint, context: ssl.SSLContext | None, timeout: float) -> Wire:
    """Open a connection; whatever prevents it is a loss."""
    sock = socket.socket(endpoint.family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        async with asyncio.timeout(timeout):
            await asyncio.get_running_loop().sock_connect(sock, (endpoint.address, endpoint.port))
            if context is not None:
                # From here on the TLS socket owns the descriptor, and the plain object is empty.
                sock = context.wrap_socket(sock, server_hostname=endpoint.server_name, do_handshake_on_connect=False)
                await _handshake(sock)
    except TimeoutError:
        sock.close()
        raise Lost("connect: timed out") from None
    except OSError as error:
        sock.close()
        raise Lost(f"connect: {describe(error)}") from None
    except BaseException:
        sock.close()
        raise
    return Wire(sock)


async def _handshake(sock: ssl.SSLSocket) -> None:
    loop = asyncio.get_running_loop()
    while True:
        ready = loop.create_future()
        try:
            sock.do_handshake()
            return
        except ssl.SSLWantReadError:
            watch, unwatch = loop.add_reader, loop.remove_reader
        except ssl.SSLWantWriteError:
            watch, unwatch = loop.add_writer, loop.remove_writer
        watch(sock.fileno(), _wake, ready)
        try:
            await ready
        finally:
            unwatch(sock.fileno())


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def describe(error: OSError) -> str:
    """Name an error in words that stay the same from one occurrence to the next."""
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return "reset"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or 'handshake ended early'}"
    return error.strerror or type(error).__name__
