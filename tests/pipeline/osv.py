"""A database of vulnerabilities on this machine, asked as api.osv.dev is (POST /v1/query)."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


class Osv:
    """Answers from `with` on; `bad` has the versions, as `NAME==VERSION`, that it knows something of."""

    def __init__(self, address: str) -> None:
        self.bad: dict[str, str] = {}
        """What is known of each, by an id."""
        self.asked: list[str] = []
        osv = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                answer = json.dumps(osv._answer(query) if self.path == "/v1/query" else {}).encode()
                self.send_response(200 if self.path == "/v1/query" else 404)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer((address, 0), Handler)
        self.url = f"http://{address}:{self._server.server_port}/v1/query"

    def _answer(self, query: dict[str, Any]) -> dict[str, Any]:
        name, version = query["package"]["name"], query["version"]
        self.asked.append(f"{name}=={version}")
        if self.asked[-1] not in self.bad:
            return {}
        affected = {"package": {"name": name, "ecosystem": "PyPI"}, "versions": [version]}
        return {"vulns": [{"schema_version": "1.7.0", "id": self.bad[self.asked[-1]], "affected": [affected]}]}

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
