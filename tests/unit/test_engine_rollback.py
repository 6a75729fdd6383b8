"""Going back: which release is chosen, what is refused and with which exit code, and what a rollback does."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from switchyard.engine import colour, docker, effects, lease, phases, records, recover
from switchyard.engine.operation import read_result
from switchyard.engine.rollback import choose, rollback
from switchyard.engine.site import Pointer
from switchyard.errors import Exit, SwitchyardError
from switchyard.names import Colour
from switchyard.report.story import stays
from tests.unit.engine_world import MEMORY, OPERATION, QUICK, World, make_world

A, B, C = "0001-1.0.0", "0002-2.0.0", "0003-3.0.0"
COLOURS: tuple[Colour, ...] = ("blue", "green")


def deployed(world: World, *numbers: int, **changes: Any) -> None:
    """Releases deployed one after the other, each proven and each leaving its predecessor warm."""
    before = world.pointer()
    for number in numbers:
        colour = COLOURS[(number + 1) % 2]
        world.release(number, colour, previous=before.release if before else "", **changes)
        before = world.pointer()


def chosen(world: World, wanted: str = "") -> str:
    op = world.operation("rollback")
    op.ledger = world.ledger()
    pointer = world.pointer()
    assert pointer is not None
    return choose(op, pointer, wanted).id


def refusal(world: World, wanted: str = "") -> SwitchyardError:
    with pytest.raises(SwitchyardError) as error:
        chosen(world, wanted)
    return error.value


def mark_bad(world: World, release: str) -> None:
    world.ledger().append("bad", op="x", release=release, reason="5xx on probation")


# Choosing


def test_the_default_is_the_release_before(world: World) -> None:
    deployed(world, 1, 2, 3)
    assert chosen(world) == B


def test_the_default_goes_back_along_the_way_that_was_come(world: World) -> None:
    deployed(world, 1, 2)
    world.ledger().append("live", op="r", release=A, colour="blue", schema_epoch=1)
    world.release(3, "green", previous=A)
    assert chosen(world) == A


def test_the_default_skips_what_is_bad(world: World) -> None:
    deployed(world, 1, 2, 3)
    mark_bad(world, B)
    assert chosen(world) == A


def test_the_default_skips_a_release_whose_record_is_gone(world: World) -> None:
    deployed(world, 1, 2, 3)
    records.remove(records.load(world.paths, B))
    assert chosen(world) == A


def test_on_probation_the_default_is_the_backup(world: World) -> None:
    deployed(world, 1, 2)
    world.point(Pointer(B, "green", A, probation=True))
    assert chosen(world) == A


@pytest.mark.parametrize("wanted", ["1.0.0", A])
def test_a_release_is_named_by_version_or_by_id(world: World, wanted: str) -> None:
    deployed(world, 1, 2, 3)
    assert chosen(world, wanted) == A


def test_of_two_releases_of_one_version_the_newest_good_one_is_meant(world: World) -> None:
    deployed(world, 1, 2, version="1.0.0")
    deployed(world, 3)
    assert chosen(world, "1.0.0") == "0002-1.0.0"
    assert chosen(world, "0001-1.0.0") == "0001-1.0.0"
    mark_bad(world, "0002-1.0.0")
    assert chosen(world, "1.0.0") == "0001-1.0.0"


def test_without_an_earlier_release_there_is_no_default(world: World) -> None:
    deployed(world, 1)
    error = refusal(world)
    assert error.code is Exit.UNKNOWN_RELEASE
    assert error.message == ("There is no earlier good release of shop-test to go back to. No other release is known.")


def test_an_unknown_release_is_refused_with_those_that_are_known(world: World) -> None:
    deployed(world, 1, 2, 3)
    error = refusal(world, "9.9.9")
    assert error.code is Exit.UNKNOWN_RELEASE
    assert error.message == f"Release 9.9.9 of shop-test is not known on this host. Known releases: {A}, {B}."


@pytest.mark.parametrize("wanted", [B, "2.0.0"])
def test_the_live_release_is_refused(world: World, wanted: str) -> None:
    deployed(world, 1, 2)
    error = refusal(world, wanted)
    assert (error.code, error.message) == (Exit.ALREADY_LIVE, f"Release {B} already is live.")


def test_a_bad_release_is_refused_with_its_reason(world: World) -> None:
    deployed(world, 1, 2, 3)
    mark_bad(world, B)
    error = refusal(world, "2.0.0")
    assert error.code is Exit.NEVER_HEALTHY
    assert error.message == f"Release {B} must not go live: 5xx on probation. Known releases: {A}."


def test_a_release_that_was_never_live_is_refused(world: World) -> None:
    deployed(world, 1)
    world.record(2)
    error = refusal(world, B)
    assert error.code is Exit.NEVER_HEALTHY
    assert "it never passed its health checks" in error.message


def test_a_contracted_schema_is_not_crossed(world: World) -> None:
    deployed(world, 1, schema_epoch=1)
    deployed(world, 2, schema_epoch=2)
    deployed(world, 3, schema_epoch=2)
    for wanted in ("1.0.0", A):
        error = refusal(world, wanted)
        assert error.code is Exit.SCHEMA
        assert f"Release {A} (schema epoch 1) cannot run on the database, which release {B} brought to epoch 2" in (
            error.message
        )
    assert chosen(world) == B


def test_a_migration_that_ran_counts_although_its_release_never_went_live(world: World) -> None:
    deployed(world, 1, 2)
    world.ledger().append("migration", op="x", release=C, state="clean", digest="d", schema_epoch=2)
    assert refusal(world).code is Exit.SCHEMA


def test_each_refusal_has_an_exit_code_of_its_own() -> None:
    codes = [Exit.UNKNOWN_RELEASE, Exit.ALREADY_LIVE, Exit.NEVER_HEALTHY, Exit.SCHEMA]
    assert sorted(map(int, codes)) == [10, 11, 12, 13]


@settings(QUICK, max_examples=20)
@given(st.sets(st.sampled_from([1, 2, 3, 4])))
def test_what_is_chosen_was_live_is_not_bad_and_is_not_what_serves(bad: set[int]) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(dir=MEMORY) as directory:
        world = make_world(patch, Path(directory))
        deployed(world, 1, 2, 3, 4)
        for number in bad:
            mark_bad(world, f"000{number}-{number}.0.0")
        good = [number for number in (1, 2, 3) if number not in bad]
        if good:
            assert chosen(world) == f"000{good[-1]}-{good[-1]}.0.0"
        else:
            assert refusal(world).code is Exit.UNKNOWN_RELEASE


# Doing it


def go_back(world: World, wanted: str = "") -> tuple[int, str]:
    op = world.operation("rollback")
    rollback(op, wanted)
    return op.result.code, op.result.message


def test_a_warm_release_is_a_flip_of_the_pointer_and_nothing_is_started(world: World) -> None:
    deployed(world, 1, 2)
    assert go_back(world) == (0, f"{A} is live again on blue; {B} stays warm on green.")
    assert world.docker.serving() == A
    assert world.pointer() == Pointer(A, "blue", B)
    assert world.ran("docker") == []
    assert world.ledger().lineage() == [A]
    assert world.ledger().unfinished() == [] and lease.holder(world.paths) is None


def test_a_rollback_can_be_rolled_back(world: World) -> None:
    deployed(world, 1, 2)
    assert go_back(world)[0] == 0
    assert go_back(world, "2.0.0")[0] == 0
    assert world.docker.serving() == B


def test_an_older_release_is_started_from_its_record_and_its_local_image(world: World) -> None:
    deployed(world, 1, 2, 3)
    world.docker.containers = {n: c for n, c in world.docker.containers.items() if "green" not in n}
    world.docker.refused = {"everything": (500, {})}
    op_code, _ = go_back(world, "1.0.0")
    assert op_code == 0
    assert world.docker.serving() == A
    assert world.ran("docker", "pull") == []
    pointer = world.pointer()
    assert pointer is not None and pointer.colour == "green"


def test_an_image_that_is_gone_is_asked_of_the_registry(world: World) -> None:
    deployed(world, 1, 2, 3)
    world.docker.images.clear()
    assert go_back(world, "1.0.0")[0] == 0
    assert len(world.ran("docker", "pull")) == 1


def test_a_release_that_does_not_get_healthy_does_not_go_live(world: World) -> None:
    deployed(world, 1, 2, 3)
    world.docker.sick = {A}
    code, message = go_back(world, "1.0.0")
    assert code == Exit.UNHEALTHY and message.endswith("The live release serves on.")
    assert world.docker.serving() == C
    assert world.ledger().unfinished() == [] and lease.holder(world.paths) is None
    assert world.ledger().last_live() == (C, "blue")


def test_a_refusal_leaves_no_trace_in_the_ledger(world: World) -> None:
    deployed(world, 1)
    before = world.ledger().events
    assert go_back(world, "9.9.9")[0] == Exit.UNKNOWN_RELEASE
    assert world.ledger().events == before


@pytest.mark.parametrize(
    ("wanted", "code"),
    [("9.9.9", Exit.UNKNOWN_RELEASE), (C, Exit.ALREADY_LIVE), (B, Exit.NEVER_HEALTHY), (A, Exit.SCHEMA)],
)
@pytest.mark.parametrize("share", [5, 100])
def test_a_refusal_leaves_the_deploy_alone_that_follows_its_probation(
    world: World, wanted: str, code: Exit, share: int
) -> None:
    deployed(world, 1, schema_epoch=1)
    deployed(world, 2, 3, schema_epoch=2)
    mark_bad(world, B)
    watching = world.begun(identity="20260101T000000-000000")
    world.point(Pointer(C, "blue", B, probation=True, share=share))
    watching.lease = lease.renew(world.paths, watching.lease or pytest.fail("no lease"), "watch")
    before, news = world.ledger().events, world.news()
    assert go_back(world, wanted)[0] == code
    assert (world.ledger().events, world.news(), world.ran("docker")) == (before, news, [])
    assert read_result(world.paths, watching.id) is None
    with watching.exclusively():
        watching.end("live")


def test_a_refusal_after_a_death_still_repairs(world: World) -> None:
    deployed(world, 1)
    dead = world.begun(identity="20260101T000000-000000")
    lease.release(world.paths, dead.lease or pytest.fail("no lease"))
    assert go_back(world, "9.9.9")[0] == Exit.UNKNOWN_RELEASE
    assert world.ledger().unfinished() == []


def test_with_nothing_live_there_is_nothing_to_go_back_from(world: World) -> None:
    assert go_back(world)[0] == Exit.UNKNOWN_RELEASE


def test_a_probation_that_is_only_watched_is_ended(world: World) -> None:
    deployed(world, 1)
    watching = world.begun(identity="20260101T000000-000000")
    world.release(2, "green", previous=A, probation=True)
    watching.lease = lease.renew(world.paths, watching.lease or pytest.fail("no lease"), "watch")
    assert go_back(world)[0] == 0
    assert world.docker.serving() == A
    with pytest.raises(SwitchyardError) as error, watching.exclusively():
        pytest.fail("the watcher may go on")
    assert error.value.code is Exit.INTERRUPTED


def test_a_deploy_at_work_is_not_ended(world: World) -> None:
    deployed(world, 1, 2)
    world.begun(identity="20260101T000000-000000")
    assert go_back(world)[0] == Exit.BUSY
    assert world.docker.serving() == B


def canary(world: World) -> World:
    """C has 5 % of the clients on blue, B has the others on green, and A runs nowhere."""
    deployed(world, 1, 2, 3)
    world.point(Pointer(C, "blue", B, probation=True, share=5))
    return world


def test_from_a_canary_every_client_has_the_old_release_again_before_an_older_one_is_started(world: World) -> None:
    seen: list[tuple[Pointer | None, str]] = []
    start = canary(world).docker._compose

    def compose(argv: list[str], env: dict[str, str]) -> tuple[int, str, str]:
        seen.append((world.pointer(), env["SWITCHYARD_COLOUR"]))
        return start(argv, env)

    world.docker._compose = compose  # type: ignore[method-assign]
    assert go_back(world, "1.0.0") == (0, f"{A} is live again on blue; {B} stays warm on green.")
    assert seen == [(Pointer(B, "green", C), "blue")]
    assert (world.docker.serving(), world.pointer()) == (A, Pointer(A, "blue", B))
    assert [event["release"] for event in world.ledger().of("live")][-2:] == [B, A]
    assert world.ledger().bad() == {}
    assert [(stay.release, stay.kind) for stay in stays(world.ledger().events)][-2:] == [
        (B, "rollback"), (A, "rollback"),
    ]  # fmt: skip


def test_an_older_release_that_is_not_healthy_leaves_the_canary_and_takes_nobody_with_it(world: World) -> None:
    canary(world).docker.sick = {A}
    code, message = go_back(world, "1.0.0")
    assert code == Exit.UNHEALTHY and message.endswith("The live release serves on.")
    assert world.docker.serving() == B
    assert colour.release_in(world.paths.name, "green") == (B, True)
    assert colour.release_in(world.paths.name, "blue") == (C, True)
    assert world.ledger().last_live() == (B, "green")


def test_when_the_old_release_does_not_answer_the_canary_stays_and_nothing_is_started(world: World) -> None:
    canary(world).docker.sick = {B}
    assert go_back(world, "1.0.0")[0] == Exit.REVERTED
    assert world.pointer() == Pointer(C, "blue", B, probation=True, share=5)
    assert world.ran("docker", "compose") == []


@pytest.mark.parametrize("wanted", ["", "1.0.0"])
def test_a_canary_whose_other_clients_have_a_release_without_a_record_is_not_left(world: World, wanted: str) -> None:
    canary(world)
    records.remove(records.load(world.paths, B))
    error = refusal(world, wanted)
    assert error.code is Exit.UNKNOWN_RELEASE
    assert error.message == (
        f"{B} has the clients that the canary {C} has not, and its record is gone, so nothing can take its place: give "
        f"{C} every client with 'switchyard promote', then go back."
    )


class Died(BaseException):
    """The process is killed: nothing of it goes on."""


@pytest.mark.parametrize("wanted", ["", "1.0.0"])
@pytest.mark.parametrize("step", ["switch.rename", "switch.reload", "ledger.live", "colour.start"])
def test_a_rollback_that_dies_on_its_way_from_a_canary_never_gives_it_to_everybody(
    world: World, monkeypatch: pytest.MonkeyPatch, wanted: str, step: str
) -> None:
    def die(name: str, when: str, _: float) -> None:
        if (name, when) == (step, "before" if step == "ledger.live" else "after"):
            raise Died

    canary(world).ledger().append("live", op="op3", release=C, colour="blue", schema_epoch=1, share=5)
    with monkeypatch.context() as patch, contextlib.suppress(Died):
        patch.setattr(effects._faults, "point", die)
        go_back(world, wanted)
    recover.repair(world.paths, world.host, world.ledger(), lambda _: None)
    pointer = world.pointer()
    assert pointer is not None
    assert world.docker.serving() == B
    assert (pointer.release, pointer.share, pointer.probation) == (B, 100, False)
    assert world.ledger().last_live() == (B, "green")
    assert go_back(world, "1.0.0")[0] == 0
    assert world.docker.serving() == A


def test_the_ledger_tells_the_share_that_a_canary_begins_with(world: World) -> None:
    deployed(world, 1)
    record = world.record(2, canary={"steps": [0, 50]})
    world.start(record, "green")
    phases.switch(world.begun(), record, "green", probation=True)
    assert world.ledger().share() == 0
    phases.switch(world.begun("rollback"), records.load(world.paths, A), "blue", probation=False)
    assert world.ledger().share() == 100


def test_a_canary_that_every_client_has_is_gone_back_to_as_any_release(world: World) -> None:
    canary(world).ledger().append("live", op="op3", release=C, colour="blue", schema_epoch=1, share=5)
    world.ledger().append("canary", op="op3", release=C, share=100)
    world.point(Pointer(B, "green", C))
    recover.repair(world.paths, world.host, world.ledger(), lambda _: None)
    assert world.docker.serving() == C


def test_a_deploy_that_died_after_a_canary_whose_last_step_was_not_noted_is_never_made_live(world: World) -> None:
    canary(world).ledger().append("live", op="op3", release=C, colour="blue", schema_epoch=1, share=5)
    died = world.record(4)
    world.start(died, "green")
    world.point(Pointer(died.id, "green", C))
    recover.repair(world.paths, world.host, world.ledger(), lambda _: None)
    assert world.docker.serving() == C


def test_nothing_is_started_by_hand_where_a_canary_left_the_other_clients(world: World) -> None:
    canary(world)
    with pytest.raises(SwitchyardError) as error:
        phases.start(world.begun(), records.load(world.paths, A))
    assert error.value.code is Exit.BUSY
    assert world.ran("docker") == []


def test_a_switch_that_cannot_be_proven_is_put_back(world: World) -> None:
    deployed(world, 1, 2)
    world.docker.takes_up = False
    code, message = go_back(world)
    assert code == Exit.REVERTED and message.endswith("The old pointer is back and serves.")
    assert world.pointer() == Pointer(B, "green", A)
    assert world.ledger().last_live() == (B, "green")
    ends = [event for event in world.ledger().of("end") if event["op"] == OPERATION]
    assert [event["outcome"] for event in ends] == ["failed"]


def test_the_containers_of_another_environment_are_not_ours(world: World) -> None:
    deployed(world, 1, 2)
    world.docker.add("shop-prod-blue-api-1", {"switchyard.app": "shop", "switchyard.environment": "prod",
                                              "switchyard.colour": "blue", "switchyard.release": C})  # fmt: skip
    assert [container.name for container in docker.of_colour(world.paths.name, "blue")] == ["shop-test-blue-api-1"]
    assert go_back(world)[0] == 0


# When going back fails


@pytest.fixture
def cold(world: World) -> World:
    """A release to go back to that has to be started, and will not be healthy."""
    deployed(world, 1, 2, 3)
    world.docker.sick.add(A)
    return world


def test_what_fails_while_tidying_does_not_hide_why_it_failed(cold: World) -> None:
    cold.docker.answers["docker stop"] = (1, "", "Cannot connect to the Docker daemon")
    op = cold.operation("rollback")
    rollback(op, "1.0.0")
    assert op.result.code == Exit.UNHEALTHY
    assert "/health answers 503" in op.result.message and op.result.message.endswith("The live release serves on.")
    assert [event["message"] for event in cold.ledger().of("end")] == [op.result.message]


def test_an_end_that_cannot_be_written_does_not_hide_why_it_failed(
    cold: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    op = cold.operation("rollback")

    def full(_: str) -> None:
        raise SwitchyardError("ledger.end: cannot write: No space left on device")

    monkeypatch.setattr(op, "end", full)
    rollback(op, "1.0.0")
    assert op.result.code == Exit.UNHEALTHY and "/health answers 503" in op.result.message
    assert "the end is left to recovery: ledger.end: cannot write" in capsys.readouterr().out
