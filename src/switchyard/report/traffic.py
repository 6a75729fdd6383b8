"""What users got, by release: counts and response times out of the edge's own access log.

The log is read once: every minute's lines are added up into a small file per day, which outlives the log. Response
times are kept as a histogram whose bounds grow by a tenth, so a percentile is off by 5 % at most.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from switchyard.engine.effects import exclusive, replace_file, run
from switchyard.engine.layout import LOGS, RUNTIME, AppPaths
from switchyard.watch.accesslog import began, tail

_GROWTH = math.log(1.1)
_FASTEST = 0.0005
"""Nginx measures in milliseconds; what it logs as 0.000 counts as half of one."""

KEEP_DAYS = 90
_CHUNK_BYTES = 8 << 20
_CLIENT_GONE = 499
_KEEP_RELEASES = 30


@dataclass
class Tally:
    """Requests of one release in one span of time."""

    requests: int = 0
    errors: int = 0
    """Answers of 500 and above."""
    seconds: float = 0.0
    """Sum of the response times."""
    slots: dict[int, int] = field(default_factory=dict)
    """Requests by response time: slot k holds times from 1.1^k to 1.1^(k+1) times half a millisecond."""

    def add(self, status: int, seconds: float) -> None:
        """Count one request. A client that went away says nothing about the release's speed."""
        self.requests += 1
        if status >= 500:
            self.errors += 1
        if status != _CLIENT_GONE:
            slot = int(math.log(max(seconds, _FASTEST) / _FASTEST) / _GROWTH)
            self.slots[slot] = self.slots.get(slot, 0) + 1
            self.seconds += seconds

    def merge(self, other: "Tally") -> None:
        """Add another span's requests."""
        self.requests += other.requests
        self.errors += other.errors
        self.seconds += other.seconds
        for slot, count in other.slots.items():
            self.slots[slot] = self.slots.get(slot, 0) + count

    def percentile(self, share: float) -> float:
        """The response time in seconds that this share of requests stayed below; 0 without requests."""
        total = sum(self.slots.values())
        seen = 0
        for slot in sorted(self.slots):
            seen += self.slots[slot]
            if seen >= share * total:
                return _FASTEST * math.exp((slot + 0.5) * _GROWTH)
        return 0.0

    def faster_than(self, seconds: float) -> int:
        """How many requests took at most this long, to the nearest slot."""
        last = math.log(seconds / _FASTEST) / _GROWTH
        return sum(count for slot, count in self.slots.items() if slot + 0.5 <= last)

    @property
    def error_share(self) -> float:
        """Errors by requests, 0 without requests."""
        return self.errors / self.requests if self.requests else 0.0

    def as_json(self) -> dict[str, Any]:
        """What `from_json` reads back."""
        slots = {str(slot): count for slot, count in self.slots.items()}
        return {"n": self.requests, "e": self.errors, "s": round(self.seconds, 3), "t": slots}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Tally":
        """Read a tally back."""
        slots = {int(slot): int(count) for slot, count in data["t"].items()}
        return cls(int(data["n"]), int(data["e"]), float(data["s"]), slots)


Minutes = dict[int, dict[str, Tally]]
"""By minute since 1970 (UTC) and release."""


