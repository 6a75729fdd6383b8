#!/usr/bin/python
"""Has a database's repositories set up, archiving begun, and a first full backup."""

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_prepare
short_description: Have archiving begun and a first full backup
version_added: 0.1.0
author: The Switchyard contributors (@switchyard)
description:
  - Sets up the repositories, lets archiving begin and makes the first full backup, when that was not done yet.
  - A database that still runs without archiving waits for its restart, which another module announces.
  - Repositories that hold backups of another database are left alone, with a warning that says what to do.
options:
  app:
    description: Application and environment, as APP-ENV.
    type: str
    required: true
  replica:
    description:
      - Build a replica's data from the newest backup instead, when there is none. A database of its own is left alone,
        with an error that says what to do.
    type: bool
    default: false
attributes:
  check_mode:
    description: Tells whether something would be done.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
"""

EXAMPLES = r"""
- name: Have the first backup
  switchyard.stack.backup_prepare:
    app: sample-staging
"""

RETURN = r"""
state:
  description: What there is now, as C(ready), C(waiting) or C(foreign).
  returned: when the engine answered
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.switchyard.stack.plugins.module_utils.engine import ask_engine


def main() -> None:
    """Ask the engine to do it."""
    module = AnsibleModule(
        argument_spec={"app": {"type": "str", "required": True}, "replica": {"type": "bool", "default": False}},
        supports_check_mode=True,
    )
    verb = "replica-prepare" if module.params["replica"] else "backup-prepare"
    words = [verb, module.params["app"], "--json", *(["--check"] if module.check_mode else [])]
    answer = ask_engine(module, words, {})
    if answer is None:
        module.exit_json(changed=True)
    else:
        if answer["state"] != "ready" and not module.check_mode:
            module.warn(answer["message"])
        module.exit_json(changed=answer["changed"], state=answer["state"], msg=answer["message"])


if __name__ == "__main__":
    main()
