#!/usr/bin/python
"""Has the image of Postgres with pgBackRest on the host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_image
short_description: Have an image on the host that is built there from a recipe
version_added: 0.1.0
author: The Switchyard contributors (@switchyard)
description:
  - Builds the image when it is not on the host. Its name carries the hash of its recipe, so a changed recipe is another
    image, and one that is there is what the recipe says.
options:
  image:
    description: The image's name.
    type: str
    required: true
  dockerfile:
    description: The recipe. It copies no files.
    type: str
    required: true
attributes:
  check_mode:
    description: Tells whether the image would be built.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
"""

EXAMPLES = r"""
- name: Have Postgres with pgBackRest
  switchyard.stack.backup_image:
    image: switchyard/postgres:17-0123456789ab
    dockerfile: "{{ postgres_image | switchyard.stack.backup_dockerfile }}"
"""

RETURN = r"""
id:
  description: The image's identity, the digest of its configuration.
  returned: when the image is on the host
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.switchyard.stack.plugins.module_utils.engine import Docker


def main() -> None:
    """Build when needed."""
    module = AnsibleModule(
        argument_spec={
            "image": {"type": "str", "required": True},
            "dockerfile": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    image, docker = module.params["image"], Docker(module)
    missing = docker.missing or docker.ask("image", "inspect", image)[0] != 0
    if missing and module.check_mode:
        module.exit_json(changed=True)
    if missing:
        # The recipe comes on standard input: there is nothing else to send along.
        docker.do(f"build {image}", "build", "--tag", image, "-", stdin=module.params["dockerfile"])
    identity = docker.do(f"read {image}", "image", "inspect", "--format", "{{.Id}}", image).strip()
    module.exit_json(changed=missing, id=identity)


if __name__ == "__main__":
    main()
