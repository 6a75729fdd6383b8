#!/usr/bin/python
"""Documentation of the action plugin of the same name, which does the work on the control side."""

from __future__ import annotations

DOCUMENTATION = r"""
module: operation
short_description: Start an operation of the engine and follow it to its end
version_added: 0.1.0
author: The Switchyard contributors (@switchyard)
description:
  - Starts a verb of the engine in a unit of its own on the host and shows what it says, across lost connections.
options:
  app:
    description: Application and environment, as APP-ENV.
    type: str
    required: true
  words:
    description: The verb and its words.
    type: list
    elements: str
    required: true
  order:
    description:
      - What the verb reads on standard input, which may hold secrets. A verb that takes one knows C(--check).
    type: dict
attributes:
  check_mode:
    description: With O(order) the verb tells what it would do, or what would stop it; others are skipped.
    support: partial
  diff_mode:
    description: There is nothing to show.
    support: none
"""

EXAMPLES = r"""
- name: Back up now
  switchyard.stack.operation:
    app: sample-staging
    words: [backup, sample-staging, --type, incr]
"""

RETURN = r"""
operation:
  description: The engine's result.
  returned: when the engine was started
  type: dict
"""
