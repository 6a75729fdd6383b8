#!/usr/bin/env python3
"""Looks for secrets in files before they are committed: secret_scan.py [FILE...]; without files, all that Git knows.

detect-secrets does the finding. Ours are the rules about what is let pass: an entry in `.secrets-allowed.yml`, with a
reason, for one value in one file; an entry that allows nothing any more is a mistake as well. Exit code 1 on either.
"""

import hashlib
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import yaml
from detect_secrets.core.scan import scan_file
from detect_secrets.settings import default_settings

ALLOWED = ".secrets-allowed.yml"
_SKIPPED = re.compile(rf"requirements/.*\.txt|{re.escape(ALLOWED)}|.*\.(png|svg|ico|woff2?)")
"""Pinned hashes, hashes of what is allowed, and pictures."""

_CLEAR = "vault value in clear"
_OURS = {
    "age secret key": re.compile(r"AGE-SECRET-KEY-1[0-9A-Z]{58}"),
    "cosign private key": re.compile(r"BEGIN ENCRYPTED (?:COSIGN|SIGSTORE) PRIVATE KEY"),
    # What a vault holds does not lie around in clear; an example has empty values.
    _CLEAR: re.compile(r"^\s*vault_[a-z0-9_]+:\s*(?!\s|\"\"|''|\"?\{\{|!vault|$)\S+"),
}
_MINIMUM_REASON = 12


@dataclass(frozen=True)
class Found:
    """One value that looks like a secret; the value itself is never shown."""

    file: str
    line: int
    kind: str
    print: str
    """The beginning of its SHA-256, to allow it by."""


def scan(file: str) -> list[Found]:
    """Everything in one file that looks like a secret."""
    found = {(s.line_number, s.type, s.secret_value or "") for s in scan_file(file)}
    # Words such as password="..." in Python are the business of ruff (S105 to S107), which knows strings from names; in
    # prose they are what a document is about.
    found = {f for f in found if not (f[1] == "Secret Keyword" and file.endswith((".py", ".md")))}
    lines = Path(file).read_text(errors="replace").splitlines()
    # `JWT_SECRET_KEY: JWT_SECRET_KEY` in an inventory names a secret, and is none.
    found = {f for f in found if not (f[1] == "Secret Keyword" and _names_itself(f[2], lines[f[0] - 1]))}
    for number, line in enumerate(lines, start=1):
        for kind, rule in _OURS.items():
            if (match := rule.search(line)) and not (kind == _CLEAR and file.endswith(".py")):
                found.add((number, kind, match[0]))
    return [
        Found(file, line, kind, hashlib.sha256(value.encode()).hexdigest()[:16]) for line, kind, value in sorted(found)
    ]


def _names_itself(value: str, line: str) -> bool:
    """Whether a key has its own name as its value."""
    return bool(value) and re.search(rf"(?<!\w){re.escape(value)}: {re.escape(value)}(?!\w)", line) is not None


def _scan_some(files: list[str]) -> list[Found]:
    with default_settings():
        return [found for file in files for found in scan(file)]


def scan_all(files: Iterable[str]) -> list[Found]:
    """Scan files side by side, in their order."""
    wanted = [file for file in files if not _SKIPPED.fullmatch(file) and Path(file).is_file()]
    parts = [wanted[start::4] for start in range(4)]
    with ProcessPoolExecutor(2) as pool:
        return sorted((f for part in pool.map(_scan_some, parts) for f in part), key=lambda f: (f.file, f.line))


def judge(found: Iterable[Found], allowed: list[dict[str, str]], *, whole: bool) -> Iterator[str]:
    """Say what is wrong; `whole` tells whether every file was scanned, so that a stale entry shows."""
    for entry in allowed:
        if len(str(entry.get("reason", "")).strip()) < _MINIMUM_REASON:
            yield f"{ALLOWED}: the entry for {entry.get('file')} has no reason."
    passes = {(entry["file"], entry["print"]) for entry in allowed}
    met = set()
    for one in found:
        met.add((one.file, one.print))
        if (one.file, one.print) not in passes:
            yield f"{one.file}:{one.line}: {one.kind} (print {one.print})"
    for file, value in sorted(passes - met if whole else ()):
        yield f"{ALLOWED}: {value} is not in {file} any more: remove the entry."


def main(arguments: list[str]) -> int:
    """Scan, and print what was found."""
    listed = subprocess.run(["git", "ls-files", "-z"], check=True, capture_output=True, text=True).stdout.split("\0")
    path = Path(ALLOWED)
    allowed = (yaml.safe_load(path.read_text()) if path.is_file() else None) or []
    problems = list(judge(scan_all(arguments or filter(None, listed)), allowed, whole=not arguments))
    if problems:
        print("\n".join(problems))
        print("A real secret: take it out and rotate it, it is known from now on (docs/runbook.md, 'A key leaked').")
        print(f"None: add file, print and reason to {ALLOWED}.")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
