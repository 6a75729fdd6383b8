"""What an inventory reads about a bed's host, with paths that survive a move of the checkout."""

from __future__ import annotations

from pathlib import Path

from tests.bed.hosts import Host


def inventory_facts(host: Host, registry: str, root: Path) -> dict[str, object]:
    """Return address, login and trust of a host; files inside the checkout are named relative to it."""
    return {
        "address": host.address,
        "port": host.port,
        "user": host.user,
        "private_key": relative(host.place.private_key, root),
        "known_hosts": relative(host.place.known_hosts, root),
        "registry": registry,
    }


def relative(path: Path, root: Path) -> str:
    """Return a path relative to the root when it lies below it, else as it is."""
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
