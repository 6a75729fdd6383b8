"""The ledger: what was tried on this application, and how it ended. Every other history is derived from it.

Events: `start` and `end` of an operation (the end has the `requests` and `errors` that its watch on this host saw),
`live` (a proven switch), `migration` (state of the schema), `bad` (a release that must not be rolled back to), `key` (a
secret that is new or has another value, by name), `config` (changed files of the edge). A start without an end is an
operation that died; recovery writes its end. Rooms beside the engine add kinds of their own (`restore`, `drill`,
`override`, `maintenance`, ...), each with what it is about as `subject` and what came of it as `outcome`. Every line is
chained to the one before it, see `switchyard.chain`.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from switchyard import chain
from switchyard.engine.effects import exclusive, replace_file
from switchyard.engine.layout import AppPaths
from switchyard.names import Colour, parse_release_id

Event = dict[str, Any]


_WRITE_SECONDS = 30.0
"""How long an append waits for another one, which takes as long as a write to disk."""


def content(paths: AppPaths) -> bytes:
    """The file's bytes; none when nothing was written yet."""
    return paths.ledger.read_bytes() if paths.ledger.is_file() else b""


@dataclass
class Ledger:
    """The ledger of one application, read once and appended to."""

    paths: AppPaths
    events: list[Event] = field(default_factory=list)

    @classmethod
    def load(cls, paths: AppPaths) -> "Ledger":
        """Read the ledger. A line that is no JSON object is kept on disk and skipped here."""
        events = (chain.parse(line) for line in chain.split(content(paths)))
        return cls(paths, [event for event in events if event is not None])

    def append(self, event: str, **fields: object) -> None:
        """Add one event, durably, also beside other threads and processes that do the same.

        The file is replaced whole, so a crash or a full disk never leaves half a line. Raises `SwitchyardError` when it
        cannot be written.
        """
        entry: Event = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "event": event,
            **fields,
        }
        busy = f"The ledger of {self.paths.name} is being written by a process that does not finish."
        with exclusive(self.paths.ledger_lock, wait=_WRITE_SECONDS, busy=busy):
            old = content(self.paths)
            if old and not old.endswith(b"\n"):
                # A line that something else cut short stays as it is, on a line of its own.
                old += b"\n"
            entry["n"], entry["prev"] = chain.following(str(self.paths.name), old)
            line = json.dumps(entry, separators=(",", ":")).encode()
            replace_file(self.paths.ledger, old + line + b"\n", step=f"ledger.{event}", mode=0o640)
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

    def share(self) -> int:
        """The percentage of the clients that the release of the last proven switch has: less than 100 for a canary."""
        shares = [int(event.get("share", 100)) for event in self.of("live", "canary")]
        return shares[-1] if shares else 100

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

    def _of_this_database(self, *kinds: str) -> list[Event]:
        """The events of these kinds that the database knows of: a restore takes back what came after its moment."""
        found: list[Event] = []
        for event in self.of("restore", *kinds):
            if event["event"] != "restore":
                found.append(event)
            elif until := event.get("until"):
                moment = datetime.fromisoformat(str(until))
                found = [one for one in found if datetime.fromisoformat(str(one["time"])) <= moment]
        return found

    def schema(self) -> Event | None:
        """The last migration event, or None when no release migrated yet."""
        found = self._of_this_database("migration")
        return found[-1] if found else None

    def migrated(self) -> set[str]:
        """Digests of the images whose migration ended clean on this database."""
        return {str(event["digest"]) for event in self._of_this_database("migration") if event["state"] == "clean"}

    def schema_epoch(self) -> tuple[int, str]:
        """The highest epoch that a release brought, or may have brought, the database to, and that release."""
        epochs: dict[str, int] = {}
        for event in self._of_this_database("migration", "live"):
            if event.get("state") == "unchanged":
                epochs.pop(str(event["release"]), None)
            elif event.get("release"):
                name = str(event["release"])
                epochs[name] = max(epochs.get(name, 1), int(event.get("schema_epoch", 1)))
        release = max(epochs, key=lambda name: epochs[name], default="")
        return epochs.get(release, 1), release
