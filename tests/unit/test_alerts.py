"""Every alert rule has a case that fires it and one that does not, and every graph asks for what exists."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from switchyard.report import metrics
from tests import alerts

DASHBOARDS = sorted((alerts.RULES.parent / "dashboards").glob("*.json"))


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(alerts.RULES.read_text())["groups"] for rule in group["rules"]]


def test_every_rule_has_its_cases_and_every_case_its_rule() -> None:
    assert sorted(alerts.names()) == sorted(alerts.CASES)
    document = json.loads(alerts.document("rules.yml"))
    expected = {(name, kind) for name in alerts.names() for kind in ("firing", "silent")}
    assert {tuple(test["name"].split()) for test in document["tests"]} == expected
    for test in document["tests"]:
        (judged,) = test["promql_expr_test"]
        assert bool(judged["exp_samples"]) is test["name"].endswith("firing")


def test_the_two_cases_of_a_rule_differ_in_their_values_alone() -> None:
    for name, case in alerts.CASES.items():
        if name != "TransactionLong":
            assert case.firing.keys() == case.silent.keys(), name


def test_every_rule_says_how_bad_it_is_and_what_to_do() -> None:
    for rule in rules():
        assert rule["labels"]["severity"] in ("warning", "critical"), rule["alert"]
        assert rule["annotations"].keys() == {"summary", "action"}, rule["alert"]


def ours(text: str) -> set[str]:
    return {re.sub("_(bucket|count|sum)$", "", name) for name in re.findall(r"\bswitchyard_\w+", text)}


def test_rules_and_graphs_ask_for_metrics_that_are_written() -> None:
    for path in (alerts.RULES, *DASHBOARDS):
        assert ours(path.read_text()) <= set(metrics._HELP), path.name


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_is_one_that_can_be_provisioned(path: Path) -> None:
    board = json.loads(path.read_text())
    assert board["uid"] and board["title"] and "id" not in board
    numbers = [panel["id"] for panel in board["panels"]]
    assert len(set(numbers)) == len(numbers)
    assert all(target["datasource"]["uid"] == "switchyard" for panel in board["panels"] for target in panel["targets"])
