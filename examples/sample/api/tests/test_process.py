"""Starting, health, headers, logs, faults and the end of the process. None of it needs a database."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.conftest import Start, Tree
from tests.harness import Answer, environment, eventually, opened


def test_serves_without_a_database(start: Start) -> None:
    api = start()
    health, database, parcels = api.get("/health"), api.get("/health/db"), api.get("/api/v1/parcels")
    assert (health.status, health.json()) == (200, {"status": "ok", "release": "1.0.0"})
    assert database.status == 503
    assert parcels.status == 503
    assert parcels.headers["Retry-After"] == "1"


@pytest.mark.parametrize("path", ["/health", "/nowhere", "/api/v1/parcels/x"])
def test_every_answer_names_service_and_release(start: Start, path: str) -> None:
    headers = start("1.1.0").get(path).headers
    assert headers.get_all("X-Service") == ["api"]
    assert headers.get_all("X-Release") == ["1.1.0"]


def test_even_a_malformed_request_is_answered_by_name(start: Start) -> None:
    with socket.create_connection(("127.0.0.1", start().port)) as connection:
        connection.sendall(b"NONSENSE\r\n\r\n")
        answer = connection.recv(4096).lower()
    assert b" 400 " in answer
    assert b"x-release: 1.0.0" in answer


def test_a_release_can_refuse_to_serve(start: Start) -> None:
    api = start("1.2.0")
    answer = api.get("/health")
    assert answer.status == 503
    assert "price list" in answer.json()["reason"]
    assert api.get("/api/v1/slow?seconds=0").status == 200


def test_logs_one_line_per_request_without_query_and_secrets(start: Start) -> None:
    api = start()
    api.request("GET", "/api/v1/slow?seconds=0&token=hush", headers={"X-Request-ID": "r-1"})
    api.get("/api/v1/parcels")
    answer = api.request("GET", "/health", headers={"X-Request-ID": 'no "quotes" here'})
    assert answer.headers["X-Request-ID"].isalnum()
    api.terminate()
    assert api.process.wait(10) in {0, -15}
    requests = [line for line in api.log_lines() if line["logger"] == "access"]
    assert [line["path"] for line in requests] == ["/api/v1/slow", "/api/v1/parcels", "/health"]
    first = requests[0]
    assert (first["method"], first["status"], first["request_id"]) == ("GET", 200, "r-1")
    assert isinstance(first["ms"], float)
    assert "hush" not in str(api.log_lines())
    assert "secret-word" not in str(api.log_lines())


def test_says_what_is_missing_in_its_configuration(tree: Tree) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "parcel_desk"],
        cwd=tree("1.0.0"),
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "parcel-desk: No database is configured: set DATABASE_URL or DATABASE_URL_FILE.\n"


def test_finishes_the_request_in_flight_after_sigterm(start: Start) -> None:
    api = start()
    answers: list[Answer] = []
    request = threading.Thread(target=lambda: answers.append(api.get("/api/v1/slow?seconds=1.5")))
    request.start()
    time.sleep(0.4)
    api.terminate()
    time.sleep(0.4)
    with pytest.raises(ConnectionRefusedError):
        opened(api.port)
    request.join()
    assert answers[0].json() == {"slept": 1.5, "release": "1.0.0"}
    assert api.process.wait(5) in {0, -15}


def test_fault_health(start: Start) -> None:
    assert start(FAULT_HEALTH="503").get("/health").status == 503
    assert start(FAULT_HEALTH="redirect").get("/health").status == 302
    hanging = start(FAULT_HEALTH="hang")
    with socket.create_connection(("127.0.0.1", hanging.port), timeout=1) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises(TimeoutError):
            connection.recv(1)
    assert hanging.get("/api/v1/slow?seconds=0").status == 200


def test_fault_start_delay(start: Start) -> None:
    api = start(wait=False, FAULT_START_DELAY="2")
    began = time.monotonic()
    eventually(lambda: opened(api.port), within=10, what="opening the port")
    assert time.monotonic() - began > 2


def test_fault_exit_after(start: Start) -> None:
    assert start(FAULT_EXIT_AFTER="0.5").process.wait(5) == 1


def test_fault_error_rate_and_delay_spare_health(start: Start) -> None:
    api = start(FAULT_ERROR_RATE="1", FAULT_DELAY="0.3")
    began = time.monotonic()
    assert api.get("/api/v1/slow?seconds=0").status == 500
    assert time.monotonic() - began > 0.3
    assert api.get("/health").status == 200


def test_fault_ignore_sigterm(start: Start) -> None:
    api = start(FAULT_IGNORE_SIGTERM="1")
    api.terminate()
    with pytest.raises(subprocess.TimeoutExpired):
        api.process.wait(1)
    assert api.get("/health").status == 200


def test_upload(start: Start, tmp_path: Path) -> None:
    directory = tmp_path / "uploads"
    api = start(UPLOAD_DIR=str(directory))
    body = bytes(range(256)) * 12_000
    answer = api.request("POST", "/api/v1/uploads", body)
    assert answer.status == 201
    assert answer.json()["bytes"] == len(body)
    [file] = directory.iterdir()
    assert file.name == answer.json()["sha256"]
    assert file.read_bytes() == body


def test_upload_that_breaks_off_leaves_nothing(start: Start, tmp_path: Path) -> None:
    directory = tmp_path / "uploads"
    api = start(UPLOAD_DIR=str(directory))
    with socket.create_connection(("127.0.0.1", api.port)) as connection:
        connection.sendall(b"POST /api/v1/uploads HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf")
        eventually(lambda: any(directory.iterdir()), within=5, what="the start of the upload")
    eventually(lambda: not any(directory.iterdir()), within=5, what="the removal of the part")


def test_upload_limits(start: Start) -> None:
    api = start(UPLOAD_DIR="/proc/nowhere")
    answer = api.request("POST", "/api/v1/uploads", b"x")
    assert answer.status == 507
    assert "/proc/nowhere" in answer.json()["detail"]
    with socket.create_connection(("127.0.0.1", api.port)) as connection:
        connection.sendall(b"POST /api/v1/uploads HTTP/1.1\r\nHost: x\r\nContent-Length: 67108865\r\n\r\n")
        assert b" 413 " in connection.recv(4096)


def test_events(start: Start) -> None:
    answer = start().get("/api/v1/events?seconds=0.6")
    events = answer.body.decode().strip().split("\n\n")
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    assert events[0] == 'data: {"n": 0, "release": "1.0.0"}'
    assert len(events) == 4
    assert events[-1].startswith("event: end")


def test_websocket(start: Start) -> None:
    api = start("1.1.0")
    with connect(f"ws://127.0.0.1:{api.port}/api/v1/ws") as socket_:
        assert socket_.response is not None
        assert socket_.response.headers["X-Release"] == "1.1.0"
        assert socket_.recv() == '{"release":"1.1.0"}'
        for message in ("text", b"\x00binary"):
            socket_.send(message)
            assert socket_.recv() == message


def test_an_idle_websocket_does_not_hold_up_the_end(start: Start) -> None:
    api = start()
    with connect(f"ws://127.0.0.1:{api.port}/api/v1/ws") as socket_:
        socket_.recv()
        api.terminate()
        with pytest.raises(ConnectionClosed):
            socket_.recv(timeout=5)
    assert api.process.wait(5) in {0, -15}
