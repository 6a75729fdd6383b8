"""Each example system, laid over the shipped inventories, is in order."""

from pathlib import Path

import pytest
import yaml

from tests.systems import CASES, EXAMPLES, SYSTEMS, lay_over
from tests.unit.test_inventory_playbooks import ROOT, copy_inventories, name_people

CHECK = "playbooks/select_environment.yml"
"""What every playbook begins with: each variable is checked, and no host is asked."""


def test_the_five_systems_are_there_and_told_of() -> None:
    assert SYSTEMS == ["cv-enhancer", "cv-matcher", "humanline", "mycandidate", "plain-ssh"]
    rows = [line.split("`")[1] for line in (EXAMPLES / "README.md").read_text().splitlines() if line.startswith("| `")]
    assert sorted(rows) == SYSTEMS


@pytest.mark.parametrize(("system", "environment"), CASES)
def test_an_overlay_is_all_that_a_system_needs(tmp_path: Path, system: str, environment: str) -> None:
    project = copy_inventories(tmp_path)
    lay_over(system, project.inventories)
    name_people(project)
    code, out = project.play("-e", f"env={environment}", playbook=CHECK)
    assert code == 0, out


def test_an_overlay_without_its_secrets_is_refused(tmp_path: Path) -> None:
    project = copy_inventories(tmp_path)
    lay_over("cv-matcher", project.inventories)
    (project.staging / "vault.yml").write_text("---\n")
    code, out = project.play("-e", "env=staging", playbook=CHECK)
    assert code == 2
    assert "needs 'vault_jwt_secret_key', which is not set" in out


@pytest.mark.parametrize("system", SYSTEMS)
def test_an_overlay_holds_no_more_than_what_differs(system: str) -> None:
    """A file that is as the shipped one is would only be one more to keep up with it."""
    for file in filter(Path.is_file, (EXAMPLES / system).rglob("*")):
        shipped = ROOT / "inventories" / file.relative_to(EXAMPLES / system)
        assert not shipped.is_file() or shipped.read_text() != file.read_text(), file


def test_no_vault_example_has_a_value() -> None:
    for example in EXAMPLES.rglob("vault.yml.example"):
        assert not any(yaml.safe_load(example.read_text()).values()), example
