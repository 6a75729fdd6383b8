"""A WebSocket client on one connection: a greeting, then echoes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import wsproto
import wsproto.events
import wsproto.utilities

from tests.load.report import Ending
from tests.load.wire import Lost, Wire

_CLOSE_PATIENCE = 2.0


@dataclass(frozen=True)
class End:
    """The end of the connection, at the instant when it was seen."""

    ending: Ending
    reason: str
    at: float = field(default_factory=time.monotonic)


class Ended(Exception):
    """There will be no further message."""

    def __init__(self, end: End) -> None:
        super().__init__(end.reason)
        self.end = end


class WebSocket:
    """Speaks the protocol; what it means that the connection ended is left to the caller."""

    def __init__(self, wire: Wire, host: str, path: str, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        self.wire = wire
        self._protocol = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
        self._inbox: asyncio.Queue[str | End] = asyncio.Queue()
        self._parts: list[str] = []
        self._accepted = False
        self._ended = False
        wire.attach(self)
        self._say(wsproto.events.Request(host=host, target=path, extra_headers=list(headers)))

    async def receive(self, timeout: float) -> str:
        """Return the next message; raise `Ended` when none comes."""
        try:
            async with asyncio.timeout(timeout):
                item = await self._inbox.get()
        except TimeoutError:
            item = End(Ending.WRONG, "no message in time")
        if isinstance(item, End):
            self.wire.close()
            raise Ended(item)
        return item

    async def greeting(self, timeout: float) -> str:
        """Return the first message; without one, the attempt to connect is lost."""
        try:
            return await self.receive(timeout)
        except Ended as ended:
            where = "before the first message" if self._accepted else "in the handshake"
            raise Lost(f"{ended.end.reason} {where}") from None

    async def echo(self, text: str, timeout: float) -> None:
        """Send a message and wait for the same one; raise `Ended` otherwise."""
        self._say(wsproto.events.TextMessage(text))
        if await self.receive(timeout) != text:
            self.wire.close()
            raise Ended(End(Ending.WRONG, "a wrong echo"))

    async def close(self) -> None:
        """Take leave properly, but do not wait long for the other side to do so."""
        self._say(wsproto.events.CloseConnection(code=1000))
        try:
            while True:
                await self.receive(_CLOSE_PATIENCE)
        except Ended:
            pass

    def on_data(self, data: bytes) -> None:
        """Take in frames."""
        try:
            self._protocol.receive_data(data)
            for event in self._protocol.events():
                self._on_event(event)
        except wsproto.utilities.ProtocolError as error:
            self._end(Ending.WRONG, f"malformed answer: {type(error).__name__}")

    def on_close(self, reason: str) -> None:
        """Note a connection that ended without a close handshake."""
        self._end(Ending.CUT, reason)

    def _on_event(self, event: wsproto.events.Event) -> None:
        match event:
            case wsproto.events.AcceptConnection():
                self._accepted = True
            case wsproto.events.RejectConnection():
                self._end(Ending.WRONG, f"answered {event.status_code}")
            case wsproto.events.TextMessage():
                self._parts.append(event.data)
                if event.message_finished:
                    self._inbox.put_nowait("".join(self._parts))
                    self._parts.clear()
            case wsproto.events.Ping():
                self._say(event.response())
            case wsproto.events.CloseConnection():
                self._say(event.response())
                self._end(Ending.CLOSED, f"closed by the server with code {int(event.code)}")

    def _say(self, event: wsproto.events.Event) -> None:
        try:
            data = self._protocol.send(event)
        except wsproto.utilities.LocalProtocolError:
            return  # it is closing already, which is or will be in the inbox
        self.wire.send(data)

    def _end(self, ending: Ending, reason: str) -> None:
        if not self._ended:
            self._ended = True
            self._inbox.put_nowait(End(ending, reason))
