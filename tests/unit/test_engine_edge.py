"""The edge: what counts as the proof of a switch, and that nothing invalid reaches the live side."""

from __future__ import annotations

import pytest

from switchyard.engine import edge, layout
from switchyard.engine.site import Pointer, Site
from switchyard.errors import Exit, SwitchyardError
from tests.unit.engine_world import NAME, World

A, B = "0001-1.0.0", "0002-2.0.0"


def on_probation(world: World) -> Site:
    """B is live on green with A as its backup, as the edge has read it."""
    old = world.release(1, "blue")
    new = world.release(2, "green", previous=A, probation=True)
    return world.site(Pointer(B, "green", A, probation=True), new, old)


def proof(world: World, site: Site) -> str:
    return edge.prove_once(site, world.host, "api", set(site.live_targets("api")))


# Proof


def test_an_answer_of_the_new_release_alone_is_a_proof(world: World) -> None:
    assert proof(world, on_probation(world)) == ""


def test_an_answer_for_which_the_backup_stepped_in_is_none(world: World) -> None:
    site = on_probation(world)
    world.docker.containers[f"{NAME}-green-api-1"]["State"] = "exited"
    new, old = site.live_targets("api")[0], site.targets(site.previous or site.live, "api", "blue")[0]
    assert world.docker.serving() == A
    assert proof(world, site) == f"answered by {new}, {old} instead of {new}"


def test_an_answer_of_the_old_configuration_is_none(world: World) -> None:
    site = on_probation(world)
    world.point(Pointer(A, "blue", B))
    assert proof(world, site) == f"the edge still names release {A}"


def test_an_error_of_the_new_release_is_none(world: World) -> None:
    site = on_probation(world)
    world.docker.sick = {B}
    assert proof(world, site) == "the new release answers 503"


def test_silence_is_none(world: World) -> None:
    site = on_probation(world)
    world.docker.edge = False
    assert proof(world, site) == "the edge does not answer (Connection refused)"


def test_a_switch_needs_several_proofs_in_a_row(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    site = on_probation(world)
    answers = iter(["", "", "old one", *[""] * edge.PROOF_CONNECTIONS])
    asked: list[str] = []

    def prove_once(*_: object) -> str:
        asked.append(next(answers))
        return asked[-1]

    monkeypatch.setattr(edge, "prove_once", prove_once)
    edge.point(world.paths, site, world.host)
    assert len(asked) == 3 + edge.PROOF_CONNECTIONS


def test_what_the_proof_cannot_see_counts_when_the_old_workers_are_gone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = on_probation(world)
    looks = iter([True, True, False])
    monkeypatch.setattr(edge, "_workers", lambda _: {"10"})
    monkeypatch.setattr(edge, "_takes_in", lambda _: next(looks))
    edge.point(world.paths, site, world.host, unseen=True)
    assert list(looks) == []
    before = world.paths.pointer.read_text()
    monkeypatch.setattr(edge, "_takes_in", lambda _: True)
    with pytest.raises(SwitchyardError, match="goes on with what it had before"):
        edge.point(world.paths, site, world.host, unseen=True)
    assert world.paths.pointer.read_text() == before


def test_without_a_running_edge_nothing_is_placed(world: World) -> None:
    site = on_probation(world)
    before = world.paths.pointer.read_text()
    world.docker.edge = False
    with pytest.raises(SwitchyardError, match="The edge does not run on this host") as error:
        edge.point(world.paths, site, world.host)
    assert error.value.code is Exit.PREFLIGHT
    assert world.paths.pointer.read_text() == before


# Files of the edge role


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """The master's workers at each look."""
    table = [{"10", "11"}, {"10", "11", "12"}]
    monkeypatch.setattr(edge, "_workers", lambda _: table.pop(0) if len(table) > 1 else table[0])
    monkeypatch.setattr(edge, "_takes_in", lambda _: False)
    return table


@pytest.mark.usefixtures("workers")
def test_a_changed_file_is_tested_placed_and_taken_up(world: World) -> None:
    done = edge.apply_files({"nginx.conf": "new", "sites/a.conf": "site"}, world.host)
    assert done.changed and done.reloaded
    assert (layout.EDGE_LIVE / "nginx.conf").read_text() == "new"
    assert (layout.EDGE_LIVE / "sites" / "a.conf").read_text() == "site"
    kinds = [argv[0] for argv in world.docker.commands]
    assert kinds.index("nsenter") < kinds.index("kill")


@pytest.mark.usefixtures("workers")
def test_unchanged_files_and_a_check_place_nothing(world: World) -> None:
    edge.apply_files({"nginx.conf": "same"}, world.host)
    world.docker.commands.clear()
    assert edge.apply_files({"nginx.conf": "same"}, world.host) == edge.Applied(changed=False, reloaded=False, diff=[])
    told = edge.apply_files({"nginx.conf": "other"}, world.host, check=True)
    assert told.changed and not told.reloaded
    assert told.diff == [{"path": str(layout.EDGE_LIVE / "nginx.conf"), "before": "same", "after": "other"}]
    assert world.docker.commands == [] and (layout.EDGE_LIVE / "nginx.conf").read_text() == "same"


@pytest.mark.usefixtures("workers")
def test_a_file_that_nginx_refuses_is_not_placed(world: World) -> None:
    edge.apply_files({"nginx.conf": "old"}, world.host)
    world.docker.answers["nginx -t"] = (1, "", "nginx: [emerg] 1#1: unexpected end of file\n")
    with pytest.raises(SwitchyardError, match=r"unexpected end of file\. Nothing was changed"):
        edge.apply_files({"nginx.conf": "new"}, world.host)
    assert (layout.EDGE_LIVE / "nginx.conf").read_text() == "old"


def test_a_file_counts_when_no_old_worker_takes_in_connections(
    world: World, workers: list[set[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    edge.apply_files({"nginx.conf": "old"}, world.host)
    workers[:] = [{"10"}, {"10", "12"}]
    looks = iter([True, True, False])
    monkeypatch.setattr(edge, "_takes_in", lambda _: next(looks))
    assert edge.apply_files({"nginx.conf": "new"}, world.host).changed
    assert list(looks) == []
    monkeypatch.setattr(edge, "PROOF_SECONDS", 0.1)
    monkeypatch.setattr(edge, "_takes_in", lambda _: True)
    workers[:] = [{"10"}, {"10", "12"}]
    with pytest.raises(SwitchyardError, match="did not take up"):
        edge.apply_files({"nginx.conf": "newer"}, world.host)


def test_files_that_no_new_worker_takes_up_go_back(world: World, workers: list[set[str]]) -> None:
    edge.apply_files({"nginx.conf": "old"}, world.host)
    workers[:] = [{"12"}]
    with pytest.raises(SwitchyardError, match="did not take up the new configuration"):
        edge.apply_files({"nginx.conf": "new", "more.conf": "x"}, world.host)
    assert (layout.EDGE_LIVE / "nginx.conf").read_text() == "old"
    assert not (layout.EDGE_LIVE / "more.conf").exists()


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "sites/../../x", "pointers/shop-test.conf"])
def test_the_edge_role_reaches_neither_pointers_nor_other_files(world: World, name: str) -> None:
    with pytest.raises(SwitchyardError, match="is not a file of the edge role") as error:
        edge.apply_files({name: "x"}, world.host)
    assert error.value.code is Exit.USAGE and world.docker.commands == []
