"""A WebSocket and an upload that are held open while releases come and go, and say at last who served them."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass

from tests.load.http1 import Parser
from tests.load.target import Endpoint
from tests.load.websocket import WebSocket
from tests.load.wire import connect

_BODY = b"x" * 65536
_HALF = len(_BODY) // 2
_PATIENCE = 60.0


@dataclass
class Held:
    """Both connections of one client; `began` is the version that greeted its WebSocket."""

    began: str
    socket: WebSocket
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def open(cls, address: str, header: str, value: str) -> Held:
        """Greet, and send half of the upload, as a client with this header."""
        endpoint = Endpoint(address, 80, address, None)
        wire = await connect(endpoint, None, _PATIENCE)
        socket = WebSocket(wire, address, "/api/v1/ws", [(header.encode(), value.encode())])
        began = json.loads(await socket.greeting(_PATIENCE))["release"]
        reader, writer = await asyncio.open_connection(address, 80)
        head = [
            "POST /api/v1/uploads HTTP/1.1", f"Host: {address}", f"{header}: {value}", "Idempotency-Key: held",
            "Content-Type: application/octet-stream", f"Content-Length: {len(_BODY)}", "", "",
        ]  # fmt: skip
        writer.write("\r\n".join(head).encode() + _BODY[:_HALF])
        await writer.drain()
        return cls(began, socket, reader, writer)

    async def end(self) -> str:
        """Echo once more, send the rest, and return the version that answered the upload."""
        await self.socket.echo("still here", _PATIENCE)
        await self.socket.close()
        self.writer.write(_BODY[_HALF:])
        parser = Parser()
        async with asyncio.timeout(_PATIENCE):
            while not parser.done:
                data = await self.reader.read(65536)
                assert data, "the upload was cut off"
                parser.feed(data)
        self.writer.close()
        assert parser.response is not None and parser.response.status == 201, parser.response
        return parser.response.release or ""
