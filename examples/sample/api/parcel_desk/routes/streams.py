"""Requests that live long: what a release switch must not cut."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Query, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse

from parcel_desk.routes.context import CurrentSettings

router = APIRouter(prefix="/api/v1")

EVENT_INTERVAL = 0.2


@router.get("/slow")
async def slow(settings: CurrentSettings, seconds: Annotated[float, Query(ge=0, le=60)]) -> dict[str, float | str]:
    """Answer after the given number of seconds."""
    await asyncio.sleep(seconds)
    return {"slept": seconds, "release": settings.release}


@router.get("/events")
async def events(settings: CurrentSettings, seconds: Annotated[float, Query(ge=0, le=600)] = 5) -> StreamingResponse:
    """Send an event every 0.2 s for the given number of seconds, then an event named "end"."""
    return StreamingResponse(
        _ticks(settings.release, round(seconds / EVENT_INTERVAL)),
        media_type="text/event-stream",
        # A proxy that buffers would deliver the stream in lumps.
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _ticks(release: str, count: int) -> AsyncIterator[str]:
    for number in range(count):
        yield f"data: {json.dumps({'n': number, 'release': release})}\n\n"
        await asyncio.sleep(EVENT_INTERVAL)
    yield "event: end\ndata: {}\n\n"


@router.websocket("/ws")
async def echo(socket: WebSocket, settings: CurrentSettings) -> None:
    """Name the release, then send back whatever comes."""
    await socket.accept()
    try:
        await socket.send_json({"release": settings.release})
        while (message := await socket.receive())["type"] != "websocket.disconnect":
            if message.get("text") is not None:
                await socket.send_text(message["text"])
            else:
                await socket.send_bytes(message["bytes"])
    except WebSocketDisconnect:
        return
