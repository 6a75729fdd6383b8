"""The plan: what would change, without a value in it and without changing anything."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchyard.engine import layout, plan, records
from switchyard.errors import Exit, SwitchyardError
from switchyard.request import Request
from tests.unit.engine_world import QUICK, World, compose_for, digest, make_request, service

API = "registry.test/shop/api"


def live(world: World, **changes: Any) -> None:
    """A live release whose record and hash are those of the request."""
    request = make_request(**changes)
    digests = {name: digest(spec.reference) for name, spec in request.services.items()}
    made = world.release(1, "blue", **{"version": "1.0.0", **changes})
    key = layout.SALT.read_bytes() if layout.SALT.is_file() else b""
    hashed = records.config_hash(request, digests, key)
    records.create(world.paths, 1, request, digests, hashed)
    world.docker.images[f"{API}@{digests['api']}"] = {}
    assert made.id == "0001-1.0.0"


def report(world: World, **changes: Any) -> dict[str, Any]:
    return plan.plan(world.paths, make_request(**changes))


def with_env(**env: str) -> dict[str, Any]:
    """A request whose compose file carries the values, as the control side renders it."""
    lines = "".join(f"      {key}: {value}\n" for key, value in env.items())
    return {"services": {"api": service(env=env)}, "compose": compose_for(["api"]) + f"    environment:\n{lines}"}


def test_what_is_live_as_described_does_not_change(world: World) -> None:
    live(world)
    found = report(world)
    assert not found["changed"] and found["switch"] == {"from": "blue", "to": ""}
    assert found["compose_diff"] == ""
    assert plan.text(found) == "No change: 1.0.0 is live as described."


def test_a_first_release_comes_from_nothing(world: World) -> None:
    found = report(world)
    assert found["changed"] and found["version"] == {"from": "", "to": "1.0.0"}
    assert found["switch"] == {"from": "", "to": "blue"}
    text = plan.text(found)
    assert "version    (none) -> 1.0.0" in text and f"digest     api: (none) -> {digest(f'{API}:1.0.0')}" in text
    assert "switch     (none) -> blue" in text


def test_variables_are_added_removed_and_changed_by_name(world: World) -> None:
    live(world, **with_env(KEPT="same-value", GONE="gone-value", MOVED="old-value"))
    found = report(world, **with_env(KEPT="same-value", NEW="new-value", MOVED="next-value"))
    assert found["environment"] == {"api": {"added": ["NEW"], "removed": ["GONE"], "changed": ["MOVED"]}}
    text = plan.text(found)
    for line in ("env        api: added NEW", "env        api: removed GONE", "env        api: changed MOVED"):
        assert line in text
    assert "KEPT" not in text.partition("compose file")[0]


@QUICK
@given(
    old=st.from_regex(r"[A-Za-z0-9/:.@$-]{6,30}", fullmatch=True),
    new=st.from_regex(r"[A-Za-z0-9/:.@$-]{6,30}", fullmatch=True),
)
def test_no_value_of_a_variable_is_in_the_plan(world: World, old: str, new: str) -> None:
    before, after = f"<{old}>", f"<{new}>"
    live(world, **_escaped(before))
    found = report(world, **_escaped(after))
    for value in (before, after):
        assert value not in plan.text(found) and value not in json.dumps(found)
        assert value.replace("$", "$$") not in plan.text(found)
    world.docker.containers.clear()


def _escaped(value: str) -> dict[str, Any]:
    # Compose reads $$ as a dollar sign, so that is what the rendered file holds.
    rendered = with_env(URL=value.replace("$", "$$"))
    return rendered | {"services": {"api": service(env={"URL": value})}}


@QUICK
@given(st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF), min_size=6, max_size=30))
def test_secrets_are_named_and_their_values_are_not_in_the_plan(world: World, value: str) -> None:
    secret = f"<{value}>"
    found = report(world, secrets={"TOKEN": {"value": secret, "uid": 1}})
    assert found["secrets_changed"] == ["TOKEN"]
    text = plan.text(found)
    assert "secret     TOKEN changes" in text
    assert secret not in text and secret not in json.dumps(found, ensure_ascii=False)


def test_only_a_secret_that_differs_is_named(world: World) -> None:
    world.paths.secrets.mkdir(parents=True)
    (world.paths.secrets / "SAME").write_text("v")
    (world.paths.secrets / "MOVED").write_text("v")
    values = {"SAME": "v", "MOVED": "w", "NEW": "v"}
    found = report(world, secrets={name: {"value": value, "uid": 1} for name, value in values.items()})
    assert found["secrets_changed"] == ["MOVED", "NEW"]


def test_a_changed_compose_file_is_shown_without_release_and_images_as_changes(world: World) -> None:
    live(world)
    found = report(world, compose=compose_for(["api"]) + "    read_only: true\n")
    changed = [line for line in found["compose_diff"].splitlines() if line[:1] in "+-"]
    assert changed == ["--- live", "+++ planned", "+    read_only: true"]


def test_a_moved_tag_is_a_new_digest(world: World) -> None:
    live(world)
    found = report(world, services={"api": service(tag="1.0.1")}, version="1.0.1")
    assert found["digests"] == {"api": {"from": digest(f"{API}:1.0.0"), "to": digest(f"{API}:1.0.1")}}
    assert found["version"] == {"from": "1.0.0", "to": "1.0.1"}


def test_what_is_warm_in_the_other_colour_is_named_as_replaced(world: World) -> None:
    world.release(1, "blue")
    world.release(2, "green", previous="0001-1.0.0")
    found = report(world, version="3.0.0")
    assert found["replaces_warm"] == "0001-1.0.0"
    assert "stops      0001-1.0.0, warm on blue" in plan.text(found)


UP = {"service": "api", "command": ["alembic", "upgrade"]}


def test_the_migration_that_would_run_is_named(world: World) -> None:
    assert report(world)["migration"] == "none"
    assert report(world, migration=UP)["migration"] == "unknown until the image is on the host"
    world.docker.images[f"{API}@{digest(f'{API}:1.0.0')}"] = {}
    assert report(world, migration=UP)["migration"] == "would run: alembic upgrade"
    live(world)
    migrated = {"digest": digest(f"{API}:1.0.0"), "schema_epoch": 1}
    world.ledger().append("migration", op="x", release="0006-6", state="clean", **migrated)
    assert report(world, migration=UP)["migration"] == "none (this image already migrated this database)"
    world.ledger().append("migration", op="x", release="0007-7", state="dirty", digest="d", schema_epoch=1)
    assert report(world, migration=UP)["migration"] == "blocked: the schema is dirty since 0007-7"


def test_a_plan_refuses_what_the_deploy_would_refuse(world: World) -> None:
    world.release(1, "blue", version="1.4.0")
    with pytest.raises(SwitchyardError, match=r"1\.4\.0 is live") as error:
        report(world, version="1.3.0", explicit_version=False)
    assert error.value.code is Exit.PREFLIGHT


def test_a_plan_writes_nothing_and_runs_nothing(world: World) -> None:
    live(world)
    before = {path: path.read_bytes() for path in world.root.rglob("*") if path.is_file()}
    report(world, services={"api": service(tag="2.0.0")}, secrets={"TOKEN": {"value": "v", "uid": 1}})
    assert {path: path.read_bytes() for path in world.root.rglob("*") if path.is_file()} == before
    assert world.docker.commands == []
    assert isinstance(make_request(), Request)
