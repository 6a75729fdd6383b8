"""Bars: what must be reached, what was measured, and the table and file that say so."""

import contextlib
import json
import os
import statistics
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from tests.project import ROOT


@dataclass(frozen=True)
class Bar:
    """One row: `value` must be at most (or at least) `limit`."""

    bar: str
    value: float
    limit: float
    unit: str
    ok: bool
    note: str = ""


@dataclass
class Bench:
    """The rows of one benchmark, printed as they come."""

    name: str
    bars: list[Bar] = field(default_factory=list)

    def say(self, text: str) -> None:
        """Tell what is being measured."""
        print(f"bench: {text}", flush=True)

    def add(
        self, bar: str, value: float, limit: float, unit: str, *, want: Literal["<=", ">="] = "<=", note: str = ""
    ) -> None:
        """Add a row."""
        row = Bar(bar, round(value, 4), limit, unit, value <= limit if want == "<=" else value >= limit, note)
        self.bars.append(row)
        self._write()
        self.say(f"{'ok  ' if row.ok else 'SHORT'} {bar}: {row.value:g} {unit} (bar {want} {limit:g}) {note}")

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Measure one part; one that breaks off is a row that falls short, and the others still run."""
        self.say(f"part {name}")
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            self.add(f"{name}: ran to its end", 1, 0, "failures", note=str(error)[:400])

    def finish(self) -> int:
        """Print the table, return the exit code."""
        target = self._write()
        width = max(len(row.bar) for row in self.bars)
        for row in self.bars:
            print(f"{row.bar:<{width}}  {row.value:>10g}  {row.limit:>8g}  {row.unit:<9} {'ok' if row.ok else 'SHORT'}")
        short = [row.bar for row in self.bars if not row.ok]
        print(f"bench: {len(self.bars) - len(short)} of {len(self.bars)} bars reached; {target.relative_to(ROOT)}")
        return 1 if short else 0

    def _write(self) -> Path:
        """Write the file, after each row: of a run that is cut short, the rows stand."""
        target = ROOT / "build" / f"bench-{self.name}.json"
        target.parent.mkdir(exist_ok=True)
        rows = [*self._others(target), *(asdict(row) for row in self.bars)]
        target.write_text(json.dumps(rows, indent=1) + "\n")
        return target

    def _others(self, target: Path) -> list[dict[str, object]]:
        """Rows of an earlier run that this one (an ONLY= part) did not measure again."""
        if not target.is_file():
            return []
        again = {row.bar for row in self.bars}
        rows: list[dict[str, object]] = json.loads(target.read_text())
        return [row for row in rows if row["bar"] not in again]


def chosen(names: Iterable[str]) -> list[str]:
    """The parts that `ONLY=word,word` names, or all; ends the program when there are none."""
    known, only = list(names), os.environ.get("ONLY", "")
    found = [name for name in known if any(word in name for word in only.split(","))]
    if not found:
        print(f"bench: no part is called '{only}'; there are {', '.join(known)}", file=sys.stderr)
        raise SystemExit(2)
    return found


def run(name: str, parts: Mapping[str, Callable[[Bench], None]]) -> int:
    """Run the parts that ONLY names, or all; returns the exit code."""
    names, bench = chosen(parts), Bench(name)
    for part in names:
        with bench.part(part):
            parts[part](bench)
    return bench.finish()


def median(values: Sequence[float]) -> float:
    """The middle of the runs."""
    return statistics.median(values)
