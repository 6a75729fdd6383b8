#!/usr/bin/python
"""Configures the Docker daemon without stopping what runs."""

from __future__ import annotations

DOCUMENTATION = r"""
module: docker_daemon
short_description: Configure the Docker daemon without stopping what runs
version_added: 0.1.0
author: The Switchyard contributors (@switchyard)
description:
  - Writes C(/etc/docker/daemon.json), checked by the daemon itself where it is installed.
  - A setting that the daemon can reload is reloaded. Another one restarts the daemon only when no container runs or
    O(restart) is set; otherwise the module warns that the new setting waits for a restart.
options:
  settings:
    description: The whole of C(daemon.json).
    type: dict
    required: true
  restart:
    description: Whether the daemon may be restarted while containers run.
    type: bool
    default: false
attributes:
  check_mode:
    description: Tells what would change.
    support: full
  diff_mode:
    description: Shows the file's change.
    support: full
"""

EXAMPLES = r"""
- name: Bound the logs of containers
  switchyard.stack.docker_daemon:
    settings:
      log-driver: json-file
      log-opts:
        max-size: 10m
"""

RETURN = r"""
restart_needed:
  description: Whether a setting waits for a restart of the daemon.
  returned: always
  type: bool
"""

import json
import shutil
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.switchyard.stack.plugins.module_utils.placing import Placing

CONFIG = "/etc/docker/daemon.json"
# In /run, so that a reboot, which restarts the daemon anyway, forgets it.
WAITING = Path("/run/switchyard-docker-restart")
# A reload takes up what these say; that one of them is gone, the daemon notices at a restart only.
_RELOADABLE = {"insecure-registries", "registry-mirrors", "live-restore", "debug", "labels", "shutdown-timeout"}


def _read() -> dict[str, Any]:
    try:
        data = json.loads(Path(CONFIG).read_text())
    except (OSError, ValueError):
        return {}
    return dict(data) if isinstance(data, dict) else {}


def _systemctl(module: AnsibleModule, verb: str) -> None:
    code, _, err = module.run_command(["systemctl", verb, "docker.service"])
    if code != 0:
        module.fail_json(msg=f"'systemctl {verb} docker' failed: {err.strip()}. 'journalctl -u docker' says why.")


def _is_waiting() -> bool:
    """Tell whether a setting waits for a restart that has not happened since."""
    pid = Path("/run/docker.pid")
    return WAITING.exists() and pid.exists() and pid.stat().st_mtime <= WAITING.stat().st_mtime


def main() -> None:
    """Write the file, then reload, restart or say that a restart is due."""
    module = AnsibleModule(
        argument_spec={
            "settings": {"type": "dict", "required": True},
            "restart": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    before, wanted = _read(), module.params["settings"]
    different = {key for key in {*before, *wanted} if before.get(key) != wanted.get(key)}
    installed = shutil.which("dockerd") is not None
    running = installed and module.run_command(["systemctl", "is-active", "--quiet", "docker.service"])[0] == 0
    placing = Placing(module)
    text = json.dumps(wanted, indent=2, sort_keys=True) + "\n"
    placing.file(CONFIG, text, validate="dockerd --validate --config-file %s" if installed else "")
    containers = running and bool(module.run_command(["docker", "ps", "--quiet"])[1].strip())
    restart_due = running and (bool(different - (_RELOADABLE & wanted.keys())) or _is_waiting())
    may_restart = not containers or module.params["restart"]
    result = placing.report() | {"restart_needed": restart_due and not may_restart}
    result["changed"] = placing.changed or (restart_due and may_restart)
    if not module.check_mode:
        if restart_due and may_restart:
            _systemctl(module, "restart")
            WAITING.unlink(missing_ok=True)
        elif running and different:
            if restart_due:
                WAITING.touch()
            _systemctl(module, "reload")
    if result["restart_needed"]:
        module.warn(
            "Docker's new settings wait for a restart of the daemon, which does not happen while containers run unless "
            "you ask for it: -e restart=docker"
        )
    module.exit_json(**result)


if __name__ == "__main__":
    main()
