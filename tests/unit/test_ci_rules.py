"""A repository's rules, set over the API of a stand-in that refuses what GitHub's schema refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pipeline.github import GitHub, Wrong

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "examples" / "github" / "rules.json"
OWNERS = ROOT / "examples" / "github" / "CODEOWNERS"


@pytest.fixture
def github() -> Iterator[GitHub]:
    with GitHub() as github:
        yield github


def apply(
    github: GitHub, *words: str, rules: Path = RULES, repository: str = "acme/parcels", key: str = "right"
) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(ROOT / "scripts" / "ci" / "rules.py"), repository, str(rules), *words]
    environment = {"PATH": os.environ["PATH"], "GITHUB_API_URL": github.url, "GITHUB_TOKEN": key}
    return subprocess.run(argv, check=False, capture_output=True, text=True, timeout=60, env=environment)


def test_a_dry_run_says_everything_and_changes_nothing(github: GitHub) -> None:
    done = apply(github, "--dry-run", "--codeowners", str(OWNERS))
    assert done.returncode == 0, done.stderr
    for words in ("branch main: would change", "environment production: + tag v*.*.*", "to change"):
        assert words in done.stdout
    assert github.changes() == []


def test_rules_are_applied_and_a_second_time_changes_nothing(github: GitHub) -> None:
    done = apply(github)
    assert done.returncode == 0, done.stdout + done.stderr
    main = github.branches["main"]
    assert main["required_pull_request_reviews"]["require_code_owner_reviews"] is True
    assert main["allow_force_pushes"] == {"enabled": False} and main["enforce_admins"] == {"enabled": True}
    (rule,) = github.environments["production"]["protection_rules"]
    assert rule["reviewers"] == [{"type": "Team", "reviewer": {"id": 41}}] and rule["prevent_self_review"]
    assert {(p["type"], p["name"]) for p in github.policies["production"].values()} == {
        ("tag", "v*.*.*"), ("branch", "main"),
    }  # fmt: skip
    before = len(github.changes())
    again = apply(github)
    assert again.stdout.endswith("0 changed\n") and len(github.changes()) == before


def test_what_is_no_longer_allowed_is_removed(github: GitHub, tmp_path: Path) -> None:
    assert apply(github).returncode == 0
    rules = json.loads(RULES.read_text())
    rules["environments"]["production"] |= {"tags": ["v[0-9]*"], "wait_minutes": 5}
    rules["branches"]["main"]["signatures"] = True
    path = tmp_path / "rules.json"
    path.write_text(json.dumps(rules))
    done = apply(github, rules=path)
    assert done.returncode == 0, done.stderr
    assert "- tag v*.*.*" in done.stdout and "+ tag v[0-9]*" in done.stdout
    assert {p["name"] for p in github.policies["production"].values()} == {"v[0-9]*", "main"}
    assert github.signed == {"main"}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"branchs": {}}, "have the keys branches, environments"),
        ({"branches": {"main": {"review": 1}}}, "branches.main.review: unknown key"),
        ({"environments": {"production": {"reviewers": ["team:nobody"]}}}, "GitHub knows no team 'nobody'"),
    ],
)
def test_wrong_rules_are_one_sentence(github: GitHub, tmp_path: Path, change: dict[str, object], sentence: str) -> None:
    path = tmp_path / "rules.json"
    path.write_text(json.dumps(change))
    done = apply(github, rules=path)
    assert done.returncode == 2 and sentence in done.stderr and "Traceback" not in done.stderr
    assert github.changes() == []


def test_a_wrong_token_a_wrong_repository_and_wrong_owners_are_named(github: GitHub, tmp_path: Path) -> None:
    assert "GITHUB_TOKEN is wrong or expired" in apply(github, key="wrong").stderr
    assert "GitHub answers 403 (GITHUB_TOKEN may not administer" in apply(github, key="weak").stderr
    assert "is no OWNER/REPOSITORY" in apply(github, repository="acme").stderr
    elsewhere = apply(github, repository="acme/other")
    assert elsewhere.returncode == 1 and "no such repository" in elsewhere.stderr
    owners = tmp_path / "CODEOWNERS"
    owners.write_text("* nobody\n")
    assert f"{owners}:1: write a pattern" in apply(github, "--codeowners", str(owners)).stderr


def test_the_stand_in_can_refuse(github: GitHub) -> None:
    code, data = github.answer("PUT", "/repos/acme/parcels/branches/main/protection", {"enforce_admins": True})
    assert code == 422 and "was not supplied" in data["message"]
    code, data = github.answer("PUT", "/repos/acme/parcels/environments/x", {"reviewer": []})
    assert code == 422 and "not a permitted key" in data["message"]
    assert issubclass(Wrong, Exception)
