"""What a run found: plain data, with the judgement that needs the instants of the switches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Self

MAX_EXAMPLES = 20


@dataclass(frozen=True)
class Switch:
    """A change of the live release; `at` is `time.monotonic()` just *before* it was begun.

    `done` is when it was said to be done, where that is known: no new connection gets the old release from then on.
    """

    at: float
    old: str
    new: str
    done: float = 0.0


@dataclass
class Snapshot:
    """Running totals."""

    elapsed: float = 0.0
    sent: int = 0
    answered: int = 0
    lost: int = 0
    refused_streams: int = 0
    by_release: dict[str, int] = field(default_factory=dict)
    finished: bool = False  # it issues nothing more: stopped, or at one of its bounds

    @property
    def in_flight(self) -> int:
        """Attempts whose fate is open."""
        return self.sent - self.answered - self.lost


@dataclass
class Example:
    """One loss: what an investigation starts from."""

    at: float  # monotonic
    kind: str
    connection_age: float | None  # None: there was no connection yet
    bytes_sent: int
    bytes_received: int


@dataclass
class Losses:
    """All losses for one reason."""

    count: int = 0
    examples: list[Example] = field(default_factory=list)

    def add(self, example: Example) -> None:
        """Count a loss; only the first few are kept in full."""
        self.count += 1
        if len(self.examples) < MAX_EXAMPLES:
            self.examples.append(example)


@dataclass
class KindTotals:
    """One kind of client."""

    sent: int = 0
    answered: int = 0
    lost: int = 0
    by_release: dict[str, int] = field(default_factory=dict)
    latency: dict[str, float] = field(default_factory=dict)  # p50, p95, p99, max; milliseconds


class Ending(StrEnum):
    """How an established connection ended."""

    CLOSED = "closed"  # by the other side, with a close handshake or `event: end`
    STOPPED = "stopped"  # by this side, at the end of the run
    CUT = "cut"  # by the other side, without a word
    WRONG = "wrong"  # it said something false, or fell silent: a loss at any time


@dataclass
class Connection:
    """An established WebSocket or event stream, from its first correct message to its end."""

    kind: str
    release: str
    opened: float  # monotonic, as `closed`
    closed: float
    end: Ending
    reason: str

    @property
    def lifetime(self) -> float:
        """Return how long it lasted, in seconds."""
        return self.closed - self.opened


@dataclass
class NewConnection:
    """One answered request of the kind `new`, whose release must never go backwards."""

    started: float
    completed: float
    release: str


@dataclass
class Report:
    """The account of a run.

    `sent == answered + lost_requests` always holds. `lost` adds what was answered or established and lost
    later: acknowledged writes that the audit does not find, and connections cut before the drain time or gone wrong.
    """

    seed: int
    target: str
    started: float  # monotonic
    duration: float
    drain: float
    settle: float
    sent: int = 0
    answered: int = 0
    lost_requests: int = 0
    lost_writes: int = 0
    duplicated: int = 0
    refused_streams: int = 0  # HTTP/2 streams that the server never processed; sent again, not lost
    idle_closes: int = 0  # kept-alive connections found closed before anything was sent
    echoes: int = 0
    longest_gap_ms: float = 0.0
    cpu_share: float = 0.0  # of one core, by the client; near 1 it measures itself
    audit_error: str | None = None
    write_examples: list[str] = field(default_factory=list)
    by_release: dict[str, int] = field(default_factory=dict)
    by_kind: dict[str, KindTotals] = field(default_factory=dict)
    request_losses: dict[str, Losses] = field(default_factory=dict)
    connections: list[Connection] = field(default_factory=list)
    new_connections: list[NewConnection] = field(default_factory=list)
    assets: dict[str, list[str]] = field(default_factory=dict)  # URL to the releases whose pages name it
    lost_connections: list[Connection] = field(default_factory=list)
    non_monotonic: int | None = None  # None: not judged, the switches are not known

    @property
    def lost(self) -> int:
        """Everything that was lost."""
        return self.lost_requests + self.lost_writes + len(self.lost_connections)

    @property
    def cuts(self) -> list[Connection]:
        """Connections that the other side ended without saying so."""
        return [connection for connection in self.connections if connection.end is Ending.CUT]

    @property
    def lossless(self) -> bool:
        """Whether nothing was lost or duplicated, and that is known."""
        return self.sent > 0 and not self.lost and not self.duplicated and self.audit_error is None

    @property
    def latency(self) -> dict[str, dict[str, float]]:
        """Percentiles by kind, in milliseconds."""
        return {kind: totals.latency for kind, totals in self.by_kind.items()}

    @property
    def loss_reasons(self) -> dict[str, Losses]:
        """Every loss under its reason; the counts add up to `lost`."""
        reasons = {
            reason: Losses(losses.count, list(losses.examples)) for reason, losses in self.request_losses.items()
        }
        if self.lost_writes:
            reasons["acknowledged write not found"] = Losses(self.lost_writes)
        for connection in self.lost_connections:
            example = Example(connection.closed, connection.kind, connection.lifetime, 0, 0)
            reasons.setdefault(f"{connection.kind} {connection.end}: {connection.reason}", Losses()).add(example)
        return reasons

    def judge(self, switches: Sequence[Switch] | None = None) -> Self:
        """Decide which cuts are losses, and whether releases went backwards.

        A cut is excused when a switch happened during the connection's life and at least `drain` before the
        cut. When the switches are not known, only what is a loss for every possible instant counts: a
        connection cut before it was as old as the drain time. What was said wrongly is never excused.
        """
        self.lost_connections = [item for item in self.connections if item.end is Ending.WRONG]
        if switches is None:
            self.lost_connections += [cut for cut in self.cuts if cut.lifetime < self.drain]
            self.non_monotonic = None
            return self
        ordered = sorted(switches, key=lambda switch: switch.at)
        self.lost_connections += [cut for cut in self.cuts if not _excused(cut, ordered, self.drain)]
        self.non_monotonic = _backwards(self.new_connections, ordered, self.settle)
        return self

    def as_dict(self) -> dict[str, Any]:
        """Return everything, fit for JSON; `from_dict` undoes it."""
        fields = asdict(self)
        fields["lost"] = self.lost
        fields["lossless"] = self.lossless
        fields["cuts"] = [asdict(cut) | {"lifetime": cut.lifetime} for cut in self.cuts]
        fields["latency"] = self.latency
        fields["loss_reasons"] = {reason: asdict(losses) for reason, losses in self.loss_reasons.items()}
        # Hundreds of thousands of these may exist; as columns they take a third of the room.
        fields["new_connections"] = {
            "started": [round(item.started, 4) for item in self.new_connections],
            "completed": [round(item.completed, 4) for item in self.new_connections],
            "release": [item.release for item in self.new_connections],
        }
        return fields

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Report:
        """Read what `as_dict` wrote, so that a stored run can be judged again."""
        derived = {"lost", "lossless", "cuts", "latency", "loss_reasons"}
        values = {name: value for name, value in fields.items() if name not in derived}
        values["by_kind"] = {kind: KindTotals(**totals) for kind, totals in fields["by_kind"].items()}
        values["request_losses"] = {
            reason: Losses(losses["count"], [Example(**example) for example in losses["examples"]])
            for reason, losses in fields["request_losses"].items()
        }
        for name in ("connections", "lost_connections"):
            values[name] = [
                Connection(**{**connection, "end": Ending(connection["end"])}) for connection in fields[name]
            ]
        columns = fields["new_connections"]
        values["new_connections"] = [
            NewConnection(*row)
            for row in zip(columns["started"], columns["completed"], columns["release"], strict=True)
        ]
        return cls(**values)

    def summary(self) -> str:
        """Return a table for people, with the verdict as the last line."""
        lines = [f"{'kind':<8}{'sent':>9}{'answered':>10}{'lost':>7}{'p50 ms':>10}{'p95':>9}{'p99':>9}{'max':>9}"]
        for kind, totals in sorted(self.by_kind.items()):
            times = "".join(
                f"{totals.latency.get(name, 0.0):>{width}.1f}"
                for name, width in (("p50", 10), ("p95", 9), ("p99", 9), ("max", 9))
            )
            lines.append(f"{kind:<8}{totals.sent:>9}{totals.answered:>10}{totals.lost:>7}{times}")
        releases = ", ".join(f"{release}: {count}" for release, count in sorted(self.by_release.items()))
        lines += [
            f"answers by release: {releases or 'none'}",
            f"{self.duration:.1f} s, {self.sent / max(self.duration, 1e-9):.0f} requests/s, "
            f"client CPU {self.cpu_share:.0%}, longest gap {self.longest_gap_ms:.0f} ms, "
            f"idle closes {self.idle_closes}, refused streams {self.refused_streams}, cuts {len(self.cuts)}",
        ]
        if self.non_monotonic is not None:
            lines.append(f"answers by an older release after the switch settled: {self.non_monotonic}")
        lines += [f"lost, {reason}: {losses.count}" for reason, losses in sorted(self.loss_reasons.items())]
        if self.audit_error is not None:
            lines.append(f"the writes could not be audited: {self.audit_error}")
        lines.append(f"sent {self.sent}, lost {self.lost}, duplicated {self.duplicated}")
        return "\n".join(lines)


def _excused(cut: Connection, switches: Sequence[Switch], drain: float) -> bool:
    """Only the first switch after the opening counts: from then on the connection was on its way out."""
    first = next((switch.at for switch in switches if switch.at >= cut.opened), None)
    return first is not None and cut.closed >= first + drain


def _backwards(answers: Sequence[NewConnection], switches: Sequence[Switch], settle: float) -> int:
    """Count answers of the old release to requests that began when the new one had long been seen.

    Each switch is judged up to the next one, since a rollback makes the old release right again.
    """
    count = 0
    for index, switch in enumerate(switches):
        until = switches[index + 1].at if index + 1 < len(switches) else float("inf")
        seen = [
            answer.completed
            for answer in answers
            if answer.release == switch.new and switch.at <= answer.completed < until
        ]
        if not seen:
            continue
        settled = max(min(seen) + settle, switch.done)
        count += sum(answer.release == switch.old and settled < answer.started < until for answer in answers)
    return count
