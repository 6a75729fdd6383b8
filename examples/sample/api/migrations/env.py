"""How Alembic reaches the database. `alembic upgrade head` and `alembic current` run this file."""

from __future__ import annotations

import logging.config
import os
import sys

from alembic import context
from sqlalchemy import Connection, NullPool, create_engine, text

from parcel_desk.logs import log_config
from parcel_desk.settings import migration_database_url
from parcel_desk.values import ConfigurationError


def become_owner(connection: Connection) -> None:
    """Take on the role that owns the tables, so that it does not matter which login migrated."""
    owner = os.environ.get("DATABASE_OWNER_ROLE")
    if owner:
        quoted = connection.dialect.identifier_preparer.quote_identifier(owner)
        connection.execute(text(f"SET ROLE {quoted}"))
        # A role set in a transaction would be lost if that transaction rolled back.
        connection.commit()


def migrate() -> None:
    """Run what Alembic was asked for over one connection."""
    engine = create_engine(
        migration_database_url(os.environ),
        poolclass=NullPool,
        hide_parameters=True,
        connect_args={"connect_timeout": 10},
    )
    with engine.connect() as connection:
        become_owner(connection)
        # One transaction per migration: an earlier one stays applied when a later one fails.
        context.configure(connection=connection, transaction_per_migration=True)
        with context.begin_transaction():
            context.run_migrations()


if context.is_offline_mode():
    sys.exit("alembic: this project migrates live databases only; run it without --sql.")
# Standard output stays Alembic's own: `alembic current` is read by machines.
_logging = log_config()
_logging["handlers"]["stdout"]["stream"] = "ext://sys.stderr"
logging.config.dictConfig(_logging)
try:
    migrate()
except ConfigurationError as error:
    sys.exit(f"alembic: {error}")
