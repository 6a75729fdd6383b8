"""A stand-in of the part of GitHub's REST API that sets a repository's rules (version 2022-11-28).

It refuses what the published schema of an endpoint refuses (missing or unknown keys, wrong types) with 422, answers in
the shape that GitHub answers in, which is not the shape that it is asked in, and keeps what it was told.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlsplit

Schema = dict[str, tuple[type | tuple[type, ...], bool]]
"""Key to its types and whether it is required."""

_PROTECTION: Schema = {
    "required_status_checks": ((dict, type(None)), True),
    "enforce_admins": ((bool, type(None)), True),
    "required_pull_request_reviews": ((dict, type(None)), True),
    "restrictions": ((dict, type(None)), True),
    "required_linear_history": (bool, False),
    "allow_force_pushes": ((bool, type(None)), False),
    "allow_deletions": (bool, False),
    "block_creations": (bool, False),
    "required_conversation_resolution": (bool, False),
    "lock_branch": (bool, False),
    "allow_fork_syncing": (bool, False),
}
_CHECKS: Schema = {"strict": (bool, True), "contexts": (list, True), "checks": (list, False)}
_REVIEWS: Schema = {
    "dismissal_restrictions": (dict, False),
    "dismiss_stale_reviews": (bool, False),
    "require_code_owner_reviews": (bool, False),
    "required_approving_review_count": (int, False),
    "require_last_push_approval": (bool, False),
    "bypass_pull_request_allowances": (dict, False),
}
_ENVIRONMENT: Schema = {
    "wait_timer": (int, False),
    "prevent_self_review": (bool, False),
    "reviewers": ((list, type(None)), False),
    "deployment_branch_policy": ((dict, type(None)), False),
}
_POLICY: Schema = {"name": (str, True), "type": (str, False)}


class Wrong(Exception):
    """What GitHub answers 422 to."""


def fits(data: Any, schema: Schema, where: str) -> dict[str, Any]:
    """The data, or `Wrong` naming what the schema does not allow."""
    if not isinstance(data, dict):
        raise Wrong(f"{where} is not an object")
    for key, (kinds, required) in schema.items():
        if required and key not in data:
            raise Wrong(f"{where}: {key} was not supplied")
        if key in data and (not isinstance(data[key], kinds) or (kinds is int and isinstance(data[key], bool))):
            raise Wrong(f"{where}: {key} has the wrong type")
    if unknown := set(data) - set(schema):
        raise Wrong(f"{where}: {sorted(unknown)[0]} is not a permitted key")
    return data


class GitHub:
    """One repository, `acme/parcels`, and its API."""

    def __init__(self) -> None:
        self.branches: dict[str, dict[str, Any]] = {}
        self.signed: set[str] = set()
        self.environments: dict[str, dict[str, Any]] = {}
        self.policies: dict[str, dict[int, dict[str, str]]] = {}
        self.calls: list[tuple[str, str]] = []
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        """For GITHUB_API_URL."""
        assert self._server
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        github = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                if self.headers.get("Authorization") == "Bearer weak":
                    code, data = 403, {"message": "Resource not accessible by personal access token"}
                elif self.headers.get("Authorization") != "Bearer right":
                    code, data = 401, {"message": "Bad credentials"}
                else:
                    code, data = github.answer(self.command, unquote(urlsplit(self.path).path), body)
                text = json.dumps(data).encode() if data is not None else b""
                self.send_response(code)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_PUT = do_POST = do_DELETE = _answer

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server
        self._server.shutdown()
        self._server.server_close()

    def changes(self) -> list[tuple[str, str]]:
        """The calls that were not only reading."""
        return [call for call in self.calls if call[0] != "GET"]

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        """What the API answers."""
        self.calls.append((method, path))
        try:
            return self._route(method, path.strip("/").split("/"), body)
        except Wrong as error:
            return 422, {"message": f"Invalid request. {error}"}

    def _route(self, method: str, words: list[str], body: Any) -> tuple[int, Any]:
        match words:
            case ["users", login]:
                return 200, {"login": login, "id": len(login)}
            case ["orgs", "acme", "teams", "release-managers"]:
                return 200, {"slug": "release-managers", "id": 41}
            case ["repos", "acme", "parcels", "branches", branch, "protection", *rest]:
                return self._signatures(method, branch) if rest else self._protection(method, branch, body)
            case ["repos", "acme", "parcels", "environments", name]:
                return self._environment(method, name, body)
            case ["repos", "acme", "parcels", "environments", name, "deployment-branch-policies", *rest]:
                return self._policies(method, name, rest, body)
        return 404, {"message": "Not Found"}

    def _protection(self, method: str, branch: str, body: Any) -> tuple[int, Any]:
        if method == "GET":
            known = self.branches.get(branch)
            return (200, known) if known else (404, {"message": "Branch not protected"})
        asked = fits(body, _PROTECTION, "protection")
        checks = fits(asked["required_status_checks"], _CHECKS, "required_status_checks")
        reviews = fits(asked["required_pull_request_reviews"], _REVIEWS, "required_pull_request_reviews")
        flags = set(_PROTECTION) - {"required_status_checks", "required_pull_request_reviews", "restrictions"}
        self.branches[branch] = {
            "url": "https://api.github.com/...",
            "required_status_checks": {
                **checks,
                "checks": [{"context": c, "app_id": None} for c in checks["contexts"]],
            },
            "required_pull_request_reviews": {"url": "https://api.github.com/...", **reviews},
            **{flag: {"enabled": bool(asked.get(flag))} for flag in flags},
        }
        return 200, self.branches[branch]

    def _signatures(self, method: str, branch: str) -> tuple[int, Any]:
        if branch not in self.branches:
            return 404, {"message": "Branch not protected"}
        if method != "GET":
            (self.signed.add if method == "POST" else self.signed.discard)(branch)
        return 204 if method == "DELETE" else 200, None if method == "DELETE" else {"enabled": branch in self.signed}

    def _environment(self, method: str, name: str, body: Any) -> tuple[int, Any]:
        if method == "GET":
            known = self.environments.get(name)
            return (200, known) if known else (404, {"message": "Not Found"})
        asked = fits(body, _ENVIRONMENT, "environment")
        rules: list[dict[str, Any]] = []
        if asked.get("wait_timer"):
            rules.append({"id": 1, "type": "wait_timer", "wait_timer": asked["wait_timer"]})
        if asked.get("reviewers"):
            named = [{"type": item["type"], "reviewer": {"id": item["id"]}} for item in asked["reviewers"]]
            prevent = asked.get("prevent_self_review", False)
            rules.append({"id": 2, "type": "required_reviewers", "prevent_self_review": prevent, "reviewers": named})
        policy = asked.get("deployment_branch_policy")
        if policy is not None and policy.get("protected_branches") == policy.get("custom_branch_policies"):
            raise Wrong("protected_branches and custom_branch_policies cannot have the same value")
        self.environments[name] = {"name": name, "protection_rules": rules, "deployment_branch_policy": policy}
        return 200, self.environments[name]

    def _policies(self, method: str, name: str, rest: list[str], body: Any) -> tuple[int, Any]:
        if name not in self.environments:
            return 404, {"message": "Not Found"}
        known = self.policies.setdefault(name, {})
        if method == "GET":
            return 200, {"total_count": len(known), "branch_policies": [{"id": i, **p} for i, p in known.items()]}
        if method == "DELETE":
            del known[int(rest[0])]
            return 204, None
        asked = fits(body, _POLICY, "policy")
        known[max(known, default=0) + 1] = {"name": asked["name"], "type": asked.get("type", "branch")}
        return 200, {"id": max(known), **known[max(known)]}
