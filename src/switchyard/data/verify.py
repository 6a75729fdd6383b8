"""Judges what is in a repository: what `pgbackrest verify` says, and whether WAL is without a gap.

The exit code of `verify` is 0 also for a backup that is broken, so its text counts. It does not look for WAL that is
missing between backups either, without which no moment after the gap can be restored: that is done here.
"""

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

_BAD_COUNTS = ("checksum invalid", "size invalid", "missing", "other")
_COUNT = re.compile(r"([a-z][a-z ]*?): (\d+)")


@dataclass(frozen=True)
class Verdict:
    """What a verification found in one repository."""

    ok: bool
    problems: list[str] = field(default_factory=list)


def judge(text: str, code: int) -> Verdict:
    """Read an answer of `verify --output=text`. Anything but a plain `status: ok` is a failure.

    Every backup and archive that is not valid is named, with pgBackRest's own words.
    """
    problems: list[str] = []
    status = ""
    where = ""
    for raw in text.splitlines():
        line = raw.strip()
        if found := re.match(r"status: (\S+)", line):
            status = status or found[1]
        elif line.startswith(("archiveId:", "backup:")):
            where = line.partition(",")[0].replace("archiveId: ", "archive ").replace("backup: ", "backup ")
            problems += _counts(where, line)
            if (found := re.search(r"status: ([a-z ]+)", line)) and found[1].strip() != "valid":
                problems.append(f"{where}: {found[1].strip()}")
        elif line.startswith(("missing:", "checksum invalid:", "size invalid:")) or "total WAL checked" in line:
            problems += _counts(where, line)
        elif line.startswith("No usable "):
            # Also what a wrong passphrase looks like.
            problems.append(f"{line[0].lower()}{line[1:]}: it is missing, damaged, or the passphrase is another one")
        elif " ERROR: " in line or line.startswith("ERROR: "):
            problems.append(line.rpartition("ERROR: ")[2])
    if code != 0:
        problems.append(f"verify ended with exit code {code}")
    if status != "ok" and not problems:
        problems.append(f"status is '{status or 'unknown'}'")
    return Verdict(not problems and status == "ok", list(dict.fromkeys(problems)))


def _counts(where: str, line: str) -> list[str]:
    found = {name.strip(): int(number) for name, number in _COUNT.findall(line)}
    return [f"{where}: {name}: {found[name]}" for name in _BAD_COUNTS if found.get(name)]


_SEGMENT = re.compile(r"(?:^|/)([0-9A-F]{8})([0-9A-F]{8})([0-9A-F]{8})-[0-9a-f]{40}(?:\.[a-z0-9]+)?$")


@dataclass(frozen=True)
class Gap:
    """Segments of WAL that are missing, by the names of the first and the last."""

    first: str
    last: str

    def __str__(self) -> str:
        named = self.first if self.first == self.last else f"{self.first} to {self.last}"
        return f"archive: WAL {named} is missing, so nothing after it can be restored"

    def is_before(self, segment: str) -> bool:
        """Tell whether a backup that begins with `segment` needs none of it."""
        return self.last[8:] < segment[8:]


def gaps(files: Iterable[str], oldest: str, segment_bytes: int = 16 << 20) -> list[Gap]:
    """Find the WAL segments that are missing between others of their timeline.

    `files` are paths in the archive, `oldest` is the segment that the oldest backup begins with: what is missing before
    it, nobody needs. A new timeline begins in the segment where the old one was left.
    """
    per_log = (1 << 32) // segment_bytes
    found: dict[int, set[int]] = {}
    for path in files:
        if match := _SEGMENT.search(path):
            timeline, log, segment = (int(part, 16) for part in match.groups())
            found.setdefault(timeline, set()).add(log * per_log + segment)
    first = int(oldest[8:16], 16) * per_log + int(oldest[16:24], 16) if oldest else 0
    return [
        Gap(*(f"{timeline:08X}{number // per_log:08X}{number % per_log:08X}" for number in (before + 1, after - 1)))
        for timeline, numbers in sorted(found.items())
        for before, after in itertools.pairwise(sorted(number for number in numbers if number >= first))
        if after - before > 1
    ]
