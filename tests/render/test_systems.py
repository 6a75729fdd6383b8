"""The example systems become requests that the engine takes, containers that keep the policy, and an edge's tree."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from switchyard.request import Request, parse
from tests.render.policy import breaches
from tests.render.rendering import ROOT, render
from tests.systems import CASES, lay_over, variables

HOST = {
    "inventory_hostname": "vm-1",
    "groups": {"target": ["vm-1"]},
    "hostvars": {"vm-1": {"group_names": ["app", "edge"], "ansible_host": "192.0.2.1"}},
}


def described(folder: Path, system: str, environment: str) -> dict[str, Any]:
    inventories = folder / "inventories"
    shutil.copytree(ROOT / "inventories", inventories)
    lay_over(system, inventories)
    return variables(inventories, environment) | {"switchyard_environment": environment} | HOST


def request(given: dict[str, Any]) -> Request:
    return parse(render("app", "__app_request", given))


@pytest.mark.parametrize(("system", "environment"), CASES)
def test_a_system_renders_whole(tmp_path: Path, system: str, environment: str) -> None:
    given = described(tmp_path, system, environment)
    release = request(given)
    assert (release.app, release.environment) == (system, environment)
    assert all(
        service.image.startswith(("registry.example.com/", "docker.io/")) for service in release.services.values()
    )
    for name, container in yaml.safe_load(release.compose)["services"].items():
        assert breaches(container) == set(), name
    served = {route for service in release.services.values() for route in service.routes}
    assert all(any(test.path.startswith(route) for route in served) for test in release.smoke_tests)
    assert release.smoke_tests
    site = {str(name): str(text) for name, text in render("edge", "__edge_files", given).items()}
    assert any(given["edge_server_names"][0] in text for text in site.values())


@pytest.mark.parametrize(
    ("system", "port", "image"),
    [
        ("cv-enhancer", 8000, "cv-enhancer-api"),
        ("cv-enhancer", 8080, "cv-enhancer-web"),
        ("cv-matcher", 8000, "cv-matcher-api"),
        ("mycandidate", 5000, "mycandidate"),
    ],
)
def test_a_system_is_what_its_team_has(tmp_path: Path, system: str, port: int, image: str) -> None:
    services = request(described(tmp_path, system, "staging")).services
    assert (port, f"registry.example.com/{image}") in {(service.port, service.image) for service in services.values()}


def test_cv_enhancer_has_more_instances_in_production_on_postgres_15(tmp_path: Path) -> None:
    staging, production = (described(tmp_path / name, "cv-enhancer", name) for name in ("staging", "production"))
    assert (request(staging).services["api"].instances, request(production).services["api"].instances) == (1, 3)
    api = yaml.safe_load(request(production).compose)["services"]["api-3"]
    assert (api["mem_limit"], api["cpus"]) == ("512m", 1)
    assert render("postgres", "postgres_image", production) == "postgres:15-trixie"
    paths = [test.path for test in request(staging).smoke_tests]
    assert {"/health", "/health/db", "/"} < set(paths) and any(path.startswith("/api/") for path in paths)


def test_cv_matcher_reads_its_secrets_from_its_environment(tmp_path: Path) -> None:
    release = request(described(tmp_path, "cv-matcher", "production"))
    assert set(release.services["api"].secret_env) == {"DATABASE_URL", "JWT_SECRET_KEY"}
    (volume,) = yaml.safe_load(release.compose)["services"]["api-1"]["volumes"]
    assert volume["target"] == "/app/uploads"
    assert release.secrets["DATABASE_URL"].value.endswith("@postgres/cv_matcher")


def test_humanline_migrates_as_another_role(tmp_path: Path) -> None:
    release = request(described(tmp_path, "humanline", "staging"))
    migrate = yaml.safe_load(release.compose)["services"]["migrate"]
    assert migrate["command"][-1].endswith("alembic upgrade head")
    # Compose reads $$ as $.
    assert '"$$(cat /run/secrets/MIGRATION_DATABASE_URL)"' in migrate["command"][-1]
    assert migrate["secrets"] == ["MIGRATION_DATABASE_URL"]
    assert "humanline_migrate:" in release.secrets["MIGRATION_DATABASE_URL"].value
    assert release.services["api"].health.timeout == 5


def test_plain_ssh_has_no_database(tmp_path: Path) -> None:
    given = described(tmp_path, "plain-ssh", "staging")
    assert list(request(given).services) == ["app"]
    assert not {name for name in given if name.startswith(("postgres_", "backup_"))}
    for environment in ("staging", "production"):
        hosts = yaml.safe_load((tmp_path / "inventories" / f"{environment}.yml").read_text())
        assert hosts["db"]["hosts"] == {}
