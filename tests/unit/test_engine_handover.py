"""The edge's own replacement: who stays, who drains, and that there never is no edge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from switchyard.engine import docker, edge, handover
from switchyard.engine.effects import Completed
from switchyard.engine.layout import EDGE_CONTAINER
from switchyard.errors import Exit, SwitchyardError
from tests.unit.engine_world import World

OLD, NEW = "services: {edge: {image: old}}", "services: {edge: {image: new}}"


@dataclass
class Edges:
    """The edge containers of a host. One is asked by its name, which stands for its process id, too."""

    clock: int = 0
    found: list[docker.Container] = field(default_factory=list)
    broken: bool = False
    """Whether a container that is started never answers."""
    ends: bool = False
    """Whether one that is started ends at once."""
    silent: set[str] = field(default_factory=set)
    """Containers that run without taking in connections."""
    fewest: int = 1
    steps: list[str] = field(default_factory=list)
    """What was done, in order."""

    def add(self, name: str, settings: str = "", *, state: str = "running", project: str = "") -> docker.Container:
        self.clock += 1
        labels = {"switchyard.settings": settings, "com.docker.compose.project": project or name}
        made = docker.Container(f"{name}#{self.clock}", name, state, labels, "", self.clock)
        self.found.append(made)
        return made

    def containers(self) -> list[docker.Container]:
        return sorted(self.found, key=lambda container: -container.created)

    def accepts(self, pid: Any) -> bool:
        return bool(pid) and pid not in self.silent

    def pid_of(self, container: docker.Container) -> Any:
        return container.id if container.running else ""

    def _change(self, identity: str, **changes: Any) -> None:
        self.found = [replace(c, **changes) if c.id == identity else c for c in self.found]

    def run(self, argv: Sequence[str], *, step: str, **options: Any) -> Completed:
        self.steps.append(step)
        identity = argv[-1]
        if step == "edge.up":
            names = options["environment"]
            made = self.add(names["SWITCHYARD_EDGE_CONTAINER"], names["SWITCHYARD_EDGE_SETTINGS"], project=argv[3])
            if self.ends:
                self._change(made.id, state="restarting")
            if self.broken:
                self.silent.add(made.id)
        elif step == "edge.quit":
            self.silent.add(identity)
        elif step == "edge.stop":
            self._change(identity, state="exited")
        elif step == "edge.remove":
            self.found = [c for c in self.found if c.id != identity]
        elif step == "edge.rename":
            self._change(argv[-2], name=identity)
        self.fewest = min(self.fewest, len([c for c in self.found if self.accepts(self.pid_of(c))]))
        return Completed(0, "", "")

    def drained(self) -> None:
        """Whoever was told to finish has finished."""
        for container in self.containers()[1:]:
            if container.id in self.silent:
                self._change(container.id, state="exited")

    def names(self) -> list[str]:
        return [container.name for container in self.containers()]


@pytest.fixture
def edges(world: World, monkeypatch: pytest.MonkeyPatch) -> Edges:
    made = Edges()
    for name in ("containers", "accepts", "pid_of"):
        monkeypatch.setattr(edge, name, getattr(made, name))
    monkeypatch.setattr(handover, "run", made.run)
    monkeypatch.setattr(handover, "settings", lambda text, _: f"made from {text}")
    world.clock.on_sleep = made.drained
    return made


def keep(text: str, *, restart: bool = False, check: bool = False) -> handover.Kept:
    return handover.keep(text, "image", 60, restart=restart, check=check)


def test_the_first_edge_is_started(edges: Edges) -> None:
    edges.fewest = 0
    kept = keep(OLD)
    assert (kept.changed, kept.started, kept.waiting) == (True, True, False)
    assert edges.names() == [EDGE_CONTAINER]
    assert handover.COMPOSE_FILE.read_text() == OLD


def test_a_second_run_changes_nothing(edges: Edges) -> None:
    keep(OLD)
    edges.steps.clear()
    assert keep(OLD) == handover.Kept(changed=False, started=False, waiting=False, diff=[])
    assert edges.steps == []


def test_new_settings_wait_until_they_are_asked_for(edges: Edges) -> None:
    keep(OLD)
    edges.steps.clear()
    kept = keep(NEW)
    assert (kept.started, kept.waiting, edges.steps) == (False, True, [])
    again = keep(NEW)
    assert (again.changed, again.waiting) == (False, True)


def test_check_mode_tells_and_does_nothing(edges: Edges) -> None:
    keep(OLD)
    edges.steps.clear()
    kept = keep(NEW, restart=True, check=True)
    assert (kept.changed, kept.started, kept.waiting) == (True, True, False)
    assert kept.diff == [{"path": str(handover.COMPOSE_FILE), "before": OLD, "after": NEW}]
    assert edges.steps == [] and handover.COMPOSE_FILE.read_text() == OLD


def test_the_new_edge_answers_before_the_old_one_is_told_to_finish(edges: Edges) -> None:
    keep(OLD)
    edges.steps.clear()
    edges.fewest = 1
    kept = keep(NEW, restart=True)
    assert kept.started and edges.fewest == 1
    assert edges.steps == ["edge.up", "edge.quit", "edge.remove", "edge.rename"]
    (only,) = edges.containers()
    assert (only.name, only.labels["switchyard.settings"]) == (EDGE_CONTAINER, f"made from {NEW}")


def test_two_edges_in_a_row_have_different_projects(edges: Edges) -> None:
    projects = []
    for text in (OLD, NEW, OLD):
        keep(text, restart=True)
        projects.append(edges.containers()[0].labels["com.docker.compose.project"])
    assert projects[0] != projects[1] != projects[2]


def test_a_new_edge_that_does_not_answer_goes_and_the_old_one_stays(
    edges: Edges, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(OLD)
    edges.broken = True
    monkeypatch.setattr(handover, "query", lambda _: Completed(0, "", "bind() failed"))
    with pytest.raises(SwitchyardError, match=r"the old one serves on: bind\(\) failed") as error:
        keep(NEW, restart=True)
    assert error.value.code is Exit.UNHEALTHY
    assert edges.names() == [EDGE_CONTAINER] and edges.fewest == 1


def test_nobody_waits_for_an_edge_that_ended(world: World, edges: Edges, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(OLD)
    edges.ends = True
    monkeypatch.setattr(handover, "query", lambda _: Completed(0, "", "no such file"))
    before = world.clock.now
    with pytest.raises(SwitchyardError, match="the old one serves on: no such file"):
        keep(NEW, restart=True)
    assert world.clock.now - before < 1 and edges.names() == [EDGE_CONTAINER]


def test_what_stood_there_dead_is_removed(edges: Edges) -> None:
    edges.fewest = 0
    edges.add(EDGE_CONTAINER, state="exited")
    keep(OLD)
    assert [container.running for container in edges.containers()] == [True]


# A take-over that died somewhere


def test_two_that_answer_become_the_newer_one(edges: Edges) -> None:
    old, new = edges.add(EDGE_CONTAINER), edges.add(handover.NEXT)
    assert handover.settle() == [f"edge container {old.name} finishes what it has, {new.name} serves"]
    edges.drained()
    handover.settle()
    assert [(c.id, c.name) for c in edges.containers()] == [(new.id, EDGE_CONTAINER)]


def test_the_next_run_finishes_what_a_killed_one_began(edges: Edges) -> None:
    keep(OLD)
    edges.add(handover.NEXT, f"made from {OLD}")
    assert not keep(OLD).started
    assert edges.names() == [EDGE_CONTAINER] and edges.fewest == 1


def test_a_new_one_that_never_came_up_is_removed(edges: Edges) -> None:
    old, new = edges.add(EDGE_CONTAINER), edges.add(handover.NEXT)
    edges.silent.add(new.id)
    handover.settle()
    assert edges.containers() == [old]


def test_one_that_drains_is_left_alone(edges: Edges) -> None:
    old, new = edges.add(EDGE_CONTAINER), edges.add(handover.NEXT)
    edges.silent.add(old.id)
    assert handover.settle() == []
    assert edges.containers() == [new, old]


def test_a_new_one_that_lost_its_chance_to_be_renamed_is_renamed(edges: Edges) -> None:
    edges.add(handover.NEXT)
    handover.settle()
    assert edges.names() == [EDGE_CONTAINER]


def test_nothing_is_removed_while_nobody_answers(edges: Edges) -> None:
    edges.add(EDGE_CONTAINER, state="exited")
    assert handover.settle() == [] and edges.names() == [EDGE_CONTAINER]
