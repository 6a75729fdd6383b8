"""The credential helper's way to Google: a real HTTP server stands where a VM has its metadata server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "roles" / "docker" / "files" / "docker-credential-switchyard"
TOKEN = "/computeMetadata/v1/instance/service-accounts/default/token"


class Metadata(BaseHTTPRequestHandler):
    """Answers as Google's metadata server: only to those who say that they know what it is."""

    def do_GET(self) -> None:
        good = self.path == TOKEN and self.headers["Metadata-Flavor"] == "Google"
        self.send_response(200 if good else 403)
        self.end_headers()
        self.wfile.write(json.dumps({"access_token": "ya29.canary", "expires_in": 3599}).encode() if good else b"")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def metadata() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Metadata)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def ask(folder: Path, verb: str, host: str) -> subprocess.CompletedProcess[str]:
    helper = folder / "docker-credential-switchyard-google"
    helper.write_text(SOURCE.read_text())
    return subprocess.run(
        [sys.executable, helper, verb],
        input="europe-docker.pkg.dev\n",
        env={**os.environ, "GCE_METADATA_HOST": host},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_machine_of_google_gets_its_own_token(tmp_path: Path, metadata: str) -> None:
    answer = ask(tmp_path, "get", metadata)
    assert json.loads(answer.stdout) == {
        "ServerURL": "europe-docker.pkg.dev", "Username": "oauth2accesstoken", "Secret": "ya29.canary",
    }  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == ["docker-credential-switchyard-google"]


def test_elsewhere_it_says_so_in_one_line(tmp_path: Path) -> None:
    answer = ask(tmp_path, "get", "127.0.0.1:9")
    assert answer.returncode == 1
    assert answer.stdout.count("\n") == 1 and "Connection refused" in answer.stdout
    assert "Traceback" not in answer.stderr
