#!/usr/bin/env python3
"""Holds a coverage report (COVERAGE_FILE, as `coverage xml` writes it) against COVERAGE_MINIMUM percent."""

from __future__ import annotations

import re
from pathlib import Path

from common import JobError, fail, get, output, summary, table


def covered(text: str) -> float:
    """Percent of lines; raises `JobError` when the text is no such report. Only its head is read."""
    found = re.search(r"<coverage\b[^>]*\bline-rate=\"([0-9.]+)\"", text[:10_000])
    if not found:
        raise JobError(
            "This is no Cobertura report: write one with 'coverage xml' or 'pytest --cov --cov-report=xml'.", 2
        )
    return float(found[1]) * 100


def main() -> None:
    """Judge, and show; raises `JobError` below the minimum."""
    path, minimum = Path(get("COVERAGE_FILE", "coverage.xml")), float(get("COVERAGE_MINIMUM", "80"))
    if not path.is_file():
        raise JobError(f"{path} is missing, so coverage is not known: let the tests write it.", 2)
    percent = covered(path.read_text(errors="replace"))
    summary(table(("coverage", "minimum"), [(f"{percent:.1f} %", f"{minimum:g} %")]))
    output({"coverage": f"{percent:.1f}"})
    if percent < minimum:
        raise JobError(f"{percent:.1f} % of lines are covered, and {minimum:g} % are asked for.")


if __name__ == "__main__":
    try:
        main()
    except JobError as error:
        fail(error)
