#!/usr/bin/python
"""Keeps the edge's container running through the engine, which replaces it without refusing a connection."""

from __future__ import annotations

DOCUMENTATION = r"""
module: edge_container
short_description: Keep the edge's container running, and replace it only when asked to
version_added: 0.1.0
author: The Switchyard contributors (@switchyard)
description:
  - Hands the compose file to the engine, which starts an edge when none runs.
  - An edge that runs with other settings or another image is replaced only when O(restart) is set; otherwise the module
    warns that the change waits. A replacement takes over the listening ports before the old edge lets go of them.
options:
  compose:
    description: Text of the compose file.
    type: str
    required: true
  image:
    description: The image's reference.
    type: str
    required: true
  drain_seconds:
    description: How long an edge that was replaced may finish what it has under way.
    type: int
    required: true
  restart:
    description: Whether a running edge may be replaced.
    type: bool
    default: false
attributes:
  check_mode:
    description: Tells what would change.
    support: full
  diff_mode:
    description: Shows the compose file's change.
    support: full
"""

EXAMPLES = r"""
- name: Keep the edge running
  switchyard.stack.edge_container:
    compose: "{{ lookup('ansible.builtin.template', 'edge.yml.j2') }}"
    image: nginx:1.30-alpine
    drain_seconds: 60
"""

RETURN = r"""
started:
  description: Whether an edge was started, the first one or a replacement.
  returned: always
  type: bool
restart_needed:
  description: Whether a change waits for a restart.
  returned: always
  type: bool
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.switchyard.stack.plugins.module_utils.engine import Docker, ask_engine, diff_of


def main() -> None:
    """Ask the engine to keep the edge."""
    module = AnsibleModule(
        argument_spec={
            "compose": {"type": "str", "required": True},
            "image": {"type": "str", "required": True},
            "drain_seconds": {"type": "int", "required": True},
            "restart": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    # Check mode on a bare host: without Docker or an engine all of it is new.
    nothing = {"changed": True, "started": True, "waiting": False, "diff": []}
    data = {**module.params, "check": module.check_mode}
    answer = nothing if Docker(module).missing else ask_engine(module, ["edge-keep"], data) or nothing
    if answer["waiting"]:
        module.warn(
            "The edge runs with older settings or an older image. The new ones wait until you ask for them: "
            "-e restart=edge"
        )
    result: dict[str, Any] = {
        "changed": answer["changed"],
        "started": answer["started"],
        "restart_needed": answer["waiting"],
    }
    module.exit_json(**result | diff_of(module, answer))


if __name__ == "__main__":
    main()
