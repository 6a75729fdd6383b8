#!/usr/bin/env python3
"""A short load by Locust (LOCUST_FILE against TARGET_URL), held against P95_MS and ERROR_PERCENT.

LOCUST_USERS and LOCUST_SECONDS say how much. The defaults of the limits are those of the requirements: 500 ms, 1 %.
The application, started a step before, has START_SECONDS (default 30) to answer at all.
"""

from __future__ import annotations

import csv
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from common import JobError, fail, get, need, private_folder, seconds, summary, table


def wait_for(target: str, limit: float) -> None:
    """Wait until somebody answers, whatever it is; raises `JobError` when nobody does within `limit` seconds."""
    deadline = time.monotonic() + limit
    while True:
        try:
            urllib.request.urlopen(target, timeout=5).close()  # noqa: S310 - http(s) was checked
        except urllib.error.HTTPError:
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise JobError(
                    f"{target} does not answer after {limit:g} s ({getattr(error, 'reason', error)}).", 2
                ) from error
            time.sleep(0.5)
        else:
            return


def judge(rows: list[dict[str, str]]) -> tuple[float, float, int]:
    """p95 in ms, percent of failures, requests; raises `JobError` when Locust counted nothing."""
    total = next((row for row in rows if row.get("Name") == "Aggregated"), None)
    if total is None or not int(total["Request Count"]):
        raise JobError("Locust sent no request: see above.", 2)
    count = int(total["Request Count"])
    return float(total["95%"]), 100 * int(total["Failure Count"]) / count, count


def main() -> None:
    """Load, judge, show; raises `JobError` when a limit is passed."""
    target = need("TARGET_URL")
    if not target.startswith(("http://", "https://")):
        raise JobError("TARGET_URL is no http(s) address.", 2)
    wait_for(target, seconds("START_SECONDS", 30))
    limit, errors = float(get("P95_MS", "500")), float(get("ERROR_PERCENT", "1"))
    with private_folder() as folder:
        argv = [
            "locust", "--headless", "--only-summary", "--exit-code-on-error", "0", "--locustfile", need("LOCUST_FILE"),
            "--host", target, "--users", get("LOCUST_USERS", "10"), "--spawn-rate", get("LOCUST_USERS", "10"),
            "--run-time", f"{get('LOCUST_SECONDS', '30')}s", "--csv", str(folder / "load"),
        ]  # fmt: skip
        subprocess.run(argv, check=False)
        path = Path(f"{folder}/load_stats.csv")
        rows = list(csv.DictReader(path.read_text().splitlines())) if path.is_file() else []
    p95, failed, count = judge(rows)
    summary(table(("requests", "p95", "failed"), [(count, f"{p95:.0f} ms", f"{failed:.2f} %")]))
    if p95 > limit or failed > errors:
        raise JobError(f"p95 is {p95:.0f} ms (limit {limit:.0f}), {failed:.2f} % failed (limit {errors:g}).")


if __name__ == "__main__":
    try:
        main()
    except JobError as error:
        fail(error)
