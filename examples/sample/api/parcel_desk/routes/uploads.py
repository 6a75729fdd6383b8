"""Uploads of raw bodies."""

from __future__ import annotations

from fastapi import APIRouter, HTTPException, Request
from starlette.requests import ClientDisconnect

from parcel_desk import uploads
from parcel_desk.routes.context import CurrentSettings

router = APIRouter(prefix="/api/v1")


@router.post("/uploads", status_code=201)
async def upload(request: Request, settings: CurrentSettings) -> uploads.StoredUpload:
    """Store the body and return its size and digest."""
    announced = request.headers.get("content-length", "0")
    if int(announced) > uploads.MAX_BYTES:
        raise _too_large()
    try:
        return await uploads.store(request.stream(), settings.upload_dir)
    except uploads.UploadTooLargeError:
        raise _too_large() from None
    except uploads.StorageUnavailableError as error:
        raise HTTPException(507, str(error)) from error
    except ClientDisconnect:
        # Nobody reads this answer; it only keeps a closed browser tab from being logged as our error.
        raise HTTPException(499, "The client went away during the upload.") from None


def _too_large() -> HTTPException:
    return HTTPException(413, f"An upload may have at most {uploads.MAX_BYTES} bytes.")
