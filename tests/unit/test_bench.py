"""A benchmark measures what it says, or says that it did not."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from switchyard.errors import Exit
from tests.bench import bars, main


def lab(codes: Sequence[int]) -> Any:
    """A lab whose rollbacks end as told."""
    left = list(codes)

    def run(*argv: str) -> subprocess.CompletedProcess[str]:
        code = left.pop(0)
        return subprocess.CompletedProcess(argv, code, json.dumps({"code": code, "live_ms": 250.0}), "")

    return SimpleNamespace(project=SimpleNamespace(run=run))


@pytest.fixture(name="bench")
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bars.Bench:
    monkeypatch.setattr(bars, "ROOT", tmp_path)
    return bars.Bench("unit")


def test_rollbacks_that_moved_traffic_are_counted(bench: bars.Bench) -> None:
    main.rollback(bench, lab([Exit.ALREADY_LIVE] + [Exit.OK] * (main.RUNS - 1)))
    assert [row.ok for row in bench.bars] == [True, True]
    assert bench.bars[1].note == f"{main.RUNS - 1} runs"


@pytest.mark.parametrize(
    "codes",
    [
        [Exit.OK] * (main.RUNS - 1) + [Exit.REVERTED],
        [Exit.UNREACHABLE] + [Exit.OK] * (main.RUNS - 1),
        [Exit.ALREADY_LIVE] * 3 + [Exit.OK] * (main.RUNS - 3),
    ],
)
def test_a_rollback_that_fails_or_too_few_of_them_fall_short(bench: bars.Bench, codes: Sequence[int]) -> None:
    with bench.part("rollback"):
        main.rollback(bench, lab(codes))
    assert [row.ok for row in bench.bars] == [False]
