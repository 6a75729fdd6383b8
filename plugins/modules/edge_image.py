#!/usr/bin/python
"""Has the edge's image on the host and refuses an Nginx that would lose requests."""

from __future__ import annotations

DOCUMENTATION = r"""
module: edge_image
short_description: Have the edge's image on the host, with an Nginx that loses no request when it reloads
version_added: 0.1.0
author: The Switchyard contributors (@switchyard)
description:
  - Pulls the image when it is not on the host and asks it for its version of Nginx.
  - An Nginx without C(keepalive_min_timeout) is refused, since each reload of it resets some connections.
options:
  image:
    description: The image's reference.
    type: str
    required: true
  minimum:
    description: The oldest version that is accepted.
    type: str
    default: 1.27.4
attributes:
  check_mode:
    description: Tells whether the image would be pulled; its version is then unknown.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
"""

EXAMPLES = r"""
- name: Have an Nginx that reloads without losing requests
  switchyard.stack.edge_image:
    image: nginx:1.30-alpine
"""

RETURN = r"""
version:
  description: The version of Nginx in the image.
  returned: when the image is on the host
  type: str
"""

import re

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.switchyard.stack.plugins.module_utils.engine import Docker

_CONFINED = (
    "--network=none",
    "--user=65534:65534",
    "--read-only",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--memory=64m",
    "--pids-limit=16",
    "--log-opt=max-size=10m",
    "--log-opt=max-file=3",
)


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def main() -> None:
    """Pull when needed, then judge the version."""
    module = AnsibleModule(
        argument_spec={
            "image": {"type": "str", "required": True},
            "minimum": {"type": "str", "default": "1.27.4"},
        },
        supports_check_mode=True,
    )
    image, minimum, docker = module.params["image"], module.params["minimum"], Docker(module)
    pull = docker.missing or docker.ask("image", "inspect", image)[0] != 0
    if pull and module.check_mode:
        module.exit_json(changed=True)
    if pull:
        docker.do(f"pull {image}", "pull", "--quiet", image)
    code, out, err = docker.ask("run", "--rm", *_CONFINED, "--entrypoint", "nginx", image, "-v")
    found = re.search(r"nginx/(\d+\.\d+\.\d+)", out + err)
    if code != 0 or not found:
        module.fail_json(msg=f"{image} is no image of Nginx: 'nginx -v' in it says: {(err or out).strip()}")
    elif _number(found[1]) < _number(minimum):
        module.fail_json(
            msg=f"{image} holds Nginx {found[1]}, which loses requests at every reload: set edge_image to an image of "
            f"Nginx {minimum} or later."
        )
    else:
        module.exit_json(changed=pull, version=found[1])


if __name__ == "__main__":
    main()
