"""The migration: run once, judged by its exit code and by the revision it left, never left in doubt by a death."""

from __future__ import annotations

from typing import Any

import pytest

from switchyard.engine import colour, effects
from switchyard.engine.migrate import _Run, bring_up, migrate
from switchyard.engine.operation import Operation
from switchyard.engine.records import Record
from switchyard.errors import Exit, SwitchyardError
from tests.unit.engine_world import World

UP = {"service": "api", "command": ["alembic", "upgrade", "head"], "current": ["alembic", "current"]}


def release(world: World, number: int = 1, **changes: Any) -> Record:
    return world.record(number, migration=UP | changes)


def refusal(op: Operation, record: Record, decision: str = "") -> SwitchyardError:
    with pytest.raises(SwitchyardError) as error:
        migrate(op, record, decision)
    assert error.value.code is Exit.MIGRATION
    return error.value


def states(world: World) -> list[str]:
    return [event["state"] for event in world.ledger().of("migration")]


def runs(world: World) -> int:
    return len([argv for argv in world.ran("docker", "compose") if "up" in argv])


def left_behind(world: World, op: Operation, record: Record, *, code: int | None, before: str | None = "r1") -> None:
    """What an engine leaves that was killed while its migration ran; `code` None: before it had a container."""
    fields = {"digest": record.digests["api"], "schema_epoch": 1, "before": before}
    op.ledger.append("migration", op="dead", release=record.id, state="started", **fields)
    if code is not None:
        world.docker.add(colour.migrate_name(record), {"switchyard.role": "migrate"}, state="exited", code=code)


def test_without_a_migration_nothing_runs(world: World) -> None:
    migrate(world.begun(), world.record(1), "")
    assert states(world) == [] and world.docker.commands == []


def test_a_clean_migration_is_noted(world: World) -> None:
    world.docker.revisions = ["r1", "r2"]
    record = release(world)
    migrate(world.begun(), record, "")
    assert states(world) == ["started", "clean"]
    state = world.ledger().schema()
    assert state is not None
    assert (state["release"], state["before"], state["digest"]) == (record.id, "r1", record.digests["api"])
    assert colour.migrate_name(record) not in world.docker.containers


def test_an_image_that_migrated_once_never_migrates_again(world: World) -> None:
    """Going back by a deploy: old code does not know the newer revisions, so its migration would fail."""
    old = release(world)
    migrate(world.begun(), old, "")
    newer = {"op": "x", "release": "0099-9", "digest": "sha256:newer", "schema_epoch": 1}
    world.ledger().append("migration", state="started", **newer)
    world.ledger().append("migration", state="clean", **newer)
    before = len(states(world))
    migrate(world.begun(), old, "")
    assert len(states(world)) == before


def test_the_start_is_noted_before_the_container_exists(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    original = world.docker._compose

    def compose(argv: list[str], env: dict[str, str]) -> tuple[int, str, str]:
        if "up" in argv:
            seen.append(states(world))
        return original(argv, env)

    monkeypatch.setattr(world.docker, "_compose", compose)
    migrate(world.begun(), release(world), "")
    assert seen == [["started"]]


def test_it_runs_in_the_new_image_and_publishes_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, str]] = []
    original = world.docker._compose

    def compose(argv: list[str], env: dict[str, str]) -> tuple[int, str, str]:
        assert argv[3] == "shop-test-migrate" and "0001-1.0.0/compose.yml" in argv[5]
        seen.append(env)
        return original(argv, env)

    monkeypatch.setattr(world.docker, "_compose", compose)
    migrate(world.begun(), release(world), "")
    assert {env["SWITCHYARD_PUBLISH_API_1"] for env in seen} == {"127.0.0.1:0"}
    assert {env["SWITCHYARD_MIGRATE_NAME"] for env in seen} == {
        "shop-test-migrate-0001", "shop-test-migrate-0001-current",
    }  # fmt: skip


def test_an_image_that_migrated_this_database_does_not_migrate_it_again(world: World) -> None:
    op, record = world.begun(), release(world)
    migrate(op, record, "")
    migrate(op, record, "")
    assert runs(world) == 1 and states(world) == ["started", "clean"]


def test_another_image_migrates(world: World) -> None:
    op = world.begun()
    migrate(op, release(world, 1), "")
    migrate(op, release(world, 2), "")
    assert runs(world) == 2


def test_a_failure_that_left_the_revision_leaves_the_schema_as_before(world: World) -> None:
    world.docker.migration_exit = 3
    error = refusal(world.begun(), release(world))
    assert error.message == (
        "The migration of 0001-1.0.0 failed with exit code 3; the old release serves on. The schema is as before."
    )
    assert "log of shop-test-migrate-0001" in error.details
    assert states(world) == ["started", "unchanged"]


def test_a_migration_that_lost_a_lock_is_tried_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("switchyard.engine.migrate._LOCK_PAUSE", 0.0)
    monkeypatch.setattr(_Run, "log", lambda _: "ERROR: canceling statement due to lock timeout")
    world.docker.migration_exit = 3
    refusal(world.begun(), release(world))
    assert runs(world) == 5
    assert states(world) == ["started", "unchanged"]


