"""The ledger: what was tried survives, and every other history is derived from it."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchyard.engine.layout import AppPaths
from switchyard.engine.ledger import Ledger
from switchyard.names import release_id
from tests.unit.engine_world import MEMORY, NAME, QUICK, World, redirect

A, B, C, D = (f"000{number}-{number}.0.0" for number in (1, 2, 3, 4))


def live(ledger: Ledger, *releases: str) -> None:
    for release in releases:
        ledger.append("live", op="x", release=release, colour="blue")


def test_what_is_appended_is_loaded_in_order(world: World) -> None:
    ledger = world.ledger()
    ledger.append("start", op="a", kind="deploy", who="me", version="1.0.0")
    ledger.append("end", op="a", outcome="live", message="ümläut 'and' \"quotes\"\nline")
    assert world.ledger().events == ledger.events
    assert [event["event"] for event in world.ledger().events] == ["start", "end"]
    assert world.ledger().events[1]["message"] == "ümläut 'and' \"quotes\"\nline"


def test_every_event_has_its_time_in_utc(world: World) -> None:
    ledger = world.ledger()
    ledger.append("start", op="a")
    assert ledger.events[0]["time"].endswith("+00:00")


def test_an_application_without_a_ledger_has_an_empty_history(world: World) -> None:
    ledger = world.ledger()
    assert (ledger.events, ledger.unfinished(), ledger.lineage(), ledger.bad()) == ([], [], [], {})
    assert ledger.last_live() is None and ledger.schema() is None
    assert (ledger.next_number(), ledger.schema_epoch()) == (1, (1, ""))


def test_lines_that_are_no_events_are_skipped_and_kept_on_disk(world: World) -> None:
    live(world.ledger(), A)
    damage = 'not json\n{"half": \n[1, 2]\n"text"\nnull\n\n'
    world.paths.ledger.write_text(world.paths.ledger.read_text() + damage)
    ledger = world.ledger()
    assert ledger.lineage() == [A]
    live(ledger, B)
    assert world.ledger().lineage() == [A, B]
    assert damage in world.paths.ledger.read_text()


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_truncated_last_line_costs_that_line_alone(world: World, cut: int) -> None:
    live(world.ledger(), A, B)
    world.paths.ledger.write_bytes(world.paths.ledger.read_bytes()[:-cut])
    left = world.ledger().lineage()
    assert left in ([A], [A, B])
    live(world.ledger(), C)
    assert world.ledger().lineage() == [*left, C]


def test_the_file_ends_with_a_newline_and_has_one_event_a_line(world: World) -> None:
    live(world.ledger(), A, B)
    text = world.paths.ledger.read_text()
    assert text.endswith("\n")
    assert [json.loads(line)["release"] for line in text.splitlines()] == [A, B]


def test_another_ones_events_are_not_overwritten(world: World) -> None:
    mine, theirs = world.ledger(), world.ledger()
    live(mine, A)
    live(theirs, B)
    assert world.ledger().lineage() == [A, B]


# Numbers


def test_numbers_of_failed_releases_are_not_used_again(world: World) -> None:
    ledger = world.ledger()
    ledger.append("start", op="a", version="1")
    ledger.append("end", op="a", release="0007-1.0.0", outcome="failed")
    live(ledger, A)
    assert ledger.next_number() == 8


@QUICK
@given(st.lists(st.tuples(st.sampled_from(["live", "end", "bad", "migration"]), st.integers(1, 20000)), max_size=6))
def test_the_next_number_is_above_every_number_ever_seen(events: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as directory, pytest.MonkeyPatch.context() as patch:
        redirect(patch, Path(directory))
        patch.setattr("os.fsync", lambda _: None)
        ledger = Ledger(AppPaths(NAME))
        for kind, number in events:
            ledger.append(kind, op="a", release=release_id(number, "1.0.0"), reason="")
        following = Ledger.load(AppPaths(NAME)).next_number()
        assert following not in {number for _, number in events}
        assert following == max((number for _, number in events), default=0) + 1


# Starts and ends


def test_a_start_without_an_end_is_unfinished(world: World) -> None:
    ledger = world.ledger()
    for op in ("a", "b", "c"):
        ledger.append("start", op=op, kind="deploy", version="1.0.0")
    ledger.append("end", op="b")
    assert [event["op"] for event in ledger.unfinished()] == ["a", "c"]


# Lineage


@pytest.mark.parametrize(
    ("switches", "lineage"),
    [
        ([], []),
        ([A], [A]),
        ([A, B], [A, B]),
        ([A, B, A], [A]),
        ([A, B, A, C], [A, C]),
        ([A, B, A, B], [A, B]),
        ([A, B, C, A], [A]),
        ([A, B, C, B, D], [A, B, D]),
        ([A, A], [A]),
        ([A, B, C, B, A, C], [A, C]),
    ],
)
def test_the_way_back_is_the_way_that_was_come(world: World, switches: list[str], lineage: list[str]) -> None:
    ledger = world.ledger()
    live(ledger, *switches)
    assert ledger.lineage() == lineage
    assert world.ledger().lineage() == lineage


@QUICK
@given(st.lists(st.sampled_from([A, B, C, D]), max_size=12))
def test_the_lineage_ends_with_what_is_live_and_names_nothing_twice(switches: list[str]) -> None:
    events: list[dict[str, Any]] = [{"event": "live", "op": "x", "release": r, "colour": "blue"} for r in switches]
    lineage = Ledger(AppPaths(NAME), events).lineage()
    assert lineage[-1:] == switches[-1:]
    assert len(set(lineage)) == len(lineage) and set(lineage) <= set(switches)


def test_the_last_proven_switch_counts(world: World) -> None:
    ledger = world.ledger()
    ledger.append("live", op="a", release=A, colour="blue")
    ledger.append("live", op="b", release=B, colour="green")
    assert ledger.last_live() == (B, "green")
    assert ledger.ever_live() == {A, B}


# Bad marks and the schema


def test_a_bad_release_is_remembered_with_its_newest_reason(world: World) -> None:
    ledger = world.ledger()
    ledger.append("bad", op="a", release=B, reason="slow")
    ledger.append("bad", op="b", release=B, reason="5xx")
    assert ledger.bad() == {B: "5xx"}


def test_the_newest_migration_event_is_the_state_of_the_schema(world: World) -> None:
    ledger = world.ledger()
    ledger.append("migration", op="a", release=A, state="started", digest="d", schema_epoch=1)
    ledger.append("migration", op="a", release=A, state="clean", digest="d", schema_epoch=1)
    state = ledger.schema()
    assert state is not None and state["state"] == "clean"


def test_the_epoch_is_the_highest_one_and_names_who_raised_it_first(world: World) -> None:
    ledger = world.ledger()
    for release, epoch in ((A, 1), (B, 2), (C, 2), (A, 1)):
        ledger.append("live", op="x", release=release, colour="blue", schema_epoch=epoch)
    assert ledger.schema_epoch() == (2, B)


def test_a_migration_raises_the_epoch_before_its_release_is_live(world: World) -> None:
    ledger = world.ledger()
    live(ledger, A)
    ledger.append("migration", op="b", release=B, state="clean", digest="d", schema_epoch=3)
    assert ledger.schema_epoch() == (3, B)


def test_a_migration_that_left_the_schema_as_it_was_raises_no_epoch(world: World) -> None:
    ledger = world.ledger()
    ledger.append("live", op="a", release=A, colour="blue", schema_epoch=1)
    ledger.append("migration", op="b", release=B, state="started", digest="d", schema_epoch=2)
    assert ledger.schema_epoch() == (2, B)
    ledger.append("migration", op="b", release=B, state="unchanged", digest="d", schema_epoch=2)
    assert ledger.schema_epoch() == (1, A)


def test_a_restore_takes_back_what_the_schema_went_through_after_its_moment(world: World) -> None:
    ledger = world.ledger()
    ledger.append("migration", op="a", release=A, state="clean", digest="sha256:a", schema_epoch=1)
    moment = ledger.events[-1]["time"]
    ledger.events.clear()
    ledger.append("migration", op="b", release=B, state="dirty", digest="sha256:b", schema_epoch=2)
    later = ledger.events[-1]
    assert later["time"] >= moment
    before = "2020-01-01T00:00:00+00:00"
    for until, digests, epoch in ((moment, {"sha256:a"}, 1), (before, set(), 1)):
        read = Ledger.load(ledger.paths)
        read.events[1]["time"] = "2099-01-01T00:00:00+00:00"
        read.events.append({"event": "restore", "until": until, "time": "2099-01-02T00:00:00+00:00"})
        assert read.migrated() == digests
        assert read.schema_epoch()[0] == epoch
        state = read.schema()
        assert (state["state"] if state else "") == ("clean" if digests else "")
        # What migrates after the restore counts again.
        read.events.append(read.events[1] | {"state": "clean", "time": "2099-01-03T00:00:00+00:00"})
        assert read.migrated() == digests | {"sha256:b"}
