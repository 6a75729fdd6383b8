#!/usr/bin/python
"""Loads the host's own nftables table in one step, and takes it back unless a second login confirms it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: firewall
short_description: Load a table of nftables in one step, confirmed by a second login
version_added: 0.1.0
author: The Switchyard contributors (@switchyard)
description:
  - Places a file of nftables and loads it in one transaction, when the file or the table in the kernel differs. The
    file replaces its own table; those of others, such as Docker's, are never touched.
  - The kernel is asked first, in a network namespace that is thrown away, whether it accepts the file. The table that
    it makes there is what the host's own one is compared with.
  - Its action logs in once more after a change. Without that login the host takes the change back by itself.
options:
  table:
    description: Family and name of the table that the file replaces.
    type: str
    required: true
  path:
    description: The file.
    type: str
    required: true
  content:
    description: The whole text. It has to replace the table. Empty removes file and table.
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
- name: Load the firewall
  switchyard.stack.firewall:
    table: inet switchyard
    path: /etc/switchyard/firewall.nft
    content: "{{ lookup('ansible.builtin.template', 'firewall.nft.j2') }}"
"""

RETURN = r"""
armed:
  description: Whether the change waits for its confirmation.
  returned: always
  type: bool
"""

import shutil

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.switchyard.stack.plugins.module_utils.guard import Guard
from ansible_collections.switchyard.stack.plugins.module_utils.placing import Placing

# -s and -t leave out what changes by itself: counters, and addresses that a rate limit has seen.
_LIST = "nft -s -t list table"


def main() -> None:
    """Compare file and kernel with what is wanted, then change both at once."""
    module = AnsibleModule(
        argument_spec={
            "table": {"type": "str", "required": True},
            "path": {"type": "str", "required": True},
            "content": {"type": "str", "required": True},
            "undo_seconds": {"type": "int", "default": 0},
            "confirm": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    table, path, content = (module.params[name] for name in ("table", "path", "content"))
    activate = f"if [ -e {path} ]; then nft -f {path}; else nft delete table {table}; fi"
    guard = Guard(module, "firewall", path, activate)
    if module.params["confirm"]:
        guard.confirm()
        module.exit_json(changed=False, armed=False)
    if guard.armed and not module.check_mode:
        guard.undo()
    installed = shutil.which("nft") is not None
    wanted = _wanted(module, table, content) if installed and content else ""
    _, live, _ = module.run_command([*_LIST.split(), *table.split()]) if installed else (1, "", "")
    stale = live != wanted
    placing = Placing(module)
    if module.check_mode or not stale:
        _place(placing, path, content)
        module.exit_json(**placing.report() | {"changed": placing.changed or stale, "armed": False})
    guard.arm(module.params["undo_seconds"] or 60)
    _place(placing, path, content)
    code, out, err = module.run_command(["/bin/sh", "-c", activate])
    if code != 0:
        guard.refuse(f"nft does not load {path}: {err.strip() or out.strip()}.")
    module.exit_json(**placing.report() | {"changed": True, "armed": True})


def _place(placing: Placing, path: str, content: str) -> None:
    if content:
        placing.file(path, content, mode=0o600)
    else:
        placing.absent(path)


def _wanted(module: AnsibleModule, table: str, content: str) -> str:
    """The table as the kernel would list it."""
    script = f"nft -f - && {_LIST} {table}"
    code, out, err = module.run_command(["unshare", "--net", "/bin/sh", "-c", script], data=content, binary_data=True)
    if code != 0:
        module.fail_json(msg=f"nft refuses the new firewall, so the old one stands: {err.strip() or out.strip()}")
    return str(out)


if __name__ == "__main__":
    main()
