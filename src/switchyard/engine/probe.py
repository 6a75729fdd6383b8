"""Asks an address over HTTP and judges the answer: health, smoke tests, and the proof after a switch."""

import http.client
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from switchyard.errors import Exit, SwitchyardError
from switchyard.request import Health, SmokeTest


@dataclass(frozen=True)
class Answer:
    """An HTTP answer, or why there is none (`status` 0 and `problem`)."""

    status: int
    headers: dict[str, str]
    body: bytes
    problem: str = ""


def ask(
    address: str,
    path: str,
    *,
    method: str = "GET",
    host: str = "",
    timeout: float = 5.0,
    limit: int = 1 << 20,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
) -> Answer:
    """Send one request to `ip:port` on a connection of its own; never raises for what the other side does."""
    connection = http.client.HTTPConnection(address, timeout=timeout)
    try:
        sent = {"User-Agent": "switchyard", "Connection": "close", **(headers or {})} | ({"Host": host} if host else {})
        connection.request(method, path, body=body or None, headers=sent)
        answer = connection.getresponse()
        return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read(limit))
    except (OSError, ValueError, http.client.HTTPException) as error:
        return Answer(0, {}, b"", str(error) or type(error).__name__)
    finally:
        connection.close()


def judge_health(answer: Answer, path: str) -> str:
    """Return an empty string for a healthy answer, else what is wrong with it, and the fix where there is one."""
    if answer.problem:
        return f"no answer ({answer.problem})"
    if 300 <= answer.status < 400:
        target = answer.headers.get("location", "elsewhere")
        return f"{path} answers {answer.status}, a redirect to {target}: name a health path that answers 200 itself"
    if not 200 <= answer.status < 300:
        return f"{path} answers {answer.status}: {answer.body[:120].decode(errors='replace').strip()!r}"
    return ""


def wait_healthy(
    targets: dict[str, str],
    health: dict[str, Health],
    *,
    still_running: Callable[[], str],
    say: Callable[[str], None],
) -> None:
    """Wait until every target (instance name to `ip:port`) gave its `successes` healthy answers in a row.

    `still_running` returns why waiting is pointless (a container exited) or an empty string. Raises
    `SwitchyardError` (unhealthy) naming the instance and its last wrong answer.
    """
    started = time.monotonic()
    streak = dict.fromkeys(targets, 0)
    wrong = dict.fromkeys(targets, "not asked yet")
    redirects = dict.fromkeys(targets, 0)
    pending = dict.fromkeys(targets, 0.0)
    while pending:
        name = min(pending, key=lambda key: pending[key])
        rules = health[name]
        time.sleep(max(0.0, pending[name] - time.monotonic()))
        answer = ask(targets[name], rules.path, timeout=rules.timeout)
        problem = judge_health(answer, rules.path)
        streak[name] = 0 if problem else streak[name] + 1
        redirects[name] += 300 <= answer.status < 400
        if problem:
            wrong[name] = problem
        if streak[name] >= rules.successes:
            say(f"{name} is healthy ({rules.successes} answers in a row, {time.monotonic() - started:.1f} s)")
            del pending[name]
            continue
        # No amount of waiting turns a redirect into health.
        gone = f"{name}: {wrong[name]}" if redirects[name] >= rules.successes else still_running()
        if gone:
            raise SwitchyardError(f"The new release is not healthy: {gone}.", Exit.UNHEALTHY)
        if time.monotonic() - started > rules.start_timeout:
            raise SwitchyardError(
                f"The new release is not healthy after {rules.start_timeout:.0f} s: {name}: {wrong[name]}.",
                Exit.UNHEALTHY,
            )
        # Successes are gathered quickly once the first came; before that a starting application is left in peace.
        pending[name] = time.monotonic() + (min(rules.interval, 0.05) if streak[name] else rules.interval)


def smoke(address: str, test: SmokeTest, *, login: str = "", host: str = "", prefix: str = "") -> str:
    """Run one smoke test against `ip:port`; return what is wrong, or an empty string.

    `login` is the value of the secret that the test names; `host` and `prefix` lead through the edge.
    """
    started = time.monotonic()
    headers = {"Authorization": login if " " in login else f"Bearer {login}"} if login else {}
    if test.body:
        headers["Content-Type"] = "application/json"
    answer = ask(
        address,
        prefix + test.path,
        method=test.method,
        host=host,
        timeout=test.timeout,
        headers=headers,
        body=test.body.encode(),
    )
    seconds = time.monotonic() - started
    what = f"{test.method} {test.path}"
    if answer.problem:
        return f"{what}: no answer ({answer.problem})"
    wrong = _judge(answer, test)
    if not wrong and seconds > test.timeout:
        wrong = f"took {seconds:.1f} s, more than {test.timeout:.1f} s"
    return f"{what}: {wrong}" if wrong else ""


def _judge(answer: Answer, test: SmokeTest) -> str:
    if answer.status != test.status:
        return f"expected {test.status}, got {answer.status}"
    for name, part in test.headers.items():
        if name.lower() not in answer.headers:
            return f"the answer has no header {name}"
        if part not in answer.headers[name.lower()]:
            return f"header {name} is {answer.headers[name.lower()]!r}, expected {part!r} in it"
    if test.contains and test.contains.encode() not in answer.body:
        return f"the answer does not contain {test.contains!r}"
    return _judge_json(answer.body, test.json) if test.json else ""


def _judge_json(body: bytes, wanted: dict[str, str]) -> str:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return "the answer is no JSON"
    for path, value in wanted.items():
        found = document
        for key in path.split("."):
            try:
                found = found[int(key)] if isinstance(found, list) else found[key]
            except (KeyError, IndexError, ValueError, TypeError):
                return f"the answer has no field {path}"
        text = found if isinstance(found, str) else json.dumps(found)
        if value and text != value:
            return f"field {path} is {text[:80]!r}, expected {value!r}"
    return ""
