"""The running account: every attempt that is begun gets exactly one end."""

from __future__ import annotations

import time
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from tests.load.report import Connection, Example, KindTotals, Losses, NewConnection, Snapshot
from tests.load.wire import Lost, Wire


class Attempt:
    """One request from the decision to send it to its one end."""

    __slots__ = ("_received", "_sent", "_wire", "kind", "open", "started")

    def __init__(self, kind: str, wire: Wire | None) -> None:
        self.kind = kind
        self.started = time.monotonic()
        self.open = True
        self.on(wire)

    def on(self, wire: Wire | None) -> None:
        """Note the connection it goes over, and what that has carried before."""
        self._wire = wire
        self._sent = wire.sent if wire else 0
        self._received = wire.received if wire else 0

    def example(self) -> Example:
        """Describe it as a loss that happens now."""
        now, wire = time.monotonic(), self._wire
        if wire is None:
            return Example(now, self.kind, None, 0, 0)
        return Example(now, self.kind, now - wire.opened, wire.sent - self._sent, wire.received - self._received)


class Tally:
    """Counts; compact, because a run may have millions of requests."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.sent = self.answered = self.lost = self.refused_streams = self.idle_closes = self.echoes = 0
        self.by_release: Counter[str] = Counter()
        self.losses: dict[str, Losses] = {}
        self.connections: list[Connection] = []
        self.assets: dict[str, set[str]] = defaultdict(set)
        self.new_connections: list[NewConnection] = []
        self.longest_gap = 0.0
        self._sent: Counter[str] = Counter()
        self._lost: Counter[str] = Counter()
        self._releases: dict[str, Counter[str]] = defaultdict(Counter)
        self._latency: dict[str, array[float]] = defaultdict(lambda: array("f"))
        self._last_answer = self.started
        self._issuing = True

    @contextmanager
    def attempt(self, kind: str, wire: Wire | None = None) -> Iterator[Attempt]:
        """Account for one request: `Lost` is a loss, and so is any way out without `answer`."""
        attempt = Attempt(kind, wire)
        self.sent += 1
        self._sent[kind] += 1
        try:
            yield attempt
        except Lost as verdict:
            self._lose(attempt, str(verdict))
            raise
        finally:
            self._lose(attempt, "no complete answer before the end of the run")

    def answer(self, attempt: Attempt, release: str) -> None:
        """End an attempt well."""
        now = time.monotonic()
        attempt.open = False
        kind = attempt.kind
        self.answered += 1
        self.by_release[release] += 1
        self._releases[kind][release] += 1
        self._latency[kind].append((now - attempt.started) * 1000)
        if self._issuing:
            self.longest_gap = max(self.longest_gap, now - self._last_answer)
            self._last_answer = now
        if kind == "new":
            self.new_connections.append(NewConnection(attempt.started, now, release))

    def stop_issuing(self) -> None:
        """End the time in which a gap between answers is of interest."""
        if self._issuing:
            self.longest_gap = max(self.longest_gap, time.monotonic() - self._last_answer)
            self._issuing = False

    def snapshot(self) -> Snapshot:
        """Return the totals so far."""
        return Snapshot(
            elapsed=time.monotonic() - self.started,
            sent=self.sent,
            answered=self.answered,
            lost=self.lost,
            refused_streams=self.refused_streams,
            by_release=dict(self.by_release),
            finished=not self._issuing,
        )

    def by_kind(self) -> dict[str, KindTotals]:
        """Return the totals of each kind that sent anything."""
        return {
            kind: KindTotals(
                sent=sent,
                answered=self._releases[kind].total(),
                lost=self._lost[kind],
                by_release=dict(self._releases[kind]),
                latency=_percentiles(self._latency[kind]),
            )
            for kind, sent in self._sent.items()
        }

    def _lose(self, attempt: Attempt, reason: str) -> None:
        if attempt.open:
            attempt.open = False
            self.lost += 1
            self._lost[attempt.kind] += 1
            self.losses.setdefault(reason, Losses()).add(attempt.example())


def _percentiles(times: array[float]) -> dict[str, float]:
    if not times:
        return {}
    ordered = sorted(times)
    last = len(ordered) - 1
    found = {name: ordered[round(last * share)] for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))}
    return {name: round(value, 3) for name, value in (found | {"max": ordered[last]}).items()}
