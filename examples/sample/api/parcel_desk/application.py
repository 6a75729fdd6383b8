"""The application as a whole."""

from __future__ import annotations

import logging

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp

from parcel_desk.database import DatabaseUnavailableError
from parcel_desk.lifecycle import lifespan
from parcel_desk.middleware import RequestFaults, RequestLog
from parcel_desk.routes import health, parcels, streams, uploads
from parcel_desk.settings import Settings

log = logging.getLogger("parcel_desk")


def create_application(settings: Settings) -> ASGIApp:
    """Build the application; nothing is connected or opened before the server starts it."""
    app = FastAPI(
        title="Parcel desk",
        version=settings.release,
        lifespan=lifespan,
        openapi_url="/api/v1/openapi.json",
        # The built-in pages load their scripts from other people's servers.
        docs_url=None,
        redoc_url=None,
        # Bodies are JSON with or without the header; insisting on it guards cookies, and there are none.
        strict_content_type=False,
    )
    app.state.settings = settings
    app.add_exception_handler(DatabaseUnavailableError, _unavailable)
    for module in (health, parcels, streams, uploads):
        app.include_router(module.router)
    # Wrapped from outside, not added as middleware: FastAPI's answer to an unhandled error passes through.
    return RequestLog(RequestFaults(app, settings.faults))


async def _unavailable(_request: Request, error: Exception) -> JSONResponse:
    log.warning("the database is unavailable: %s", error)
    return JSONResponse(
        {"detail": "The database cannot be reached; please try again."},
        status_code=503,
        headers={"Retry-After": "1"},
    )
