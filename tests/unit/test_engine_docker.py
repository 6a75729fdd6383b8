"""How Docker is asked: in a version that it speaks, and with a login that can be read."""

from __future__ import annotations

import base64
import http.server
import json
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from switchyard.engine import docker
from switchyard.engine.effects import Completed
from switchyard.errors import Exit, SwitchyardError

TOO_OLD = "client version 1.41 is too old. Minimum supported API version is 1.44"


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    oldest, newest = "1.24", "1.47"
    answers: dict[str, tuple[int, Any]]
    asked: list[str]


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server

    def address_string(self) -> str:
        return "a socket"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        server = self.server
        server.asked.append(self.path)
        if self.path == "/version":
            status, body = 200, {"ApiVersion": server.newest, "MinAPIVersion": server.oldest}
        else:
            _, version, path = self.path.split("/", 2)
            spoken = [tuple(map(int, text.split("."))) for text in (server.oldest, version[1:], server.newest)]
            status, body = (400, {"message": TOO_OLD}) if spoken != sorted(spoken) else server.answers[path]
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[_Server]:
    path = str(tmp_path / "docker.sock")
    monkeypatch.setattr(docker, "SOCKET", path)
    docker._version.cache_clear()
    with _Server(path, _Handler) as server:
        server.answers, server.asked = {"info": (200, {"DockerRootDir": "/d"})}, []
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()
    docker._version.cache_clear()


@pytest.mark.parametrize(
    ("oldest", "newest", "spoken"),
    [("1.24", "1.47", "1.41"), ("1.44", "1.52", "1.44"), ("1.12", "1.40", "1.40"), ("2.0", "2.3", "2.0")],
)
def test_a_version_is_spoken_that_the_engine_has(engine: _Server, oldest: str, newest: str, spoken: str) -> None:
    engine.oldest, engine.newest = oldest, newest
    assert docker.info() == docker.info() == {"DockerRootDir": "/d"}
    assert engine.asked == ["/version", f"/v{spoken}/info", f"/v{spoken}/info"]


def test_only_not_found_means_absent(engine: _Server) -> None:
    engine.answers |= {
        "containers/here/json": (200, {"Id": "1"}),
        "containers/gone/json": (404, {"message": "No such container"}),
        "containers/ill/json": (500, {"message": "the layer store is damaged"}),
        "images/ill/json": (500, {"message": "the layer store is damaged"}),
        "images/gone/json": (404, {"message": "No such image"}),
    }
    assert (docker.inspect("here"), docker.inspect("gone"), docker.image("gone")) == ({"Id": "1"}, None, None)
    for ask in (docker.inspect, docker.image):
        with pytest.raises(SwitchyardError, match="Docker cannot tell about ill: the layer store is damaged"):
            ask("ill")


# Logins


@pytest.fixture
def logins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    path = tmp_path / "config.json"
    monkeypatch.setattr(docker, "_LOGINS", path)
    return path


def test_a_login_is_what_is_stored_or_what_a_helper_says(monkeypatch: pytest.MonkeyPatch, logins: Path) -> None:
    assert docker._credentials("r.test") == {}
    logins.write_text(json.dumps({"auths": {"r.test": {"auth": base64.b64encode(b"me:pass:word").decode()}}}))
    assert docker._credentials("r.test") == {"username": "me", "password": "pass:word", "serveraddress": "r.test"}
    assert docker._credentials("other.test") == {}
    logins.write_text(json.dumps({"credHelpers": {"r.test": "mine"}}))
    answer = json.dumps({"Username": "you", "Secret": "word"})
    monkeypatch.setattr(docker, "query", lambda *_, **__: Completed(0, answer, ""))
    assert docker._credentials("r.test") == {"username": "you", "password": "word", "serveraddress": "r.test"}


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"auths": []}', '{"auths": {"r.test": {"auth": "a"}}}', '{"auths": {"r.test": {"auth": "/w=="}}}',
     '{"auths": {"r.test": {"auth": 7}}}', '{"auths": {"r.test": "a"}}'],
)  # fmt: skip
def test_a_login_that_cannot_be_read_is_one_sentence(logins: Path, text: str) -> None:
    logins.write_text(text)
    with pytest.raises(SwitchyardError) as refused:
        docker._credentials("r.test")
    assert refused.value.code == Exit.PREFLIGHT
    assert refused.value.message == (
        f"The login for r.test cannot be read from {logins}: run provision.yml --tags docker."
    )


@pytest.mark.parametrize("answer", ["", "word", "[]", '{"Username": "me"}'])
def test_a_helpers_answer_that_cannot_be_read_names_the_helper(
    monkeypatch: pytest.MonkeyPatch, logins: Path, answer: str
) -> None:
    logins.write_text(json.dumps({"credsStore": "mine"}))
    monkeypatch.setattr(docker, "query", lambda *_, **__: Completed(0, answer, ""))
    with pytest.raises(SwitchyardError, match="cannot be read from docker-credential-mine"):
        docker._credentials("r.test")
