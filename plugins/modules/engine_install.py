#!/usr/bin/python
"""Installs the engine on a host. The action plugin of the same name packs it on the control side."""

from __future__ import annotations

DOCUMENTATION = r"""
module: engine_install
short_description: Install the engine, without replacing code under a running operation
version_added: 0.1.0
author: The Switchyard contributors (@switchyard)
description:
  - Packs the engine on the control side into one file that is named by its content, sends it when the host does not
    have it, and points C(/usr/local/sbin/switchyard) at it in one step.
  - Older files stay for operations that are running from them; the newest O(keep) others are kept.
options:
  file_name:
    description: Name of the engine's file. The action plugin fills it in.
    type: str
  content:
    description: The file, base64. The action plugin fills it in when the host asks for it.
    type: str
  keep:
    description: How many other engine files stay on the host.
    type: int
    default: 3
attributes:
  check_mode:
    description: Tells whether the engine would change.
    support: full
  diff_mode:
    description: Shows the engine's file name before and after.
    support: full
"""

EXAMPLES = r"""
- name: Install the engine
  switchyard.stack.engine_install:
    keep: 3
"""

RETURN = r"""
engine:
  description: Name of the engine's file.
  returned: always
  type: str
"""

import base64
import contextlib
import importlib.util
import io
import marshal
import os
import zipfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.switchyard.stack.plugins.module_utils.placing import Placing

FOLDER = Path("/usr/local/lib/switchyard")
COMMAND = "/usr/local/sbin/switchyard"


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.chmod(0o755)
    temporary.replace(path)


def _compiled(content: bytes) -> bytes:
    """Add each module's bytecode, made by the Python that will run it: a third less time to start.

    Unchecked hash bytecode beside the source: another Python ignores it and reads the source.
    """
    head, _, body = content.partition(b"\n")
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(body)) as source, zipfile.ZipFile(target, "w") as archive:
        for name in source.namelist():
            text = source.read(name)
            archive.writestr(name, text)
            if name.endswith(".py"):
                code = compile(text, name, "exec", dont_inherit=True)
                flags = (1).to_bytes(4, "little")
                pyc = importlib.util.MAGIC_NUMBER + flags + importlib.util.source_hash(text) + marshal.dumps(code)
                archive.writestr(f"{name}c", pyc)
    return head + b"\n" + target.getvalue()


def _prune(current: Path, keep: int) -> None:
    others = [path for path in FOLDER.glob("engine-*.pyz") if path != current]
    for path in sorted(others, key=lambda other: other.stat().st_mtime, reverse=True)[keep:]:
        with contextlib.suppress(OSError):
            path.unlink()


def main() -> None:
    """Write the file when it is new, then point the command at it."""
    module = AnsibleModule(
        argument_spec={
            "file_name": {"type": "str"},
            "content": {"type": "str"},
            "keep": {"type": "int", "default": 3},
        },
        supports_check_mode=True,
    )
    if not module.params["file_name"]:
        module.fail_json(msg="engine_install runs through its action plugin, which packs the engine.")
    path, content = FOLDER / module.params["file_name"], module.params["content"]
    placing = Placing(module)
    if not path.exists():
        if module.check_mode:
            placing.link(COMMAND, str(path))
            module.exit_json(**placing.report() | {"changed": True, "engine": path.name})
        if not content:
            module.exit_json(changed=False, engine=path.name, content_needed=True)
        _write(path, _compiled(base64.b64decode(content)))
    placing.link(COMMAND, str(path))
    if placing.changed and not module.check_mode:
        _prune(path, module.params["keep"])
    module.exit_json(**placing.report() | {"engine": path.name})


if __name__ == "__main__":
    main()
