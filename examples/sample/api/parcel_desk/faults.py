"""Faults that a test can switch on by environment variable. All are off by default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from parcel_desk.values import choice, number

_DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class Faults:
    """What this process is told to do wrong.

    `health`          FAULT_HEALTH: "503", "redirect" or "hang" as the answer of /health
    `start_delay`     FAULT_START_DELAY: seconds until the port is opened
    `exit_after`      FAULT_EXIT_AFTER: seconds from the start until the process dies with status 1; 0: never
    `error_rate`      FAULT_ERROR_RATE: the share (0 to 1) of requests under /api/ that are answered with 500
    `delay`           FAULT_DELAY: seconds that every request under /api/ waits
    `ignore_sigterm`  FAULT_IGNORE_SIGTERM=1: only SIGKILL ends the process
    """

    health: str = ""
    start_delay: float = 0.0
    exit_after: float = 0.0
    error_rate: float = 0.0
    delay: float = 0.0
    ignore_sigterm: bool = False

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Faults:
        """Read the knobs, or raise a ConfigurationError that names the wrong one."""
        return cls(
            health=choice(environ, "FAULT_HEALTH", frozenset({"503", "redirect", "hang"})),
            start_delay=number(environ, "FAULT_START_DELAY", default=0, low=0, high=_DAY),
            exit_after=number(environ, "FAULT_EXIT_AFTER", default=0, low=0, high=_DAY),
            error_rate=number(environ, "FAULT_ERROR_RATE", default=0, low=0, high=1),
            delay=number(environ, "FAULT_DELAY", default=0, low=0, high=_DAY),
            ignore_sigterm=choice(environ, "FAULT_IGNORE_SIGTERM", frozenset({"0", "1"})) == "1",
        )