def add_lines(minutes: Minutes, lines: Iterable[bytes]) -> None:
    """Count lines of the access log. One that is no request (cut short, or not ours) is left out."""
    for line in lines:
        try:
            entry = json.loads(line)
            minute, status = int(entry["msec"] // 60), int(entry["status"])
            seconds, release = _seconds(entry), str(entry.get("release") or "")
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
        minutes.setdefault(minute, {}).setdefault(release, Tally()).add(status, seconds)


def _seconds(entry: Mapping[str, Any]) -> float:
    """The response time: a WebSocket, a stream or a slow client does not make a release slow."""
    return began(str(entry.get("header_seconds", "")), float(entry["seconds"]))


def total(minutes: Minutes, first: float = 0.0, last: float = math.inf) -> dict[str, Tally]:
    """By release, over the minutes that begin within [first, last), in seconds since 1970."""
    found: dict[str, Tally] = {}
    for minute, tallies in minutes.items():
        if first <= minute * 60 < last:
            for release, tally in tallies.items():
                found.setdefault(release, Tally()).merge(tally)
    return found


# Files


def log_of(paths: AppPaths) -> Path:
    """The access log that the edge writes for this application."""
    return LOGS / "edge" / f"{paths.name}.jsonl"


def recent(paths: AppPaths, seconds: float, now: float) -> tuple[dict[str, Tally], float]:
    """By release, from the end of the log; also how many seconds back that reaches (less when traffic is heavy)."""
    lines, cut = tail(log_of(paths))
    tallies: dict[str, Tally] = {}
    reach = 0.0
    for line in reversed(lines):
        try:
            entry = json.loads(line)
            age = now - float(entry["msec"])
            status, taken, release = int(entry["status"]), _seconds(entry), str(entry.get("release") or "")
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
        if age > seconds:
            return tallies, seconds
        reach = max(reach, age)
        tallies.setdefault(release, Tally()).add(status, taken)
    return tallies, reach if cut else seconds


def _folder(paths: AppPaths) -> Path:
    return paths.state / "traffic"


def _day_file(paths: AppPaths, day: date) -> Path:
    return _folder(paths) / f"{day.isoformat()}.json"


def load_day(paths: AppPaths, day: date) -> Minutes:
    """What was counted on one day (UTC); nothing when the file is missing or damaged."""
    try:
        data = json.loads(_day_file(paths, day).read_text())
        return {
            int(minute): {release: Tally.from_json(tally) for release, tally in tallies.items()}
            for minute, tallies in data.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def load(paths: AppPaths, since: datetime, until: datetime) -> Minutes:
    """What was counted between two moments."""
    minutes: Minutes = {}
    day = since.astimezone(UTC).date()
    while day <= until.astimezone(UTC).date():
        minutes |= load_day(paths, day)
        day += timedelta(days=1)
    return minutes


def _days(minutes: Minutes) -> Iterator[tuple[date, Minutes]]:
    by_day: dict[date, Minutes] = {}
    for minute, tallies in minutes.items():
        by_day.setdefault(datetime.fromtimestamp(minute * 60, UTC).date(), {})[minute] = tallies
    yield from sorted(by_day.items())


@dataclass
class _Read:
    """How far the log was read, which file it was (a rotation makes a new one), and what all of it came to."""

    inode: int = 0
    offset: int = 0
    totals: dict[str, Tally] = field(default_factory=dict)


def _read_file(paths: AppPaths) -> Path:
    return _folder(paths) / "read.json"


def _load_read(paths: AppPaths) -> _Read:
    try:
        data = json.loads(_read_file(paths).read_text())
        totals = {release: Tally.from_json(tally) for release, tally in data["totals"].items()}
        return _Read(int(data["inode"]), int(data["offset"]), totals)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return _Read()


def totals(paths: AppPaths) -> dict[str, Tally]:
    """By release, everything that was ever counted of the newest releases."""
    return _load_read(paths).totals


def collect(paths: AppPaths) -> int:
    """Add what the edge logged since the last time to the days' files; returns how many lines were new.

    A rotated log is finished before the new one is begun. Killed in between, at most one run's lines are counted twice.
    """
    busy = f"Another collection of {paths.name} is running."
    with exclusive(RUNTIME / f"{paths.name}.traffic.lock", wait=10, busy=busy):
        return _collect(paths)


def _collect(paths: AppPaths) -> int:
    read = _load_read(paths)
    current = log_of(paths)
    rotated = current.with_name(f"{current.name}.1")
    count = 0
    if rotated.is_file() and read.inode == rotated.stat().st_ino:
        count += _add_file(paths, rotated, read)
    if current.is_file():
        stat = current.stat()
        # A file that is shorter than what was read of it was truncated in place.
        if read.inode != stat.st_ino or read.offset > stat.st_size:
            read.inode, read.offset = stat.st_ino, 0
        count += _add_file(paths, current, read)
    if count:
        # What no release answered is counted under '', and is no release that gets old.
        kept = [release for release in sorted(read.totals)[-_KEEP_RELEASES:] if release]
        kept += [""] if "" in read.totals else []
        data = {"inode": read.inode, "offset": read.offset, "totals": {r: read.totals[r].as_json() for r in kept}}
        replace_file(_read_file(paths), json.dumps(data), step="traffic.mark", mode=0o640)
        _prune(paths)
    return count


def _add_file(paths: AppPaths, path: Path, read: _Read) -> int:
    """Count the whole lines that were not read yet; returns how many there were."""
    count = 0
    minutes: Minutes = {}
    with path.open("rb") as file:
        file.seek(read.offset)
        while chunk := file.read(_CHUNK_BYTES):
            whole, end, _ = chunk.rpartition(b"\n")
            if not end:
                break
            lines = whole.split(b"\n")
            add_lines(minutes, lines)
            count += len(lines)
            read.offset += len(whole) + 1
            file.seek(read.offset)
    for release, tally in total(minutes).items():
        read.totals.setdefault(release, Tally()).merge(tally)
    for day, fresh in _days(minutes):
        known = load_day(paths, day)
        for minute, tallies in fresh.items():
            for release, tally in tallies.items():
                known.setdefault(minute, {}).setdefault(release, Tally()).merge(tally)
        data = {str(m): {release: tally.as_json() for release, tally in t.items()} for m, t in sorted(known.items())}
        text = json.dumps(data, separators=(",", ":"))
        replace_file(_day_file(paths, day), text, step="traffic.day", mode=0o640)
    return count


def _prune(paths: AppPaths) -> None:
    oldest = (datetime.now(UTC) - timedelta(days=KEEP_DAYS)).date().isoformat()
    old = [path for path in _folder(paths).glob("????-??-??.json") if path.stem < oldest]
    if old:
        run(["rm", "-f", "--", *map(str, old)], step="traffic.prune")
