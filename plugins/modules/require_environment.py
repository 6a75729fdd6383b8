#!/usr/bin/python
"""Documentation of the action plugin of the same name, which does the work on the control side."""

from __future__ import annotations

DOCUMENTATION = r"""
module: require_environment
short_description: Stop unless one known environment was named and a host of it is left
version_added: 0.1.0
author: The Switchyard contributors (@switchyard)
description:
  - Refuses an C(env) for which there is no group C(env_NAME), with those that there are, and a C(--limit) that leaves
    no host of it.
  - Runs once for all hosts of a play, on the control side; when it fails, the play ends for all of them. A strategy
    that cannot do that is refused by Ansible.
options: {}
attributes:
  check_mode:
    description: It never changes anything.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
"""

EXAMPLES = r"""
- name: Require a known environment, and a host of it
  switchyard.stack.require_environment:
"""

RETURN = r""" # """
