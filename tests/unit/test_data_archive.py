"""What is said of an archive that falls behind, a disk that fills and a restore that nobody confirmed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from switchyard.data import archive
from switchyard.data.archive import Archive, disk_problem, judge
from switchyard.data.restore import Wish, check_wish
from switchyard.errors import SwitchyardError

FLOWS = Archive(0, 0, 16 << 20, 0, "000000010000000000000004", 5, failing=False)


@pytest.mark.parametrize(
    ("seen", "severity", "says"),
    [
        (FLOWS, "info", ""),
        (replace(FLOWS, waiting=3, oldest_seconds=30), "info", ""),
        (replace(FLOWS, waiting=3, oldest_seconds=660), "warning", "WAL has not been archived for 11 min, 3 segments"),
        (replace(FLOWS, waiting=9, oldest_seconds=4000), "critical", "WAL has not been archived for 66 min"),
        (replace(FLOWS, repositories={"cloud": "no answer"}), "warning", "does not answer: cloud: no answer."),
        (
            replace(FLOWS, waiting=1, failing=True),
            "warning",
            "The last attempt to archive WAL failed; 1 segments wait.",
        ),
    ],
)
def test_an_archive_is_judged_by_how_long_it_waits(seen: Archive, severity: str, says: str) -> None:
    found, text = judge(seen, 600, 3600)
    assert found == severity and (says in text if says else not text)


def test_a_disk_is_spoken_of_before_it_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "DISK_WARNING", 101)
    assert disk_problem([tmp_path, tmp_path / "missing"]) == ("info", "")
    monkeypatch.setattr(archive, "DISK_WARNING", 0)
    severity, text = disk_problem([tmp_path])
    assert severity in ("warning", "critical") and text.startswith(f"The file system of {tmp_path} is")


@pytest.mark.parametrize(
    ("confirm", "says"), [("", "and nothing was confirmed"), ("staging-2", "and 'staging-2' is another name")]
)
def test_a_live_database_is_replaced_only_when_its_host_is_named(confirm: str, says: str) -> None:
    with pytest.raises(SwitchyardError, match=f"This would replace the live database on staging-1, {says}"):
        check_wish(Wish(to="latest", into="live", confirm=confirm), "staging-1")
    assert check_wish(Wish(to="latest", into="live", confirm="staging-1"), "staging-1")
    assert check_wish(Wish(to="latest", into="scratch"), "staging-1")
