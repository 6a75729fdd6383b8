"""Storing request bodies as files, without ever holding a whole one in memory."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

MAX_BYTES = 64 * 1024 * 1024
_CHUNK = 1024 * 1024
_STORAGE_ERRORS = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOENT, errno.ENOTDIR}
)


class UploadTooLargeError(Exception):
    """The body is larger than an upload may be."""


class StorageUnavailableError(Exception):
    """The directory for uploads cannot take the file; the message says why."""


@dataclass(frozen=True, slots=True)
class StoredUpload:
    """What became of an upload."""

    bytes: int
    sha256: str


async def store(chunks: AsyncIterator[bytes], directory: Path) -> StoredUpload:
    """Write the chunks to a file in `directory` that is named by its content, completely or not at all."""
    part = directory / f".{uuid4().hex}.part"
    try:
        await asyncio.to_thread(directory.mkdir, parents=True, exist_ok=True)
        with await asyncio.to_thread(part.open, "xb", buffering=0) as file:
            try:
                upload = await _copy(chunks, file.fileno())
                await asyncio.to_thread(_publish, part, directory / upload.sha256)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
    except OSError as error:
        if error.errno not in _STORAGE_ERRORS:
            raise
        raise StorageUnavailableError(
            f"Uploads cannot be stored in {directory}: {os.strerror(error.errno)}."
        ) from error
    return upload


async def _copy(chunks: AsyncIterator[bytes], descriptor: int) -> StoredUpload:
    digest = hashlib.sha256()
    total = 0
    buffer = bytearray()
    # Disk writes leave the event loop in pieces of a megabyte: a thread hop per packet would cost more.
    async for chunk in chunks:
        total += len(chunk)
        if total > MAX_BYTES:
            raise UploadTooLargeError
        digest.update(chunk)
        buffer += chunk
        if len(buffer) >= _CHUNK:
            await asyncio.to_thread(_write_all, descriptor, bytes(buffer))
            buffer.clear()
    await asyncio.to_thread(_write_all, descriptor, bytes(buffer))
    await asyncio.to_thread(os.fsync, descriptor)
    return StoredUpload(bytes=total, sha256=digest.hexdigest())


def _publish(part: Path, final: Path) -> None:
    """Give the file its name for good: the answer promises an upload that survives a power cut."""
    part.replace(final)
    directory = os.open(final.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
