"""Running releases of the API as real processes, and a wire to the database that can be cut."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPMessage
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

NOWHERE = "postgresql://nobody:secret-word@127.0.0.1:1/nothing"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Api:
    """One running process of the API."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self._log = log

    def request(self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None) -> Answer:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=15)
        try:
            data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
            connection.request(method, path, body=data, headers=headers or {})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def get(self, path: str) -> Answer:
        return self.request("GET", path)

    def hand_in(self, key: object, **parcel: str) -> Answer:
        return self.request("POST", "/api/v1/parcels", parcel, {"Idempotency-Key": str(key)})

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def log_lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.read_text().splitlines()]


def environment(**extra: str) -> dict[str, str]:
    """Return the tester's environment without anything that would configure the API."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return kept | extra


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def eventually(check: Callable[[], bool], *, within: float, what: str) -> None:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        with suppress(OSError):
            if check():
                return
        time.sleep(0.05)
    raise AssertionError(f"{what} did not happen within {within} s")


@contextmanager
def running(tree: Path, log: Path, *, wait: bool = True, **env: str) -> Iterator[Api]:
    port = free_port()
    settings = {"RELEASE": "1.0.0", "DATABASE_URL": NOWHERE, "PORT": str(port)} | env
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "parcel_desk"],
            cwd=tree,
            env=environment(**settings),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        api = Api(process, port, log)
        try:
            if wait:
                eventually(lambda: opened(port), within=15, what="opening the port")
            yield api
        finally:
            process.kill()
            process.wait()


def opened(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=1):
        return True


def alembic(tree: Path, url: str, *arguments: str, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "alembic", *arguments],
        cwd=tree,
        env=environment(MIGRATION_DATABASE_URL=url, **env),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class Wire:
    """Forwards a local port to the database until it is cut."""

    def __init__(self, database_url: str) -> None:
        parts = urlsplit(database_url)
        self._target = (parts.hostname or "127.0.0.1", parts.port or 5432)
        self._port = free_port()
        self._sockets: list[socket.socket] = []
        self._flows = threading.Event()
        self._flows.set()
        credentials = parts.netloc.rpartition("@")[0]
        self.url = parts._replace(netloc=f"{credentials}@127.0.0.1:{self._port}").geturl()

    def connect(self) -> None:
        listener = socket.create_server(("127.0.0.1", self._port))
        self._sockets.append(listener)
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def cut(self) -> None:
        for end in self._sockets:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._sockets.clear()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection(self._target)
                self._sockets += [near, far]
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def freeze(self) -> None:
        self._flows.clear()

    def thaw(self) -> None:
        self._flows.set()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self._flows.wait()
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
