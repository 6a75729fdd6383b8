#!/usr/bin/env python3
"""Reads a build's plain progress from standard input and shows how much of it came from the cache."""

from __future__ import annotations

import re
import sys

from common import summary, table


def hits(log: str) -> tuple[int, int]:
    """Steps of a build that were taken from the cache, and all of its steps."""
    steps = set(re.findall(r"^#(\d+) \[(?!internal)[^\]]*\] (?:RUN|COPY|ADD|WORKDIR)", log, re.MULTILINE))
    cached = {number for number in steps if re.search(rf"^#{number} CACHED$", log, re.MULTILINE)}
    return len(cached), len(steps)


if __name__ == "__main__":
    cached, steps = hits(sys.stdin.read())
    rate = f"{100 * cached / steps:.0f} %" if steps else "-"
    summary(table(("image", "steps", "from cache", "hit rate"), [(sys.argv[1], steps, cached, rate)]))
