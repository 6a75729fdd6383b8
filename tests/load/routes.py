"""The requests that are made, and what a correct answer to each is."""

from __future__ import annotations

import json
from dataclasses import dataclass

from tests.load.config import LoadConfig
from tests.load.http1 import Response
from tests.load.wire import Lost

_OK = frozenset({200})
_CREATED = frozenset({201})
_DONE = frozenset({200, 201, 204})


@dataclass(frozen=True)
class Route:
    """One kind of request and its promise."""

    method: str
    path: str
    statuses: frozenset[int]
    service: str | None  # that X-Service must name; None: the header is not looked at
    json: bool = False

    def head(self, host: str, *, length: int | None = None, key: str | None = None, close: bool = False) -> bytes:
        """Return the HTTP/1.1 request head."""
        lines = [f"{self.method} {self.path} HTTP/1.1", f"Host: {host}", "User-Agent: switchyard-load"]
        if key is not None:
            lines.append(f"Idempotency-Key: {key}")
        if length is not None:
            kind = "application/json" if self.json else "application/octet-stream"
            lines += [f"Content-Type: {kind}", f"Content-Length: {length}"]
        if close:
            lines.append("Connection: close")
        return "\r\n".join([*lines, "", ""]).encode()

    def fields(self, host: str, *, length: int | None = None, key: str | None = None) -> list[tuple[str, str]]:
        """Return the HTTP/2 request headers."""
        fields = [(":method", self.method), (":path", self.path), (":scheme", "https"), (":authority", host)]
        fields.append(("user-agent", "switchyard-load"))
        if key is not None:
            fields.append(("idempotency-key", key))
        if length is not None:
            fields += [("content-type", "application/json"), ("content-length", str(length))]
        return fields

    def check(self, response: Response) -> str:
        """Return the release that answered, or raise `Lost` when the answer is not the promised one."""
        if response.status not in self.statuses:
            raise Lost(f"answered {response.status}")
        release = response.release
        if not release or "," in release:
            raise Lost("no single X-Release in the answer")
        if self.service is not None and response.headers.get("x-service") != self.service:
            raise Lost(f"answered by service {response.headers.get('x-service')} instead of {self.service}")
        if self.json:
            document(response.body)
        return release


def document(body: bytes | str) -> object:
    """Return the JSON value, or raise `Lost`."""
    try:
        value: object = json.loads(body)
    except ValueError:
        raise Lost("the body is not JSON") from None
    return value


@dataclass(frozen=True)
class Routes:
    """The routes of one application."""

    read: Route
    write: Route
    slow: Route
    upload: Route
    events: Route
    page: Route
    audit: Route


def routes(config: LoadConfig) -> Routes:
    """Return what the configured application answers to."""
    api, web = config.api_service, config.web_service
    if config.app == "parcels":
        read = Route("GET", "/api/v1/parcels?limit=5", _OK, api, json=True)
        write = Route("POST", "/api/v1/parcels", _CREATED, api, json=True)
    else:
        read = Route("GET", "/", _OK, None)
        write = Route("POST", "/", _DONE, None)
    return Routes(
        read=read,
        write=write,
        slow=Route("GET", f"/api/v1/slow?seconds={config.slow_seconds:g}", _OK, api),
        upload=Route("POST", "/api/v1/uploads", _CREATED, api),
        events=Route("GET", f"/api/v1/events?seconds={config.sse_seconds:g}", _OK, api),
        page=Route("GET", "/", _OK, web),
        audit=Route("POST", "/api/v1/audit", _OK, api, json=True),
    )
