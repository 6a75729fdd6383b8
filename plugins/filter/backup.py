"""Filters that the role `backup` describes itself with; the work is done in `switchyard.control.backup`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.switchyard.stack.plugins.filter.application import _plain
from ansible_collections.switchyard.stack.plugins.plugin_utils.source import make_importable

make_importable()

from switchyard.control import backup, refresh, standby
from switchyard.data import image
from switchyard.errors import SwitchyardError


def backup_image(base: Any, version: Any) -> str:
    """Name the image that is built from `base`."""
    return image.name(str(base), int(version))


def backup_dockerfile(base: Any) -> str:
    """Give the recipe of that image."""
    return image.dockerfile(str(base))


def backup_files(variables: Any, folder: str) -> dict[str, Any]:
    """List the directories and files that `switchyard.stack.place` has for the backup."""
    try:
        return backup.placing(_plain(variables), folder)
    except SwitchyardError as error:
        raise AnsibleFilterError(error.message) from error


def backup_units(jobs: Any, name: str) -> list[dict[str, str]]:
    """Render the systemd units of the schedule."""
    return backup.units(_plain(jobs), str(name))


def backup_refresh_order(values: Any) -> dict[str, Any]:
    """Make the order that refreshes one environment with another one's data."""
    try:
        return refresh.order(_plain(values))
    except SwitchyardError as error:
        raise AnsibleFilterError(error.message) from error


def standby_address(identity: Any) -> str:
    """Tell the address of the replica that an identity is for."""
    try:
        return standby.parse(str(identity)).address
    except SwitchyardError as error:
        raise AnsibleFilterError(error.message) from error


class FilterModule:
    """Offers the filters."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name them."""
        return {
            "backup_image": backup_image,
            "backup_dockerfile": backup_dockerfile,
            "backup_files": backup_files,
            "backup_units": backup_units,
            "backup_refresh_order": backup_refresh_order,
            "standby_address": standby_address,
        }
