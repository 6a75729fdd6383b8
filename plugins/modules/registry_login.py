#!/usr/bin/python
"""Logs root's Docker client in to registries."""

from __future__ import annotations

DOCUMENTATION = r"""
module: registry_login
short_description: Log root's Docker client in to registries
version_added: 0.1.0
author: The Switchyard contributors (@switchyard)
description:
  - Logs in where the stored login differs. Passwords travel on standard input only.
options:
  logins:
    description: The registries, each with its login.
    type: list
    elements: dict
    default: []
    suboptions:
      registry:
        description: Host and port of the registry, as images name it.
        type: str
        required: true
      username:
        description: Who logs in.
        type: str
        required: true
      password:
        description: Password or token.
        type: str
        required: true
attributes:
  check_mode:
    description: Tells which logins differ.
    support: full
  diff_mode:
    description: Shows nothing, since a login is a secret.
    support: none
"""

EXAMPLES = r"""
- name: Log in to the registry
  switchyard.stack.registry_login:
    logins:
      - registry: registry.example.com
        username: deploy
        password: "{{ vault_registry_password }}"
"""

RETURN = r"""
registries:
  description: Registries whose login changed.
  returned: always
  type: list
  elements: str
"""

import base64
import json
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.switchyard.stack.plugins.module_utils.engine import Docker

CONFIG = Path("/root/.docker/config.json")


def _stored(registry: str) -> str:
    try:
        return str(json.loads(CONFIG.read_text())["auths"][registry]["auth"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def main() -> None:
    """Log in where it is needed."""
    login = {
        "registry": {"type": "str", "required": True},
        "username": {"type": "str", "required": True},
        "password": {"type": "str", "required": True, "no_log": True},
    }
    module = AnsibleModule(
        argument_spec={"logins": {"type": "list", "elements": "dict", "default": [], "options": login}},
        supports_check_mode=True,
    )
    docker, registries = Docker(module), []
    for item in module.params["logins"]:
        wanted = base64.b64encode(f"{item['username']}:{item['password']}".encode()).decode()
        if _stored(item["registry"]) == wanted:
            continue
        registries.append(item["registry"])
        if not module.check_mode:
            words = ("login", "--username", item["username"], "--password-stdin", item["registry"])
            docker.do(f"log in to {item['registry']}", *words, stdin=item["password"])
    module.exit_json(changed=bool(registries), registries=registries)


if __name__ == "__main__":
    main()
