#!/usr/bin/python
"""Documentation of the action plugin of the same name, which does the work on the control side."""

from __future__ import annotations

DOCUMENTATION = r"""
module: deploy
short_description: Release a version of an application, blue/green
version_added: 0.1.0
author: The Switchyard contributors (@switchyard)
description:
  - Hands a rendered release to the engine on the host, follows it, and reports how it ended.
  - Runs on the control side; the host's work is done by the engine in a unit of its own, which a lost connection
    does not interrupt.
  - Runs once for all hosts of a play, and speaks to all of the environment itself.
options:
  request:
    description: The release as role C(app) renders it.
    type: dict
    required: true
attributes:
  check_mode:
    description: Tells what a deploy would change; nothing is changed.
    support: full
  diff_mode:
    description: Shows digests, variables (values hidden), the compose file and the switch.
    support: full
"""

EXAMPLES = r"""
- name: Release the version that was chosen
  switchyard.stack.deploy:
    request: "{{ __app_request }}"
"""

RETURN = r"""
deploy:
  description: The engine's result with the release, its colour, its digests and the seconds of each phase.
  returned: when the engine was started
  type: dict
plan:
  description: What would change.
  returned: in check mode
  type: dict
"""
