#!/usr/bin/env python3
"""Writes what follows from the roles' argument specs: each role's defaults, docs/variables.md; and docs/alerts.md.

`--check` changes nothing and fails when a file is not current.
"""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from switchyard.control.inventory import ROLES

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "variables.md"
RULES = ROOT / "roles" / "monitoring" / "files" / "rules.yml"
ALERTS = ROOT / "docs" / "alerts.md"
_WIDTH = 118
_VALUE = re.compile(r"\{\{.*?\}\}")

Spec = Mapping[str, Any]


def entries(role: str) -> dict[str, Spec]:
    """The entry points of a role's argument specs."""
    text = (ROOT / "roles" / role / "meta" / "argument_specs.yml").read_text()
    return dict(yaml.safe_load(text)["argument_specs"])


class _Indented(yaml.SafeDumper):
    """Indents lists, as the rest of the repository does."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002 - PyYAML's name
        super().increase_indent(flow, False)


def _yaml(value: object) -> str:
    return yaml.dump(value, Dumper=_Indented, sort_keys=False, width=10_000, explicit_start=False).replace("\n...", "")


def defaults(role: str) -> str:
    """The role's defaults/main.yml: every option with its description, those without a default commented out."""
    blocks = ["---\n# Made from meta/argument_specs.yml by scripts/generate_variables.py: change them there."]
    for name, option in entries(role)["main"]["options"].items():
        comment = textwrap.fill(_plain(option), _WIDTH, initial_indent="# ", subsequent_indent="# ")
        if "default" in option:
            blocks.append(f"{comment}\n{_yaml({name: option['default']}).rstrip()}")
        elif option.get("required"):
            blocks.append(f"{comment} Required.\n# {name}:")
        else:
            blocks.append(f"{comment}\n{name}:")
    return "\n\n".join(blocks) + "\n"


def _plain(option: Spec) -> str:
    return " ".join(str(option["description"]).split())


def _kind(option: Spec) -> str:
    kind = str(option.get("type", "str"))
    if "choices" in option:
        return ", ".join(f"`{choice}`" for choice in option["choices"])
    return f"list of {option['elements']}" if "elements" in option else kind


def _default(option: Spec) -> str:
    if option.get("required"):
        return "**required**"
    value = option.get("default")
    if value in (None, "", [], {}):
        return ""
    text = (
        yaml.safe_dump(value, default_flow_style=True, width=10_000).strip().removesuffix("\n...").replace("|", "\\|")
    )
    return f"`{text}`"


def _rows(options: Mapping[str, Spec], prefix: str = "") -> list[str]:
    lines = []
    for name, option in options.items():
        cells = (f"`{prefix}{name}`", _kind(option), _default(option), _plain(option).replace("|", "\\|"))
        lines.append("| " + " | ".join(cells) + " |")
        inner = "[]." if option.get("elements") == "dict" else "."
        lines += _rows(option.get("options", {}), f"{prefix}{name}{inner}")
    return lines


def document() -> str:
    """The reference of all variables."""
    lines = [
        "# Variables",
        "",
        "Made from the roles' argument specs by `scripts/generate_variables.py`. They are set in the inventory,",
        "one file per role: `inventories/group_vars/all/` for every environment, `env_NAME/` beside it for one.",
        "",
    ]
    for role in ROLES:
        for entry, spec in entries(role).items():
            title = role if entry == "main" else f"{role}: {spec['short_description'].lower()}"
            lines += [f"## {title}", ""]
            if entry == "main":
                lines += [f"{spec['short_description']}.", ""]
            lines += ["| variable | type | default | meaning |", "|---|---|---|---|", *_rows(spec["options"]), ""]
    return "\n".join(lines).rstrip() + "\n"


def alerts() -> str:
    """What each of Prometheus' alerts means, and what to do."""
    lines = [
        "# Alerts",
        "",
        "Made from `roles/monitoring/files/rules.yml` by `scripts/generate_variables.py`. These are Prometheus'",
        "alerts, where `monitoring_enabled` is set. What Switchyard itself tells is in",
        "[what is told, to whom](pipeline.md#what-is-told-to-whom).",
    ]
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        rules = [rule for rule in group["rules"] if "alert" in rule]
        if rules:
            lines += [
                "",
                f"## {group['name']}",
                "",
                "| alert | severity | after | means | do |",
                "|---|---|---|---|---|",
            ]
        for rule in rules:
            told = {key: _VALUE.sub(_placeholder, str(rule["annotations"][key])) for key in ("summary", "action")}
            cells = (f"`{rule['alert']}`", rule["labels"]["severity"], rule.get("for", "at once"), *told.values())
            lines.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _placeholder(match: re.Match[str]) -> str:
    """A template's value as the troubleshooting guide writes it: a word in capitals, or N."""
    label = re.search(r"\$labels\.(\w+)", match[0])
    return label[1].upper() if label else "N"


def outputs() -> dict[Path, str]:
    """Every generated file with its text."""
    made = {ROOT / "roles" / role / "defaults" / "main.yml": defaults(role) for role in ROLES}
    return made | {DOCUMENT: document(), ALERTS: alerts()}


def main() -> int:
    """Write the files, or with --check compare them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail when a file is not current")
    check = parser.parse_args().check
    stale = [path for path, text in outputs().items() if not path.is_file() or path.read_text() != text]
    if check and stale:
        names = ", ".join(str(path.relative_to(ROOT)) for path in stale)
        print(f"generate_variables: not current: {names}; run 'make docs'.", file=sys.stderr)
        return 1
    for path in [] if check else stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(outputs()[path])
        print(f"wrote {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
