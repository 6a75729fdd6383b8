#!/usr/bin/env python3
"""Asks the released application from outside, as users do: SMOKE_URLS, one per line, each `URL [STATUS] [TEXT]`.

Each must answer STATUS (default 200) and contain TEXT within SMOKE_SECONDS (default 30), and name VERSION in the header
that SMOKE_RELEASE_HEADER names, when it is set.

Then SMOKE_PAGES, one per line, each `URL [TEXT]`, are opened in a browser without a window: SMOKE_BROWSER, a Chromium
(default: chromium). Each must load, show TEXT, and have neither an error in its console nor a request that fails.
"""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

from browser import Browser
from common import JobError, fail, get, seconds, summary, table


@dataclass(frozen=True)
class Check:
    """One address and what it has to answer."""

    url: str
    status: int = 200
    text: str = ""

    @classmethod
    def parse(cls, line: str) -> Check:
        """Read a line; raises `JobError` when it is none."""
        url, _, rest = line.strip().partition(" ")
        if not url.startswith(("http://", "https://")):
            raise JobError(f"SMOKE_URLS: '{url[:80]}' is no http(s) address.", 2)
        word, _, text = rest.strip().partition(" ")
        return cls(url, int(word), text.strip()) if word.isdigit() else cls(url, 200, rest.strip())


def _opened(url: str) -> Any:
    """The answer, whatever its status."""
    try:
        return urllib.request.urlopen(url, timeout=10)  # noqa: S310 - `Check.parse` refused all but http:// and https://
    except urllib.error.HTTPError as error:
        return error


def ask(check: Check) -> str:
    """Ask once; returns what is wrong, or nothing."""
    try:
        with _opened(check.url) as answer:
            status, headers, body = answer.status, answer.headers, answer.read(1 << 20).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        # An answer that was cut short is none, and is asked for again.
        return f"does not answer ({getattr(error, 'reason', '') or error})"
    header, version = get("SMOKE_RELEASE_HEADER"), get("VERSION")
    if status != check.status:
        return f"answers {status}, not {check.status}"
    if check.text and check.text not in body:
        return f"does not contain '{check.text}'"
    if header and headers.get(header, "") != version:
        return f"is answered by {headers.get(header) or 'nobody who says so'}, not {version}"
    return ""


def pages() -> list[tuple[str, str]]:
    """The pages to open, each with what it has to show; raises `JobError` for a line that is none."""
    found = []
    for line in filter(str.strip, get("SMOKE_PAGES").splitlines()):
        url, _, text = line.strip().partition(" ")
        if not url.startswith(("http://", "https://")):
            raise JobError(f"SMOKE_PAGES: '{url[:80]}' is no http(s) address.", 2)
        found.append((url, text.strip()))
    return found


def open_pages(wanted: list[tuple[str, str]]) -> None:
    """Open every page; raises `JobError` naming the first one that is wrong."""
    with Browser(get("SMOKE_BROWSER", "chromium")) as browser:
        wrong = {url: browser.look(url, text) for url, text in wanted}
    rows = [(url, "; ".join(reasons) or "well") for url, reasons in wrong.items()]
    summary(f"### Pages in a browser\n\n{table(('page', 'what it did'), rows)}")
    for url, reasons in wrong.items():
        if reasons:
            more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
            raise JobError(f"{url} {reasons[0]}{more}.")


def main() -> None:
    """Ask until every address answers well; raises `JobError` naming the first that does not."""
    wanted = pages()
    checks = [Check.parse(line) for line in get("SMOKE_URLS").splitlines() if line.strip()]
    deadline = time.monotonic() + seconds("SMOKE_SECONDS", 30)
    wrong = {check: ask(check) for check in checks}
    while any(wrong.values()) and time.monotonic() < deadline:
        time.sleep(1)
        wrong = {check: ask(check) if reason else "" for check, reason in wrong.items()}
    if checks:
        rows = [(check.url, reason or "well") for check, reason in wrong.items()]
        summary(f"### Smoke tests from outside\n\n{table(('address', 'answer'), rows)}")
    for check, reason in wrong.items():
        if reason:
            raise JobError(f"{check.url} {reason}.")
    if wanted:
        open_pages(wanted)


if __name__ == "__main__":
    try:
        main()
    except JobError as error:
        fail(error)
