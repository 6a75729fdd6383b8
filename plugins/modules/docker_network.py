#!/usr/bin/python
"""Has a Docker network."""

from __future__ import annotations

DOCUMENTATION = r"""
module: docker_network
short_description: Have a Docker network
version_added: 0.1.0
author: The Switchyard contributors (@switchyard)
description:
  - Makes a bridge network when there is none of its name. An existing one is left as it is, since replacing it would
    cut what is connected to it.
options:
  name:
    description: Name of the network.
    type: str
    required: true
  internal:
    description: Whether the network has no way out.
    type: bool
    default: false
  bridge:
    description: Name of a new network's interface on the host, at most 15 characters; left out, Docker chooses one.
    type: str
    default: ""
  labels:
    description: Labels of a new network.
    type: dict
    default: {}
attributes:
  check_mode:
    description: Tells whether the network would be made.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
"""

EXAMPLES = r"""
- name: Have a network between application and database
  switchyard.stack.docker_network:
    name: sample-staging-data
    internal: true
"""

RETURN = r""" # """

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.switchyard.stack.plugins.module_utils.engine import Docker


def main() -> None:
    """Make the network when it is missing."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "internal": {"type": "bool", "default": False},
            "bridge": {"type": "str", "default": ""},
            "labels": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    name, docker = module.params["name"], Docker(module)
    if not docker.missing and docker.ask("network", "inspect", name)[0] == 0:
        module.exit_json(changed=False)
    if not module.check_mode:
        labels = [word for key, value in module.params["labels"].items() for word in ("--label", f"{key}={value}")]
        internal = ["--internal"] if module.params["internal"] else []
        bridge = module.params["bridge"]
        named = ["--opt", f"com.docker.network.bridge.name={bridge}"] if bridge else []
        docker.do(f"make the network {name}", "network", "create", *internal, *named, *labels, name)
    module.exit_json(changed=True)


if __name__ == "__main__":
    main()
