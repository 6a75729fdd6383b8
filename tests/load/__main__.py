"""`python -m tests.load --url http://127.0.0.1:8080/ --duration 30`: load by hand, with a verdict as exit status.

Exit status: 0 nothing lost or duplicated; 1 something was, or it cannot be known; 2 bad usage.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from tests.load.child import raise_file_limit
from tests.load.config import KINDS, BadUsage, LoadConfig, mix
from tests.load.load import Load
from tests.load.report import Report


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, without the page of usage around it."""

    def error(self, message: str) -> NoReturn:
        raise BadUsage(f"{message[:1].upper()}{message[1:]}.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    try:
        options = _options().parse_args(arguments)
        load = Load(_config(options))
        if options.json is not None and not options.json.parent.is_dir():
            raise BadUsage(f"There is no directory {options.json.parent} for the report.")
    except BadUsage as problem:
        print(problem, file=sys.stderr)
        return 2
    raise_file_limit()
    report = asyncio.run(_run(load, options.duration))
    if options.json is not None:
        options.json.write_text(json.dumps(report.as_dict(), indent=1) + "\n", encoding="utf-8")
    print(report.summary())
    return 0 if report.lossless else 1


async def _run(load: Load, duration: float) -> Report:
    interrupted = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupted.set)
    print(f"seed {load.config.seed}", file=sys.stderr)
    await load.start()
    waits = [asyncio.create_task(load.finished()), asyncio.create_task(interrupted.wait())]
    end = loop.time() + duration
    before = 0
    while not any(task.done() for task in waits) and (left := end - loop.time()) > 0:
        await asyncio.wait(waits, timeout=min(1.0, left), return_when=asyncio.FIRST_COMPLETED)
        now = load.snapshot()
        releases = " ".join(f"{release}:{count}" for release, count in sorted(now.by_release.items()))
        print(
            f"{now.elapsed:6.1f} s  sent {now.sent} (+{now.sent - before})  in flight {now.in_flight}  "
            f"lost {now.lost}  {releases}",
            file=sys.stderr,
        )
        before = now.sent
    for task in waits:
        task.cancel()
    return await load.stop()


def _config(options: argparse.Namespace) -> LoadConfig:
    tls = options.tls_url is not None or options.url.startswith("https:")
    workers = mix(options.mix, tls=tls)
    for kind in KINDS:
        count = getattr(options, kind)
        if count is not None:
            workers[kind] = count
    needs_application = any(workers.get(kind) for kind in ("slow", "upload", "ws", "sse", "page"))
    low, _, high = options.think.partition("-")
    try:
        think = float(low) / 1000, float(high or low) / 1000
    except ValueError:
        raise BadUsage(f"The think time is a range of milliseconds such as 0-30, not {options.think}.") from None
    fields = {name: value for name, value in vars(options).items() if value is not None and name in _PASSED}
    app = options.app or ("parcels" if needs_application else "trivial")
    return LoadConfig(workers=workers, app=app, think=think, **fields)


_NUMBERS = {
    "timeout": "seconds that an answer may take",
    "slow_seconds": "length of a long request",
    "sse_seconds": "length of an event stream",
    "upload_time": "seconds over which an upload is spread",
    "drain": "seconds that a WebSocket or event stream must outlive a switch",
    "settle": "seconds after which a new connection must no longer get the old release",
    "max_duration": "end by itself after so many seconds",
    "finish_limit": "seconds to wait at the end for what is in flight",
}
_COUNTS = {
    "streams": "streams at a time on an HTTP/2 connection",
    "upload_bytes": "size of an upload",
    "max_requests": "end by itself after so many requests",
    "seed": "of the think times, to repeat a run",
}
_TEXTS = {
    "url": "where to, such as http://127.0.0.1:8080/",
    "tls_url": "where the kinds tls and h2 go",
    "connect": "connect to this address, whatever the URL's host",
    "server_name": "name to ask for and verify in TLS",
    "ca": "file with the authority to trust in TLS",
    "api_service": "what X-Service says for the API",
    "web_service": "what X-Service says for the pages",
}
_PASSED = {*_NUMBERS, *_COUNTS, *_TEXTS, "audit"}


def _options() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m tests.load", description="A strict load client: every request is accounted for.")
    for name, text in _TEXTS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", required=name == "url", metavar="TEXT", help=text)
    parser.add_argument("--duration", type=float, default=30.0, metavar="SECONDS", help="how long (30)")
    parser.add_argument("--mix", default="simple", help="simple, full, or a list such as get=8,post=2,ws (simple)")
    parser.add_argument("--app", choices=("trivial", "parcels"), help="the application (by the mix)")
    parser.add_argument("--think", default="0-30", metavar="MS-MS", help="pause between two requests (0-30)")
    parser.add_argument("--audit", action=argparse.BooleanOptionalAction, help="look up the writes at the end")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the whole report there")
    for name, text in _NUMBERS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, metavar="SECONDS", help=text)
    for name, text in _COUNTS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, metavar="N", help=text)
    kinds = parser.add_argument_group("workers of each kind, in place of what the mix says")
    for kind, text in KINDS.items():
        kinds.add_argument(f"--{kind}", type=int, metavar="N", help=text)
    return parser


if __name__ == "__main__":
    sys.exit(main())
