"""The pool of database connections, made so that the API outlives its database."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

CONNECT_TIMEOUT = 2
POOL_TIMEOUT = 5


class Database:
    """A bounded pool that connects when first asked and replaces connections that died."""

    def __init__(self, url: str, *, pool_size: int) -> None:
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

    def connect(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """Lend a connection in autocommit mode for the length of a `with` block."""
        return self._engine.connect()

    async def answers(self, *, within: float) -> bool:
        """Say whether the database answers a trivial query in time."""
        try:
            async with asyncio.timeout(within), self.connect() as connection:
                await connection.execute(text("SELECT 1"))
        except (SQLAlchemyError, TimeoutError, OSError):
            return False
        return True

    async def close(self) -> None:
        """Close all idle connections."""
        await self._engine.dispose()


def is_outage(error: Exception) -> bool:
    """Say whether an error means that the database is away, not that the request or the code is wrong."""
    if isinstance(error, OperationalError | InterfaceError | PoolTimeoutError):
        return True
    return isinstance(error, DBAPIError) and error.connection_invalidated
