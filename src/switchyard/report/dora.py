"""The four DORA figures and the mean time between failures, computed from the ledger alone.

Definitions follow DORA's own (dora.dev, "DORA's software delivery metrics"), with what a ledger can know:

- a *deployment* is a release that a deploy made live, proven on new connections; "no change" is none;
- *lead time* runs from the commit (as the deploy named it) to that proof;
- a *failed change* is a deployment that had to be taken back: by its probation, or by a person's rollback;
- *time to recovery* runs from the proof of the failed release to the proof of the one that replaced it;
- *time between failures* is the time with a good release live, divided by the failures.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from statistics import median
from typing import Any

from switchyard.report.story import Event, Stay, stays


@dataclass(frozen=True)
class Dora:
    """The figures of one period; None where there is nothing to compute from."""

    since: str
    until: str
    deployments: int
    deployments_per_day: float
    lead_time_seconds: float | None
    """Median over the deployments that named their commit's time."""
    failures: int
    change_failure_rate: float | None
    recovery_seconds: float | None
    """Mean over the failures that ended."""
    between_failures_seconds: float | None


def _deployed(stay: Stay) -> bool:
    return stay.kind == "deploy"


def _failed(stay: Stay) -> bool:
    return stay.verdict != "good"


def compute(events: Sequence[Event], since: datetime, until: datetime) -> Dora:
    """The figures from `since` to `until`; deployments and failures count by when the release went live."""
    everything = stays(events)
    inside = [stay for stay in everything if since <= stay.since < until]
    deployed = [stay for stay in inside if _deployed(stay)]
    failed = [stay for stay in deployed if _failed(stay)]
    leads = [(stay.since - stay.committed).total_seconds() for stay in deployed if stay.committed]
    recoveries = [(stay.until - stay.since).total_seconds() for stay in failed if stay.until]
    first = min((stay.since for stay in everything), default=until)
    observed = max(timedelta(0), until - max(since, first))
    days = observed / timedelta(days=1)
    good = observed.total_seconds() - sum(recoveries)
    return Dora(
        since.isoformat(timespec="seconds"),
        until.isoformat(timespec="seconds"),
        len(deployed),
        # Of less than a day no rate per day can be told.
        round(len(deployed) / max(days, 1.0), 3),
        round(median(leads), 1) if leads else None,
        len(failed),
        round(len(failed) / len(deployed), 4) if deployed else None,
        round(sum(recoveries) / len(recoveries), 1) if recoveries else None,
        round(good / len(failed), 1) if failed else None,
    )


def as_json(figures: Dora) -> dict[str, Any]:
    """The figures as one JSON object."""
    return asdict(figures)


def duration(seconds: float | None) -> str:
    """A time for people, in the unit that fits."""
    if seconds is None:
        return "-"
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def text(figures: Dora) -> str:
    """The figures for a person."""
    rate = "-" if figures.change_failure_rate is None else f"{figures.change_failure_rate:.0%}"
    return "\n".join(
        [
            f"{figures.since[:10]} to {figures.until[:10]}",
            f"  deployment frequency   {figures.deployments_per_day:g} a day ({figures.deployments} deployments)",
            f"  lead time              {duration(figures.lead_time_seconds)} from commit to live, median",
            f"  change failure rate    {rate} ({figures.failures} taken back)",
            f"  time to recovery       {duration(figures.recovery_seconds)}, mean",
            f"  time between failures  {duration(figures.between_failures_seconds)}, mean",
        ]
    )
