"""The log's follower: whole lines alone, and every one of them, whatever happens to the file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from switchyard.watch.accesslog import Entry, Follower, Place, parse, tail


def line(number: int, **changes: object) -> str:
    base = {
        "msec": 1000.0 + number, "status": 200, "bytes": 1, "seconds": 0.5, "path": f"/{number}",
        "upstream": "127.0.0.1:18000", "header_seconds": "0.010",
    }  # fmt: skip
    return json.dumps({**base, **changes}) + "\n"


def paths(follower: Follower) -> list[str]:
    return [entry.path for entry in follower.read()]


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def test_only_what_is_new_and_only_whole_lines(tmp_path: Path) -> None:
    log = tmp_path / "a.jsonl"
    log.write_text(line(1))
    follower = Follower(log)
    assert paths(follower) == []
    append(log, line(2) + line(3)[:20])
    assert paths(follower) == ["/2"]
    append(log, line(3)[20:])
    assert paths(follower) == ["/3"]


def test_a_rotated_log_is_finished_before_the_new_one_is_begun(tmp_path: Path) -> None:
    log = tmp_path / "a.jsonl"
    log.write_text("")
    follower = Follower(log)
    append(log, line(1))
    assert paths(follower) == ["/1"]
    rotated = log.rename(tmp_path / "a.jsonl.1")
    append(rotated, line(2))
    log.write_text(line(3))
    assert paths(follower) == ["/2", "/3"]


def test_who_comes_back_after_a_rotation_misses_nothing(tmp_path: Path) -> None:
    log = tmp_path / "a.jsonl"
    log.write_text(line(1))
    place = Follower(log, Place(log.stat().st_ino, 0)).place
    log.rename(tmp_path / "a.jsonl.1")
    log.write_text(line(2))
    assert paths(Follower(log, place)) == ["/1", "/2"]


def test_the_end_of_a_log_is_its_last_whole_lines(tmp_path: Path) -> None:
    log = tmp_path / "a.jsonl"
    assert tail(log) == ([], False)
    log.write_text("one\ntwo\nthree\nfo")
    assert tail(log) == ([b"one", b"two", b"three"], False)
    assert tail(log, most=10) == ([b"three"], True)
    assert tail(log, most=2) == ([], True)


def test_a_truncated_log_is_read_from_its_start(tmp_path: Path) -> None:
    log = tmp_path / "a.jsonl"
    log.write_text(line(1) + line(2))
    follower = Follower(log)
    log.write_text(line(3))
    assert paths(follower) == ["/3"]


def test_a_log_that_is_gone_or_garbage_cannot_be_read_and_says_so(tmp_path: Path) -> None:
    log = tmp_path / "a.jsonl"
    follower = Follower(log)
    assert paths(follower) == [] and not follower.readable
    log.write_text(line(1))
    assert paths(follower) == ["/1"] and follower.readable
    append(log, "garbage\n" * 3)
    assert paths(follower) == [] and not follower.readable


def test_the_address_that_was_asked_first_and_those_that_stepped_in() -> None:
    def read(**changes: object) -> Entry:
        entry = parse(line(1, **changes).encode())
        assert entry is not None
        return entry

    assert read().addresses == ("127.0.0.1:18000",)
    helped = read(upstream="127.0.0.1:18000, 127.0.0.1:18001", header_seconds="0.002, 0.010")
    assert (helped.first, helped.addresses[1:], helped.seconds) == ("127.0.0.1:18000", ("127.0.0.1:18001",), 0.012)
    # The other colour was asked for an old page's asset: no fault of the new release.
    assert read(upstream="127.0.0.1:18000 : 127.0.0.1:18001", header_seconds="0.002 : 0.010").addresses == (
        "127.0.0.1:18000",
    )
    # An answer that never began took the whole time.
    assert read(header_seconds="", seconds=7.5).seconds == 7.5
    assert not read(upstream="").judged and not read(status=101).judged and read(status=499).aborted
    assert parse(b"{}") is None and parse(b"[1]") is None


def test_a_log_on_a_full_disk_is_not_readable_until_there_is_room_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "a.jsonl"
    log.write_text(line(1))
    follower = Follower(log, Place(log.stat().st_ino, 0))
    free = [0, 8]
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=free.pop(0)))
    assert (paths(follower), follower.readable) == (["/1"], False)
    assert (paths(follower), follower.readable) == ([], True)
