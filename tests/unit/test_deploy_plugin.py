"""The action plugin of a deploy: what it leaves for the job that called it."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "collections"))
    return importlib.import_module("ansible_collections.switchyard.stack.plugins.action.deploy")


def test_a_result_that_cannot_be_written_is_a_warning(
    plugin: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said: list[str] = []
    monkeypatch.setattr(plugin.display, "warning", said.append)
    action = object.__new__(plugin.ActionModule)
    monkeypatch.setenv("SWITCHYARD_RESULT", str(tmp_path / "result.json"))
    action._leave({"code": 0})
    assert (json.loads((tmp_path / "result.json").read_text()), said) == ({"code": 0}, [])
    path = tmp_path / "missing" / "result.json"
    monkeypatch.setenv("SWITCHYARD_RESULT", str(path))
    action._leave({"code": 0})
    assert said == [f"The result was not written to SWITCHYARD_RESULT ({path}): No such file or directory."]
