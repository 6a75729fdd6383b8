"""Two of the example systems on real hosts: an inventory copied over the shipped one, and images under their names."""

from pathlib import Path

import pytest
import yaml

from tests.bed import Bed, images
from tests.integration.conftest import NEW, OLD, Environment
from tests.integration.test_1_main_job import fetch
from tests.project import Project
from tests.systems import lay_over

JWT = "canary-jwt-5d1e-secret"


def provision(bed: Bed, folder: Path, system: str, image: str) -> Environment:
    """A host of its own for the system, with the trivial service's releases as its image."""
    for version in (OLD, NEW):
        bed.registry().push(images.trivial(version), image, version)
    environment = Environment(Project(folder), bed, bed.host(system, image="docker-host"))
    inventories = environment.project.folder / "inventories"
    lay_over(system, inventories)
    environment.project.adopt(bed, environment.host)
    # `local` has a lookup for each of its passwords, and none for the system's own secret.
    local = {"vault_jwt_secret_key": JWT, "app_probation_seconds": 1}
    (inventories / "group_vars" / "env_local" / "zz_bed.yml").write_text(yaml.safe_dump(local))
    done = environment.project.play("provision")
    assert done.returncode == 0, done.stdout + done.stderr
    return environment


def deploy(environment: Environment, version: str) -> str:
    done = environment.project.play("deploy", "-e", f"version={version}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert environment.live() == version
    return done.stdout


@pytest.mark.long
def test_cv_matcher_is_released_and_taken_back_with_its_secrets_and_uploads(bed: Bed, tmp_path: Path) -> None:
    environment = provision(bed, tmp_path, "cv-matcher", "cv-matcher-api")
    for version in (OLD, NEW):
        assert JWT not in deploy(environment, version)
        assert fetch(environment.url)[2] == f"release {version}\n"
    container = environment.host.exec(["docker", "ps", "-q", "--filter", "label=switchyard.colour"]).stdout.split()[0]
    seen = environment.host.exec(["docker", "exec", container, "env"]).stdout
    assert f"JWT_SECRET_KEY={JWT}\n" in seen
    assert "DATABASE_URL=postgresql://cv_matcher_app_a:" in seen
    # Uploads outlive releases: what one colour has written, the other one reads.
    environment.host.exec(["docker", "exec", container, "touch", "/app/uploads/cv.pdf"])
    back = environment.project.run("scripts/rollback.sh", "local", OLD)
    assert back.returncode == 0, back.stdout + back.stderr
    assert fetch(environment.url)[2] == f"release {OLD}\n"
    for container in environment.host.exec(
        ["docker", "ps", "-q", "--filter", "label=switchyard.colour"]
    ).stdout.split():
        assert "cv.pdf" in environment.host.exec(["docker", "exec", container, "ls", "/app/uploads"]).stdout


@pytest.mark.long
def test_mycandidate_without_wards_never_meets_a_user(bed: Bed, tmp_path: Path) -> None:
    environment = provision(bed, tmp_path, "mycandidate", "mycandidate")
    deploy(environment, OLD)
    assert fetch(environment.url + "api/v1/wards")[::2] == (200, f"release {OLD}\n")

    inventories = environment.project.folder / "inventories"
    described = yaml.safe_load((inventories / "group_vars" / "all" / "app.yml").read_text())
    described["app_services"]["web"]["env"]["BROKEN_PATH"] = "/api/v1/wards"
    broken = inventories / "group_vars" / "env_local" / "zz_broken.yml"
    broken.write_text(yaml.safe_dump({"app_services": described["app_services"]}))
    refused = environment.project.play("deploy", "-e", f"version={NEW}")
    assert refused.returncode == 2, refused.stdout + refused.stderr
    assert "/api/v1/wards" in refused.stdout + refused.stderr
    assert environment.live() == OLD

    broken.unlink()
    deploy(environment, NEW)
    assert fetch(environment.url + "api/v1/wards")[::2] == (200, f"release {NEW}\n")
