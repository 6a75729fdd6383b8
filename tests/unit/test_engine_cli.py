"""The engine's command line: verbs that are about several applications, or answer line by line."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable
from typing import Any

import pytest

from switchyard.engine import cli, edge, layout, recover
from switchyard.engine.layout import AppPaths
from switchyard.engine.ledger import Event
from switchyard.errors import Exit, SwitchyardError
from switchyard.names import AppName
from tests.unit.engine_world import NAME, World

OTHER = AppName("aaa", "test")
"""An application that comes before the other one."""


@pytest.fixture
def host(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    layout.HOST_FILE.parent.mkdir(parents=True, exist_ok=True)
    layout.HOST_FILE.write_text(json.dumps({"name": "vm1", "groups": ["app", "edge"], "edge_image": "e@1"}))
    return world


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_repair_goes_on_when_nobody_reads_it_any_more(
    host: World, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    steps: list[str] = []

    def repair(_paths: AppPaths, _host: object, say: Callable[[str], None], **_: Any) -> bool:
        for step in ("first", "second"):
            say(step)
            steps.append(step)
        return True

    class Closed(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    host.release(1, "blue")
    monkeypatch.setattr(recover, "recover", repair)
    monkeypatch.setattr(sys, "stdout", Closed())
    monkeypatch.setattr(sys, "stderr", Closed())
    assert cli.main(["recover", *options]) == Exit.FAILED
    assert steps == ["first", "second"]


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize(("options", "verb"), [([], "recover"), (["--boot"], "boot")])
@pytest.mark.parametrize("broken", [[OTHER], [OTHER, NAME]])
def test_what_cannot_be_repaired_keeps_no_other_application_from_it(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    verb: str,
    broken: list[AppName],
) -> None:
    for name in (OTHER, NAME):
        path = AppPaths(name).ledger
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    asked, edges = list[AppName](), list[str]()

    def repair(paths: AppPaths, *_: Any, **__: Any) -> bool:
        asked.append(paths.name)
        if paths.name in broken:
            raise SwitchyardError(f"{paths.name.app} is broken.", Exit.UNHEALTHY)
        return True

    monkeypatch.setattr(recover, verb, repair)
    monkeypatch.setattr(recover, "start_databases", lambda *_: None)
    monkeypatch.setattr(recover, "start_edge", lambda _: edges.append("edge"))
    assert cli.main(["recover", *options]) == Exit.UNHEALTHY
    assert asked == [OTHER, NAME]
    said = capsys.readouterr().err
    assert all(f"{name.app} is broken." in said for name in broken)
    # Each application's own boot starts the edge; without any, somebody has to.
    assert edges == (["edge"] if verb == "boot" and len(broken) == 2 else [])


@pytest.mark.usefixtures("host")
def test_a_boot_waits_for_no_docker_that_was_never_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert cli.main(["recover", "--boot"]) == 0
    assert "nothing to bring back" in capsys.readouterr().out


def test_logs_are_lines_or_documents(host: World, capsys: pytest.CaptureFixture[str]) -> None:
    host.release(1, "blue")
    for container in host.docker.containers.values():
        container["Labels"]["switchyard.instance"] = "1"
    assert cli.main(["logs", str(NAME)]) == 0
    text = capsys.readouterr().out
    assert text.startswith("api-1 | log of ")
    assert cli.main(["logs", str(NAME), "--json", "--service", "api"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line) | {"time": "", "line": ""} == {
        "host": "vm1", "service": "api", "instance": "api-1", "time": "", "line": ""
    }  # fmt: skip


@pytest.mark.parametrize("keeps", [True, False])
def test_what_changed_of_the_edge_is_in_the_ledger_without_its_content(
    host: World, monkeypatch: pytest.MonkeyPatch, keeps: bool
) -> None:
    def apply(**data: object) -> list[Event]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps({"files": {"nginx.conf": "unseen"}} | data)))
        assert cli.main(["edge-apply"]) == 0
        return list(host.ledger().of("config"))

    monkeypatch.setattr(edge, "take_up", lambda _: None)
    data = json.loads(layout.HOST_FILE.read_text()) | {"several": True, "keeps_ledger": keeps}
    layout.HOST_FILE.write_text(json.dumps(data))
    host.release(1, "blue")
    assert apply(check=True) == []
    found = apply()
    if not keeps:
        assert found == []
        return
    (event,) = found
    assert (event["subject"], event["files"]) == ("edge", [str(layout.EDGE_LIVE / "nginx.conf")])
    assert apply() == found
    assert "unseen" not in host.paths.ledger.read_text()
