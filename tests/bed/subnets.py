"""Addresses of the bed, all from 198.18.0.0/15: the range reserved for benchmarks, nobody's real network.

198.18.0.0/24     the default bridge of an engine that the bed starts
198.18.16.0/20    its unnamed networks
198.18.64.0/18    one /24 for each bed
198.19.0.0/16     engines nested in the hosts (each host sees only its own)
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

Network = ipaddress.IPv4Network

BRIDGE = "198.18.0.1/24"
UNNAMED = Network("198.18.16.0/20")
BEDS = Network("198.18.64.0/18")
NESTED = Network("198.19.0.0/16")
NESTED_BRIDGE = "198.19.0.1/24"
NESTED_POOL = Network("198.19.128.0/17")

REGISTRY = 2
PRIVATE_REGISTRY = 3
FIRST_HOST = 10


def free_subnets(taken: Iterable[Network]) -> list[Network]:
    """Return every bed subnet that overlaps none of the taken ones, lowest first."""
    used = list(taken)
    return [net for net in BEDS.subnets(new_prefix=24) if not any(net.overlaps(other) for other in used)]


def routed(table: str) -> list[Network]:
    """Read the networks of a kernel routing table (/proc/net/route), without the default route."""
    found = []
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 8:
            continue
        # The kernel prints addresses as hex in the machine's byte order, which is little-endian here.
        address, mask = (int.from_bytes(bytes.fromhex(fields[i]), "little") for i in (1, 7))
        if mask:
            found.append(Network((address, bin(mask).count("1")), strict=False))
    return found


def address(subnet: Network, number: int) -> str:
    """Return the address with a number inside a bed's subnet."""
    if not 1 < number < 255:
        raise ValueError(f"a bed has addresses .2 to .254, not .{number}")
    return str(subnet[number])


def next_host(subnet: Network, taken: Iterable[str]) -> str:
    """Return the lowest free host address of a bed."""
    used = set(taken)
    for number in range(FIRST_HOST, 255):
        candidate = address(subnet, number)
        if candidate not in used:
            return candidate
    raise ValueError(f"every host address of {subnet} is taken")
