"""ASGI wrappers around the whole application: the request log and the faults that concern every request."""

from __future__ import annotations

import asyncio
import logging
import random
import re
import time
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from parcel_desk.faults import Faults

access_log = logging.getLogger("access")

# What a client sends as its request id is logged and sent back, so only harmless ones are taken over.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
_CLIENT_GONE = 499


class RequestLog:
    """Writes one line per request and per WebSocket, and gives every answer its request id."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request or WebSocket."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        offered = Headers(scope=scope).get("x-request-id", "")
        request_id = offered if _REQUEST_ID.fullmatch(offered) else uuid4().hex
        status = _CLIENT_GONE

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] in {"http.response.start", "websocket.accept"}:
                status = message.get("status", 101)
                message.setdefault("headers", [])
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        started = time.perf_counter()
        try:
            await self._app(scope, receive, watch)
        finally:
            fields = {
                "method": scope.get("method", "WEBSOCKET"),
                "path": scope["path"],
                "status": status,
                "ms": round((time.perf_counter() - started) * 1000, 1),
                "request_id": request_id,
            }
            access_log.info("request", extra={"fields": fields})


class RequestFaults:
    """Delays and fails requests under /api/ as the fault knobs say."""

    def __init__(self, app: ASGIApp, faults: Faults) -> None:
        self._app = app
        self._faults = faults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, or spoil it."""
        if scope["type"] == "http" and scope["path"].startswith("/api/"):
            if self._faults.delay:
                await asyncio.sleep(self._faults.delay)
            if random.random() < self._faults.error_rate:  # noqa: S311 (a share of requests, not a secret)
                answer = JSONResponse({"detail": "FAULT_ERROR_RATE made this request fail."}, status_code=500)
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)
