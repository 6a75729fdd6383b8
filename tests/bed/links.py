"""The cable of a host: the outer end of its virtual Ethernet pair."""

from __future__ import annotations

from tests.bed import engine, images
from tests.bed.errors import BedError

SET = """
name=$(ip -o link | sed -n "s/^$1: \\([^:@]*\\).*/\\1/p")
[ -n "$name" ] && ip link set dev "$name" "$2"
"""


def carrier(container: str, *, up: bool) -> None:
    """Give a container's eth0 its carrier or take it.

    Leaving the engine's network instead would end the interface, and bring it back under another name.
    """
    peer = engine.cli("exec", container, "cat", "/sys/class/net/eth0/iflink").stdout.strip()
    if not peer.isdigit():
        raise BedError(f"The container {container} has no cable.")
    # The outer end is in the engine's own network namespace; a container enters it without needing root here.
    engine.cli(
        *("run", "--rm", "--network=host", "--cap-add=NET_ADMIN", "--entrypoint=sh", images.ensure("host")),
        *("-c", SET, "sh", peer, "up" if up else "down"),
    )
