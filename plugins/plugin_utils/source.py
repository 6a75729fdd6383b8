"""Makes the Python package `switchyard` importable: from the clone, or from inside the installed collection."""

from __future__ import annotations

import sys
from pathlib import Path

COLLECTION = Path(__file__).resolve().parent.parent.parent


def make_importable() -> None:
    """Put the collection's own `src` first, so that plugins and engine are of one version."""
    source = str(COLLECTION / "src")
    if source not in sys.path:
        sys.path.insert(0, source)
