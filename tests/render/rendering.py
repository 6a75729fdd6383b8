"""Renders what roles render, with Ansible's own templating and without a host."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar, trust_as_template

ROOT = Path(__file__).resolve().parents[2]


@cache
def _loader() -> DataLoader:
    init_plugin_loader([str(ROOT / "collections")])
    loader = DataLoader()
    loader.set_basedir(str(ROOT))
    return loader


def _trusted(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _trusted(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_trusted(item) for item in value]
    return trust_as_template(value) if isinstance(value, str) else value


def render(role: str, expression: str, given: Mapping[str, Any]) -> Any:
    """Evaluate an expression as a task of the role would, with these inventory variables."""
    loader = _loader()
    variables: dict[str, Any] = {}
    for part in ("defaults", "vars"):
        path = ROOT / "roles" / role / part / "main.yml"
        if path.is_file():
            variables |= loader.load_from_file(str(path), trusted_as_template=True)
    variables |= {"role_path": str(ROOT / "roles" / role), "switchyard_environment": "staging"}
    templar = Templar(loader=loader, variables={**variables, **_trusted(dict(given))})
    return templar.template(trust_as_template("{{ " + expression + " }}"))
