"""`make bench-hosts`: the bars of roles, several hosts and hardening.

`make bench-hosts ONLY=word,word` runs the parts whose names contain one of the words.
"""

import os
import sys
from collections.abc import Callable

from tests.bench import edges, fleet, hardening
from tests.bench.bars import Bench

PARTS: dict[str, Callable[[Bench], None]] = {
    "roles": hardening.roles,
    "scan": hardening.scan,
    "secrets": hardening.secrets,
    "tls": edges.tls,
    "tls-two-edges": edges.two_edges,
    "edge-upgrade": edges.upgrade,
    **fleet.PARTS,
}


def main() -> int:
    """Run the parts that ONLY names, or all."""
    only = os.environ.get("ONLY", "")
    chosen = [name for name in PARTS if any(word in name for word in only.split(","))]
    if not chosen:
        print(f"bench: no part is called '{only}'; there are {', '.join(PARTS)}", file=sys.stderr)
        return 2
    bench = Bench("hosts")
    for name in chosen:
        PARTS[name](bench)
    return bench.finish()


if __name__ == "__main__":
    sys.exit(main())
