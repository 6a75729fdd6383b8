"""Parts of `make bench-watch`: what `verify` finds in a changed ledger, and the two cases of every alert rule."""

import json
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

from switchyard import chain
from tests import alerts
from tests.bed import Bed
from tests.bench.bars import Bench
from tests.week import NAME, week

SEEDS = 20


def _touched(text: bytes, chance: random.Random) -> Iterator[tuple[str, int, bytes]]:
    """Every line edited, removed, and moved down by one: how, which line, and the ledger then."""
    lines = chain.split(text)

    def joined(changed: list[bytes]) -> bytes:
        return b"".join(line + b"\n" for line in changed)

    for index, line in enumerate(lines):
        event = json.loads(line)
        key = chance.choice([key for key in event if key not in ("n", "prev", "event")])
        edited = json.dumps(event | {key: "other"}, separators=(",", ":")).encode()
        yield "edited", index + 1, joined([*lines[:index], edited, *lines[index + 1 :]])
        yield "removed", index + 1, joined([*lines[:index], *lines[index + 1 :]])
        if index + 1 < len(lines):
            moved = [*lines[:index], lines[index + 1], line, *lines[index + 2 :]]
            yield "moved", index + 1, joined(moved)


def ledger(bench: Bench) -> None:
    """Touch every line of many ledgers in every way; the last line needs the copy, as newer ones always do."""
    tried, unnamed, blind, newest = 0, 0, 0, 0
    for seed in range(SEEDS):
        text = week(seed).text
        count = len(chain.split(text))
        for how, line, changed in _touched(text, random.Random(seed)):  # noqa: S311 - made-up changes
            tried += 1
            found = {(finding.line, finding.kind) for finding in chain.check(NAME, changed)}
            newest += line == count and not found
            unnamed += line < count and (line, how) not in found
            blind += not chain.compare(changed, text, "the copy")
    note = f"of {tried} changes to {SEEDS} ledgers"
    bench.add("touched lines before the last that verify does not name", unnamed, 0, "lines", note=note)
    bench.add("changes that verify does not see against the last copy", blind, 0, "changes", note=note)
    bench.say(f"without a copy, {newest} changes of the newest line stay unseen, which is what the copy is for")


def rules(bench: Bench) -> None:
    """Every rule's firing and silent case, judged by promtool on a host."""
    with tempfile.TemporaryDirectory() as folder, Bed.for_tests("alerts") as bed:
        host = bed.host("alerts-1", image="docker-host")
        script = "apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends"
        host.exec(["sh", "-c", f"{script} prometheus"], timeout=400)
        alerts.write(Path(folder))
        for name in ("rules.yml", "cases.yml", "graphs.yml"):
            host.put(f"/root/{name}", (Path(folder) / name).read_text())
        done = host.exec(["promtool", "test", "rules", "/root/cases.yml"], check=False, timeout=400)
        failed = alerts.failures(done.stdout + done.stderr)
        graphs = host.exec(["promtool", "check", "rules", "/root/graphs.yml"], check=False)
    missing = set(alerts.names()) ^ set(alerts.CASES)
    bench.add("alert rules with a firing and a silent case", len(alerts.CASES), len(alerts.names()), "rules", want=">=")
    wrong = len(failed) + len(missing) or int(done.returncode != 0)
    bench.add("cases that promtool judges otherwise", wrong, 0, "cases", note=", ".join([*failed, *missing]))
    bench.add("questions of the dashboards that are no PromQL", graphs.returncode, 0, "failures")
