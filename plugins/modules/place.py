#!/usr/bin/python
"""Places any number of directories, files and links in one round trip."""

from __future__ import annotations

DOCUMENTATION = r"""
module: place
short_description: Place directories, files and links in one round trip
version_added: 0.1.0
author: The Switchyard contributors (@switchyard)
description:
  - Has directories, files and links as described. One call for all of them, since over SSH every further task costs as
    much as many files.
  - Files are replaced whole by a rename, after the checker that C(validate) names has accepted the new text.
options:
  directories:
    description: Directories to have; missing parents are made with mode 0755.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Where.
        type: str
        required: true
      mode:
        description: Permissions, as an octal string.
        type: str
        default: "0755"
      owner:
        description: User name or number.
        type: str
        default: root
      group:
        description: Group name or number.
        type: str
        default: root
  files:
    description: Files to have.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Where.
        type: str
        required: true
      content:
        description: The whole text.
        type: str
        required: true
      mode:
        description: Permissions, as an octal string.
        type: str
        default: "0644"
      owner:
        description: User name or number.
        type: str
        default: root
      group:
        description: Group name or number.
        type: str
        default: root
      validate:
        description: A command that accepts the new file (named by C(%s)) with exit code 0.
        type: str
        default: ""
      secret:
        description: Keep the text out of the diff.
        type: bool
        default: false
  links:
    description: Symbolic links to have.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Where.
        type: str
        required: true
      target:
        description: What it points at.
        type: str
        required: true
  absent:
    description: Files and links that must not be there.
    type: list
    elements: str
    default: []
  prune:
    description: Directories in which files of a prefix must not be there unless they are named.
    type: list
    elements: dict
    default: []
    suboptions:
      directory:
        description: Where.
        type: str
        required: true
      prefix:
        description: How the names of the files begin.
        type: str
        required: true
      keep:
        description: Names that stay.
        type: list
        elements: str
        default: []
attributes:
  check_mode:
    description: Tells what would change.
    support: full
  diff_mode:
    description: Shows every text that changes, unless it is secret.
    support: full
"""

EXAMPLES = r"""
- name: Let the deploy user run the engine
  switchyard.stack.place:
    directories:
      - path: /etc/switchyard
    files:
      - path: /etc/sudoers.d/switchyard
        content: "deploy ALL=(root) NOPASSWD: /usr/local/sbin/switchyard\n"
        mode: "0440"
        validate: visudo -cf %s
"""

RETURN = r"""
paths:
  description: What changed.
  returned: always
  type: list
  elements: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.switchyard.stack.plugins.module_utils.placing import Placing


def _options(kind: str) -> dict[str, Any]:
    mode = "0755" if kind == "directory" else "0644"
    options: dict[str, Any] = {
        "path": {"type": "str", "required": True},
        "mode": {"type": "str", "default": mode},
        "owner": {"type": "str", "default": "root"},
        "group": {"type": "str", "default": "root"},
    }
    if kind == "file":
        options |= {
            "content": {"type": "str", "required": True},
            "validate": {"type": "str", "default": ""},
            "secret": {"type": "bool", "default": False},
        }
    return options


def main() -> None:
    """Place everything, in the order directories, files, links, absences."""
    link = {"path": {"type": "str", "required": True}, "target": {"type": "str", "required": True}}
    prune = {
        "directory": {"type": "str", "required": True},
        "prefix": {"type": "str", "required": True},
        "keep": {"type": "list", "elements": "str", "default": []},
    }
    module = AnsibleModule(
        argument_spec={
            "directories": {"type": "list", "elements": "dict", "default": [], "options": _options("directory")},
            "files": {"type": "list", "elements": "dict", "default": [], "options": _options("file")},
            "links": {"type": "list", "elements": "dict", "default": [], "options": link},
            "absent": {"type": "list", "elements": "str", "default": []},
            "prune": {"type": "list", "elements": "dict", "default": [], "options": prune},
        },
        supports_check_mode=True,
    )
    placing = Placing(module)
    try:
        for item in module.params["directories"]:
            placing.directory(item["path"], int(item["mode"], 8), item["owner"], item["group"])
        for item in module.params["files"]:
            placing.file(**{**item, "mode": int(item["mode"], 8)})
        for item in module.params["links"]:
            placing.link(item["path"], item["target"])
        for path in module.params["absent"]:
            placing.absent(path)
        for item in module.params["prune"]:
            placing.prune(**item)
    except OSError as error:
        module.fail_json(msg=f"{error.filename or 'A file'} cannot be placed: {error.strerror or error}.")
    module.exit_json(**placing.report())


if __name__ == "__main__":
    main()
