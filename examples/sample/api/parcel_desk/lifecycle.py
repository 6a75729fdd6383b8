"""What happens between the start of the process and the opening of its port, and at its end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypedDict

from fastapi import FastAPI

from parcel_desk.database import Database
from parcel_desk.faults import Faults
from parcel_desk.settings import Settings

log = logging.getLogger("parcel_desk")


class State(TypedDict):
    """What every request can reach."""

    settings: Settings
    database: Database


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[State]:
    """Prepare what requests need. The database is not asked: the API starts without it and waits for it."""
    settings: Settings = app.state.settings
    await _apply_start_faults(settings.faults)
    database = Database(settings.database_url, pool_size=settings.pool_size)
    log.info("release %s starts", settings.release)
    try:
        yield State(settings=settings, database=database)
    finally:
        await database.close()
        log.info("release %s has stopped", settings.release)


async def _apply_start_faults(faults: Faults) -> None:
    if faults != Faults():
        log.warning("faults are switched on: %s", faults)
    if faults.ignore_sigterm:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if faults.exit_after:
        asyncio.get_running_loop().call_later(faults.exit_after, os._exit, 1)
    if faults.start_delay:
        await asyncio.sleep(faults.start_delay)
