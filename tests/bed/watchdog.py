"""Removes a test's bed when the test is killed: `python -m tests.bed.watchdog BED OWNER`."""

from __future__ import annotations

import sys
import time

from tests.bed import owner
from tests.bed.bed import Bed
from tests.bed.errors import BedError, say
from tests.bed.paths import STATE

POLL_SECONDS = 2
MOST_HOURS = 12


def watch(name: str, identity: str) -> None:
    """Wait for the owner's end, or for the bed's; never longer than half a day."""
    home = STATE / "beds" / name
    deadline = time.monotonic() + MOST_HOURS * 3600
    while home.exists() and time.monotonic() < deadline:
        if not owner.alive(identity):
            Bed(name).down()
            # What the owner had asked of the engine last may have been made a moment after its death.
            time.sleep(2 * POLL_SECONDS)
            Bed(name).down()
            return
        time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    try:
        watch(sys.argv[1], sys.argv[2])
    except BedError as error:
        say(str(error))
        sys.exit(1)
