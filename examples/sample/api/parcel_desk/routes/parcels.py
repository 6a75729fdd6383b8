"""Reading and handing in parcels, and counting what was lost or applied twice."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, HTTPException, Path, Query, Response
from pydantic import BaseModel, Field
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from parcel_desk.routes.context import CurrentDatabase
from parcel_desk.shape import NewParcel, Parcel, parcels

router = APIRouter(prefix="/api/v1")

# Only the columns that this release knows are ever named, so it also works on a newer, wider table.
_shown = [column for column in parcels.columns if column.name in Parcel.model_fields]


@router.get("/parcels")
async def list_parcels(database: CurrentDatabase, limit: Annotated[int, Query(ge=1, le=500)] = 50) -> list[Parcel]:
    """Return the newest parcels first."""
    query = select(*_shown).order_by(parcels.c.id.desc()).limit(limit)
    return [Parcel.model_validate(row) for row in await database.fetch(query)]


@router.get("/parcels/{parcel_id}")
async def get_parcel(database: CurrentDatabase, parcel_id: Annotated[int, Path(ge=1, lt=2**63)]) -> Parcel:
    """Return one parcel."""
    rows = await database.fetch(select(*_shown).where(parcels.c.id == parcel_id))
    if not rows:
        raise HTTPException(404, f"There is no parcel {parcel_id}.")
    return Parcel.model_validate(rows[0])


@router.post("/parcels", status_code=201)
async def hand_in(
    database: CurrentDatabase,
    parcel: NewParcel,
    idempotency_key: Annotated[UUID, Header()],
    response: Response,
) -> Parcel:
    """Store a parcel once per idempotency key; a repetition gets the first row again and is counted."""
    statement = (
        insert(parcels)
        .values(idempotency_key=idempotency_key, **parcel.model_dump())
        .on_conflict_do_update(index_elements=[parcels.c.idempotency_key], set_={"attempts": parcels.c.attempts + 1})
        .returning(*_shown)
    )
    [row] = await database.fetch(statement)
    stored = Parcel.model_validate(row)
    if stored.attempts > 1:
        response.status_code = 200
    return stored


class AuditRequest(BaseModel):
    """The idempotency keys that a client believes to have been applied exactly once."""

    keys: Annotated[list[UUID], Field(max_length=5000)]


class AuditReport(BaseModel):
    """What the database knows about these keys."""

    missing: list[UUID]
    duplicated: list[UUID]
    checked: int


@router.post("/audit")
async def audit(database: CurrentDatabase, request: AuditRequest) -> AuditReport:
    """Name the keys that were never applied and those that arrived more than once."""
    keys = list(dict.fromkeys(request.keys))
    query = select(parcels.c.idempotency_key, parcels.c.attempts).where(parcels.c.idempotency_key.in_(keys))
    attempts = {row.idempotency_key: row.attempts for row in await database.fetch(query)}
    return AuditReport(
        missing=[key for key in keys if key not in attempts],
        duplicated=[key for key in keys if attempts.get(key, 0) > 1],
        checked=len(keys),
    )
