"""The ledger: what was tried on this application, and how it ended. Every other history is derived from it.

Events: `start` and `end` of an operation, `live` (a proven switch), `migration` (state of the schema), `bad` (a
release that must not be rolled back to). A start without an end is an operation that died; recovery writes its end.
"""

import contextlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from switchyard.engine.effects import replace_file
from switchyard.engine.layout import AppPaths
from switchyard.names import Colour, parse_release_id

Event = dict[str, Any]


def _text(paths: AppPaths) -> str:
    """Read the file's text; bytes that are no UTF-8 come back as they were when it is written again."""
    return paths.ledger.read_bytes().decode(errors="surrogateescape") if paths.ledger.is_file() else ""


@dataclass
class Ledger:
    """The ledger of one application, read once and appended to."""

    paths: AppPaths
    events: list[Event] = field(default_factory=list)

    @classmethod
    def load(cls, paths: AppPaths) -> "Ledger":
        """Read the ledger. A line that is no JSON object is kept on disk and skipped here."""
        ledger = cls(paths)
        if paths.ledger.is_file():
            for line in _text(paths).split("\n"):
                with contextlib.suppress(ValueError):
                    event = json.loads(line)
                    if isinstance(event, dict) and isinstance(event.get("event"), str):
                        ledger.events.append(event)
        return ledger

    def append(self, event: str, **fields: object) -> None:
        """Add one event, durably. The file is replaced whole, so a crash or a full disk never leaves half a line."""
        entry: Event = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "event": event,
            **fields,
        }
        old = _text(self.paths)
        if old and not old.endswith("\n"):
            # A line that something else cut short stays as it is, on a line of its own.
            old += "\n"
        line = json.dumps(entry, separators=(",", ":"))
        replace_file(
            self.paths.ledger, (old + line + "\n").encode(errors="surrogateescape"), step=f"ledger.{event}", mode=0o640
        )
        self.events.append(entry)

    def of(self, *kinds: str) -> Iterable[Event]:
        """The events of these kinds, oldest first."""
        return (event for event in self.events if event["event"] in kinds)

    def next_number(self) -> int:
        """The next release number. Numbers of failed releases are not used again."""
        numbers = [parsed[0] for event in self.events if (parsed := parse_release_id(str(event.get("release"))))]
        return max(numbers, default=0) + 1

    def unfinished(self) -> list[Event]:
        """Starts that have no end."""
        ended = {event.get("op") for event in self.of("end")}
        return [
            event
            for event in self.of("start")
            if event.get("op") not in ended and {"op", "kind", "version"} <= event.keys()
        ]

    def last_live(self) -> tuple[str, Colour] | None:
        """Release and colour of the last proven switch, or None when there was none."""
        last: Event | None = None
        for event in self.of("live"):
            last = event
        return (last["release"], last["colour"]) if last and last.get("release") else None

    def bad(self) -> dict[str, str]:
        """Releases marked bad, with the reason."""
        return {event["release"]: event["reason"] for event in self.of("bad")}

    def ever_live(self) -> set[str]:
        """Releases that a proven switch made live at least once."""
        return {event["release"] for event in self.of("live") if event.get("release")}

    def lineage(self) -> list[str]:
        """The releases one would go back through, oldest first; the last one is live.

        A deploy adds to it; going back to a release drops everything after it, so that the release that was left is
        not what the next rollback returns to.
        """
        stack: list[str] = []
        for event in self.of("live"):
            release = event.get("release")
            if not release:
                continue
            if release in stack:
                del stack[stack.index(release) + 1 :]
            else:
                stack.append(release)
        return stack

    def schema(self) -> Event | None:
        """The last migration event, or None when no release migrated yet."""
        last: Event | None = None
        for event in self.of("migration"):
            last = event
        return last

    def migrated(self) -> set[str]:
        """Digests of the images whose migration ended clean on this database."""
        return {str(event["digest"]) for event in self.of("migration") if event["state"] == "clean"}

    def schema_epoch(self) -> tuple[int, str]:
        """The highest epoch that a release brought, or may have brought, the database to, and that release."""
        epochs: dict[str, int] = {}
        for event in self.of("migration", "live"):
            if event.get("state") == "unchanged":
                epochs.pop(str(event["release"]), None)
            elif event.get("release"):
                name = str(event["release"])
                epochs[name] = max(epochs.get(name, 1), int(event.get("schema_epoch", 1)))
        release = max(epochs, key=lambda name: epochs[name], default="")
        return epochs.get(release, 1), release
