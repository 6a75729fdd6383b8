#!/usr/bin/python
"""Enables and starts a systemd unit."""

from __future__ import annotations

DOCUMENTATION = r"""
module: unit
short_description: Enable and start a systemd unit
version_added: 0.1.0
author: The Switchyard contributors (@switchyard)
description:
  - Enables a unit, and starts it when asked to. Check mode tells the truth on a host that does not have the unit yet.
options:
  name:
    description: The unit with its suffix.
    type: str
    required: true
  started:
    description: Whether the unit has to be active now, too.
    type: bool
    default: false
  daemon_reload:
    description: Whether systemd first reads its unit files again, because one of them changed.
    type: bool
    default: false
attributes:
  check_mode:
    description: Tells what would change.
    support: full
  diff_mode:
    description: Shows what is enabled or started.
    support: full
"""

EXAMPLES = r"""
- name: Start Docker, now and at every boot
  switchyard.stack.unit:
    name: docker.service
    started: true
"""

RETURN = r""" # """

from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    """Enable, then start."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "started": {"type": "bool", "default": False},
            "daemon_reload": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    name = module.params["name"]

    def systemctl(*words: str) -> None:
        code, _, err = module.run_command(["systemctl", *words])
        if code != 0:
            module.fail_json(
                msg=f"'systemctl {' '.join(words)}' failed: {err.strip()}. 'journalctl -u {name}' says why."
            )

    def holds(question: str) -> bool:
        return bool(module.run_command(["systemctl", question, "--quiet", name])[0] == 0)

    commands = [] if holds("is-enabled") else ["enable"]
    if module.params["started"] and not holds("is-active"):
        commands.append("start")
    if not module.check_mode:
        if module.params["daemon_reload"]:
            systemctl("daemon-reload")
        for verb in commands:
            systemctl(verb, name)
    words = {"enable": "enabled", "start": "started"}
    diff = {"before": "", "after": "".join(f"{words[verb]} {name}\n" for verb in commands)}
    module.exit_json(changed=bool(commands), **({"diff": diff} if module._diff else {}))


if __name__ == "__main__":
    main()
