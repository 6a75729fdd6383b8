"""The pool of database connections, made so that the API outlives its database."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Executable, Row, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import create_async_engine

CONNECT_TIMEOUT = 2
POOL_TIMEOUT = 5
STATEMENT_TIMEOUT = 10.0

Rows = Sequence[Row[Any]]


class DatabaseUnavailableError(Exception):
    """The database is away or does not answer in time; whether a write was applied is unknown."""


class Database:
    """A bounded pool that connects when first asked and replaces connections that died."""

    def __init__(self, url: str, *, pool_size: int) -> None:
        self._tasks: set[asyncio.Task[Rows]] = set()
        self._engine = create_async_engine(
            url,
            # The pool is the whole connection budget of this instance: the operator counts on that number.
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=POOL_TIMEOUT,
            # Finds out that the database was restarted before a request does.
            pool_pre_ping=True,
            # Every operation is one statement, so a transaction around it would only add round trips.
            isolation_level="AUTOCOMMIT",
            # Error messages end up in logs; recipients and notes must not.
            hide_parameters=True,
            # Without prepared statements the API also works through a pooler in transaction mode.
            connect_args={"connect_timeout": CONNECT_TIMEOUT, "prepare_threshold": None},
        )

    async def fetch(self, statement: Executable, *, within: float = STATEMENT_TIMEOUT) -> Rows:
        """Run one statement in autocommit mode and return its rows."""
        task = asyncio.create_task(self._run(statement))
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        try:
            finished, _ = await asyncio.wait({task}, timeout=within)
        finally:
            # Cancelled and not waited for: the driver tells the server about it, which takes long when the
            # server is frozen, and then the caller would be late as well.
            task.cancel()
        if not finished:
            raise DatabaseUnavailableError(f"no answer within {within:g} s")
        try:
            return task.result()
        except SQLAlchemyError as error:
            if _is_outage(error):
                raise DatabaseUnavailableError(type(error).__name__) from error
            raise

    async def answers(self, *, within: float) -> bool:
        """Say whether the database answers a trivial query in time."""
        try:
            await self.fetch(text("SELECT 1"), within=within)
        except (DatabaseUnavailableError, SQLAlchemyError):
            return False
        return True

    async def close(self) -> None:
        """Close all idle connections."""
        await self._engine.dispose()

    async def _run(self, statement: Executable) -> Rows:
        async with self._engine.connect() as connection:
            return (await connection.execute(statement)).all()

    def _forget(self, task: asyncio.Task[Rows]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            # Marks an error as seen; that of an abandoned task interests nobody any more.
            task.exception()


def _is_outage(error: SQLAlchemyError) -> bool:
    """Say whether an error means that the database is away, not that the request or the code is wrong."""
    if isinstance(error, OperationalError | InterfaceError | PoolTimeoutError):
        return True
    return isinstance(error, DBAPIError) and error.connection_invalidated
