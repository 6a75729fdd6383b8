"""A webhook's receiver on this machine, which can also be slow, down, or answer with an error."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


class Receiver:
    """Listens from `with` on; `status`, `headers` and `delay` may be changed at any time, `stop()` makes it refuse."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        self.address, self.port = address, 0
        self.status, self.delay = 200, 0.0
        self.headers: dict[str, str] = {}
        self.connections = 0
        self.got: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        """Path, headers and body of every request that was answered with 200."""
        self._server: ThreadingHTTPServer | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """A webhook with a secret in its path."""
        return f"http://{self.address}:{self.port}/services/T0/canary-hook-9c1e"

    def start(self) -> None:
        """Listen, on the same port as before."""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.connections += 1
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                time.sleep(receiver.delay)
                status = receiver.status
                if status == 200:
                    receiver.got.append((self.path, dict(self.headers), body))
                self.send_response(status)
                for name, value in receiver.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer((self.address, self.port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections from now on."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def titles(self) -> list[str]:
        """What people were told, in order."""
        return [str(body.get("text", body.get("title"))) for _, _, body in self.got]

    def heard(self, *words: str, since: int = 0, seconds: float = 120.0) -> dict[str, Any]:
        """Wait for a message, later than the first `since`, whose title has all these words; returns it."""
        deadline = time.monotonic() + seconds
        while True:
            for _, _, body in self.got[since:]:
                title = str(body.get("text", body.get("title")))
                if all(word in title for word in words):
                    return body
            if time.monotonic() > deadline:
                raise AssertionError(f"nobody said {words} within {seconds:.0f} s: {self.titles()[since:]}")
            time.sleep(0.02)

    def wait(self, count: int, seconds: float = 120.0) -> None:
        """Wait until so many messages have come."""
        deadline = time.monotonic() + seconds
        while len(self.got) < count:
            if time.monotonic() > deadline:
                raise AssertionError(f"{len(self.got)} of {count} messages came within {seconds:.0f} s")
            time.sleep(0.02)
