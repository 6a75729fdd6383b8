"""Filters that the role `app` describes a release with; the work is done in `switchyard.control.application`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.switchyard.stack.plugins.plugin_utils.source import make_importable

make_importable()

from switchyard.control import application
from switchyard.errors import SwitchyardError


def _plain(value: Any) -> Any:
    """The value without what Ansible adds to it: laziness, and tags that say where it came from."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value


def services(given: Any, version: str) -> dict[str, dict[str, Any]]:
    """Fill in what the inventory leaves out of `app_services`."""
    return application.complete_services(_plain(given), str(version))


def migration(given: Any) -> dict[str, Any] | None:
    """Fill in what the inventory leaves out of `app_migration`."""
    return application.complete_migration(_plain(given))


def volume_directories(given: Any, parent: str, shared: Any) -> list[dict[str, str]]:
    """List the directories that `switchyard.stack.place` makes for the volumes of complete services.

    A volume in `shared` is on a storage that somebody else keeps.
    """
    try:
        owners = application.volume_owners(_plain(given))
    except SwitchyardError as error:
        raise AnsibleFilterError(error.message) from error
    return [
        {"path": f"{parent}/{name}", "mode": "0750", "owner": str(uid), "group": str(uid)}
        for name, uid in sorted(owners.items())
        if name not in shared
    ]


def request(variables: Any, compose: str, version: str | None, decision: str, override: str = "") -> dict[str, Any]:
    """Build the request for the engine from the variables of the role."""
    try:
        return application.build_request(
            _plain(variables),
            compose=str(compose),
            version=None if version is None else str(version),
            decision=str(decision),
            override=str(override),
        )
    except SwitchyardError as error:
        raise AnsibleFilterError(error.message) from error


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filters by name."""
        return {
            "services": services,
            "migration": migration,
            "volume_directories": volume_directories,
            "request": request,
        }
