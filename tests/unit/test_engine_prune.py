"""Pruning: never what is live, never what a rollback needs, never what another application needs."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from switchyard.engine import effects, layout, records, recover
from switchyard.engine.layout import AppPaths
from switchyard.engine.operation import Result, write_result
from switchyard.engine.prune import prune, removable
from switchyard.engine.site import Pointer
from switchyard.names import AppName
from tests.unit.engine_world import MEMORY, QUICK, World, digest, make_request, make_world


def identity(number: int) -> str:
    return f"{number:04d}-{number}.0.0"


def history(world: World, live: int, previous: int, good: set[int], failed: set[int], bad: set[int]) -> None:
    """Records with their story: good ones in order, then the previous one, then the live one."""
    for number in sorted({live, previous} | good | failed | bad):
        world.record(number)
    for number in [*sorted(good | bad), previous, live]:
        world.ledger().append("live", op="x", release=identity(number), colour="blue")
    for number in bad:
        world.ledger().append("bad", op="x", release=identity(number), reason="5xx")
    world.point(Pointer(identity(live), "blue", identity(previous)))


def removed(world: World, retain: int) -> list[int]:
    return [int(release[:4]) for release in removable(world.paths, world.ledger(), retain)]


def test_live_previous_the_newest_good_and_the_newest_failed_stay(world: World) -> None:
    history(world, live=9, previous=8, good={1, 2, 3, 4}, failed={5, 6}, bad={7})
    assert removed(world, 2) == [1, 2, 5, 6]


def test_with_nothing_to_retain_live_previous_and_the_newest_failed_stay(world: World) -> None:
    history(world, live=9, previous=8, good={1, 2, 3}, failed={4}, bad=set())
    assert removed(world, 0) == [1, 2, 3]


def test_a_rollback_that_is_live_keeps_what_was_left(world: World) -> None:
    history(world, live=2, previous=9, good={1, 3}, failed=set(), bad=set())
    assert {2, 9}.isdisjoint(removed(world, 0))


def test_without_a_pointer_the_ledgers_last_two_stay(world: World) -> None:
    history(world, live=9, previous=8, good={1, 2}, failed=set(), bad=set())
    world.paths.pointer.unlink()
    assert removed(world, 0) == [1, 2]


sets = st.sets(st.integers(1, 12), max_size=6)


@settings(QUICK, max_examples=30)
@given(st.permutations(range(1, 13)), sets, sets, sets, st.integers(0, 4))
def test_whatever_the_history_is_a_rollback_stays_possible(
    numbers: list[int], good: set[int], failed: set[int], bad: set[int], retain: int
) -> None:
    live, previous, *_ = numbers
    fixed = {live, previous}
    bad -= fixed
    good = good - fixed - bad
    failed = failed - fixed - good - bad
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(dir=MEMORY) as directory:
        world = make_world(patch, Path(directory))
        history(world, live, previous, good, failed, bad)
        gone = set(removed(world, retain))
        assert fixed.isdisjoint(gone)
        assert gone <= good | failed | bad
        # Fewer good ones than `retain`, yet more than half of it, is left out: reported.
        if len(good) >= retain:
            assert sorted(good - gone) == sorted(good)[len(good) - retain :]
        if failed | bad:
            assert sorted((failed | bad) - gone) == sorted(failed | bad)[-1:]


def test_pruning_takes_the_record_and_its_images(world: World) -> None:
    history(world, live=3, previous=2, good={1}, failed=set(), bad=set())
    old = records.load(world.paths, identity(1))
    said: list[str] = []
    assert prune(world.paths, world.ledger(), 0, said.append) == [identity(1)]
    assert said == [f"finish: pruned {identity(1)}"]
    assert records.ids(world.paths) == [identity(2), identity(3)]
    assert world.ran("docker", "image", "rm") == [["docker", "image", "rm", old.pinned("api")]]


def test_pruning_again_finds_nothing(world: World) -> None:
    history(world, live=3, previous=2, good={1}, failed=set(), bad=set())
    prune(world.paths, world.ledger(), 0, lambda _: None)
    world.docker.commands.clear()
    assert prune(world.paths, world.ledger(), 0, pytest.fail) == []
    assert world.docker.commands == []


def test_an_image_that_another_record_names_stays(world: World) -> None:
    history(world, live=3, previous=2, good={1}, failed=set(), bad=set())
    shared = records.load(world.paths, identity(1)).digests
    records.create(world.paths, 4, make_request(version="4.0.0"), shared, "hash")
    prune(world.paths, world.ledger(), 0, lambda _: None)
    assert world.ran("docker", "image", "rm") == []


def test_an_image_that_another_application_names_stays(world: World) -> None:
    history(world, live=3, previous=2, good={1}, failed=set(), bad=set())
    other = AppPaths(AppName("other", "test"))
    effects.replace_file(other.ledger, "", step="test")
    request = make_request(app="other", version="1.0.0")
    records.create(other, 1, request, {"api": digest("api1")}, "hash")
    prune(world.paths, world.ledger(), 0, lambda _: None)
    assert world.ran("docker", "image", "rm") == []
    assert records.ids(other) == ["0001-1.0.0"]


def test_an_image_that_is_in_use_keeps_its_record_for_the_next_pruning(world: World) -> None:
    history(world, live=4, previous=3, good={1, 2}, failed=set(), bad=set())
    world.docker.answers["image rm .*" + digest("api1")] = (1, "", "conflict: image is being used by stopped container")
    assert prune(world.paths, world.ledger(), 0, lambda _: None) == [identity(2)]
    world.docker.answers.clear()
    assert prune(world.paths, world.ledger(), 0, lambda _: None) == [identity(1)]


def test_a_pruning_that_is_killed_orphans_no_image(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    history(world, live=3, previous=2, good={1}, failed=set(), bad=set())

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(records, "remove", die)
        prune(world.paths, world.ledger(), 0, lambda _: None)
    assert not any(digest("api1") in image for image in world.docker.images)
    assert prune(world.paths, world.ledger(), 0, lambda _: None) == [identity(1)]


def test_recovery_removes_records_that_were_never_finished(world: World) -> None:
    live = world.release(1, "blue")
    for number in (2, 3):
        world.record(number)
    for damaged in (identity(2), live.id):
        (world.paths.releases / damaged / "release.json").unlink()
    recover.recover(world.paths, world.host, lambda _: None)
    # What is live is damaged instead: what it still has stays.
    assert sorted(path.name for path in world.paths.releases.iterdir()) == [live.id, identity(3)]


def test_nothing_outside_the_applications_records_is_removed(world: World) -> None:
    history(world, live=3, previous=2, good={1}, failed=set(), bad=set())
    before = {path for path in layout.STATE.rglob("*") if path.is_file()}
    prune(world.paths, world.ledger(), 0, lambda _: None)
    gone = before - {path for path in layout.STATE.rglob("*") if path.is_file()}
    assert gone == {world.paths.releases / identity(1) / name for name in ("compose.yml", "release.json")}


def test_the_newest_fifty_results_stay(world: World) -> None:
    history(world, live=3, previous=2, good=set(), failed=set(), bad=set())
    names = [f"20260101T0000{number:02d}-abcdef" for number in range(55)]
    for name in names:
        write_result(world.paths, Result(name, "deploy"))
    prune(world.paths, world.ledger(), 0, lambda _: None)
    assert sorted(path.stem for path in world.paths.results.iterdir()) == names[5:]
