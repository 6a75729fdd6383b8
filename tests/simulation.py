"""A fast simulation of releases on probation: traffic and probes, second by second, given to the rule.

What is simulated is what the watch sees, not the watch: the same seeds always give the same traffic.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from switchyard.report.traffic import Tally
from switchyard.request import RouteSlo, Slo
from switchyard.watch.rule import INTERVAL, Judge, Verdict

SLO = Slo(routes=[RouteSlo("/checkout")])
SWITCH = 1_000_000.0

Shape = Callable[[float], float]
"""A figure by the second since the switch."""


def always(value: float) -> Shape:
    """The same figure all the time."""
    return lambda _: value


def since(second: float, value: float, before: float = 0.0) -> Shape:
    """Another figure from one second on."""
    return lambda at: value if at >= second else before


_NEVER, _FAST, _USUAL = always(0.0), always(0.05), always(20.0)


@dataclass(frozen=True)
class Behaviour:
    """How one release behaves."""

    errors: Shape = _NEVER
    """Share of requests that fail."""
    route_errors: Shape = _NEVER
    """The same on the declared route."""
    seconds: Shape = _FAST
    """Median response time."""
    down: Shape = _NEVER
    """1 while health does not answer."""
    probe_errors: Shape | None = None
    """Share of synthetic requests that fail; the one of requests when not given."""


@dataclass(frozen=True)
class Scenario:
    """A release, the one before it, and the traffic."""

    name: str
    new: Behaviour = field(default_factory=Behaviour)
    old: Behaviour = field(default_factory=Behaviour)
    rate: Shape = _USUAL
    """Requests in a second; one in fifty is for the declared route."""
    before: float = 20.0
    """The rate before the switch."""
    length: float = 120.0
    crossed: float = 0.0
    """From this second on, the thresholds are crossed where the release is bad."""


CLEAN = [
    Scenario("clean release"),
    Scenario("1 % errors in both", Behaviour(always(0.01), always(0.01)), Behaviour(always(0.01), always(0.01))),
    Scenario(
        "slow database for both", Behaviour(seconds=since(30, 3.0, 0.05)), Behaviour(seconds=since(30, 3.0, 0.05))
    ),
    Scenario("traffic spike x 5", rate=since(20, 100.0, 20.0)),
    Scenario("deploy at zero traffic", rate=always(0.0), before=0.0),
]
BAD = [
    Scenario("10 % errors", Behaviour(always(0.1), always(0.1))),
    Scenario("3 s answers", Behaviour(seconds=always(3.0))),
    Scenario("crash 30 s after the switch", Behaviour(down=since(30, 1.0)), crossed=30),
    Scenario("failing on one declared route", Behaviour(route_errors=always(1.0)), rate=always(50.0)),
    Scenario("failing only without traffic", Behaviour(probe_errors=always(1.0)), rate=always(0.0), before=0.0),
]


@dataclass(frozen=True)
class Outcome:
    """How it ended, and at which second after the switch."""

    verdict: Verdict
    second: float
    crossed: float | None
    """The first second in which the release was beyond a threshold, as the rule counts."""


def run(scenario: Scenario, seed: int, slo: Slo = SLO) -> Outcome:
    """Play one scenario to its verdict."""
    dice = random.Random(f"{scenario.name}/{seed}")  # noqa: S311 - traffic, not a secret
    judge = Judge(slo, _baseline(scenario, dice))
    crossed: float | None = None
    second = 0.0
    while second < scenario.length or not judge.settled:
        second += 1
        now = SWITCH + second
        _requests(judge, scenario, dice, second)
        _probe(judge, scenario, dice, second)
        if crossed is None and _beyond(judge, slo):
            crossed = second
        verdict = judge.at_once()
        if verdict.kind == "continue" and second % INTERVAL == 0:
            verdict = judge.evaluate(now)
        if verdict.kind != "continue":
            return Outcome(verdict, second, crossed)
        if second > 2 * scenario.length:
            return Outcome(Verdict("inconclusive", "it never settled"), second, crossed)
    return Outcome(Verdict("pass"), second, crossed)


def _beyond(judge: Judge, slo: Slo) -> bool:
    limits = [("", slo.requests, slo.error_share, slo.p95_seconds)]
    limits += [(route.path, route.requests, route.error_share, route.p95_seconds) for route in slo.routes]
    for route, least, share, p95 in limits:
        seen = judge.tally("new", route)
        failing = seen.errors >= slo.errors and seen.error_share > share
        if seen.requests >= least and (failing or seen.percentile(0.95) > p95):
            return True
    return False


def _count(rate: float, dice: random.Random) -> int:
    """Arrivals in one second (Poisson, by its normal approximation for many)."""
    if rate <= 0:
        return 0
    return max(0, round(dice.gauss(rate, rate**0.5)))


def _requests(judge: Judge, scenario: Scenario, dice: random.Random, second: float) -> None:
    new = scenario.new
    down = bool(new.down(second))
    for _ in range(_count(scenario.rate(second), dice)):
        declared = dice.random() < 0.02
        share = max(new.errors(second), new.route_errors(second) if declared else 0.0)
        error = down or dice.random() < share
        seconds = dice.lognormvariate(0, 0.4) * new.seconds(second)
        judge.request(SWITCH + second, "new", error=error, seconds=seconds, route="/checkout" if declared else "")


def _probe(judge: Judge, scenario: Scenario, dice: random.Random, second: float) -> None:
    def asked(release: Behaviour, *, health: bool) -> str:
        if release.down(second):
            return "no answer (Connection refused)"
        share = 0.0 if health else (release.probe_errors or release.errors)(second)
        return "expected 200, got 500" if dice.random() < share else ""

    for name, health in (("health of api", True), ("smoke test GET /", False)):
        old_seconds = 0.002 if health else scenario.old.seconds(second)
        old = asked(scenario.old, health=health)
        judge.probe(SWITCH + second, name, asked(scenario.new, health=health), old, old_seconds)


def _baseline(scenario: Scenario, dice: random.Random) -> dict[str, Tally]:
    """Five minutes of the old release before the switch."""
    whole, route, old = Tally(), Tally(), scenario.old
    for _ in range(_count(scenario.before * 300, dice)):
        declared = dice.random() < 0.02
        share = max(old.errors(0), old.route_errors(0) if declared else 0.0)
        status, seconds = 500 if dice.random() < share else 200, dice.lognormvariate(0, 0.4) * old.seconds(0)
        whole.add(status, seconds)
        if declared:
            route.add(status, seconds)
    return {"": whole, "/checkout": route}
