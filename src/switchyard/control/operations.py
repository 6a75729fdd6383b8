"""Follows one operation on one host: asks, starts, and keeps following across lost connections."""

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

from switchyard.control.transport import SILENCE_SECONDS, Answer, ConnectionLost, Transport, engine_argv
from switchyard.errors import Exit, SwitchyardError
from switchyard.names import new_operation

Say = Callable[[str], None]
_FOLLOW_SECONDS = "2"
RECONNECT_SECONDS = 180.0
_RECONNECT_PAUSE = 2.0
_UNKNOWN_ANSWERS = 10


def ask(
    transport: Transport, words: Sequence[str], stdin: str = "", silence: float = SILENCE_SECONDS
) -> dict[str, Any]:
    """Run a verb that answers in JSON; raises `SwitchyardError` with the engine's own sentence and exit code."""
    return _understand(transport, transport.run(engine_argv(*words), stdin, silence))


def _understand(transport: Transport, answer: Answer) -> dict[str, Any]:
    try:
        data = json.loads(answer.out.strip().splitlines()[-1])
    except (ValueError, IndexError):
        raise SwitchyardError(_excuse(transport.host, answer), Exit.FAILED) from None
    if "error" in data:
        raise SwitchyardError(data["error"], Exit(data["code"]), data.get("details", ""))
    return dict(data)


def _excuse(host: str, answer: Answer) -> str:
    text = (answer.err.strip() or answer.out.strip()).splitlines()
    reason = text[-1] if text else f"exit code {answer.code}"
    if "command not found" in reason or "No such file" in reason or "password is required" in reason:
        return f"{host} has no engine that this user may run ({reason}): run provision.yml first."
    return f"{host}: the engine did not answer: {reason}."


def operate(
    transport: Transport,
    words: Sequence[str],
    stdin: str,
    app: str,
    say: Say,
    *,
    patience: float = RECONNECT_SECONDS,
    left: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Start an operation and follow it to its end, across connections that are lost for up to `patience` seconds.

    It goes on without a follower once this is `left`.
    Returns the engine's result. Raises `SwitchyardError` for what never started, and for a host that stays away.
    """
    operation = new_operation()
    start = engine_argv(*words, "--json", "--operation", operation, "--wait", _FOLLOW_SECONDS)
    attach = engine_argv("follow", app, operation, "--wait", _FOLLOW_SECONDS, "--offset")
    offset, lost_since = 0, 0.0
    # A start may be repeated: the engine starts an operation that it knows no second time.
    argv, given = start, stdin
    begun, unknown = False, 0
    while True:
        if left():
            raise SwitchyardError(f"{transport.host} is followed no longer.", Exit.INTERRUPTED)
        try:
            seen = _understand(transport, transport.run(argv, given))
        except ConnectionLost as error:
            begun = begun or error.sent
            lost_since = _reconnecting(transport, operation, lost_since, str(error), say, patience if begun else 0.0)
            continue
        begun = True
        if lost_since:
            say(f"{transport.host} answers again")
            lost_since = 0.0
        for line in seen["lines"]:
            say(line)
        offset = seen["offset"]
        if seen["done"]:
            return dict(seen["result"])
        unknown = 0 if seen["known"] else unknown + 1
        if unknown > _UNKNOWN_ANSWERS:
            raise SwitchyardError(
                f"{transport.host} started operation {operation} and shows nothing of it: is /var/log full? "
                "'switchyard status' tells what is live."
            )
        argv, given = [*attach, str(offset)], ""


def _reconnecting(
    transport: Transport, operation: str, lost_since: float, reason: str, say: Say, patience: float
) -> float:
    """Wait a little after a lost connection; returns since when it is lost. Raises when it lasts too long."""
    now = time.monotonic()
    if not lost_since:
        if not patience:
            # Nothing has arrived there: an unreachable host is said at once, and trying again is the user's choice.
            raise SwitchyardError(f"{transport.host} cannot be reached: {reason}.", Exit.UNREACHABLE)
        say(f"connection to {transport.host} lost ({reason}); operation {operation} goes on there, reconnecting")
        lost_since = now
    if now - lost_since > patience:
        raise SwitchyardError(
            f"{transport.host} has not answered for {patience:.0f} s. Operation {operation} finishes or "
            "reverts there by itself; 'switchyard status' tells how, once the host answers.",
            Exit.UNREACHABLE,
        )
    time.sleep(_RECONNECT_PAUSE)
    return lost_since
