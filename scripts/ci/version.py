#!/usr/bin/env python3
"""Decides what the build is called: VERSION when given, a tag's own name without its `v`, else branch and commit.

Every version is used once: a branch's builds are told apart by their commits. Output: version.
"""

from __future__ import annotations

import re

from common import JobError, commit, fail, get, output, say, version_of


def version() -> str:
    """The version; raises `JobError` when none can be made."""
    if get("VERSION"):
        return version_of(get("VERSION"))
    kind = get("GITHUB_REF_TYPE") or ("tag" if get("CI_COMMIT_TAG") else "branch")
    name = get("GITHUB_REF_NAME") or get("CI_COMMIT_REF_NAME")
    if kind == "tag":
        return version_of(re.sub(r"^v(?=\d)", "", name))
    if not name or not commit():
        raise JobError("There is neither VERSION nor a branch and a commit to make one of.", 2)
    branch = re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.")[:60] or "branch"
    return version_of(f"{branch}-{commit()[:12]}")


if __name__ == "__main__":
    try:
        chosen = version()
        say(f"version: {chosen}")
        output({"version": chosen})
    except JobError as error:
        fail(error)
