"""Recovery: a proven pointer, an idle colour that is warm or empty, an end to every start, a free lease."""

from __future__ import annotations

import json

import pytest

from switchyard.engine import cli, layout, lease, recover
from switchyard.engine.ledger import Event
from switchyard.engine.operation import Result, read_result, write_result
from switchyard.engine.site import Pointer
from switchyard.errors import Exit, SwitchyardError
from switchyard.names import Colour
from tests.unit.engine_world import NAME, OPERATION, World

A, B, C = "0001-1.0.0", "0002-2.0.0", "0003-3.0.0"


@pytest.fixture
def died(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A host whose operation took lease and start and died."""
    world.begun()
    monkeypatch.setattr(lease, "_started", lambda _: "another process")
    return world


def repair(world: World, *, after: str = OPERATION) -> list[str]:
    said: list[str] = []
    assert recover.recover(world.paths, world.host, said.append, after=after)
    return said


def two_releases(world: World, *, probation: bool = False) -> None:
    """A is warm on blue, B is live on green."""
    world.release(1, "blue")
    world.release(2, "green", previous=A, probation=probation)


def ends(world: World) -> list[Event]:
    return list(world.ledger().of("end"))


def settled(world: World, release: str) -> None:
    """What has to hold after every repair."""
    pointer = world.pointer()
    assert pointer is not None and pointer.release == release
    assert world.ledger().last_live() == (release, pointer.colour)
    assert not pointer.probation
    assert world.docker.serving() == release
    assert world.ledger().unfinished() == []
    assert lease.holder(world.paths) is None
    assert list(layout.STATE.rglob(".*.tmp")) == []


# The pointer


def test_a_pointer_that_was_never_proven_goes_back(died: World) -> None:
    two_releases(died)
    third = died.record(3)
    died.start(third, "blue")
    died.point(Pointer(C, "blue", B, probation=True))
    said = repair(died)
    settled(died, B)
    assert f"recover: the pointer names {C}, {B} was proven last; it goes back" in said


def test_a_pointer_that_was_renamed_but_not_read_goes_back_too(died: World) -> None:
    two_releases(died)
    third = died.record(3)
    died.start(third, "blue")
    text = died.site(Pointer(C, "blue", B), third).render()
    died.paths.pointer.write_text(text)
    assert died.docker.serving() == B
    repair(died)
    settled(died, B)


def test_the_release_to_go_back_to_is_started_when_it_is_down(died: World) -> None:
    two_releases(died)
    died.docker.containers[f"{NAME}-green-api-1"]["State"] = "exited"
    third = died.record(3)
    died.start(third, "blue")
    died.point(Pointer(C, "blue", B))
    said = repair(died)
    settled(died, B)
    assert f"recover: starting {B} on green" in said


def test_a_first_pointer_that_was_never_proven_is_taken_off(died: World) -> None:
    first = died.record(1)
    died.start(first, "blue")
    died.point(Pointer(A, "blue"))
    said = repair(died)
    assert not died.paths.pointer.exists() and died.docker.loaded == {}
    assert said[0] == "recover: the first switch of shop-test was never proven; it is taken off the edge"
    assert died.ledger().unfinished() == []


def test_a_pointer_file_that_is_lost_is_written_again(died: World) -> None:
    two_releases(died)
    died.paths.pointer.unlink()
    repair(died)
    settled(died, B)


@pytest.mark.parametrize("text", ["", "server {}", "# switchyard {"])
def test_a_damaged_pointer_file_is_written_again(died: World, text: str) -> None:
    two_releases(died)
    died.paths.pointer.write_text(text)
    repair(died)
    settled(died, B)


def test_a_proven_pointer_is_left_alone(died: World) -> None:
    two_releases(died)
    before = died.paths.pointer.read_text()
    repair(died)
    assert died.paths.pointer.read_text() == before
    assert died.ran("kill") == []
    settled(died, B)


# Probation


def test_an_interrupted_probation_goes_on_and_ends_well(died: World) -> None:
    two_releases(died, probation=True)
    said = repair(died)
    assert f"recover: {B} is on probation; the watch goes on" in said
    died.run_watches()
    settled(died, B)
    assert died.pointer() == Pointer(B, "green", A)
    assert died.ledger().bad() == {}
    assert [event["verdict"] for event in died.ledger().of("verdict")] == ["pass"]


def test_an_interrupted_probation_of_a_release_that_does_not_answer_goes_back(died: World) -> None:
    two_releases(died, probation=True)
    died.docker.sick = {B}
    repair(died)
    died.run_watches()
    settled(died, A)
    assert B in died.ledger().bad()
    assert [event["verdict"] for event in died.ledger().of("verdict")] == ["revert"]
    assert died.docker.containers[f"{NAME}-green-api-1"]["State"] == "exited"


# The idle colour


def test_what_a_dead_deploy_left_in_the_idle_colour_makes_room_for_the_warm_release(died: World) -> None:
    two_releases(died)
    died.start(died.record(3), "blue")
    repair(died)
    settled(died, B)
    releases = {c["Labels"]["switchyard.release"] for n, c in died.docker.containers.items() if "blue" in n}
    assert releases == {A}


def test_without_a_warm_release_what_is_left_is_stopped_and_kept(died: World) -> None:
    died.release(1, "blue")
    died.start(died.record(2), "green")
    repair(died)
    settled(died, A)
    assert died.docker.containers[f"{NAME}-green-api-1"]["State"] == "exited"


def test_a_bad_release_is_not_made_warm_again(died: World) -> None:
    died.release(1, "blue")
    died.release(2, "green", previous=A)
    died.ledger().append("live", op="x", release=A, colour="blue", schema_epoch=1)
    died.ledger().append("bad", op="x", release=B, reason="5xx")
    died.point(Pointer(A, "blue", B))
    repair(died)
    settled(died, A)
    assert died.docker.containers[f"{NAME}-green-api-1"]["State"] == "exited"


def test_a_warm_release_without_its_image_is_not_started(died: World) -> None:
    two_releases(died)
    died.docker.containers = {n: c for n, c in died.docker.containers.items() if "green" in n}
    died.docker.images.clear()
    repair(died)
    settled(died, B)
    assert died.ran("docker", "compose") == []


# Starts, results and the lease


def test_a_start_without_an_end_gets_one_and_its_follower_a_result(died: World) -> None:
    two_releases(died)
    repair(died)
    (end,) = ends(died)
    assert (end["op"], end["outcome"], end["code"], end["release"]) == (OPERATION, "interrupted", 8, B)
    result = read_result(died.paths, OPERATION)
    assert result is not None and result["code"] == int(Exit.INTERRUPTED) and result["release"] == B


def test_an_operation_whose_switch_was_proven_ends_as_live(died: World) -> None:
    two_releases(died)
    died.ledger().append("live", op=OPERATION, release=B, colour="green", schema_epoch=1)
    repair(died)
    assert ends(died)[0]["outcome"] == "interrupted, but live"


def test_a_result_that_was_written_is_kept(died: World) -> None:
    write_result(died.paths, Result(OPERATION, "deploy", 5, "not healthy"))
    repair(died)
    result = read_result(died.paths, OPERATION)
    assert result is not None and result["message"] == "not healthy"
    assert len(ends(died)) == 1


def test_an_operation_that_died_before_it_began_is_answered(world: World) -> None:
    repair(world)
    result = read_result(world.paths, OPERATION)
    assert result is not None and "died before it began" in str(result["message"])
    assert world.ledger().events == []


def test_repairing_again_changes_nothing(died: World) -> None:
    two_releases(died)
    repair(died)
    before = {path: path.read_bytes() for path in layout.STATE.rglob("*") if path.is_file()}
    died.docker.commands.clear()
    repair(died)
    assert {path: path.read_bytes() for path in layout.STATE.rglob("*") if path.is_file()} == before
    assert died.docker.commands == []


def test_files_that_never_reached_their_rename_are_removed(died: World) -> None:
    two_releases(died)
    left = [died.paths.state / ".ledger.jsonl.7.tmp", layout.EDGE_LIVE / "pointers" / ".x.conf.7.tmp"]
    for path in left:
        path.write_text("half")
    repair(died)
    assert not any(path.exists() for path in left)


# Who is let alone


def test_a_living_operation_is_left_alone(world: World) -> None:
    two_releases(world)
    world.begun()
    world.point(Pointer(B, "green", A, probation=True))
    before = world.ledger().events
    assert not recover.recover(world.paths, world.host, pytest.fail)
    assert not recover.recover(world.paths, world.host, pytest.fail, after="20260101T000000-000000")
    assert world.ledger().events == before
    assert lease.holder(world.paths) is not None


def test_another_operations_lease_is_not_freed_by_the_end_of_this_one(died: World) -> None:
    assert not recover.recover(died.paths, died.host, pytest.fail, after="20260101T000000-000000")
    assert lease.holder(died.paths) is not None
    assert len(died.ledger().unfinished()) == 1


def test_by_hand_the_lease_of_a_dead_process_is_freed_at_once(died: World) -> None:
    assert lease.holder(died.paths) is not None
    repair(died, after="")
    assert lease.holder(died.paths) is None


def test_while_somebody_holds_the_lock_recovery_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(*_: object, busy: str, **__: object) -> None:
        raise SwitchyardError(busy, Exit.BUSY)

    monkeypatch.setattr(recover, "exclusive", busy)
    with pytest.raises(SwitchyardError, match="An operation is changing shop-test; it will repair what it finds"):
        repair(world)


def test_the_next_operation_repairs_first_when_the_lease_ran_out(died: World) -> None:
    two_releases(died)
    op = died.operation(identity="20260102T030406-abcdef")
    with op.exclusively():
        recover.before(op)
        assert len(op.ledger.unfinished()) == 1
        died.clock.now += lease.LEASE_SECONDS
        recover.before(op)
        assert op.ledger.unfinished() == []


def test_an_operation_that_only_watches_is_left_alone_unless_it_is_taken_over_from(world: World) -> None:
    two_releases(world, probation=True)
    watching = world.begun(identity="20260102T030405-aaaaaa")
    assert watching.lease
    lease.renew(world.paths, watching.lease, "watch")
    after = world.operation(identity="20260102T030406-bbbbbb")
    with after.exclusively():
        recover.before(after)
        assert [event["op"] for event in after.ledger.unfinished()] == [watching.id]
        with pytest.raises(SwitchyardError, match=rf"deploy {watching.id} by tester, in phase watch") as error:
            after.begin("3.0.0")
        assert error.value.code is Exit.BUSY
        recover.before(after, take_over=True)
        assert after.ledger.unfinished() == []
        after.begin("1.0.0", take_over=True)


# Requests, which carry secrets


def test_a_request_is_forgotten_and_others_stay(world: World) -> None:
    layout.REQUESTS.mkdir(parents=True)
    for name in ("a", "b"):
        (layout.REQUESTS / f"{name}.json").write_text("{}")
    recover.forget_request("a")
    recover.forget_request("never there")
    assert [path.name for path in layout.REQUESTS.iterdir()] == ["b.json"]
    assert world.ran("rm") != []


# After a reboot


@pytest.mark.parametrize("colour", ["blue", "green"])
def test_after_a_reboot_the_live_colour_comes_before_the_edge(world: World, colour: Colour) -> None:
    world.release(1, colour)
    for container in world.docker.containers.values():
        container["State"] = "exited"
    world.docker.edge = False
    said: list[str] = []
    recover.boot(world.paths, world.host, said.append)
    world.docker.reload()
    settled(world, A)
    assert [line.partition(": ")[2] for line in said[:2]] == [f"starting {A} on {colour}", "starting the edge"]


def test_after_a_reboot_a_database_that_docker_gave_up_is_started_and_a_stopped_one_is_not(world: World) -> None:
    for name, role, status in (
        ("a-postgres", "postgres", "Exited (128) 2 seconds ago"),
        ("a-pooler", "pooler", "Exited (255) 2 seconds ago"),
        ("b-postgres", "postgres", "Exited (0) 3 days ago"),
    ):
        world.docker.add(name, {"switchyard.role": role}, state="exited", status=status)
    world.docker.add("c-postgres", {"switchyard.role": "postgres"})
    world.docker.answers["docker start id-a-postgres"] = (1, "", "no space left on device")
    said: list[str] = []
    problem = recover.start_databases(said.append)
    started = [argv[-1] for argv in world.ran("docker") if argv[1] == "start"]
    assert started == ["id-a-postgres", "id-a-pooler"]
    assert "no space left on device" in said[1]
    assert problem is not None and problem.message in said[1]


def test_after_a_reboot_a_database_waits_for_the_addresses_it_publishes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.docker.add("a-postgres", {"switchyard.role": "postgres"}, state="exited", status="Exited (128)")
    world.docker.containers["a-postgres"]["publishes"] = ["192.0.2.7", "2001:db8::7"]
    asked: list[str] = []

    def late(address: str) -> bool:
        assert world.ran("docker") == []
        asked.append(address)
        return asked.count(address) > 3

    monkeypatch.setattr(recover, "_can_bind", late)
    assert recover.start_databases(lambda _: None) is None
    assert set(asked) == {"192.0.2.7", "2001:db8::7"}
    assert [argv[-1] for argv in world.ran("docker")] == ["id-a-postgres"]


def test_a_database_whose_address_never_comes_up_keeps_nothing_else_down_and_fails_the_unit_that_tries_again(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world.release(1, "blue")
    world.docker.add("a-postgres", {"switchyard.role": "postgres"}, state="exited", status="Exited (128)")
    world.docker.containers["a-postgres"]["publishes"] = ["192.0.2.7"]
    world.docker.edge = False
    monkeypatch.setattr(recover, "_can_bind", lambda address: address != "192.0.2.7")
    monkeypatch.setattr(layout, "load_host", lambda: world.host)
    assert cli.main(["recover", "--boot"]) != 0
    assert "Waited 120 s for address 192.0.2.7 to come up" in capsys.readouterr().err
    assert world.docker.edge
    world.docker.reload()
    settled(world, A)


def test_a_boot_waits_for_the_address_and_says_which_one_it_missed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recover, "_can_bind", lambda _: False)
    with pytest.raises(SwitchyardError, match=r"Waited 120 s for address 127\.0\.0\.1 to come up"):
        recover.boot(world.paths, world.host, lambda _: None)
    assert json.dumps(world.docker.commands) == "[]"


def test_an_address_of_this_host_can_be_bound_and_another_one_cannot() -> None:
    assert recover._can_bind("127.0.0.1")
    assert not recover._can_bind("192.0.2.1")
