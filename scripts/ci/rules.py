#!/usr/bin/env python3
"""Sets a GitHub repository's rules over its API: who reviews what, which checks must pass, who approves production.

    scripts/ci/rules.py OWNER/REPOSITORY rules.json [--dry-run] [--codeowners PATH]

GITHUB_TOKEN needs administration of the repository; with --dry-run reading is enough, and nothing is changed. Running
it again changes nothing. The file is JSON, see examples/github/rules.json. Endpoints: GitHub's REST API, 2022-11-28.
"""

from __future__ import annotations

import argparse
import difflib
import http.client
import json
import re
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from common import JobError, fail, get, need

_VERSION = "2022-11-28"
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9._-]+", re.ASCII)
_KEYS = {"branches", "environments"}
_BRANCH = {"checks", "reviews", "code_owners", "linear", "signatures"}
_ENVIRONMENT = {"reviewers", "branches", "tags", "prevent_self_review", "wait_minutes"}


@dataclass(frozen=True)
class Api:
    """GitHub's API for one repository."""

    repository: str
    url: str
    token: str
    dry_run: bool

    def call(self, method: str, path: str, body: object = None) -> Any:
        """One request; returns its document, None for 404 and empty answers. Raises `JobError` for the rest."""
        request = urllib.request.Request(  # noqa: S310 - http(s) was checked
            f"{self.url}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Accept": "application/vnd.github+json",
                "Authorization": f"Bearer {self.token}",
                "X-GitHub-Api-Version": _VERSION,
                "Content-Type": "application/json",
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - the same request
                text = answer.read()
        except urllib.error.HTTPError as error:
            if error.code == 404 and method == "GET":
                return None
            raise JobError(_excuse(method, path, error)) from error
        except (OSError, http.client.HTTPException) as error:
            raise JobError(f"{self.url} does not answer: {getattr(error, 'reason', error)}.") from error
        return json.loads(text) if text else None


def _excuse(method: str, path: str, error: urllib.error.HTTPError) -> str:
    try:
        reason = json.loads(error.read()).get("message", "")
    except (ValueError, AttributeError):
        reason = ""
    hints = {401: "GITHUB_TOKEN is wrong or expired", 403: "GITHUB_TOKEN may not administer this repository"}
    hints[404] = "there is no such repository, or GITHUB_TOKEN does not see it"
    return f"{method} {path}: GitHub answers {error.code} ({hints.get(error.code) or reason or 'no reason given'})."


def protection(rules: dict[str, Any]) -> dict[str, Any]:
    """The document of 'Update branch protection' for one branch."""
    return {
        "required_status_checks": {"strict": True, "contexts": sorted(rules.get("checks", []))},
        "enforce_admins": True,
        "required_pull_request_reviews": {
            "dismiss_stale_reviews": True,
            "require_code_owner_reviews": bool(rules.get("code_owners", True)),
            "required_approving_review_count": int(rules.get("reviews", 1)),
        },
        "restrictions": None,
        "required_linear_history": bool(rules.get("linear", False)),
        "allow_force_pushes": False,
        "allow_deletions": False,
        "required_conversation_resolution": True,
    }


def seen_protection(answer: dict[str, Any] | None) -> dict[str, Any]:
    """What 'Get branch protection' answers, in the form of `protection`, so that the two can be compared."""
    if not answer:
        return {}
    checks, reviews = answer.get("required_status_checks") or {}, answer.get("required_pull_request_reviews") or {}

    def on(key: str) -> bool:
        return bool((answer.get(key) or {}).get("enabled"))

    return {
        "required_status_checks": {
            "strict": bool(checks.get("strict")),
            "contexts": sorted(checks.get("contexts", [])),
        },
        "enforce_admins": on("enforce_admins"),
        "required_pull_request_reviews": {
            "dismiss_stale_reviews": bool(reviews.get("dismiss_stale_reviews")),
            "require_code_owner_reviews": bool(reviews.get("require_code_owner_reviews")),
            "required_approving_review_count": int(reviews.get("required_approving_review_count", 0)),
        },
        "restrictions": answer.get("restrictions"),
        "required_linear_history": on("required_linear_history"),
        "allow_force_pushes": on("allow_force_pushes"),
        "allow_deletions": on("allow_deletions"),
        "required_conversation_resolution": on("required_conversation_resolution"),
    }


def environment(api: Api, rules: dict[str, Any]) -> dict[str, Any]:
    """The document of 'Create or update an environment'; names of reviewers become their ids."""
    reviewers = []
    for name in rules.get("reviewers", []):
        kind, _, login = name.rpartition(":")
        owner = api.repository.partition("/")[0]
        path = f"/orgs/{owner}/teams/{quote(login)}" if kind == "team" else f"/users/{quote(login)}"
        found = api.call("GET", path)
        if found is None:
            raise JobError(f"environments: GitHub knows no {kind or 'user'} '{login}'.", 2)
        reviewers.append({"type": "Team" if kind == "team" else "User", "id": found["id"]})
    return {
        "wait_timer": int(rules.get("wait_minutes", 0)),
        "prevent_self_review": bool(rules.get("prevent_self_review", False)),
        "reviewers": sorted(reviewers, key=lambda item: (item["type"], item["id"])),
        "deployment_branch_policy": {"protected_branches": False, "custom_branch_policies": True},
    }


def seen_environment(answer: dict[str, Any] | None) -> dict[str, Any]:
    """What 'Get an environment' answers, in the form of `environment`."""
    if not answer:
        return {}
    by_type = {rule["type"]: rule for rule in answer.get("protection_rules", [])}
    required = by_type.get("required_reviewers", {})
    reviewers = [{"type": item["type"], "id": item["reviewer"]["id"]} for item in required.get("reviewers", [])]
    return {
        "wait_timer": int(by_type.get("wait_timer", {}).get("wait_timer", 0)),
        "prevent_self_review": bool(required.get("prevent_self_review", False)),
        "reviewers": sorted(reviewers, key=lambda item: (item["type"], item["id"])),
        "deployment_branch_policy": answer.get("deployment_branch_policy"),
    }


def apply(api: Api, rules: dict[str, Any]) -> int:
    """Make the repository's rules these; returns how many things were, or would be, changed."""
    changes = 0
    for branch, wanted in rules.get("branches", {}).items():
        path = f"/repos/{api.repository}/branches/{quote(branch, safe='')}/protection"
        changes += _put(api, path, seen_protection(api.call("GET", path)), protection(wanted), f"branch {branch}")
        changes += _signatures(api, path, branch, bool(wanted.get("signatures", False)))
    for name, wanted in rules.get("environments", {}).items():
        path = f"/repos/{api.repository}/environments/{quote(name, safe='')}"
        document = environment(api, wanted)
        changes += _put(api, path, seen_environment(api.call("GET", path)), document, f"environment {name}")
        changes += _policies(api, path, name, wanted)
    return changes


def _put(api: Api, path: str, seen: dict[str, Any], wanted: dict[str, Any], what: str) -> int:
    if seen == wanted:
        print(f"{what}: as wanted")
        return 0
    before, after = (json.dumps(item, indent=1, sort_keys=True).splitlines() for item in (seen, wanted))
    print(f"{what}: {'would change' if api.dry_run else 'changes'}")
    print("\n".join(f"  {line}" for line in difflib.unified_diff(before, after, lineterm="", n=1)))
    if not api.dry_run:
        api.call("PUT", path, wanted)
    return 1


def _signatures(api: Api, path: str, branch: str, wanted: bool) -> int:
    seen = bool((api.call("GET", f"{path}/required_signatures") or {}).get("enabled"))
    if seen == wanted:
        return 0
    print(f"branch {branch}: signed commits: {'required' if wanted else 'not required'}")
    if not api.dry_run:
        api.call("POST" if wanted else "DELETE", f"{path}/required_signatures")
    return 1


def _policies(api: Api, path: str, name: str, rules: dict[str, Any]) -> int:
    """Which branches and tags may release to an environment: those that are named, and no other."""
    wanted = {("branch", pattern) for pattern in rules.get("branches", [])}
    wanted |= {("tag", pattern) for pattern in rules.get("tags", [])}
    answer = api.call("GET", f"{path}/deployment-branch-policies?per_page=100") or {}
    seen = {(item.get("type", "branch"), item["name"]): item["id"] for item in answer.get("branch_policies", [])}
    for kind, pattern in sorted(wanted - set(seen)):
        print(f"environment {name}: + {kind} {pattern}")
        if not api.dry_run:
            api.call("POST", f"{path}/deployment-branch-policies", {"name": pattern, "type": kind})
    for kind, pattern in sorted(set(seen) - wanted):
        print(f"environment {name}: - {kind} {pattern}")
        if not api.dry_run:
            api.call("DELETE", f"{path}/deployment-branch-policies/{seen[kind, pattern]}")
    return len(wanted ^ set(seen))


def check_rules(data: Any) -> dict[str, Any]:
    """The rules file, or a `JobError` that names the key that nobody knows."""
    if not isinstance(data, dict) or not set(data) <= _KEYS:
        raise JobError(f"The rules have the keys {', '.join(sorted(_KEYS))}, and no other.", 2)
    for part, known in (("branches", _BRANCH), ("environments", _ENVIRONMENT)):
        for name, rules in data.get(part, {}).items():
            unknown = sorted(set(rules) - known)
            if unknown:
                raise JobError(f"{part}.{name}.{unknown[0]}: unknown key; there are {', '.join(sorted(known))}.", 2)
    return data


def check_owners(path: Path) -> None:
    """Every line of CODEOWNERS names a pattern and who owns it; a `JobError` names the line that does not."""
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        words = line.partition("#")[0].split()
        if words and (len(words) < 2 or not all(word.startswith("@") or "@" in word[1:] for word in words[1:])):
            raise JobError(f"{path}:{number}: write a pattern and its owners, such as: /db/ @your-org/dba", 2)


def main() -> None:
    """Read the rules and apply them; raises `JobError` when something is refused."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("repository", metavar="OWNER/REPOSITORY")
    parser.add_argument("rules", type=Path)
    parser.add_argument("--dry-run", action="store_true", help="say what would change, change nothing")
    parser.add_argument("--codeowners", type=Path, help="check this file's form first")
    arguments = parser.parse_args()
    if not _REPOSITORY.fullmatch(arguments.repository):
        raise JobError(f"'{arguments.repository[:80]}' is no OWNER/REPOSITORY.", 2)
    try:
        rules = check_rules(json.loads(arguments.rules.read_text()))
    except (OSError, ValueError) as error:
        raise JobError(f"{arguments.rules} cannot be read: {error}.", 2) from error
    if arguments.codeowners:
        check_owners(arguments.codeowners)
    url = get("GITHUB_API_URL", "https://api.github.com").rstrip("/")
    if not url.startswith(("https://", "http://")):
        raise JobError("GITHUB_API_URL is no http(s) address.", 2)
    api = Api(arguments.repository, url, need("GITHUB_TOKEN"), arguments.dry_run)
    changes = apply(api, rules)
    print(f"{changes} {'to change' if arguments.dry_run else 'changed'}")


if __name__ == "__main__":
    try:
        main()
    except JobError as error:
        fail(error)
    except KeyboardInterrupt:
        sys.exit(130)
