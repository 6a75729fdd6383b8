"""The text/event-stream format, as far as the sample application uses it."""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.load.wire import Lost


class EventReader:
    """Checks that numbered events follow each other, all from one release, up to `event: end`."""

    def __init__(self, on_first: Callable[[str], None]) -> None:
        self.ended = False
        self._release: str | None = None
        self._number = 0
        self._buffer = b""
        self._on_first = on_first

    def feed(self, data: bytes) -> None:
        """Take in part of the body; raise `Lost` for anything that does not fit."""
        self._buffer += data.replace(b"\r", b"")
        *blocks, self._buffer = self._buffer.split(b"\n\n")
        for block in blocks:
            self._block(block.decode("utf-8", "replace"))

    def _block(self, block: str) -> None:
        fields = dict(line.partition(":")[::2] for line in block.split("\n") if not line.startswith(":"))
        if fields.get("event", "").strip() == "end":
            self.ended = True
            return
        if "data" not in fields:
            return
        try:
            event = json.loads(fields["data"])
            number, release = int(event["n"]), str(event["release"])
        except (ValueError, KeyError, TypeError):
            raise Lost("wrong event") from None
        if self._release is None:
            self._release = release
            self._on_first(release)
        elif release != self._release:
            raise Lost("events of two releases on one connection")
        elif number != self._number + 1:
            raise Lost("an event is missing")
        self._number = number
