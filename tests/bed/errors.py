"""What the bed says to people: progress on stderr, and failures as one sentence."""

from __future__ import annotations

import sys


class BedError(Exception):
    """A failure that a person can act on; its text is one sentence."""


def say(text: str) -> None:
    """Tell a person what is going on; stdout stays free for data."""
    print(f"bed: {text}", file=sys.stderr, flush=True)