def test_a_failure_of_another_kind_is_not_tried_again(world: World) -> None:
    world.docker.migration_exit = 3
    refusal(world.begun(), release(world))
    assert runs(world) == 1


def test_a_failure_that_moved_the_revision_is_dirty(world: World) -> None:
    world.docker.migration_exit = 3
    world.docker.revisions = ["r1", "r1-half"]
    error = refusal(world.begun(), release(world))
    assert error.message.endswith("The schema may be half-way and is recorded as dirty.")
    assert states(world) == ["started", "dirty"]


def test_a_failure_of_an_application_that_cannot_tell_its_revision_is_dirty(world: World) -> None:
    world.docker.migration_exit = 3
    refusal(world.begun(), release(world, current=[]))
    assert states(world) == ["started", "dirty"]


def test_an_unchanged_schema_lets_the_next_deploy_migrate(world: World) -> None:
    op, record = world.begun(), release(world)
    world.docker.migration_exit = 3
    refusal(op, record)
    world.docker.migration_exit = 0
    migrate(op, record, "")
    assert states(world) == ["started", "unchanged", "started", "clean"]


# A dirty schema waits for a person


@pytest.fixture
def dirty(world: World) -> Operation:
    op = world.begun()
    world.docker.migration_exit = 3
    world.docker.revisions = ["r1", "r1-half", "r1-half"]
    refusal(op, release(world, 1))
    world.docker.migration_exit = 0
    return op


def test_a_dirty_schema_is_refused_with_both_ways_out(world: World, dirty: Operation) -> None:
    error = refusal(dirty, release(world, 2))
    assert "The migration of release 0001-1.0.0 stopped half-way and the schema is dirty" in error.message
    assert "'-e migration=resume'" in error.message and "'-e migration=resolve'" in error.message
    assert runs(world) == 1


@pytest.mark.parametrize("decision", ["resume", "resolve"])
def test_with_a_decision_the_migration_runs_from_where_it_stands(world: World, dirty: Operation, decision: str) -> None:
    migrate(dirty, release(world, 2), decision)
    assert states(world) == ["started", "dirty", "started", "clean"]
    assert runs(world) == 2


# A killed engine


def test_a_migration_that_ended_well_without_its_engine_is_clean(world: World) -> None:
    op, record = world.begun(), release(world, 1)
    left_behind(world, op, record, code=0)
    migrate(op, release(world, 2), "")
    assert states(world)[:2] == ["started", "clean"]
    assert world.ledger().events[-1]["release"] == "0002-2.0.0"
    assert colour.migrate_name(record) not in world.docker.containers


def test_a_migration_that_ended_well_without_its_engine_is_not_run_again(world: World) -> None:
    op, record = world.begun(), release(world)
    left_behind(world, op, record, code=0)
    migrate(op, record, "")
    assert states(world) == ["started", "clean"] and runs(world) == 0


def test_a_migration_that_had_no_container_yet_touched_nothing(world: World) -> None:
    op, record = world.begun(), release(world)
    left_behind(world, op, record, code=None)
    migrate(op, record, "")
    assert states(world) == ["started", "unchanged", "started", "clean"]


def test_a_migration_that_failed_without_its_engine_and_moved_the_revision_is_dirty(world: World) -> None:
    op, record = world.begun(), release(world)
    left_behind(world, op, record, code=1, before="r0")
    refusal(op, record)
    assert states(world) == ["started", "dirty"] and runs(world) == 0


def test_a_migration_that_failed_without_its_engine_and_moved_nothing_runs_again(world: World) -> None:
    op, record = world.begun(), release(world)
    left_behind(world, op, record, code=1, before="r1")
    migrate(op, record, "")
    assert states(world) == ["started", "unchanged", "started", "clean"]


def test_a_migration_that_still_runs_is_waited_for(world: World) -> None:
    op, record = world.begun(), release(world, 1)
    left_behind(world, op, record, code=0)
    container = world.docker.containers[colour.migrate_name(record)]
    container["State"] = "running"
    world.clock.on_sleep = lambda: container.update(State="exited")
    migrate(op, release(world, 2), "")
    assert states(world)[1] == "clean"
    assert world.ran("docker", "stop") == []


def test_a_migration_that_takes_too_long_is_stopped(world: World) -> None:
    op, record = world.begun(), release(world, 1, timeout=30.0)
    left_behind(world, op, record, code=137, before="r0")
    world.docker.containers[colour.migrate_name(record)]["State"] = "running"
    refusal(op, release(world, 2))
    assert world.ran("docker", "stop") == [["docker", "stop", "--time", "10", "shop-test-migrate-0001"]]
    assert states(world) == ["started", "started", "dirty"]


