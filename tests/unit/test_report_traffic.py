"""What users got, counted out of the edge's log: every line once, whatever happens to the file in between."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from statistics import quantiles

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchyard.report import host, traffic
from switchyard.report.traffic import Tally
from switchyard.watch.accesslog import tail
from tests.unit.engine_world import QUICK, World

OLD, NEW = "0001-1.0.0", "0002-1.1.0"
# Ten minutes before a midnight that is not so long ago that what was counted then would be forgotten.
START = (datetime.now(UTC) - timedelta(days=9)).replace(hour=23, minute=50, second=0, microsecond=0).timestamp()


def line(at: float, release: str = OLD, status: int = 200, seconds: float = 0.02) -> bytes:
    return json.dumps({"msec": at, "status": status, "seconds": seconds, "release": release}).encode() + b"\n"


def collected(world: World) -> traffic.Minutes:
    traffic.collect(world.paths)
    since, until = (datetime.fromtimestamp(START + shift, UTC) for shift in (-86400, 86400))
    return traffic.load(world.paths, since, until)


def requests(world: World) -> dict[str, int]:
    since, until = (datetime.fromtimestamp(START + shift, UTC) for shift in (-86400, 86400))
    tallies = traffic.total(traffic.load(world.paths, since, until))
    return {release: tally.requests for release, tally in tallies.items()}


@pytest.fixture
def log(world: World) -> Path:
    path = traffic.log_of(world.paths)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@QUICK
@given(st.lists(st.floats(0.001, 60.0), min_size=50, max_size=300), st.sampled_from([50, 95, 99]))
def test_percentiles_are_within_a_tenth(times: list[float], share: int) -> None:
    tally = Tally()
    for seconds in times:
        tally.add(200, seconds)
    low, high = sorted(times)[max(0, len(times) * share // 100 - 2)], sorted(times)[-1]
    high = sorted(times)[min(len(times) - 1, len(times) * share // 100 + 1)]
    assert low / 1.11 <= tally.percentile(share / 100) <= high * 1.11


def test_a_large_sample_is_within_five_per_cent() -> None:
    chance, tally = random.Random(7), Tally()  # noqa: S311 - made-up data
    times = [chance.lognormvariate(-3, 1) for _ in range(20_000)]
    for seconds in times:
        tally.add(200, seconds)
    wanted = quantiles(times, n=100)
    for share in (50, 95, 99):
        assert tally.percentile(share / 100) == pytest.approx(wanted[share - 1], rel=0.06)


def test_only_the_servers_own_errors_count_and_clients_that_left_have_no_time() -> None:
    tally = Tally()
    for status in (200, 404, 429, 499, 500, 502, 503):
        tally.add(status, 9.0 if status == 499 else 0.01)
    assert (tally.requests, tally.errors) == (7, 3)
    assert tally.percentile(1.0) < 0.02
    assert Tally.from_json(json.loads(json.dumps(tally.as_json()))).as_json() == tally.as_json()
    assert Tally().percentile(0.95) == 0.0 and Tally().error_share == 0.0


def test_lines_are_counted_once_across_collections_days_and_rotations(world: World, log: Path) -> None:
    written = 0

    def write(lines: Iterable[bytes]) -> None:
        nonlocal written
        with log.open("ab") as file:
            for text in lines:
                written += 1
                file.write(text)

    write(line(START + second) for second in range(0, 1200, 3))
    assert traffic.collect(world.paths) == written
    assert traffic.collect(world.paths) == 0
    write(line(START + second, NEW, 500) for second in range(1200, 1300))
    # Rotated with lines in it that nobody has counted yet, as logrotate does it.
    log.rename(log.with_name(f"{log.name}.1"))
    write(line(START + second, NEW) for second in range(1300, 1400))
    assert traffic.collect(world.paths) == 200
    assert requests(world) == {OLD: 400, NEW: 200}
    assert len(list((world.paths.state / "traffic").glob("20*.json"))) == 2
    # Truncated in place, as `copytruncate` does it.
    log.write_bytes(line(START + 1500, NEW))
    assert traffic.collect(world.paths) == 1
    assert requests(world) == {OLD: 400, NEW: 201}


def test_half_a_line_waits_for_its_other_half(world: World, log: Path) -> None:
    whole = line(START)
    log.write_bytes(whole + whole[:20])
    traffic.collect(world.paths)
    log.write_bytes(whole + whole)
    traffic.collect(world.paths)
    assert requests(world) == {OLD: 2}


def test_lines_that_are_no_requests_are_left_out(world: World, log: Path) -> None:
    log.write_bytes(b'not json\n[1]\n{"msec": "x"}\n\n' + line(START) + b"\xff\xfe\n")
    traffic.collect(world.paths)
    assert requests(world) == {OLD: 1}


def test_a_websocket_and_a_stream_take_as_long_as_their_answer_to_begin(world: World, log: Path) -> None:
    entry = json.loads(line(START, status=101, seconds=1800.0)) | {"header_seconds": "0.004"}
    log.write_bytes(json.dumps(entry).encode() + b"\n")
    for tallies in (traffic.recent(world.paths, 300, START)[0], traffic.total(collected(world))):
        assert tallies[OLD].seconds == 0.004


def test_what_no_release_answered_is_kept_however_many_releases_there_are(world: World, log: Path) -> None:
    for minute in range(3):
        releases = ["", *(f"{number:04}-1.0.0" for number in range(1, 40))]
        with log.open("ab") as file:
            file.writelines(line(START + 60 * minute, release, 502) for release in releases)
        traffic.collect(world.paths)
    assert traffic.totals(world.paths)[""].requests == 3


def test_an_application_without_a_log_has_no_traffic(world: World) -> None:
    assert traffic.collect(world.paths) == 0
    assert traffic.recent(world.paths, 300, START) == ({}, 300)


def test_what_was_counted_is_forgotten_after_its_time(world: World, log: Path) -> None:
    log.write_bytes(line(START))
    traffic.collect(world.paths)
    old = world.paths.state / "traffic" / "2019-01-01.json"
    old.write_text("{}")
    log.write_bytes(log.read_bytes() + line(START))
    traffic.collect(world.paths)
    assert any("2019-01-01.json" in word for words in world.docker.commands for word in words)


def test_recent_reads_the_end_alone_and_says_how_far_back_it_saw(
    world: World, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.write_bytes(b"".join(line(START + second, OLD if second < 500 else NEW) for second in range(1000)))
    tallies, reach = traffic.recent(world.paths, 300, START + 1000)
    assert {release: tally.requests for release, tally in tallies.items()} == {NEW: 300}
    assert reach == 300
    monkeypatch.setattr(traffic, "tail", partial(tail, most=1000))
    tallies, reach = traffic.recent(world.paths, 300, START + 1000)
    assert 5 < tallies[NEW].requests < 20 and reach == tallies[NEW].requests


# Disks


def test_a_disk_that_fills_evenly_is_full_when_the_line_says() -> None:
    samples = [(hour * 3600.0, int(100e9 - hour * 1e9)) for hour in range(25)]
    assert host.days_to_full(samples) == pytest.approx(76 / 24, abs=0.1)


@pytest.mark.parametrize(
    "samples",
    [
        [],
        [(0.0, 100), (86400.0, 50)],
        [(float(hour * 3600), 10**9) for hour in range(48)],
        [(float(hour * 3600), 10**9 + hour) for hour in range(48)],
        [(float(minute * 60), 10**9 - minute) for minute in range(60)],
    ],
)
def test_a_disk_that_does_not_fill_or_is_hardly_known_has_no_date(samples: list[tuple[float, int]]) -> None:
    assert host.days_to_full(samples) is None


def test_samples_are_taken_twice_an_hour_at_most(world: World) -> None:
    for _ in range(3):
        host.sample()
    known = json.loads(host._SAMPLES.read_text())
    assert all(len(pairs) == 1 for pairs in known.values()) and "/" in known
    world.clock.now += 3600
    host.sample()
    assert all(len(pairs) == 2 for pairs in json.loads(host._SAMPLES.read_text()).values())
    assert {disk.path for disk in host.disks()} >= {"/"}
