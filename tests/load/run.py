"""What all workers of one run share."""

from __future__ import annotations

import asyncio
import random

from tests.load.config import LoadConfig
from tests.load.keys import KeyBook
from tests.load.routes import routes
from tests.load.tally import Tally
from tests.load.target import Targets

# A server that refuses everything must not turn the client into a busy loop.
_AFTER_LOSS = 0.05


class Run:
    """The settings, the account, and whether to go on."""

    def __init__(self, config: LoadConfig, targets: Targets) -> None:
        self.config = config
        self.targets = targets
        self.routes = routes(config)
        self.tally = Tally()
        self.keys = KeyBook()
        self.stopped = asyncio.Event()

    def going(self) -> bool:
        """Say whether another request may be issued."""
        if self.tally.sent >= self.config.max_requests:
            self.stop()
        return not self.stopped.is_set()

    def stop(self) -> None:
        """Issue nothing more."""
        self.tally.stop_issuing()
        self.stopped.set()

    async def think(self, rng: random.Random) -> None:
        """Wait like a client between two requests."""
        await asyncio.sleep(rng.uniform(*self.config.think))

    async def recover(self) -> None:
        """Wait after a loss."""
        await asyncio.sleep(_AFTER_LOSS)