def late(world: World, monkeypatch: pytest.MonkeyPatch, *, code: int = 0) -> None:
    """A migration that ends only when it is stopped, and then with this exit code."""
    add = world.docker.add

    def running(name: str, labels: dict[str, str], **_: Any) -> None:
        add(name, labels, state="running" if name.endswith("-0001") else "exited", code=code)

    monkeypatch.setattr(world.docker, "add", running)


OUT_OF_TIME = "The migration of 0001-1.0.0 ran longer than app_migration.timeout (30 s) and was stopped"


@pytest.mark.parametrize(("after", "state"), [("r1", "unchanged"), ("r1-half", "dirty")])
def test_a_migration_that_was_stopped_at_its_time_limit_failed_whatever_its_exit_code(
    world: World, monkeypatch: pytest.MonkeyPatch, after: str, state: str
) -> None:
    late(world, monkeypatch)
    world.docker.revisions = ["r1", after]
    error = refusal(world.begun(), release(world, timeout=30.0))
    assert error.message.startswith(f"{OUT_OF_TIME}; the old release serves on.")
    assert states(world) == ["started", "started", state]


def test_a_migration_that_was_stopped_at_its_time_limit_is_not_tried_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    late(world, monkeypatch)
    monkeypatch.setattr(_Run, "log", lambda _: "ERROR: canceling statement due to lock timeout")
    refusal(world.begun(), release(world, timeout=30.0))
    assert runs(world) == 1


@pytest.mark.parametrize("step", ["ledger.migration", "migrate.stop"])
def test_a_migration_whose_engine_died_while_it_stopped_it_is_not_clean(
    world: World, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    class Died(BaseException):
        pass

    passed: list[str] = []

    def die(name: str, when: str, _: float) -> None:
        passed.append(name)
        # The first event of the migration is its start.
        if (name, when, passed.count(name)) == (step, "after", 4 if step == "ledger.migration" else 2):
            raise Died

    op, record = world.begun(), release(world, timeout=30.0)
    with monkeypatch.context() as patch:
        late(world, patch)
        patch.setattr(effects._faults, "point", die)
        with pytest.raises(Died):
            migrate(op, record, "")
    world.docker.revisions = ["r1-half"]
    refusal(world.begun(), release(world, 2))
    assert set(states(world)[:-1]) == {"started"} and states(world)[-1] == "dirty"
    assert world.docker.containers == {}


def test_restored_data_is_not_brought_up_by_a_migration_that_was_stopped(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    late(world, monkeypatch)
    with pytest.raises(SwitchyardError) as error:
        bring_up(world.begun(), release(world, timeout=30.0))
    assert error.value.message == f"{OUT_OF_TIME}."
    assert states(world) == []


def mute(world: World, monkeypatch: pytest.MonkeyPatch, *asked: int) -> None:
    """The application's `current` command fails these times that it is asked."""
    original, count = world.docker._compose, iter(range(1, 100))

    def compose(argv: list[str], env: dict[str, str]) -> tuple[int, str, str]:
        if argv[6] == "run" and next(count) in asked:
            return 1, "", "no such command"
        return original(argv, env)

    monkeypatch.setattr(world.docker, "_compose", compose)


@pytest.mark.parametrize("asked", [(1,), (2,), (1, 2)])
def test_a_revision_that_could_not_be_asked_for_proves_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, asked: tuple[int, ...]
) -> None:
    mute(world, monkeypatch, *asked)
    world.docker.migration_exit = 3
    world.docker.revisions = [""]
    error = refusal(world.begun(), release(world))
    assert error.message.endswith("The schema may be half-way and is recorded as dirty.")
    assert states(world) == ["started", "dirty"]


def test_a_database_without_a_revision_is_unchanged_when_it_has_none_afterwards(world: World) -> None:
    world.docker.migration_exit = 3
    world.docker.revisions = [""]
    refusal(world.begun(), release(world))
    assert states(world) == ["started", "unchanged"]


def test_a_migration_is_not_tried_again_when_nobody_knows_what_it_did(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    mute(world, monkeypatch, *range(1, 100))
    monkeypatch.setattr(_Run, "log", lambda _: "ERROR: canceling statement due to lock timeout")
    world.docker.migration_exit = 3
    refusal(world.begun(), release(world))
    assert runs(world) == 1


def test_a_revision_that_a_dead_engine_could_not_ask_for_proves_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    op, record = world.begun(), release(world)
    left_behind(world, op, record, code=1, before=None)
    mute(world, monkeypatch, *range(1, 100))
    refusal(op, record)
    assert states(world) == ["started", "dirty"]


def test_a_migration_container_is_no_instance_of_a_colour(world: World) -> None:
    record = world.release(1, "blue")
    labels = {"switchyard.app": "shop", "switchyard.environment": "test", "switchyard.colour": "blue",
              "switchyard.role": "migrate", "switchyard.release": "0002-2.0.0"}  # fmt: skip
    world.docker.add("shop-test-migrate-0002", labels, state="exited")
    assert colour.release_in(world.paths.name, "blue") == (record.id, True)
    assert colour.exited(world.paths.name, "blue") == ""
