"""One coroutine for each kind of client; each goes on until the run is stopped."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import re
from collections.abc import Callable, Coroutine
from contextlib import closing
from typing import Any

from tests.load.http1 import Response
from tests.load.link import Link
from tests.load.multiplexed import Multiplexed
from tests.load.routes import Route, document
from tests.load.run import Run
from tests.load.streaming import event_streams, websockets
from tests.load.wire import Lost

Worker = Callable[[Run, random.Random], Coroutine[Any, Any, None]]

_ASSET = re.compile(rb"""(?:src|href)=["']?(/assets/[^"'\s>]+)""")
_POST_SHARE = 0.2
_UPLOAD_PIECES = 16


def _parcel(key: str) -> bytes:
    return json.dumps({"recipient": "Load Client", "note": key}).encode()


async def _write(run: Run, link: Link | Multiplexed, kind: str) -> None:
    number = run.keys.issue()
    key = run.keys.text(number)
    route, body = run.routes.write, _parcel(key)
    if isinstance(link, Link):
        answer = await link.call(kind, route, pieces=(body,), key=key)
    else:
        answer = await link.call(kind, route, body=body, key=key)
    if answer is not None:
        run.keys.acknowledge(number)


def _plain(run: Run) -> closing[Link]:
    return closing(Link(run, run.targets.plain, run.targets.plain_tls))


async def _get(run: Run, rng: random.Random) -> None:
    with _plain(run) as link:
        while run.going():
            await link.call("get", run.routes.read)
            await run.think(rng)


async def _post(run: Run, rng: random.Random) -> None:
    with _plain(run) as link:
        while run.going():
            await _write(run, link, "post")
            await run.think(rng)


async def _new(run: Run, rng: random.Random) -> None:
    with _plain(run) as link:
        while run.going():
            await link.call("new", run.routes.read, close=True)
            await run.think(rng)


async def _slow(run: Run, rng: random.Random) -> None:
    with _plain(run) as link:
        while run.going():
            await link.call("slow", run.routes.slow)
            await run.think(rng)


async def _upload(run: Run, rng: random.Random) -> None:
    size = run.config.upload_bytes
    step = -(-size // _UPLOAD_PIECES)
    pause = run.config.upload_time / _UPLOAD_PIECES
    with _plain(run) as link:
        while run.going():
            body = rng.randbytes(size)
            await link.call(
                "upload",
                run.routes.upload,
                pieces=[body[start : start + step] for start in range(0, size, step)],
                pause=pause,
                key=run.keys.text(run.keys.issue()),
                verify=_arrived(body),
            )
            await run.think(rng)


def _arrived(body: bytes) -> Callable[[Response], None]:
    expected = {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}

    def verify(response: Response) -> None:
        found = document(response.body)
        if not isinstance(found, dict) or any(found.get(name) != value for name, value in expected.items()):
            raise Lost("the upload did not arrive as it was sent")

    return verify


async def _websocket(run: Run, _: random.Random) -> None:
    await websockets(run)


async def _events(run: Run, _: random.Random) -> None:
    await event_streams(run)


async def _page(run: Run, rng: random.Random) -> None:
    """Load the page, then at once what it names, as a browser does."""
    with _plain(run) as link:
        while run.going():
            page = await link.call("page", run.routes.page, verify=_names_assets)
            for url in _assets(run, page) if page else ():
                await link.call("asset", Route("GET", url, frozenset({200}), run.config.web_service))
            await run.think(rng)


def _assets(run: Run, page: Response) -> list[str]:
    """Return the assets of a page, noting which release named them."""
    urls = list(dict.fromkeys(found.decode("latin-1") for found in _ASSET.findall(page.body)))
    for url in urls:
        run.tally.assets[url].add(page.release or "")
    return urls


def _names_assets(response: Response) -> None:
    if not _ASSET.search(response.body):
        raise Lost("the page names no assets")


async def _tls(run: Run, rng: random.Random) -> None:
    if run.targets.tls is None:
        raise ValueError("TLS was configured without a TLS target")
    with closing(Link(run, run.targets.tls, run.targets.tls_http1)) as link:
        while run.going():
            if rng.random() < _POST_SHARE:
                await _write(run, link, "tls")
            else:
                await link.call("tls", run.routes.read)
            await run.think(rng)


async def _http2(run: Run, rng: random.Random) -> None:
    async def stream(link: Multiplexed, own: random.Random) -> None:
        while run.going():
            if own.random() < _POST_SHARE:
                await _write(run, link, "h2")
            else:
                await link.call("h2", run.routes.read)
            await run.think(own)

    generators = [random.Random(rng.random()) for _ in range(run.config.streams)]  # noqa: S311 - think times
    with closing(Multiplexed(run)) as link:
        async with asyncio.TaskGroup() as group:
            for generator in generators:
                group.create_task(stream(link, generator))


WORKERS: dict[str, Worker] = {
    "get": _get,
    "post": _post,
    "new": _new,
    "slow": _slow,
    "upload": _upload,
    "ws": _websocket,
    "sse": _events,
    "page": _page,
    "tls": _tls,
    "h2": _http2,
}
