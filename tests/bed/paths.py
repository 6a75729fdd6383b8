"""Where the bed keeps its things, and how one checkout is told from another."""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STATE = ROOT / ".switchyard"
RECIPES = Path(__file__).resolve().parent / "images"


def checkout_id(root: Path = ROOT) -> str:
    """Return eight hex digits that name this checkout, so that two on one machine never meet."""
    return hashlib.sha256(str(root).encode()).hexdigest()[:8]


def state_dir(*parts: str) -> Path:
    """Return a directory below the checkout's state, made on first use and private to its user."""
    path = STATE.joinpath(*parts)
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


@contextmanager
def locked(name: str, folder: Path | None = None) -> Iterator[None]:
    """Hold a lock that dies with the process, so a killed run never blocks the next."""
    place = folder or state_dir("locks")
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (place / f"{name}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
