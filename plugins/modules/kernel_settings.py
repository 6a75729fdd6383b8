#!/usr/bin/python
"""Sets kernel parameters now and for every boot."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kernel_settings
short_description: Set kernel parameters now and for every boot
version_added: 0.1.0
author: The Switchyard contributors (@switchyard)
description:
  - Writes a file below C(/etc/sysctl.d) and applies what differs at once.
  - A parameter that this machine does not have or does not let us write (a container shares the kernel of its host) is
    named in a warning and in the result, and is no failure.
options:
  path:
    description: The file to write.
    type: str
    required: true
  settings:
    description: Parameter names and values.
    type: dict
    required: true
attributes:
  check_mode:
    description: Tells what would change.
    support: full
  diff_mode:
    description: Shows the file's change.
    support: full
"""

EXAMPLES = r"""
- name: Allow long queues of new connections
  switchyard.stack.kernel_settings:
    path: /etc/sysctl.d/60-switchyard.conf
    settings:
      net.core.somaxconn: 4096
"""

RETURN = r"""
applied:
  description: Parameters that were set.
  returned: always
  type: list
  elements: str
refused:
  description: Parameters that this machine does not have, or does not let us write.
  returned: always
  type: list
  elements: str
"""

import os
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.switchyard.stack.plugins.module_utils.placing import Placing


def main() -> None:
    """Write the file, then apply each parameter that has another value."""
    module = AnsibleModule(
        argument_spec={"path": {"type": "str", "required": True}, "settings": {"type": "dict", "required": True}},
        supports_check_mode=True,
    )
    settings = {str(name): str(value) for name, value in module.params["settings"].items()}
    placing = Placing(module)
    lines = "".join(f"{name} = {value}\n" for name, value in sorted(settings.items()))
    placing.file(module.params["path"], f"# Placed by Switchyard's role host; changes here are overwritten.\n{lines}")
    applied, refused = [], []
    for name, value in sorted(settings.items()):
        place = Path("/proc/sys") / name.replace(".", "/")
        try:
            if place.read_text().split() == value.split():
                continue
            if not os.access(place, os.W_OK):
                refused.append(name)
                continue
            if not module.check_mode:
                place.write_text(value)
            applied.append(name)
        except OSError:
            refused.append(name)
    if refused:
        module.warn(f"This machine does not let its kernel parameters be set: {', '.join(refused)}.")
    result = placing.report()
    module.exit_json(**result | {"changed": placing.changed or bool(applied), "applied": applied, "refused": refused})


if __name__ == "__main__":
    main()
