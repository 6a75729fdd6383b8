"""The other end of `LoadProcess`: reads its orders from standard input, writes what it finds to standard output."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
from dataclasses import asdict
from typing import Any

from tests.load.config import BadUsage, LoadConfig
from tests.load.load import Load

_TICK = 0.25
_ORPHANED = 3


def main() -> int:
    """Run one load."""
    raise_file_limit()
    parent = os.getppid()
    try:
        load = Load(LoadConfig.from_dict(json.loads(_first_line())))
    except BadUsage as refusal:
        _say({"refused": str(refusal)})
        return 2
    asyncio.run(_drive(load, parent))
    return 0


def raise_file_limit() -> None:
    """Allow as many connections as the system does."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _drive(load: Load, parent: int) -> None:
    told = asyncio.Event()
    asyncio.get_running_loop().add_reader(0, _heed, told)
    await load.start()
    progress = asyncio.create_task(_progress(load, parent))
    # At one of its bounds the load ends by itself, but the report waits for somebody to ask for it.
    await told.wait()
    report = await load.stop()
    progress.cancel()
    _say({"report": report.as_dict()})


async def _progress(load: Load, parent: int) -> None:
    while True:
        # The pipe tells of a dead parent too, unless somebody else holds a copy of its other end.
        if os.getppid() != parent:
            os._exit(_ORPHANED)
        _say({"snapshot": asdict(load.snapshot())})
        await asyncio.sleep(_TICK)


def _heed(told: asyncio.Event) -> None:
    """Take an order; the only one is to stop. The end of the pipe is the end of the parent."""
    if not os.read(0, 64) and not told.is_set():
        os._exit(_ORPHANED)
    told.set()
    asyncio.get_running_loop().remove_reader(0)


def _first_line() -> bytes:
    line = bytearray()
    while not line.endswith(b"\n"):
        piece = os.read(0, 1)  # one at a time, so that nothing of the next order is taken away
        if not piece:
            sys.exit(_ORPHANED)
        line += piece
    return bytes(line)


def _say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
