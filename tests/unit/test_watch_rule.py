"""The rule: bad releases go back in time, and good ones never do. Fifty seeded runs of each."""

from __future__ import annotations

import pytest

from switchyard.report.traffic import Tally
from switchyard.request import RouteSlo, Slo
from switchyard.watch.rule import BLIND_IN_A_ROW, Judge
from tests.simulation import BAD, CLEAN, Scenario, run

SEEDS = range(50)
WITHIN = 15.0


@pytest.mark.parametrize("scenario", CLEAN, ids=lambda s: s.name)
def test_nothing_is_reverted_wrongly(scenario: Scenario) -> None:
    for seed in SEEDS:
        outcome = run(scenario, seed)
        assert outcome.verdict.kind in ("pass", "sick"), (seed, outcome)
        assert outcome.verdict.kind == "pass" or "database" in scenario.name, (seed, outcome)


@pytest.mark.parametrize("scenario", BAD, ids=lambda s: s.name)
def test_what_is_bad_goes_back_in_time(scenario: Scenario) -> None:
    for seed in SEEDS:
        outcome = run(scenario, seed)
        assert outcome.verdict.kind == "revert", (seed, outcome)
        crossed = scenario.crossed if outcome.crossed is None else max(outcome.crossed, scenario.crossed)
        assert outcome.second - crossed <= WITHIN, (seed, outcome)


def test_what_the_old_release_does_as_badly_is_the_dependencys_fault() -> None:
    judge = Judge(Slo(), {"": Tally(1000, 80, slots={40: 1000})})
    for evaluation in (5.0, 10.0):
        for _ in range(100):
            judge.request(evaluation, "new", error=_ % 11 == 0, seconds=0.01)
        verdict = judge.evaluate(evaluation)
    assert verdict.kind == "sick" and "the old release is as bad (8.0%)" in verdict.reason


def test_users_of_the_old_release_now_outweigh_what_it_did_before() -> None:
    judge = Judge(Slo(), {"": Tally(1000, 80, slots={40: 1000})})
    for evaluation in (5.0, 10.0):
        for number in range(100):
            judge.request(evaluation, "new", error=number % 11 == 0, seconds=0.01)
            judge.request(evaluation, "old", error=False, seconds=0.01)
        verdict = judge.evaluate(evaluation)
    assert verdict.kind == "revert"


def test_one_bad_evaluation_is_not_enough_and_99_requests_are_too_few() -> None:
    judge = Judge(Slo())
    for _ in range(99):
        judge.request(1.0, "new", error=True, seconds=0.01)
    assert judge.evaluate(5.0).kind == "continue"
    assert judge.evaluate(10.0).kind == "continue"
    judge.request(11.0, "new", error=True, seconds=0.01)
    assert judge.evaluate(15.0).kind == "continue"
    assert judge.evaluate(20.0).kind == "revert"


def test_a_declared_route_has_limits_of_its_own() -> None:
    judge = Judge(Slo(routes=[RouteSlo("/pay", requests=10)]))
    for evaluation in (5.0, 10.0):
        for number in range(1000):
            judge.request(evaluation, "new", error=number < 12, seconds=0.01, route="/pay" if number < 12 else "")
        verdict = judge.evaluate(evaluation)
    assert verdict.kind == "revert" and "on /pay" in verdict.reason


def test_who_cannot_see_says_so() -> None:
    judge = Judge(Slo())
    verdicts = [judge.evaluate(5.0 * n, measured=False).kind for n in range(1, BLIND_IN_A_ROW + 1)]
    assert verdicts == ["continue"] * (BLIND_IN_A_ROW - 1) + ["inconclusive"]


def test_three_failed_probes_in_a_row_need_no_evaluation() -> None:
    judge = Judge(Slo())
    for second in (1.0, 2.0):
        judge.probe(second, "health", "refused")
        assert judge.at_once().kind == "continue"
    judge.probe(3.0, "health", "refused")
    assert judge.at_once().kind == "revert"


def test_a_probe_that_both_fail_is_nobodys_rollback() -> None:
    judge = Judge(Slo())
    for second in (1.0, 2.0, 3.0):
        judge.probe(second, "smoke", "500", old="500")
    assert judge.at_once().kind == "sick"


def test_nothing_ends_well_before_a_probe_was_answered() -> None:
    judge = Judge(Slo())
    judge.probe(1.0, "health", "")
    assert judge.settled
    judge.probe(2.0, "health", "refused")
    assert not judge.settled
