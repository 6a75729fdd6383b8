"""Health of the process and, separately, of its way to the database."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse, RedirectResponse

from parcel_desk import readiness
from parcel_desk.routes.context import CurrentDatabase, CurrentSettings

router = APIRouter()

DATABASE_TIMEOUT = 2.0


@router.get("/health")
async def health(settings: CurrentSettings) -> Response:
    """Say whether this process can serve. Leaves the database out: its outage is no reason to restart us."""
    match settings.faults.health:
        case "hang":
            await asyncio.Event().wait()
        case "redirect":
            return RedirectResponse("/elsewhere", status_code=302)
        case "503":
            return _unhealthy("FAULT_HEALTH is set", settings.release)
    reason = readiness.refusal()
    if reason is not None:
        return _unhealthy(reason, settings.release)
    return JSONResponse({"status": "ok", "release": settings.release})


@router.get("/health/db")
async def database_health(database: CurrentDatabase, settings: CurrentSettings) -> Response:
    """Say whether the database answers within two seconds."""
    if await database.answers(within=DATABASE_TIMEOUT):
        return JSONResponse({"status": "ok", "release": settings.release})
    return _unhealthy(f"the database did not answer within {DATABASE_TIMEOUT:g} s", settings.release)


def _unhealthy(reason: str, release: str) -> Response:
    return JSONResponse({"status": "unhealthy", "reason": reason, "release": release}, status_code=503)
