"""Limits of the machine's kernel that many hosts on it reach long before many VMs would."""

from __future__ import annotations

import contextlib
from pathlib import Path

from tests.bed.errors import say

INOTIFY_INSTANCES = Path("/proc/sys/fs/inotify/max_user_instances")
WANTED_INSTANCES = 1024
"""Each host's systemd and its services take about twenty, all of them as the same user; the usual limit is 128."""


def raise_inotify() -> None:
    """Have room for the path units of several hosts, where this user may; it lasts until the machine's next boot."""
    # Without the right, or on an engine elsewhere, few hosts work all the same.
    with contextlib.suppress(OSError, ValueError):
        if int(INOTIFY_INSTANCES.read_text()) < WANTED_INSTANCES:
            INOTIFY_INSTANCES.write_text(f"{WANTED_INSTANCES}\n")
            say(f"fs.inotify.max_user_instances is {WANTED_INSTANCES} now, until the next boot of this machine")
