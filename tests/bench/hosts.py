"""`make bench-hosts`: the bars of roles, hardening, several hosts, certificates and edges.

`make bench-hosts ONLY=word,word` runs the parts whose names contain one of the words.
"""

import sys
from collections.abc import Callable

from tests.bench import edges, fleet, hardening
from tests.bench.bars import Bench, run

PARTS: dict[str, Callable[[Bench], None]] = {
    "roles": hardening.roles,
    "scan": hardening.scan,
    "scan-fleet": hardening.scan_fleet,
    "secrets": hardening.secrets,
    "tls": edges.tls,
    "tls-two-edges": edges.two_edges,
    "edge-upgrade": edges.upgrade,
    **fleet.PARTS,
}


if __name__ == "__main__":
    with fleet.MADE:
        code = run("hosts", PARTS)
    sys.exit(code)
