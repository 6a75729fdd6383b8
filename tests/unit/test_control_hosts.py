"""The hosts file: which environments there are, and what is said about one that there is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from switchyard.control.hosts import Environment, HostEntry, load, resolve
from switchyard.errors import Exit, SwitchyardError

HOST = {"name": "vm1", "address": "198.18.0.5", "user": "deploy", "groups": ["app", "edge"]}


def write(project: Path, name: str, data: object) -> Path:
    path = project / ".switchyard" / "hosts" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def environment(**changes: Any) -> dict[str, Any]:
    return {"environment": "staging", "app": "shop", "hosts": [HOST], **changes}


def refusal(name: str, project: Path) -> str:
    with pytest.raises(SwitchyardError) as error:
        load(name, project)
    assert error.value.code is Exit.USAGE
    return error.value.message


def test_an_environment_reads_back(tmp_path: Path) -> None:
    write(tmp_path, "staging", environment())
    expected = HostEntry("vm1", "198.18.0.5", "deploy", 22, "", "", ["app", "edge"])
    found = load("staging", tmp_path)
    assert found == Environment("staging", "shop", [expected])
    assert str(found.name) == "shop-staging"


def test_an_unknown_environment_is_refused_with_the_nearest_and_all_known_ones(tmp_path: Path) -> None:
    write(tmp_path, "staging", environment())
    write(tmp_path, "production", environment(environment="production"))
    text = refusal("stagin", tmp_path)
    assert "Unknown environment 'stagin', did you mean 'staging'?" in text
    assert "Provisioned from here: production, staging" in text


def test_before_any_provision_there_is_none(tmp_path: Path) -> None:
    assert "Provisioned from here: none yet" in refusal("staging", tmp_path)


@pytest.mark.parametrize("name", ["../staging", "hosts/staging", "staging.json", "", "*", "STAGING"])
def test_only_a_known_name_opens_a_file(tmp_path: Path, name: str) -> None:
    write(tmp_path, "staging", environment())
    write(tmp_path, "../staging", environment())
    assert "Unknown environment" in refusal(name, tmp_path)


@pytest.mark.parametrize("text", ["", "{", "\x00"])
def test_a_damaged_file_is_named_with_the_fix(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, "staging", text)
    message = refusal("staging", tmp_path)
    assert message.startswith(f"{path} cannot be read (") and message.endswith("run provision.yml again.")


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (environment(host=[]), ".host: unknown key, did you mean 'hosts'?"),
        (environment(hosts=[{**HOST, "adress": "x"}]), ".hosts[0].adress: unknown key, did you mean 'address'?"),
        (environment(hosts=[{**HOST, "port": "22"}]), ".hosts[0].port: expected int, found str"),
        ({"environment": "staging", "hosts": []}, ".app: is required"),
        ([], ": expected a mapping, found list"),
    ],
)
def test_a_file_that_says_something_else_is_named_with_the_key(tmp_path: Path, data: object, problem: str) -> None:
    path = write(tmp_path, "staging", data)
    assert refusal("staging", tmp_path).startswith(f"{path}{problem}")


def test_a_path_is_relative_to_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert resolve("keys/id", tmp_path) == str(tmp_path / "keys" / "id")
    assert resolve("/etc/id", tmp_path) == "/etc/id"
    assert resolve("~/.ssh/id", tmp_path) == "/home/somebody/.ssh/id"
    assert resolve("", tmp_path) == ""
