"""Maintenance closes the application, but not what balancers and certificate authorities ask for."""

from __future__ import annotations

import re

import pytest

from switchyard.engine import layout, maintenance
from switchyard.engine.ledger import Ledger
from switchyard.errors import Exit, SwitchyardError
from tests.unit.engine_world import World, make_request


def site_file(world: World, text: str) -> None:
    path = layout.EDGE_LIVE / "sites" / f"{world.paths.name}.conf"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def closed(text: str, path: str) -> bool:
    found = re.search(r'if \(\$uri !~ "(.*)"\)', text)
    assert found is not None
    return re.search(found[1], path) is None


def test_health_and_certificates_stay_open_and_nothing_else() -> None:
    text = maintenance.render(["/health", "/v1.0/up"], 120)
    assert "add_header Retry-After 120 always;" in text
    for path in ("/health", "/v1.0/up", "/.well-known/acme-challenge/x-y", "/.switchyard/maintenance.html"):
        assert not closed(text, path), path
    for path in ("/", "/health/", "/healthy", "/v1x0/up", "/api/health", "/.well-known/security.txt"):
        assert closed(text, path), path


def test_only_health_paths_that_users_reach_are_open() -> None:
    services = {
        "api": {"image": "r/a", "port": 1, "tag": "1", "routes": ["/api/"], "health": {"path": "/api/up"}},
        "worker": {"image": "r/w", "port": 1, "tag": "1", "health": {"path": "/health"}},
    }
    assert maintenance.open_paths(make_request(services=services)) == ["/api/up"]


def test_nothing_live_has_nothing_to_close(world: World) -> None:
    with pytest.raises(SwitchyardError, match="Nothing of") as refused:
        maintenance.turn_on(world.paths, world.host)
    assert refused.value.code is Exit.UNKNOWN_RELEASE


def test_an_edge_that_knows_no_page_asks_for_a_provision(world: World) -> None:
    world.release(1, "blue")
    site_file(world, "listen 80;\n")
    with pytest.raises(SwitchyardError, match=r"run provision\.yml"):
        maintenance.turn_on(world.paths, world.host)


def test_on_and_off_are_each_one_change(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("switchyard.engine.edge.take_up", lambda _: None)
    world.release(1, "blue")
    site_file(world, "include maintenance/x.[c]onf;\n")
    assert maintenance.turn_on(world.paths, world.host)
    assert maintenance.is_on(world.paths)
    assert not maintenance.turn_on(world.paths, world.host)
    assert maintenance.turn_off(world.paths, world.host)
    assert not maintenance.is_on(world.paths)
    assert not maintenance.turn_off(world.paths, world.host)
    assert Ledger.load(world.paths).unfinished() == []
