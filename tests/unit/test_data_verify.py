"""What a repository's verification means: its text counts, and gaps in WAL are looked for by ourselves."""

import pytest

from switchyard.data.verify import gaps, judge

GOOD = """stanza: main
status: ok
  archiveId: 17-1, total WAL checked: 4, total valid WAL: 4
    missing: 0, checksum invalid: 0, size invalid: 0, other: 0
  backup: 20261121-113333F, status: valid, total files checked: 1570, total valid files: 1570
    missing: 0, checksum invalid: 0, size invalid: 0, other: 0
"""


def test_only_a_plain_ok_is_good() -> None:
    assert judge(GOOD, 0).ok


@pytest.mark.parametrize(
    ("text", "code", "named"),
    [
        (
            GOOD.replace("status: ok", "status: error")
            .replace("status: valid", "status: invalid")
            .replace("1570\n    missing: 0, checksum invalid: 0", "1569\n    missing: 0, checksum invalid: 1"),
            0,
            ["backup 20261121-113333F: checksum invalid: 1", "backup 20261121-113333F: invalid"],
        ),
        (GOOD.replace("missing: 0", "missing: 2", 1), 0, ["archive 17-1: missing: 2"]),
        (GOOD, 1, ["verify ended with exit code 1"]),
        ("", 0, ["status is 'unknown'"]),
        ("stanza: main\nstatus: error\n", 0, ["status is 'error'"]),
        ("stanza: main\nstatus: error\n  No usable backup.info file\n", 0, ["no usable backup.info file"]),
        ("P00  ERROR: [125]: remote: unable to connect to 10.0.0.1", 125, ["[125]: remote: unable to connect"]),
    ],
)
def test_everything_else_is_named(text: str, code: int, named: list[str]) -> None:
    verdict = judge(text, code)
    assert not verdict.ok
    for words in named:
        assert any(words in problem for problem in verdict.problems), verdict.problems


def _file(name: str) -> str:
    return f"17-1/{name[:16]}/{name}-{'0123456789abcdef' * 2}01234567.zst"


def test_a_missing_segment_is_named() -> None:
    names = [f"0000000100000000{number:08X}" for number in (3, 4, 6, 7)]
    [gap] = gaps(map(_file, names), names[0])
    assert str(gap) == "archive: WAL 000000010000000000000005 is missing, so nothing after it can be restored"
    assert gap.is_before("000000020000000000000006")
    assert not gap.is_before("000000010000000000000005")
    names = [f"0000000100000000{number:08X}" for number in (3, 9)]
    assert "000000010000000000000004 to 000000010000000000000008 is missing" in str(gaps(map(_file, names), "")[0])


def test_wal_before_the_oldest_backup_is_not_needed() -> None:
    names = [f"0000000100000000{number:08X}" for number in (1, 5, 6)]
    assert gaps(map(_file, names), "000000010000000000000005") == []


def test_segments_go_on_across_logs_timelines_and_other_files() -> None:
    names = [
        "0000000100000000000000FE",
        "0000000100000000000000FF",
        "000000010000000100000000",
        "000000020000000100000000",
    ]
    others = ["17-1/00000002.history", "17-1/0000000100000001/000000010000000100000000.00000028.backup"]
    assert gaps([*map(_file, names), *others], names[0]) == []
    # Segments of another size have other numbers in a log.
    assert gaps(map(_file, ["00000001000000000000003F", "000000010000000100000000"]), "", 64 << 20) == []
