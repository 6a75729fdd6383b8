"""Reads the edge's JSON access log, whole lines alone: its end, or as it grows, across rotation and truncation."""

import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

_CHUNK = 1 << 20
_MOST_PER_READ = 64 << 20
"""At most this much is taken in at once: more is a backlog, and what is older than the window is not needed."""
_SWITCHING = 101
_GONE = 499


@dataclass(frozen=True)
class Entry:
    """One request that the edge finished."""

    at: float
    status: int
    first: str
    """The address that was asked first, '' when none was."""
    addresses: tuple[str, ...]
    """Every address that was tried for the answer, in order. An old page's asset that is asked of the other colour is
    an answer of its own, and not among them."""
    seconds: float
    """Until the answer began: a stream or a slow client does not make a release slow."""
    path: str
    meant: str = ""
    """The release that it was for, as the configuration said that answered it; '' where it did not say."""

    @property
    def judged(self) -> bool:
        """Whether a release is to be judged by it: it was asked, and no connection was handed over to a WebSocket."""
        return bool(self.first) and self.status != _SWITCHING

    @property
    def aborted(self) -> bool:
        """Whether the client went away before the answer."""
        return self.status == _GONE


def parse(line: bytes) -> Entry | None:
    """Read one line; None for one that is no request of ours."""
    try:
        data: dict[str, Any] = json.loads(line)
        at, status, whole = float(data["msec"]), int(data["status"]), float(data["seconds"])
        upstream, path = str(data["upstream"]), str(data["path"])
        times, meant = str(data.get("header_seconds", "")), str(data.get("meant", ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    # "a, b": b was tried after a. "a : b": what a said led to another question, which b answered.
    addresses = tuple(re.split(", ", upstream.partition(" : ")[0])) if upstream else ()
    return Entry(at, status, addresses[0] if addresses else "", addresses, began(times, whole), path, meant)


def tail(path: Path, most: int = 4 << 20) -> tuple[list[bytes], bool]:
    """The whole lines within the last `most` bytes, and whether there are others before them; of no file, none."""
    if not path.is_file():
        return [], False
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - most))
        lines = file.read(most).split(b"\n")
    cut = size > most
    return lines[1 if cut else 0 : -1], cut


def began(times: str, whole: float) -> float:
    """Seconds until the answer began: `times` is what each address took to its headers, `whole` to the last byte."""
    seconds = 0.0
    for part in re.split(", | : ", times):
        try:
            seconds += float(part)
        except ValueError:
            return whole
    return min(seconds, whole)


@dataclass(frozen=True)
class Place:
    """A place in the log: a file by its inode (a rotation makes a new one), and a byte of it."""

    inode: int = 0
    offset: int = 0


class Follower:
    """Reads what was appended since `place`; call `read` again and again."""

    def __init__(self, path: Path, place: Place | None = None) -> None:
        self.path = path
        self.place = place or end_of(path)
        self.readable = True
        """Whether the last `read` found a log that Nginx can write, and understood it."""
        self._file: BinaryIO | None = None

    def read(self) -> Iterator[Entry]:
        """Every whole line that is new, of the rotated file first. A line that is half written waits."""
        lines, understood = 0, 0
        self.readable = _takes_lines(self.path)
        for raw in self._lines():
            lines += 1
            entry = parse(raw)
            if entry is not None:
                understood += 1
                yield entry
        if lines and understood < lines / 2:
            self.readable = False

    def _lines(self) -> Iterator[bytes]:
        yield from self._open_rest()
        current = _inode(self.path)
        if current and current != self.place.inode:
            # Nginx writes into the renamed file until it opens the new one, so that one is finished first.
            self._close()
            rotated = self.path.with_name(f"{self.path.name}.1")
            if self.place.inode and _inode(rotated) == self.place.inode:
                yield from self._rest_of(rotated)
                self._close()
            self.place = Place(current, 0)
            yield from self._open_rest()

    def _open_rest(self) -> Iterator[bytes]:
        if self._file is not None:
            yield from self._rest(self._file)
        elif self.place.inode and _inode(self.path) == self.place.inode:
            yield from self._rest_of(self.path)

    def _rest_of(self, path: Path) -> Iterator[bytes]:
        with suppress(OSError):
            self._file = path.open("rb")
            self.place = Place(os.fstat(self._file.fileno()).st_ino, self.place.offset)
            yield from self._rest(self._file)

    def _rest(self, file: BinaryIO) -> Iterator[bytes]:
        size = os.fstat(file.fileno()).st_size
        offset = self.place.offset if self.place.offset <= size else 0
        if size - offset > _MOST_PER_READ:
            offset = size - _MOST_PER_READ
        file.seek(offset)
        while chunk := file.read(_CHUNK):
            whole, newline, _ = chunk.rpartition(b"\n")
            if not newline:
                break
            offset += len(whole) + 1
            self.place = Place(self.place.inode, offset)
            yield from whole.split(b"\n")
            file.seek(offset)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _takes_lines(path: Path) -> bool:
    """Whether the log is there and has room: on a full disk Nginx drops lines, and silence is not little traffic."""
    try:
        return path.is_file() and os.statvfs(path).f_bavail > 0
    except OSError:
        return False


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except OSError:
        return 0


def end_of(path: Path) -> Place:
    """The place after everything that the log has now."""
    try:
        found = path.stat()
    except OSError:
        return Place()
    return Place(found.st_ino, found.st_size)
