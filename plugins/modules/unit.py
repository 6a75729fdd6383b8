#!/usr/bin/python
"""Enables and starts a systemd unit, or ends it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: unit
short_description: Enable and start a systemd unit, or end it
version_added: 0.1.0
author: The Switchyard contributors (@switchyard)
description:
  - Enables a unit, and starts it when asked to; a target with all that it wants. Check mode tells the truth on a host
    that does not have the unit yet.
  - Unit files that are newer than what systemd read are read again.
options:
  name:
    description: The unit with its suffix.
    type: str
    required: true
  started:
    description: Whether the unit has to be active now, too.
    type: bool
    default: false
  enabled:
    description: With false, the unit is stopped and not started at boot; one that is not there is fine.
    type: bool
    default: true
attributes:
  check_mode:
    description: Tells what would change.
    support: full
  diff_mode:
    description: Shows what is enabled, started, disabled or stopped.
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

_DONE = {
    "daemon-reload": "read again",
    "enable": "enabled",
    "start": "started",
    "disable": "disabled",
    "stop": "stopped",
}


class _Systemd:
    def __init__(self, module: AnsibleModule, name: str) -> None:
        self._module = module
        self._name = name

    def do(self, *words: str) -> None:
        """Run a verb of systemctl, and fail the module with systemd's own words."""
        code, _, err = self._module.run_command(["systemctl", *words])
        if code != 0:
            self._module.fail_json(
                msg=f"'systemctl {' '.join(words)}' failed: {err.strip()}. 'journalctl -u {self._name}' says why."
            )

    def holds(self, question: str, unit: str) -> bool:
        """Ask `is-enabled` or `is-active`; no for a unit that is not there."""
        return bool(self._module.run_command(["systemctl", question, "--quiet", unit])[0] == 0)

    def show(self, what: str, unit: str) -> str:
        """One property of a unit, '' for one that is not there."""
        return str(self._module.run_command(["systemctl", "show", f"--property={what}", "--value", unit])[1]).strip()

    def wanted(self) -> list[str]:
        """The unit, and what a target brings up with it."""
        return [self._name, *(self.show("Wants", self._name).split() if self._name.endswith(".target") else [])]

    def is_outdated(self) -> bool:
        """Whether a file of these units, or of what their timers start, is newer than what systemd knows of it."""
        units = self.wanted()
        started = [unit for one in units for unit in self.show("Triggers", one).split()]
        return any(self.show("NeedDaemonReload", unit) == "yes" for unit in units + started)


def main() -> None:
    """Enable, then start; or end."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "started": {"type": "bool", "default": False},
            "enabled": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    name = module.params["name"]
    systemd = _Systemd(module, name)
    done = []

    def do(verb: str, *words: str) -> None:
        done.append(f"{name} is {_DONE[verb]}\n")
        if not module.check_mode:
            systemd.do(verb, *words)

    if module.params["enabled"]:
        # Before anything is asked: what an outdated target wants is not what its file says.
        if systemd.is_outdated():
            do("daemon-reload")
        if not systemd.holds("is-enabled", name):
            do("enable", name)
        if module.params["started"] and not all(systemd.holds("is-active", unit) for unit in systemd.wanted()):
            do("start", name)
    else:
        if systemd.holds("is-active", name):
            do("stop", name)
        if systemd.holds("is-enabled", name):
            do("disable", name)
    diff = {"before": "", "after": "".join(done)}
    module.exit_json(changed=bool(done), **({"diff": diff} if module._diff else {}))


if __name__ == "__main__":
    main()
