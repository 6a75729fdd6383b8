#!/usr/bin/python
"""Gives the edge its configuration through the engine, which tests, reloads and proves it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: edge_config
short_description: Give the edge its configuration, tested and proven by the engine
version_added: 0.1.0
author: The Switchyard contributors (@switchyard)
description:
  - Hands all files to the engine in one call. It tests them in a copy of the live tree, puts them in place by renames
    under the edge's lock, reloads Nginx and waits for the new workers; a refused file leaves everything as it was.
options:
  files:
    description: Texts by their path below the edge's live directory.
    type: dict
    required: true
  secret_files:
    description:
      - The same for files that hold a secret, with null for one that shall not be there. Their names end in
        C(.preview), by which the engine knows to let root alone read them and to leave them out of differences.
    type: dict
    default: {}
attributes:
  check_mode:
    description: Tells what would change.
    support: full
  diff_mode:
    description: Shows every text that changes.
    support: full
"""

EXAMPLES = r"""
- name: Give the edge its configuration
  switchyard.stack.edge_config:
    files:
      nginx.conf: "{{ lookup('ansible.builtin.template', 'nginx.conf.j2') }}"
"""

RETURN = r"""
reloaded:
  description: Whether a running Nginx took up the new configuration.
  returned: always
  type: bool
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.switchyard.stack.plugins.module_utils.engine import ask_engine, diff_of


def main() -> None:
    """Ask the engine to apply the files."""
    spec = {
        "files": {"type": "dict", "required": True},
        "secret_files": {"type": "dict", "default": {}, "no_log": True},
    }
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    files = module.params["files"]
    data = {"files": files | module.params["secret_files"], "check": module.check_mode}
    answer = ask_engine(module, ["edge-apply"], data)
    if answer is None:
        # Check mode on a host that has no engine yet: all of it is new.
        answer = {"changed": True, "reloaded": False}
        answer["diff"] = [{"path": name, "before": "", "after": text} for name, text in files.items()]
    result: dict[str, Any] = {"changed": answer["changed"], "reloaded": answer["reloaded"]}
    module.exit_json(**result | diff_of(module, answer))


if __name__ == "__main__":
    main()
