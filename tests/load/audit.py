"""After the run: ask the application which writes it has, and which of them twice."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.load.http1 import Http1
from tests.load.keys import KeyBook
from tests.load.routes import Route, document
from tests.load.target import Targets
from tests.load.wire import Lost

_BATCH = 5000
_TRIES = 5
_PAUSE = 0.3


@dataclass
class Audit:
    """What became of the writes."""

    missing: list[str] = field(default_factory=list)  # although acknowledged
    duplicated: list[str] = field(default_factory=list)
    error: str | None = None


async def audit(targets: Targets, route: Route, keys: KeyBook, timeout: float) -> Audit:
    """Look up every write. Reading is no attempt, so unlike the load it may be tried again."""
    result = Audit()
    for batch in keys.batches(_BATCH):
        for attempt in range(_TRIES):
            try:
                missing, duplicated = await _look_up(targets, route, batch, timeout)
            except Lost as verdict:
                result.error = str(verdict)
                await asyncio.sleep(_PAUSE * attempt)
                continue
            result.error = None
            result.missing += [key for key in missing if keys.acknowledged(key)]
            result.duplicated += duplicated
            break
        if result.error is not None:
            break  # half an audit proves nothing, so the rest need not be waited for
    return result


async def _look_up(targets: Targets, route: Route, batch: Sequence[str], timeout: float) -> tuple[list[str], list[str]]:
    body = json.dumps({"keys": batch}).encode()
    connection = await Http1.open(targets.plain, targets.plain_tls, timeout)
    try:
        head = route.head(targets.plain.host, length=len(body), close=True)
        response = await connection.ask(head + body, timeout)
    finally:
        connection.wire.close()
    route.check(response)
    answer = document(response.body)
    if not isinstance(answer, dict):
        raise Lost("the audit is no JSON object")
    lists = answer.get("missing"), answer.get("duplicated")
    if not all(isinstance(keys, list) and set(map(str, keys)) <= set(batch) for keys in lists):
        raise Lost("the audit lists other keys than it was asked for")
    missing, duplicated = lists
    return list(missing or ()), list(duplicated or ())
