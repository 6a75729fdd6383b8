"""The host's own figures: load, memory, disks, and how long a disk lasts at the rate at which it fills."""

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import linear_regression
from typing import Any

from switchyard.engine.effects import replace_file
from switchyard.engine.layout import STATE

_SAMPLES = STATE / "disk.json"
_KEEP_SECONDS = 7 * 86400.0
_EVERY_SECONDS = 1800.0
_LEAST_SECONDS = 6 * 3600.0
"""A trend of less than this is noise."""

WATCHED = ("/", "/var/lib/switchyard", "/var/lib/docker", "/var/log")


@dataclass(frozen=True)
class Disk:
    """One file system."""

    path: str
    size: int
    free: int
    """Bytes that a program may still write."""
    inodes_free: float
    """Share of inodes that are free, from 0 to 1."""
    days_to_full: float | None
    """At the rate of the last week; None when it does not fill, or when less than six hours are known."""


def file_systems() -> dict[str, os.statvfs_result]:
    """The file systems that matter here, each once, by the first path that is on it."""
    seen: set[int] = set()
    found = {}
    for name in WATCHED:
        path = Path(name)
        if path.is_dir() and (device := path.stat().st_dev) not in seen:
            seen.add(device)
            found[name] = os.statvfs(path)
    return found


def _samples() -> dict[str, list[tuple[float, int]]]:
    try:
        return {
            path: [(float(t), int(f)) for t, f in pairs] for path, pairs in json.loads(_SAMPLES.read_text()).items()
        }
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def sample() -> None:
    """Note how much is free, at most twice an hour, for a week."""
    now, known = time.time(), _samples()
    newest = max((pairs[-1][0] for pairs in known.values() if pairs), default=-_EVERY_SECONDS)
    if now - newest < _EVERY_SECONDS:
        return
    for path, stat in file_systems().items():
        known.setdefault(path, []).append((round(now), stat.f_bavail * stat.f_frsize))
    kept = {path: [pair for pair in pairs if now - pair[0] < _KEEP_SECONDS] for path, pairs in known.items()}
    replace_file(_SAMPLES, json.dumps(kept), step="host.samples", mode=0o640)


def days_to_full(samples: list[tuple[float, int]]) -> float | None:
    """When the line through the samples (time, bytes free) reaches zero, in days from the last one.

    None when it never does, or when too little is known to tell.
    """
    if len(samples) < 3 or samples[-1][0] - samples[0][0] < _LEAST_SECONDS:
        return None
    first = samples[0][0]
    slope = linear_regression([t - first for t, _ in samples], [float(free) for _, free in samples]).slope
    return round(samples[-1][1] / -slope / 86400, 1) if slope < 0 else None


def disks() -> list[Disk]:
    """The disks as they are now."""
    known = _samples()
    return [
        Disk(
            path,
            stat.f_blocks * stat.f_frsize,
            stat.f_bavail * stat.f_frsize,
            round(stat.f_favail / stat.f_files, 4) if stat.f_files else 1.0,
            days_to_full(known.get(path, [])),
        )
        for path, stat in file_systems().items()
    ]


def memory() -> dict[str, int]:
    """Bytes of memory: `total` and `available`."""
    values = {}
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, rest = line.partition(":")
        values[name] = int(rest.split()[0]) * 1024
    return {"total": values["MemTotal"], "available": values["MemAvailable"]}


def processors() -> tuple[float, float]:
    """Seconds of all processors since boot: busy, and in all."""
    first = Path("/proc/stat").read_text().partition("\n")[0]
    # user, nice, system, idle, iowait, irq, softirq, steal; what guests used is in the first two.
    times = [int(word) / os.sysconf("SC_CLK_TCK") for word in first.split()[1:9]]
    return sum(times) - times[3] - times[4], sum(times)


def describe() -> dict[str, Any]:
    """Everything about this host, ready for JSON."""
    return {
        "cpus": os.cpu_count() or 1,
        "load": round(os.getloadavg()[1], 2),
        "memory": memory(),
        "disks": [asdict(disk) for disk in disks()],
        "boot": round(time.time() - float(Path("/proc/uptime").read_text().split()[0])),
    }
