#!/usr/bin/python
"""Logs root's Docker client in to registries."""

from __future__ import annotations

DOCUMENTATION = r"""
module: registry_login
short_description: Log root's Docker client in to registries
version_added: 0.1.0
author: The Switchyard contributors (@switchyard)
description:
  - Logs in where the stored login differs. Passwords travel on standard input only, and are kept encrypted by the
    credential helper C(docker-credential-switchyard).
  - Registries of clouds that know the machine itself get a credential helper, and nothing is kept on the host.
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
      kind:
        description: How the host proves who it is - by a password, or as a machine of Amazon or Google.
        type: str
        choices: [password, ecr, google]
        default: password
      username:
        description: Who logs in, with a password.
        type: str
        default: ""
      password:
        description: Password or token.
        type: str
        default: ""
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

import json
import shutil
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.switchyard.stack.plugins.module_utils.engine import Docker
from ansible_collections.switchyard.stack.plugins.module_utils.placing import Placing

CONFIG = Path("/root/.docker/config.json")
HELPERS = {"password": "switchyard", "ecr": "ecr-login", "google": "switchyard-google"}
_HUB = "https://index.docker.io/v1/"


def _key(registry: str) -> str:
    """The registry's name as Docker's configuration file keys it."""
    return _HUB if registry in ("docker.io", "index.docker.io") else registry


def _read() -> dict[str, Any]:
    try:
        found = json.loads(CONFIG.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _has_helper(config: dict[str, Any], key: str, helper: str) -> bool:
    left = dict(config.get("auths", {})).get(key) or {}
    return dict(config.get("credHelpers", {})).get(key) == helper and "auth" not in left


def _set_helper(module: AnsibleModule, key: str, helper: str) -> None:
    """Name the helper, and forget a password that an earlier login left in clear."""
    config = _read()
    config.setdefault("credHelpers", {})[key] = helper
    config.get("auths", {}).pop(key, None)
    placing = Placing(module)
    placing.directory(str(CONFIG.parent), 0o700)
    placing.file(str(CONFIG), json.dumps(config, indent=1) + "\n", 0o600, secret=True)


def _stored(module: AnsibleModule, key: str) -> tuple[str, str]:
    helper = shutil.which(f"docker-credential-{HELPERS['password']}")
    code, out, _ = module.run_command([helper, "get"], data=key) if helper else (1, "", "")
    if code != 0:
        return "", ""
    answer = json.loads(out)
    return str(answer["Username"]), str(answer["Secret"])


def _login(module: AnsibleModule, docker: Docker, item: dict[str, str]) -> bool:
    """Have one login; tells whether anything was, or would be, different."""
    key, helper = _key(item["registry"]), HELPERS[item["kind"]]
    named = _has_helper(_read(), key, helper)
    if item["kind"] != "password":
        if not named and not module.check_mode:
            _set_helper(module, key, helper)
        return not named
    if named and _stored(module, key) == (item["username"], item["password"]):
        return False
    if not module.check_mode:
        _set_helper(module, key, helper)
        words = ("login", "--username", item["username"], "--password-stdin", item["registry"])
        docker.do(f"log in to {item['registry']}", *words, stdin=item["password"])
    return True


def main() -> None:
    """Log in where it is needed."""
    login = {
        "registry": {"type": "str", "required": True},
        "kind": {"type": "str", "choices": list(HELPERS), "default": "password"},
        "username": {"type": "str", "default": ""},
        "password": {"type": "str", "default": "", "no_log": True},
    }
    module = AnsibleModule(
        argument_spec={"logins": {"type": "list", "elements": "dict", "default": [], "options": login}},
        supports_check_mode=True,
    )
    logins = module.params["logins"]
    for item in logins:
        if item["kind"] == "password" and not (item["username"] and item["password"]):
            module.fail_json(msg=f"docker_registry_logins: {item['registry']} needs username and password.")
    docker = Docker(module)
    registries = [item["registry"] for item in logins if _login(module, docker, item)]
    module.exit_json(changed=bool(registries), registries=registries)


if __name__ == "__main__":
    main()
