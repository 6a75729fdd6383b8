"""The chain that ties a ledger's lines together, so that a change of the past shows. Pure; used on both sides.

Each line carries its number `n` and, as `prev`, the SHA-256 of the line before it. The first chained line carries the
hash of everything before it: of the ledger's name and of whatever lines an older engine wrote without a chain. A chain
alone cannot tell that its newest lines are missing, or that all of it was written anew: a copy elsewhere can.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a ledger."""

    line: int
    """The number that the line carries, or for lines without one its place in the file, from 1."""
    kind: str
    """`edited`, `removed`, `moved`, `added`, `damaged` or `missing` (a copy has it, the ledger does not)."""
    text: str
    """For people: which line, and what happened to it."""


@dataclass(frozen=True)
class _Line:
    """A chained line: where it stands, what it says of itself, and the hash that its successor must carry."""

    place: int
    n: int
    prev: str
    hash: str


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def split(text: bytes) -> list[bytes]:
    """The lines of a ledger, without their ends."""
    lines = text.split(b"\n")
    return lines if lines[-1] else lines[:-1]


def _chained(line: bytes) -> tuple[int, str] | None:
    """Number and link of a line; None when it carries none."""
    event = parse(line)
    if event is None or not isinstance(event.get("n"), int) or not isinstance(event.get("prev"), str):
        return None
    return event["n"], event["prev"]


