"""Verbs that read standard input: what is wrong with it is one sentence that names the key."""

from __future__ import annotations

import io
import json
import os
from typing import Any

import pytest

from switchyard.engine import cli, edge, handover, ports
from switchyard.errors import Exit
from tests.unit.engine_world import World

PORTS = {"app": "shop", "environment": "test", "services": {"api": 1}}


@pytest.fixture(autouse=True)
def root(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr("switchyard.engine.layout.load_host", lambda: world.host)


def verb(monkeypatch: pytest.MonkeyPatch, name: str, data: Any) -> int:
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(data)))
    return cli.main([name, "--json"])


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("plan-ports", [], "plan-ports: expected a mapping, found list."),
        ("plan-ports", {"app": "shop", "environment": "test"}, "plan-ports.services: is required."),
        ("plan-ports", PORTS | {"services": ["api"]}, "plan-ports.services: expected a mapping, found list."),
        ("plan-ports", PORTS | {"services": {"api": "1"}}, "plan-ports.services.api: expected int, found str ('1')."),
        ("plan-ports", PORTS | {"app": 7}, "plan-ports.app: expected str, found int ('7')."),
        ("edge-apply", {}, "edge-apply.files: is required."),
        ("edge-apply", {"files": "x"}, "edge-apply.files: expected a mapping, found str."),
        ("edge-keep", {"image": "x", "drain_seconds": 1}, "edge-keep.compose: is required."),
        (
            "edge-keep",
            {"compose": "", "image": "x", "drain_seconds": "soon"},
            "edge-keep.drain_seconds: expected float",
        ),
        ("edge-keep", None, "edge-keep: expected a mapping, found NoneType."),
    ],
)
def test_bad_input_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, data: Any, sentence: str
) -> None:
    assert verb(monkeypatch, name, data) == Exit.USAGE
    assert json.loads(capsys.readouterr().out)["error"].startswith(sentence)


def test_good_input_arrives_as_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def apply(files: Any, _: Any, check: bool) -> edge.Applied:
        seen.append((files, check))
        return edge.Applied(changed=False, reloaded=False, diff=[])

    monkeypatch.setattr(edge, "apply_files", apply)
    monkeypatch.setattr(handover, "keep", lambda *given, **more: seen.append((*given, more)))
    monkeypatch.setattr(edge, "as_json", lambda _: "{}")
    monkeypatch.setattr(handover, "as_json", lambda _: "{}")
    assert verb(monkeypatch, "edge-apply", {"files": {"nginx.conf": "a", "old": None}, "check": True}) == 0
    assert verb(monkeypatch, "edge-keep", {"compose": "c", "image": "i", "drain_seconds": 60}) == 0
    assert seen == [
        ({"nginx.conf": "a", "old": None}, True),
        ("c", "i", 60.0, {"restart": False, "check": False}),
    ]
    assert verb(monkeypatch, "plan-ports", PORTS) == 0
    assert set(ports.load()) == {"shop-test/api/1/blue", "shop-test/api/1/green"}
