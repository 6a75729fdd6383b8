"""The filters that the role `deploy_access` writes keys with; the work is done in `switchyard.control.access`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.switchyard.stack.plugins.plugin_utils.source import make_importable

make_importable()

from switchyard.control import access
from switchyard.errors import SwitchyardError


def access_lines(keys: Any, app: str) -> str:
    """Lines of authorized_keys that open the gate of one application, and nothing else."""
    try:
        return access.lines(keys, str(app))
    except SwitchyardError as error:
        raise AnsibleFilterError(error.message) from error


def access_fingerprints(keys: Any) -> dict[str, str]:
    """The fingerprint of each key, by its name."""
    try:
        return access.fingerprints(keys)
    except SwitchyardError as error:
        raise AnsibleFilterError(error.message) from error


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filters by name."""
        return {"access_lines": access_lines, "access_fingerprints": access_fingerprints}
