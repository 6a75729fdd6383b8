#!/usr/bin/python
"""Has the certificate of an application through the engine, which judges a pair before it serves."""

from __future__ import annotations

DOCUMENTATION = r"""
module: edge_certificate
short_description: Have the certificate with which the edge serves an application
version_added: 0.1.0
author: The Switchyard contributors (@switchyard)
description:
  - Hands settings, and for C(files) certificate and key, to the engine. A pair that does not belong together or is not
    valid now is refused, and the one in service stays.
  - With O(renew), which needs a running edge, what is due is renewed. That it fails is a warning, since the edge goes
    on with the pair that it has and a timer tries again.
options:
  app:
    description: Name of the application.
    type: str
    required: true
  environment:
    description: Name of the environment.
    type: str
    required: true
  settings:
    description: Mode, names, port and ACME server, as the engine keeps them.
    type: dict
    required: true
  certificate:
    description: Certificate with its chain, as PEM text.
    type: str
    default: ""
  key:
    description: Private key as PEM text.
    type: str
    default: ""
  renew:
    description: Whether to renew what is due, or with mode C(off) to forget what there was.
    type: bool
    default: false
attributes:
  check_mode:
    description: Tells what would change.
    support: full
  diff_mode:
    description: There is nothing to show; a key must not be.
    support: none
"""

EXAMPLES = r"""
- name: Have a certificate to start with
  switchyard.stack.edge_certificate:
    app: sample
    environment: staging
    settings:
      mode: self_signed
      names: [staging.example.com]
"""

RETURN = r"""
certificate:
  description: How the certificate stands.
  returned: when the application serves TLS
  type: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.switchyard.stack.plugins.module_utils.engine import ask_engine


def main() -> None:
    """Ask the engine to keep or renew the certificate."""
    module = AnsibleModule(
        argument_spec={
            "app": {"type": "str", "required": True},
            "environment": {"type": "str", "required": True},
            "settings": {"type": "dict", "required": True},
            "certificate": {"type": "str", "default": ""},
            "key": {"type": "str", "default": "", "no_log": True},
            "renew": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    given: dict[str, Any] = module.params
    renewing = given["renew"] and given["settings"]["mode"] != "off"
    words = ["tls-keep"]
    if renewing:
        words = ["tls-renew", f"{given['app']}-{given['environment']}", "--for-role"]
        words += ["--check"] if module.check_mode else []
    answer = ask_engine(module, words, {**given, "check": module.check_mode})
    if answer is None:
        # Check mode on a host that has no engine yet.
        answer = {"changed": given["settings"]["mode"] != "off", "text": "", "warning": ""}
    if answer["warning"]:
        module.warn(f"Certificate: {answer['warning']}")
    module.exit_json(changed=answer["changed"], certificate=answer["text"])


if __name__ == "__main__":
    main()
