"""A filter that tells where hosts are, for rules that name them."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

_NAMES = (
    "host_private_address",
    "app_publish_address",
    "postgres_publish_address",
    "monitoring_address",
    "ansible_host",
)


def addresses(hosts: Sequence[str], hostvars: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Every address under which the inventory knows these hosts, since any may be what their packets come from.

    Raises `AnsibleFilterError` for a host without one: a firewall cannot wait for names to be resolved.
    """
    found: list[str] = []
    for host in sorted(hosts):
        known = [str(hostvars[host].get(name, "")) for name in _NAMES]
        usable = [value for value in known if _is_address(value)]
        if not usable:
            raise AnsibleFilterError(f"{host} has no address in the inventory: set its host_private_address.")
        found += usable
    return list(dict.fromkeys(found))


def prefixed(given: Sequence[str]) -> list[str]:
    """The same addresses and networks, each with a prefix, as Postgres wants them."""
    return list(dict.fromkeys(str(ipaddress.ip_interface(str(one)).network) for one in given))


def _is_address(value: str) -> bool:
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_unspecified)


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filters by name."""
        return {"addresses": addresses, "prefixed": prefixed}
