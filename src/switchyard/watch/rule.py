"""Judges a release on probation. Pure: observations go in, a verdict comes out; nothing is read and nothing changed.

Numbers: Argo Rollouts and Flagger judge in windows of about a minute and ask for several bad ones; the least count of
100 comes from the binomial distribution: a service with 1 % of errors shows 6 or more in 100 once in 2,000 windows, one
with 10 % shows them in 94 of 100.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

from switchyard.report.traffic import Tally
from switchyard.request import Slo

Side = Literal["new", "old"]
Kind = Literal["continue", "pass", "revert", "sick", "inconclusive"]

INTERVAL = 5.0
"""Seconds between two evaluations."""
IN_A_ROW = 2
"""Bad evaluations in a row that turn a release back."""
PROBES_IN_A_ROW = 3
"""Failed answers of one probe in a row that turn it back at once."""
BLIND_IN_A_ROW = 4
"""Evaluations in a row without a measurement after which nothing can be said (Argo's `consecutiveErrorLimit`)."""
_AS_BAD = 0.5
"""Beyond the limit, and at this part of the new one's figure, the old release counts as bad as the new one."""


@dataclass(frozen=True)
class Verdict:
    """What to do, and why in one sentence."""

    kind: Kind
    reason: str = ""


_FEWEST_PROBES = 5


@dataclass
class _Probe:
    """The last answers of one probe, from both releases; '' is a good answer."""

    new: deque[str] = field(default_factory=lambda: deque(maxlen=PROBES_IN_A_ROW))
    old: deque[str] = field(default_factory=lambda: deque(maxlen=PROBES_IN_A_ROW))
    old_seconds: deque[float] = field(default_factory=lambda: deque(maxlen=_FEWEST_PROBES))


class Judge:
    """Watches one release: feed it with `request` and `probe`, ask `evaluate` every `INTERVAL` seconds."""

    def __init__(self, slo: Slo, baseline: Mapping[str, Tally] | None = None) -> None:
        self.slo = slo
        self.baseline = dict(baseline or {})
        """What the old release did before the switch, by route ('' is all of them)."""
        self._seconds: dict[int, dict[tuple[Side, str], Tally]] = {}
        self._probes: dict[str, _Probe] = {}
        self._old_probes: deque[tuple[float, bool]] = deque()
        self._bad = 0
        self._blind = 0

    def request(self, at: float, side: Side, *, error: bool, seconds: float, route: str = "") -> None:
        """One request of a user that ended at `at` (seconds since 1970); `route` is a declared route or ''."""
        bucket = self._seconds.setdefault(int(at), {})
        for key in {"", route}:
            tally = bucket.setdefault((side, key), Tally())
            tally.add(500 if error else 200, seconds)

    def probe(self, at: float, name: str, new: str, old: str | None = None, old_seconds: float = 0.0) -> None:
        """One probe of both releases: what was wrong, '' when nothing was; `old` is None where it has no such thing."""
        known = self._probes.setdefault(name, _Probe())
        known.new.append(new)
        if old is not None:
            known.old.append(old)
            known.old_seconds.append(old_seconds)
            self._old_probes.append((at, bool(old)))

    def tally(self, side: Side, route: str = "") -> Tally:
        """What is known of one side in the window that was evaluated last."""
        whole = Tally()
        for bucket in self._seconds.values():
            if found := bucket.get((side, route)):
                whole.merge(found)
        return whole

    def at_once(self) -> Verdict:
        """What needs no evaluation: a probe that failed several times in a row."""
        for name, probe in self._probes.items():
            if len(probe.new) == PROBES_IN_A_ROW and all(probe.new):
                reason = f"{name} failed {PROBES_IN_A_ROW} times in a row: {probe.new[-1]}"
                if len(probe.old) > 1 and sum(map(bool, probe.old)) > 1:
                    return Verdict("sick", f"{reason}; the old release fails it, too ({probe.old[-1]})")
                return Verdict("revert", reason)
        return Verdict("continue")

    def evaluate(self, now: float, *, measured: bool = True) -> Verdict:
        """Judge the window that ends `now`; `measured` tells whether log and edge could be read."""
        self._forget(now - self.slo.window_seconds)
        self._blind = 0 if measured else self._blind + 1
        if self._blind >= BLIND_IN_A_ROW:
            return Verdict("inconclusive", "the edge's log or the edge itself could not be read")
        verdict = self.at_once()
        if verdict.kind != "continue":
            return verdict
        found = self._worst() if measured else Verdict("continue")
        self._bad = self._bad + 1 if found.kind != "continue" else 0
        return found if self._bad >= IN_A_ROW else Verdict("continue", found.reason)

    @property
    def settled(self) -> bool:
        """Whether nothing speaks against an end: the last evaluation could see, was not bad, and probes are well."""
        return (
            not self._bad
            and not self._blind
            and all(probe.new and not probe.new[-1] for probe in self._probes.values())
        )

    def restart(self) -> None:
        """Begin a new step: what was bad in a row starts again, what was seen stays in the window."""
        self._bad = 0

    def _forget(self, before: float) -> None:
        for second in [second for second in self._seconds if second < before]:
            del self._seconds[second]
        while self._old_probes and self._old_probes[0][0] < before:
            self._old_probes.popleft()

    def _worst(self) -> Verdict:
        slo = self.slo
        verdict = self._judge("", slo.requests, slo.error_share, slo.p95_seconds, "")
        for route in slo.routes:
            if verdict.kind != "continue":
                break
            where = f" on {route.path}"
            verdict = self._judge(route.path, route.requests, route.error_share, route.p95_seconds, where)
        return verdict

    def _judge(self, route: str, least: int, share_limit: float, p95_limit: float, where: str) -> Verdict:
        new = self.tally("new", route)
        if new.requests < least:
            return Verdict("continue")
        p95 = new.percentile(0.95)
        if new.errors >= self.slo.errors and new.error_share > share_limit:
            reason = f"{new.error_share:.1%} of {new.requests} requests{where} failed (limit {share_limit:.1%})"
            old = self._old_share(route, least)
            return self._against(reason, new.error_share, share_limit, old, f"{old:.1%}")
        if p95 > p95_limit:
            reason = f"p95 of {new.requests} requests{where} is {p95:.2f} s (limit {p95_limit:.2f} s)"
            slow = self._old_p95(route, least)
            return self._against(reason, p95, p95_limit, slow, f"{slow:.2f} s")
        return Verdict("continue")

    def _against(self, reason: str, new: float, limit: float, old: float, shown: str) -> Verdict:
        """Going back helps only when the old release does better."""
        if old > limit and old >= _AS_BAD * new:
            return Verdict("sick", f"{reason}; the old release is as bad ({shown})")
        return Verdict("revert", reason)

    def _old_share(self, route: str, least: int) -> float:
        """The old release's error share: of the users it has now, else of its probes now or its users before."""
        now = self.tally("old", route)
        if now.requests >= least:
            return now.error_share
        failed = [bad for _, bad in self._old_probes]
        by_probe = sum(failed) / len(failed) if len(failed) >= _FEWEST_PROBES else 0.0
        before = self.baseline.get(route, Tally())
        return max(by_probe, before.error_share if before.requests >= least else 0.0)

    def _old_p95(self, route: str, least: int) -> float:
        now = self.tally("old", route)
        if now.requests >= least:
            return now.percentile(0.95)
        # What it takes just now: a database may have become slow for both a moment ago.
        medians = [median(p.old_seconds) for p in self._probes.values() if len(p.old_seconds) >= _FEWEST_PROBES]
        by_probe = max(medians, default=0.0)
        before = self.baseline.get(route, Tally())
        return max(by_probe, before.percentile(0.95) if before.requests >= least else 0.0)
