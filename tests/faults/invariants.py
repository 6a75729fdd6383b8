"""What must be true after every fault."""

import json
from typing import Any

from tests.lab import APP, Fault, Lab
from tests.web import opened


def pointer_release(lab: Lab) -> str:
    """The release that the edge's pointer names, without the number; '' when nothing is live."""
    path = f"/var/lib/switchyard/edge/live/pointers/{APP}.conf"
    first = lab.host.exec(["head", "-n", "1", path], check=False).stdout
    return str(json.loads(first.removeprefix("# switchyard "))["release"]) if first else ""


def check(lab: Lab, why: Fault | str) -> None:
    """One whole release answers; pointer, Docker and ledger agree; nobody holds the lease; every start has an end."""
    lab.settle()
    live = pointer_release(lab)
    with opened(lab.url) as answer:
        served = answer.headers["X-Release"]
    assert live.endswith(f"-{served}"), f"after {why}: {served} answers, the pointer names {live}"
    report = lab.status()
    # What happened to a line stays to be seen, for good.
    told = [item for item in report["disagreements"] if not (lab.ledger_was_cut and item.startswith("the ledger: "))]
    assert told == [], f"after {why}: {told}"
    assert report["operation"] == "", f"after {why}: the lease is held by {report['operation']}"
    assert report["probation"] is False, f"after {why}: still on probation"
    open_ends = [row["op"] for row in lab.history() if row["end"] is None]
    assert open_ends == [], f"after {why}: no end in the ledger for {open_ends}"


def converge(lab: Lab, version: str, why: Fault | str, **changes: Any) -> None:
    """The same command again makes the wanted version live."""
    again = lab.deploy(version, **changes)
    assert again["code"] == 0, f"after {why}, the same deploy again: {again}"
    assert pointer_release(lab).endswith(f"-{version}"), f"after {why}: {again}"
    check(lab, f"{why}, converged")
