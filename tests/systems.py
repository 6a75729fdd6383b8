"""The example systems, laid over an inventory as a user lays them."""

import shutil
from pathlib import Path
from typing import Any

import yaml

from tests.project import ROOT

EXAMPLES = ROOT / "examples" / "systems"
SYSTEMS = sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir())
OF_ITS_OWN = {"mycandidate": ("development",)}
"""Environments that a system brings, beside those of every inventory."""

CASES = [
    (system, environment)
    for system in SYSTEMS
    for environment in ("staging", "production", *OF_ITS_OWN.get(system, ()))
]


def lay_over(system: str, inventories: Path) -> None:
    """Copy a system over the inventories, and fill in what the examples of its vaults leave empty."""
    shutil.copytree(EXAMPLES / system, inventories, dirs_exist_ok=True)
    for example in inventories.glob("group_vars/env_*/vault.yml.example"):
        filled = {name: f"{name.replace('_', '')}0123456789" for name in yaml.safe_load(example.read_text())}
        example.with_name("vault.yml").write_text(yaml.safe_dump(filled))


def variables(inventories: Path, environment: str) -> dict[str, Any]:
    """What the inventories say of an environment, its own files last."""
    folders = (inventories / "group_vars" / name for name in ("all", f"env_{environment}"))
    files = [file for folder in folders for file in sorted(folder.glob("*.yml"))]
    return {name: value for file in files for name, value in (yaml.safe_load(file.read_text()) or {}).items()}
