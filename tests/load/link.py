"""A kept-alive HTTP/1.1 connection over which requests are made and accounted for."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable, Sequence

from tests.load.http1 import Http1, Response
from tests.load.routes import Route
from tests.load.run import Run
from tests.load.target import Endpoint
from tests.load.wire import Lost


class Link:
    """Opens a connection when there is none, and notices when the one it has was closed while idle."""

    def __init__(self, run: Run, endpoint: Endpoint, context: ssl.SSLContext | None) -> None:
        self._run = run
        self._endpoint = endpoint
        self._context = context
        self._connection: Http1 | None = None

    async def call(
        self,
        kind: str,
        route: Route,
        *,
        pieces: Sequence[bytes] | None = None,
        pause: float = 0.0,
        key: str | None = None,
        close: bool = False,
        verify: Callable[[Response], None] | None = None,
    ) -> Response | None:
        """Make one request; return the correct answer, or None after a loss that is already counted."""
        run, timeout = self._run, self._run.config.timeout
        length = sum(map(len, pieces)) if pieces is not None else None
        head = route.head(self._endpoint.host, length=length, key=key, close=close)
        if pieces is not None and not pause:
            head, pieces = head + b"".join(pieces), ()  # one write, so usually one packet
        connection = self._idle()
        # From here to the first byte sent nothing may wait: a close in between would count as a loss.
        wire = connection.wire if connection is not None else None
        with contextlib.suppress(Lost), run.tally.attempt(kind, wire) as attempt:
            if connection is None:
                connection = self._connection = await Http1.open(self._endpoint, self._context, timeout)
                attempt.on(connection.wire)
            response = await connection.ask(head, timeout, pieces=pieces or (), pause=pause)
            release = route.check(response)
            if verify is not None:
                verify(response)
            run.tally.answer(attempt, release)
            if close or not connection.keep:
                self.close()
            return response
        self.close()
        await run.recover()
        return None

    def close(self) -> None:
        """Give the connection up."""
        if self._connection is not None:
            self._connection.wire.close()
            self._connection = None

    def _idle(self) -> Http1 | None:
        if self._connection is not None and not self._connection.usable():
            self._run.tally.idle_closes += 1
            self.close()
        return self._connection
