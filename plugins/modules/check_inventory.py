#!/usr/bin/python
"""Documentation of the action plugin of the same name, which does the work on the control side."""

from __future__ import annotations

DOCUMENTATION = r"""
module: check_inventory
short_description: Check every variable of a host before any host is touched
version_added: 0.1.0
author: The Switchyard contributors (@switchyard)
description:
  - Refuses names that look like a variable of a role and are none, with the nearest known one, the file and the line.
  - Checks types, choices, nested keys and what only shows when variables are seen together, such as two services that
    claim the same route.
  - Runs on the control side alone; no host is contacted.
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
- name: Check every variable before any host is touched
  switchyard.stack.check_inventory:
  delegate_to: localhost
"""

RETURN = r""" # """
