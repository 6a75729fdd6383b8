"""Looks up how the host of the environment `local` is reached."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase

DOCUMENTATION = r"""
name: local_host
short_description: Tell how the host of the environment local is reached
version_added: 0.1.0
author: The Switchyard contributors (@switchyard)
description:
  - Reads the file that whoever makes the local host writes. Paths in it that are relative begin at the project, which
    is the directory above the inventory.
  - The environment variable E(SWITCHYARD_LOCAL_FACTS) names another file.
options:
  _terms:
    description: What to tell, one of address, port, user, private_key, public_key, known_hosts, registry.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Show the address
  ansible.builtin.debug:
    msg: "{{ lookup('switchyard.stack.local_host', 'address') }}"
"""

RETURN = r"""
_list:
  description: What was asked for.
  type: list
  elements: raw
"""

_FILES = ("private_key", "known_hosts")


class LookupModule(LookupBase):
    """What Ansible loads."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **_: Any) -> list[Any]:
        """Answer each term."""
        folder = str((variables or {}).get("inventory_dir") or Path.cwd() / "inventories")
        project = Path(folder).parent
        path = Path(os.environ.get("SWITCHYARD_LOCAL_FACTS") or project / ".switchyard" / "local" / "host.json")
        try:
            facts = json.loads(path.read_text())
        except FileNotFoundError:
            raise AnsibleError(f"There is no local host yet ({path} is missing): 'make demo' makes one.") from None
        except (OSError, ValueError) as error:
            raise AnsibleError(f"{path} cannot be read ({error}): 'make demo' writes it anew.") from None
        return [_fact(facts, str(term), project, path) for term in terms]


def _fact(facts: dict[str, Any], name: str, project: Path, path: Path) -> Any:
    if name == "public_key":
        return Path(_fact(facts, "private_key", project, path) + ".pub").read_text().strip()
    if name not in facts:
        raise AnsibleError(f"{path} does not say '{name}': 'make demo' writes it anew.")
    return str(project / facts[name]) if name in _FILES else facts[name]
