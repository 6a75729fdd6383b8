#!/usr/bin/python
"""Sets up sshd by a file that is checked by its effect, and takes it back unless a second login confirms it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: sshd_settings
short_description: Set up sshd, checked by effect and confirmed by a second login
version_added: 0.1.0
author: The Switchyard contributors (@switchyard)
description:
  - Places a file that sshd includes, and reloads sshd. Whether every setting of the file is in force for each of the
    users is asked of sshd itself, since another file that comes first would win.
  - A file that sshd refuses, or whose settings do not come into force, is taken back at once.
  - Its action logs in once more after a change. Without that login the host takes the change back by itself.
options:
  path:
    description: The file, in a directory that sshd includes.
    type: str
    required: true
  content:
    description: The whole text.
    type: str
    required: true
  users:
    description: Users who log in. The settings have to be in force for each of them. Who runs the module is one more.
    type: list
    elements: str
    required: true
  group:
    description: A group that has these users as members, made when it is missing. Nobody is taken out of it.
    type: str
    required: true
  undo_seconds:
    description: Seconds that the change waits for its confirmation. The action sets it.
    type: int
    default: 0
  confirm:
    description: Keep the change that waits. The action sets it.
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
- name: Let nobody in by password
  switchyard.stack.sshd_settings:
    path: /etc/ssh/sshd_config.d/00-switchyard.conf
    content: "PasswordAuthentication no\n"
    users: [deploy]
    group: logins
"""

RETURN = r"""
armed:
  description: Whether the change waits for its confirmation.
  returned: always
  type: bool
"""

import grp
import os
import re
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.switchyard.stack.plugins.module_utils.guard import Guard, settle
from ansible_collections.switchyard.stack.plugins.module_utils.placing import Placing

# Wherever one of these is written, it keeps people out; so none may be in force that the file does not have.
_GATES = {"allowusers", "allowgroups", "denyusers", "denygroups"}

Settings = dict[str, list[str]]


def main() -> None:
    """Place the file, ask sshd what is in force, reload it."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "str", "required": True},
            "content": {"type": "str", "required": True},
            "users": {"type": "list", "elements": "str", "required": True},
            "group": {"type": "str", "required": True},
            "undo_seconds": {"type": "int", "default": 0},
            "confirm": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    path, content = module.params["path"], module.params["content"]
    users = list(dict.fromkeys([*module.params["users"], os.environ.get("SUDO_USER", "root")]))
    guard = Guard(module, "ssh", path, "systemctl try-reload-or-restart ssh.service")
    if module.params["confirm"]:
        guard.confirm()
        module.exit_json(changed=False, armed=False)
    # sshd answers questions only while its directory is there, and a socket unit may not have made it yet.
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    if guard.armed and not module.check_mode:
        guard.undo()
    joined = _join(module, users)
    placing = Placing(module)
    placed = Path(path).is_file() and Path(path).read_text() == content
    if module.check_mode or placed:
        placing.file(path, content, mode=0o600)
        if placed and not module.check_mode and (problem := _not_in_force(module, users, path, content)):
            module.fail_json(msg=f"sshd does not follow {path}: {problem}.")
        module.exit_json(**placing.report() | {"changed": placing.changed or joined, "armed": False})
    guard.arm(module.params["undo_seconds"] or 60)
    placing.file(path, content, mode=0o600)
    if problem := _not_in_force(module, users, path, content):
        guard.refuse(f"sshd would not follow {path}: {problem}.")
    code, _, err = module.run_command(["systemctl", "try-reload-or-restart", "ssh.service"])
    if code != 0:
        guard.refuse(f"sshd cannot be reloaded: {err.strip()}.")
    settle()
    module.exit_json(**placing.report() | {"armed": True})


def _join(module: AnsibleModule, users: list[str]) -> bool:
    """Have the group with its members; tells whether anything had to be, or in check mode has to be, done."""
    group = module.params["group"]
    try:
        members = grp.getgrnam(group).gr_mem
        commands = []
    except KeyError:
        members = []
        commands = [["groupadd", "--system", group]]
    commands += [["gpasswd", "--add", user, group] for user in users if user not in members]
    for argv in [] if module.check_mode else commands:
        code, _, err = module.run_command(argv)
        if code != 0:
            module.fail_json(msg=f"'{' '.join(argv)}' failed: {err.strip()}.")
    return bool(commands)


def _not_in_force(module: AnsibleModule, users: list[str], path: str, content: str) -> str:
    """What of the file is not in force, or an empty text."""
    words = re.findall(r"^\s*(\w+)", re.sub(r"#.*", "", content), re.MULTILINE)
    names = ({word.lower() for word in words} - {"match"}) | _GATES
    for user in users:
        alone, problem = _ask(module, user, "-f", path)
        if problem:
            return problem
        whole, problem = _ask(module, user)
        if problem:
            return problem
        for name in sorted(names):
            if alone.get(name) != whole.get(name):
                have = " ".join(whole.get(name, ["nothing"]))
                return f"for {user}, {name} is {have}, which another file sets before (see 'sshd -T')"
    return ""


def _ask(module: AnsibleModule, user: str, *flags: str) -> tuple[Settings, str]:
    """What is in force for a user, by sshd's own words."""
    peer = f"user={user},host=localhost,addr=127.0.0.1,laddr=127.0.0.1,lport=22"
    code, out, err = module.run_command(["sshd", "-T", *flags, "-C", peer])
    if code != 0:
        return {}, " ".join((err.strip() or out.strip()).split())
    settings: Settings = {}
    for line in out.splitlines():
        name, _, value = line.partition(" ")
        settings.setdefault(name, []).append(value)
    return settings, ""


if __name__ == "__main__":
    main()
