#!/usr/bin/python
"""Has the engine plan ports for every instance of both colours."""

from __future__ import annotations

DOCUMENTATION = r"""
module: port_plan
short_description: Have ports planned for every instance of both colours
version_added: 0.1.0
author: The Switchyard contributors (@switchyard)
description:
  - Asks the engine to plan ports. A port that is planned never moves.
options:
  app:
    description: Name of the application.
    type: str
    required: true
  environment:
    description: Name of the environment.
    type: str
    required: true
  instances:
    description: The number of instances by service.
    type: dict
    required: true
attributes:
  check_mode:
    description: Tells whether the plan would grow.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
"""

EXAMPLES = r"""
- name: Plan ports
  switchyard.stack.port_plan:
    app: sample
    environment: staging
    instances:
      api: 2
"""

RETURN = r""" # """

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.switchyard.stack.plugins.module_utils.engine import ask_engine


def main() -> None:
    """Ask the engine."""
    module = AnsibleModule(
        argument_spec={
            "app": {"type": "str", "required": True},
            "environment": {"type": "str", "required": True},
            "instances": {"type": "dict", "required": True},
        },
        supports_check_mode=True,
    )
    data = {"app": module.params["app"], "environment": module.params["environment"]}
    words = ["plan-ports", "--json", *(["--check"] if module.check_mode else [])]
    answer = ask_engine(module, words, data | {"services": module.params["instances"]})
    module.exit_json(changed=answer is None or bool(answer["changed"]))


if __name__ == "__main__":
    main()
