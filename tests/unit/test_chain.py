"""A change of the past shows: every line that is edited, removed or moved is named."""

from __future__ import annotations

import json
import random
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchyard import chain
from switchyard.engine.ledger import Ledger
from tests.unit.engine_world import QUICK, World

NAME = "shop-test"


def written(count: int, before: bytes = b"") -> bytes:
    """A ledger as the engine writes it, after `before`."""
    text = before
    for number in range(count):
        event = {"time": f"2026-01-02T03:{number:02d}:00.000+00:00", "event": "end", "op": f"op-{number}"}
        n, prev = chain.following(NAME, text)
        text += json.dumps(event | {"n": n, "prev": prev}).encode() + b"\n"
    return text


def named(text: bytes) -> list[tuple[int, str]]:
    return [(finding.line, finding.kind) for finding in chain.check(NAME, text)]


def joined(lines: list[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


OLD = b'{"time":"t","event":"start"}\n{"time":"t","event":"end"}\n'


@pytest.mark.parametrize("before", [b"", OLD])
def test_a_ledger_as_the_engine_wrote_it_has_no_findings(before: bytes) -> None:
    text = written(12, before)
    assert named(text) == []
    assert chain.unchained(text) == before.count(b"\n")
    assert chain.check(NAME, before) == []


@pytest.mark.parametrize("before", [b"", OLD])
@pytest.mark.parametrize("place", range(9))
def test_every_edited_line_is_named(before: bytes, place: int) -> None:
    lines = chain.split(written(10, before))
    index = place + before.count(b"\n")
    lines[index] = lines[index].replace(b'"op": "op-', b'"op": "no-')
    assert named(joined(lines)) == [(index + 1, "edited")]


def test_an_edited_line_from_before_the_chain_shows() -> None:
    lines = chain.split(written(3, OLD))
    lines[1] = lines[1].replace(b"end", b"bad")
    assert named(joined(lines)) == [(1, "edited")]
    assert "lines 1 to 2" in chain.check(NAME, joined(lines))[0].text


@pytest.mark.parametrize("before", [b"", OLD])
@pytest.mark.parametrize(("first", "count"), [(0, 1), (3, 1), (3, 4), (8, 1), (0, 5)])
def test_every_removed_line_is_named(before: bytes, first: int, count: int) -> None:
    lines = chain.split(written(10, before))
    first += before.count(b"\n")
    del lines[first : first + count]
    assert named(joined(lines)) == [(first + 1, "removed")]
    last = f" to {first + count} " if count > 1 else ""
    assert last in chain.check(NAME, joined(lines))[0].text


def test_lines_from_before_the_chain_cannot_be_removed_unseen() -> None:
    lines = chain.split(written(3, OLD))
    assert named(joined(lines[2:])) == [(1, "removed")]
    assert named(joined(lines[1:])) != []


@pytest.mark.parametrize("place", range(1, 9))
def test_every_moved_line_is_named(place: int) -> None:
    lines = chain.split(written(10))
    lines[place - 1], lines[place] = lines[place], lines[place - 1]
    assert named(joined(lines)) == [(place, "moved")]


def test_a_line_that_the_engine_did_not_write_is_named() -> None:
    lines = chain.split(written(5))
    lines.insert(3, b'{"time":"t","event":"bad","release":"0001-1.0.0","reason":"no"}')
    assert (4, "added") in named(joined(lines))
    again = chain.split(written(5))
    again.append(again[2])
    assert (3, "added") in named(joined(again))


def test_a_line_that_was_cut_short_is_named_and_the_chain_goes_on() -> None:
    text = written(4)[:-9] + b"\n"
    whole = written(2, text)
    assert named(whole) == [(4, "damaged")]


def test_a_ledger_of_another_application_is_refused() -> None:
    assert [finding.line for finding in chain.check("other-test", written(3))] == [1]


@QUICK
@given(st.integers(2, 30), st.randoms(use_true_random=False), st.sampled_from(["edit", "remove", "swap"]))
def test_nothing_before_the_last_line_changes_unseen(count: int, chance: random.Random, how: str) -> None:
    lines = chain.split(written(count))
    place = chance.randrange(count - 1)
    if how == "edit":
        column = chance.randrange(len(lines[place]))
        letter = bytes([(lines[place][column] + 1) % 128 or 1]).replace(b"\n", b"x")
        lines[place] = lines[place][:column] + letter + lines[place][column + 1 :]
    elif how == "remove":
        del lines[place]
    else:
        other = (place + chance.randrange(1, count)) % count
        lines[place], lines[other] = lines[other], lines[place]
    assert chain.check(NAME, joined(lines)) != []


# Against a copy


def test_a_copy_that_is_only_older_agrees() -> None:
    text = written(8)
    assert chain.compare(text, joined(chain.split(text)[:5]), "the copy") == []
    assert chain.compare(text, b"", "the copy") == []


def test_missing_newest_lines_show_against_a_copy_and_only_there() -> None:
    copy = written(8)
    cut = joined(chain.split(copy)[:5])
    assert named(cut) == []
    (finding,) = chain.compare(cut, copy, "the copy")
    assert (finding.line, finding.kind) == (6, "missing")
    assert finding.text == "lines 6 to 8 of the copy are gone: the ledger ends after line 5"


def test_a_chain_that_was_written_anew_shows_against_a_copy() -> None:
    copy = written(8)
    forged = b""
    for line in chain.split(copy):
        event = json.loads(line) | {"op": "forged"} if b"op-3" in line else json.loads(line)
        event["n"], event["prev"] = chain.following(NAME, forged)
        forged += json.dumps(event).encode() + b"\n"
    assert named(forged) == []
    assert [finding.line for finding in chain.compare(forged, copy, "the copy")] == [4, 5, 6, 7, 8]


def test_another_order_shows_against_a_copy() -> None:
    lines = chain.split(written(5))
    swapped = [*lines[:2], lines[3], lines[2], lines[4]]
    assert [(f.line, f.kind) for f in chain.compare(joined(swapped), joined(lines), "it")] == [(3, "moved")]


# As the engine writes it


def test_the_engine_writes_a_chain_also_after_lines_that_have_none(world: World) -> None:
    world.paths.ledger.parent.mkdir(parents=True, exist_ok=True)
    world.paths.ledger.write_bytes(OLD)
    for number in range(5):
        world.ledger().append("drill", subject=f"drill {number}", outcome="ok")
    text = world.paths.ledger.read_bytes()
    assert chain.check(NAME, text) == [] and chain.unchained(text) == 2
    assert [event["n"] for event in world.ledger().of("drill")] == [3, 4, 5, 6, 7]


def test_threads_that_append_at_once_lose_no_line(world: World) -> None:
    def append(number: int) -> None:
        for turn in range(10):
            Ledger(world.paths).append("config", subject=f"{number}/{turn}")

    threads = [threading.Thread(target=append, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({event["subject"] for event in world.ledger().events}) == 60
    assert chain.check(NAME, world.paths.ledger.read_bytes()) == []


def test_a_lock_that_cannot_be_made_is_one_sentence(world: World, tmp_path: Path) -> None:
    from switchyard.engine import layout
    from switchyard.errors import SwitchyardError

    (tmp_path / "file").touch()
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SwitchyardError, match="Cannot make the lock"):
        patch.setattr(layout, "RUNTIME", tmp_path / "file")
        world.ledger().append("drill")
