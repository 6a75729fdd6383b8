"""Idempotency keys: unique to the run, and cheap enough to remember by the million."""

from __future__ import annotations

import secrets
from collections.abc import Iterator


class KeyBook:
    """Gives out UUIDs and notes which writes were acknowledged.

    A key is a random prefix, never the seeded one (a second run with the same seed must not repeat the keys
    of the first), and a counter, so that only one byte per write is kept.
    """

    def __init__(self) -> None:
        noise = secrets.token_hex(9)
        self._prefix = f"{noise[:8]}-{noise[8:12]}-4{noise[12:15]}-8{noise[15:18]}-"
        self._acknowledged = bytearray()

    def __len__(self) -> int:
        return len(self._acknowledged)

    def issue(self) -> int:
        """Return the number of a new write."""
        self._acknowledged.append(0)
        return len(self._acknowledged) - 1

    def text(self, number: int) -> str:
        """Return the key of a write."""
        return f"{self._prefix}{number:012x}"

    def acknowledge(self, number: int) -> None:
        """Note that the write was answered correctly: from now on it must not get lost."""
        self._acknowledged[number] = 1

    def acknowledged(self, key: str) -> bool:
        """Say whether this key of the run was acknowledged."""
        number = int(key[-12:], 16)
        return key.startswith(self._prefix) and number < len(self) and bool(self._acknowledged[number])

    def batches(self, size: int) -> Iterator[list[str]]:
        """Return all keys, acknowledged or not: a write without an answer may still be done twice."""
        for start in range(0, len(self), size):
            yield [self.text(number) for number in range(start, min(start + size, len(self)))]
