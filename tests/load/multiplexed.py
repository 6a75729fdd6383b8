"""Requests over one HTTP/2 connection at a time, replaced when the server takes its leave."""

from __future__ import annotations

import asyncio
import contextlib

from tests.load.http1 import Response
from tests.load.http2 import Http2, NotProcessed
from tests.load.routes import Route
from tests.load.run import Run
from tests.load.target import Endpoint, Targets
from tests.load.wire import Lost

# Each refusal is allowed by the protocol, but a server that only ever refuses serves nobody.
_MAX_REFUSALS = 10


class Multiplexed:
    """The HTTP/2 counterpart of `Link`, shared by several tasks."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._session: Http2 | None = None
        self._opening = asyncio.Lock()

    async def call(self, kind: str, route: Route, *, body: bytes = b"", key: str | None = None) -> Response | None:
        """Make one request; return the correct answer, or None after a loss that is already counted."""
        run = self._run
        endpoint = _endpoint(run.targets)
        fields = route.fields(endpoint.host, length=len(body) if body else None, key=key)
        session = self._current()
        wire = session.wire if session is not None else None
        with contextlib.suppress(Lost), run.tally.attempt(kind, wire) as attempt:
            for _ in range(_MAX_REFUSALS):
                if session is None:
                    session = await self._open()
                    attempt.on(session.wire)
                try:
                    response = await session.ask(fields, body, run.config.timeout)
                except NotProcessed:
                    run.tally.refused_streams += 1
                    session = self._current()
                    continue
                run.tally.answer(attempt, route.check(response))
                return response
            raise Lost("the stream was refused again and again")
        await run.recover()
        return None

    def close(self) -> None:
        """Give the connection up."""
        if self._session is not None:
            self._session.wire.close()
            self._session = None

    def _current(self) -> Http2 | None:
        session = self._session
        if session is not None and not session.usable():
            # Not closed here: after GOAWAY, streams of other tasks may still be answered on it.
            self._session = None
        return self._session

    async def _open(self) -> Http2:
        async with self._opening:
            session = self._current()  # another task may have been first
            if session is None:
                targets = self._run.targets
                session = await Http2.open(_endpoint(targets), targets.tls_http2, self._run.config.timeout)
                self._session = session
            return session


def _endpoint(targets: Targets) -> Endpoint:
    if targets.tls is None:
        raise ValueError("HTTP/2 was configured without a TLS target")
    return targets.tls
