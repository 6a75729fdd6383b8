"""What route functions ask for by the type of a parameter."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends
from starlette.requests import HTTPConnection

from parcel_desk.database import Database
from parcel_desk.settings import Settings


def _database(connection: HTTPConnection) -> Database:
    return cast(Database, connection.state.database)


def _settings(connection: HTTPConnection) -> Settings:
    return cast(Settings, connection.state.settings)


CurrentDatabase = Annotated[Database, Depends(_database)]
CurrentSettings = Annotated[Settings, Depends(_settings)]
