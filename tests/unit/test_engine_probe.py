"""Asking over HTTP: what counts as healthy, what is said when it is not, and what a smoke test accepts."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from switchyard.engine import probe
from switchyard.engine.probe import Answer, ask, judge_health, smoke, wait_healthy
from switchyard.errors import Exit, SwitchyardError
from switchyard.request import Health, SmokeTest
from tests.unit.engine_world import Clock

Reply = tuple[int, dict[str, str], bytes]
OK: Reply = (200, {}, b"ok")
SICK: Reply = (503, {}, b"  no database\n")
MOVED: Reply = (301, {"Location": "https://shop.test/health"}, b"")


class Server(ThreadingHTTPServer):
    """Answers from a list, in turn; the last one repeats."""

    daemon_threads = True

    def __init__(self, *replies: Reply) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.replies = list(replies)
        self.asked: list[tuple[str, str, str, str]] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append((self.command, self.path, self.headers["Host"], self.headers["Connection"]))
        replies = self.server.replies
        status, headers, body = replies.pop(0) if len(replies) > 1 else replies[0]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_POST = do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def serving(*replies: Reply) -> Iterator[Server]:
    with Server(*replies) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def raw(talk: Callable[[socket.socket], None]) -> Iterator[str]:
    """Take one connection at a time and hand it to `talk`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection, contextlib.suppress(OSError):
                        talk(connection)

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(probe, "time", clock)
    return clock


# ask


def test_an_answer_has_status_lower_case_headers_and_body() -> None:
    with serving((201, {"X-Thing": "A"}, b"made")) as server:
        answer = ask(server.address, "/x?y=1", method="POST", host="shop.proof")
    assert (answer.status, answer.body, answer.headers["x-thing"], answer.problem) == (201, b"made", "A", "")
    assert server.asked == [("POST", "/x?y=1", "shop.proof", "close")]


def test_every_question_has_a_connection_of_its_own_and_no_redirect_is_followed() -> None:
    with serving(MOVED) as server:
        assert ask(server.address, "/").status == 301
        assert ask(server.address, "/").status == 301
        assert len(server.asked) == 2


def test_a_long_body_is_read_up_to_the_limit() -> None:
    with serving((200, {}, b"x" * 1000)) as server:
        assert ask(server.address, "/", limit=10).body == b"x" * 10


def test_nobody_there_is_a_problem_and_no_exception() -> None:
    answer = ask(closed_port(), "/")
    assert answer.status == 0 and "refused" in answer.problem


@pytest.mark.parametrize(
    "said", [b"", b"hello\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"]
)
def test_nonsense_is_a_problem_and_no_exception(said: bytes) -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(said)

    with raw(talk) as address:
        answer = ask(address, "/")
    # A body that ends early is judged by what came: the status stands.
    assert (answer.status == 0 and answer.problem) or answer.body == b"abc"


def test_silence_is_a_problem_after_the_timeout() -> None:
    done = threading.Event()

    def talk(connection: socket.socket) -> None:
        connection.recv(4096)
        done.wait()

    with raw(talk) as address:
        answer = ask(address, "/", timeout=0.05)
        done.set()
    assert answer.status == 0 and "timed out" in answer.problem


# judge_health


@pytest.mark.parametrize("status", [200, 204, 299])
def test_two_hundreds_are_healthy(status: int) -> None:
    assert judge_health(Answer(status, {}, b""), "/health") == ""


@pytest.mark.parametrize("status", [100, 304, 400, 401, 404, 500, 503])
def test_everything_else_is_not(status: int) -> None:
    assert f"/health answers {status}" in judge_health(Answer(status, {}, b""), "/health")


def test_a_redirect_is_named_with_its_target_and_the_fix() -> None:
    text = judge_health(Answer(302, {"location": "/login"}, b""), "/health")
    assert text == "/health answers 302, a redirect to /login: name a health path that answers 200 itself"


def test_the_start_of_an_error_body_is_shown() -> None:
    text = judge_health(Answer(503, {}, b"no database\xff" + b"x" * 500), "/health")
    assert "/health answers 503: 'no database\ufffd" in text
    assert len(text) < 200


# wait_healthy


def wait(
    addresses: dict[str, str], rules: Health, *, gone: Callable[[], str] = lambda: ""
) -> tuple[list[str], SwitchyardError | None]:
    said: list[str] = []
    try:
        wait_healthy(addresses, dict.fromkeys(addresses, rules), still_running=gone, say=said.append)
    except SwitchyardError as error:
        assert error.code is Exit.UNHEALTHY
        return said, error
    return said, None