def parse(line: bytes) -> dict[str, Any] | None:
    """A line's event; None when the line is no event."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None


def _seal(name: str, before: Sequence[bytes]) -> str:
    return _hash(b"\n".join([f"switchyard ledger of {name}".encode(), *before]))


def following(name: str, text: bytes) -> tuple[int, str]:
    """Number and link for the line that is appended to `text`, the ledger of `name`."""
    lines = split(text)
    started = any(_chained(line) for line in reversed(lines))
    return len(lines) + 1, _hash(lines[-1]) if started else _seal(name, lines)


def unchained(text: bytes) -> int:
    """How many lines are older than the chain."""
    lines = split(text)
    return next((index for index, line in enumerate(lines) if _chained(line)), len(lines))


def check(name: str, text: bytes) -> list[Finding]:
    """Everything that is wrong with the ledger of `name` by its own chain, in the order of lines."""
    lines, old = split(text), unchained(text)
    found: list[Finding] = []
    chained: list[_Line] = []
    for place, line in enumerate(lines, 1):
        link = _chained(line)
        if parse(line) is None:
            found.append(Finding(place, "damaged", f"line {place} is no event: it was cut short or overwritten"))
        if link is not None:
            chained.append(_Line(place, *link, _hash(line)))
        elif place > old:
            # What stands in the chain without a link of its own still is what the next line's link must match.
            kind = "damaged" if parse(line) is None else "added"
            if kind == "added":
                found.append(Finding(place, kind, f"line {place} carries no link: it was not written by the engine"))
            chained.append(_Line(place, place, "", _hash(line)))
    if chained and chained[0].n <= old + 1 and chained[0].prev != _seal(name, lines[:old]):
        found.append(_broken_seal(chained[0], old))
    found += _numbers(chained, old)
    found += _links(chained)
    return sorted(found, key=lambda finding: finding.line)


def _broken_seal(first: _Line, old: int) -> Finding:
    if first.n <= old:
        return Finding(1, "added", f"something was added before line {first.n}")
    if old:
        return Finding(
            1, "edited", f"one of lines 1 to {old}, from before the chain, was edited, or line {first.n} was"
        )
    return Finding(1, "edited", "line 1 was edited, or the ledger is another application's")


def _numbers(chained: Sequence[_Line], old: int) -> list[Finding]:
    """Lines that are gone, that stand twice, or that stand in another place than they were written in."""
    found = []
    seen: dict[int, _Line] = {}
    highest = old
    for line in chained:
        if line.n in seen:
            found.append(Finding(line.n, "added", f"line {line.n} stands there twice"))
        elif line.n < highest:
            found.append(Finding(line.n, "moved", f"line {line.n} was moved: it stands after line {highest}"))
        seen[line.n] = line
        highest = max(highest, line.n)
    gone = [number for number in range(old + 1, highest) if number not in seen]
    for first, last in _ranges(gone):
        which = f"line {first} was" if first == last else f"lines {first} to {last} were"
        found.append(Finding(first, "removed", f"{which} removed"))
    return found


def _ranges(numbers: Sequence[int]) -> list[tuple[int, int]]:
    ranges: list[tuple[int, int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    return ranges


def _links(chained: Sequence[_Line]) -> list[Finding]:
    """Lines whose content is not what the line after them recorded."""
    by_number = {line.n: line for line in chained}
    found = []
    for line in chained:
        after = by_number.get(line.n + 1)
        if after is not None and after.prev and after.prev != line.hash:
            found.append(
                Finding(line.n, "edited", f"line {line.n} was edited: line {after.n} recorded another content")
            )
    return found


def compare(text: bytes, copy: bytes, source: str) -> list[Finding]:
    """What a ledger lacks of, or has otherwise than, an earlier copy of it; `source` says where the copy is from."""
    lines, kept = split(text), split(copy)
    if lines[: len(kept)] == kept:
        return []
    found = []
    have = set(lines)
    gone = [place for place, line in enumerate(kept, 1) if line not in have]
    beyond = [place for place in gone if place > len(lines)]
    for place in (place for place in gone if place <= len(lines)):
        found.append(Finding(place, "missing", f"line {place} of {source} is not in the ledger: edited or removed"))
    if beyond:
        which = f"line {beyond[0]}" if len(beyond) == 1 else f"lines {beyond[0]} to {beyond[-1]}"
        found.append(
            Finding(beyond[0], "missing", f"{which} of {source} are gone: the ledger ends after line {len(lines)}")
        )
    if not gone:
        place = next(place for place, line in enumerate(kept, 1) if line != lines[place - 1])
        found.append(Finding(place, "moved", f"from line {place} on, the ledger has another order than {source}"))
    return found


def portion(text: bytes, after: int) -> dict[str, Any]:
    """The lines after the first `after` ones, with what a holder of those needs to tell that they are unchanged."""
    lines = split(text)
    after = max(0, min(after, len(lines)))
    return {
        "lines": len(lines),
        "after": after,
        "before": _hash(_join(lines[:after])),
        "text": _join(lines[after:]).decode(errors="surrogateescape"),
    }


def extend(copy: bytes, part: dict[str, Any]) -> bytes | None:
    """A copy with the lines of `portion` added; None when what the copy holds is no longer what the ledger holds."""
    lines = split(copy)
    if part["after"] != len(lines) or part["before"] != _hash(_join(lines)):
        return None
    return _join(lines) + str(part["text"]).encode(errors="surrogateescape")


def _join(lines: Sequence[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def report(name: str, text: bytes, found: Sequence[Finding], copies: Mapping[str, bytes]) -> dict[str, Any]:
    """What a check came to, ready for JSON; `copies` are what the ledger was compared with, by where they are from."""
    return {
        "ledger": name,
        "lines": len(split(text)),
        "unchained": unchained(text),
        "copies": {source: len(split(copy)) for source, copy in copies.items()},
        "findings": [asdict(finding) for finding in found],
    }


def words(report: dict[str, Any]) -> str:
    """The same for a person."""
    lines = [f"{finding['kind']:<8} {finding['text']}" for finding in report["findings"]]
    verdict = "HAS BEEN CHANGED" if lines else "is whole"
    lines.append(f"The ledger of {report['ledger']} {verdict}: {report['lines']} lines.")
    if report["unchained"]:
        lines.append(f"Its first {report['unchained']} lines are older than the chain; one seal covers them.")
    for source, count in report["copies"].items():
        lines.append(f"Compared with {source}, which has {count} lines.")
    lines += [f"Not compared with {host}." for host in report.get("unreachable", [])]
    if not report["copies"]:
        lines.append("There is no copy to compare with: that newest lines are missing would not show.")
    return "\n".join(lines)
