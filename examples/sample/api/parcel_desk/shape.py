"""What a parcel looks like in this release: its table, what clients send, and what they get."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import BigInteger, Column, DateTime, Identity, Integer, MetaData, Table, Text, Uuid

parcels = Table(
    "parcels",
    MetaData(),
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("idempotency_key", Uuid, nullable=False, unique=True),
    Column("recipient", Text, nullable=False),
    Column("note", Text, nullable=False, server_default=""),
    Column("state", Text, nullable=False, server_default="received"),
    Column("attempts", Integer, nullable=False, server_default="1"),
    Column("created_at", DateTime(timezone=True), nullable=False),
)


class NewParcel(BaseModel):
    """A parcel as a client hands it in."""

    recipient: Annotated[str, Field(min_length=1, max_length=200)]
    note: Annotated[str, Field(max_length=2000)] = ""


class Parcel(BaseModel):
    """A parcel as clients see it."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    recipient: str
    note: str
    state: str
    attempts: int
    created_at: datetime