def test_so_many_answers_in_a_row_are_health(clock: Clock) -> None:
    with serving(SICK, SICK, OK) as server:
        said, error = wait({"api-1": server.address}, Health(successes=3))
        assert error is None and clock.now > 0
        assert len(server.asked) == 5
    assert len(said) == 1 and said[0].startswith("api-1 is healthy (3 answers in a row, ")


def test_an_answer_in_between_starts_the_row_anew(clock: Clock) -> None:
    with serving(OK, OK, SICK, OK, OK, SICK, OK) as server:
        _, error = wait({"api-1": server.address}, Health(successes=3))
        assert error is None and clock.now > 0
        assert len(server.asked) == 9


@pytest.mark.usefixtures("clock")
def test_flapping_is_never_health() -> None:
    with serving(*[OK, OK, SICK] * 400) as server:
        said, error = wait({"api-1": server.address}, Health(successes=3, start_timeout=5))
    assert error is not None and not said
    assert error.message == ("The new release is not healthy after 5 s: api-1: /health answers 503: 'no database'.")


@pytest.mark.usefixtures("clock")
def test_every_instance_has_to_be_healthy() -> None:
    with serving(OK) as good, serving(SICK) as bad:
        said, error = wait({"api-1": good.address, "api-2": bad.address}, Health(start_timeout=3))
    assert error is not None and "api-2: /health answers 503" in error.message
    assert [line.partition(" ")[0] for line in said] == ["api-1"]


@pytest.mark.usefixtures("clock")
def test_a_redirect_ends_the_waiting_and_is_named() -> None:
    with serving(MOVED) as server:
        _, error = wait({"api-1": server.address}, Health(successes=3, start_timeout=60))
        assert len(server.asked) == 3
    assert error is not None
    assert "api-1: /health answers 301, a redirect to https://shop.test/health" in error.message


@pytest.mark.usefixtures("clock")
def test_a_container_that_is_gone_ends_the_waiting() -> None:
    with serving(SICK) as server:
        _, error = wait(
            {"api-1": server.address}, Health(start_timeout=60), gone=lambda: "container x is exited (Exited (1))"
        )
        assert len(server.asked) == 1
    assert error is not None
    assert error.message == "The new release is not healthy: container x is exited (Exited (1))."


@pytest.mark.usefixtures("clock")
def test_nobody_there_until_the_deadline_is_named() -> None:
    _, error = wait({"api-1": closed_port()}, Health(start_timeout=2))
    assert error is not None
    assert error.message.startswith("The new release is not healthy after 2 s: api-1: no answer (")


def test_a_slow_starter_is_waited_for(clock: Clock) -> None:
    with serving(*[SICK] * 200, OK) as server:
        began = clock.now
        _, error = wait({"api-1": server.address}, Health(interval=0.2, start_timeout=90))
        assert error is None
        assert clock.now - began > 40


# smoke


def test_a_smoke_test_passes_when_everything_is_as_described() -> None:
    with serving((201, {}, b"order 7 made")) as server:
        wrong = smoke(server.address, SmokeTest("/orders", method="POST", status=201, contains="order 7"))
        assert wrong == "" and server.asked[0][:2] == ("POST", "/orders")


@pytest.mark.parametrize(
    ("reply", "test", "wrong"),
    [
        (SICK, SmokeTest("/x"), "GET /x: expected 200, got 503"),
        (OK, SmokeTest("/x", status=404), "GET /x: expected 404, got 200"),
        (MOVED, SmokeTest("/x"), "GET /x: expected 200, got 301"),
        (OK, SmokeTest("/x", contains="hello"), "GET /x: the answer does not contain 'hello'"),
    ],
)
def test_a_smoke_test_says_what_is_wrong(reply: Reply, test: SmokeTest, wrong: str) -> None:
    with serving(reply) as server:
        assert smoke(server.address, test) == wrong


def test_a_redirect_may_be_what_is_expected() -> None:
    with serving(MOVED) as server:
        assert smoke(server.address, SmokeTest("/", status=301)) == ""


def test_a_smoke_test_without_an_answer_says_so() -> None:
    assert smoke(closed_port(), SmokeTest("/x")).startswith("GET /x: no answer (")


def test_an_answer_that_took_too_long_fails(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    def slow(*_: object, **__: object) -> Answer:
        clock.sleep(7)
        return Answer(200, {}, b"")

    monkeypatch.setattr(probe, "ask", slow)
    assert smoke("127.0.0.1:1", SmokeTest("/x")) == "GET /x: took 7.0 s, more than 5.0 s"
