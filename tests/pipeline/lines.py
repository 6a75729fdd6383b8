"""Command lines that somebody with a stolen key might send, and an independent judge of which ones may pass."""

import random
import re
from collections.abc import Iterator
from itertools import permutations

_VERSION = r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,127}"
_COMMIT = r" --commit [0-9a-f]{7,64}"
_RUN = r" --run https://[A-Za-z0-9][A-Za-z0-9.:\-]{0,100}/[A-Za-z0-9._~/\-]{1,200}"
_KEY = r" --idempotency-key [0-9]{8}T[0-9]{6}-[0-9a-f]{32}"
_OPTIONS = "|".join("".join(f"({option})?" for option in order) for order in permutations((_COMMIT, _RUN, _KEY)))
ALLOWED = re.compile(rf"(?a:status|history|logs|(deploy {_VERSION}|rollback( {_VERSION})?)({_OPTIONS}))")
"""The grammar as one expression, written apart from the parser that it judges."""

VALID = (
    "status", "history", "logs", "deploy 1.4.0", "rollback", "rollback 1.3.2", "deploy v2.0.0-rc.1",
    "deploy 1.4.0 --commit 0123abcd", "rollback --run https://ci.example.com/runs/7",
    "deploy 1.4.0 --commit 0123abcd --run https://ci.example.com/o/r/actions/runs/7",
    f"rollback --idempotency-key 20260102T030405-{'0a' * 16}",
    f"deploy 1.4.0 --run https://ci.example.com/7 --idempotency-key 20260102T030405-{'f1' * 16} --commit 0123abcd",
)  # fmt: skip
ATTACKS = (
    "", " ", "sh", "bash -i", "sudo -i", "deploy", "deploy  1.0.0", "deploy 1.0.0 ", " deploy 1.0.0", "deploy 1.0;id",
    "deploy 1.0.0 && id", "deploy $(id)", "deploy `id`", "deploy 1.0.0\nid", "deploy 1.0.0\0id", "deploy ../../etc",
    "deploy -h", "deploy --help", "deploy --commit 0123abcd", "deploy 1.0.0 --commit", "deploy 1.0.0 --commit HEAD",
    "deploy 1.0.0 --run http://x/y", "deploy 1.0.0 --run https://x/y?z", "deploy 1.0.0 --run javascript:alert(1)",
    "deploy 1.0.0 --run https://x/y --run https://x/y", "deploy 1.0.0 1.0.1", "status x", "status --json",
    "history --limit 9", "logs --service api", "DEPLOY 1.0.0", "rollback 1.0.0 --who root", "perform x", "recover",
    "prune --retain 0", "phase switch 0001-1.0.0", "gate sample-production x", "internal-sftp",
    "/usr/lib/openssh/sftp-server", "scp -t /etc", "scp -f /etc/shadow", "rsync --server . /", "cat /etc/shadow",
    "deploy " + "1" * 129, "deploy 1.0.0 " + "x" * 9000, "deploy \uff11.0.0", "deploy 1.0.0\r", "deploy\t1", "deploy é",
    "rollback *", "deploy 1.0.0|id", "deploy 1.0.0>f", "status\n", "logs;id", "-v", "--", "deploy --", "deploy {a,b}",
    "env LD_PRELOAD=/tmp/x.so deploy 1.0.0", "SSH_ORIGINAL_COMMAND=status", "git-upload-pack x", "deploy @sha256:0",
    "rollback --idempotency-key", "rollback --idempotency-key x", f"rollback --idempotency-key {'0a' * 16}",
    "rollback --idempotency-key 20260102T030405-abcdef", f"status --idempotency-key 20260102T030405-{'0a' * 16}",
    f"rollback --idempotency-key 20260102T030405-{'0A' * 16}", f"rollback --idempotency-key ../0102T030405-{'0a' * 16}",
    f"rollback --idempotency-key \uff120260102T030405-{'0a' * 16}", "rollback --operation 20260102T030405-abcdef",
)  # fmt: skip
_PIECES = (
    *" \t\n\r\0;|&$`'\"\\<>(){}[]*?!~#=%@:/.-_,",
    "é",
    "\uff11",
    "\u202e",
    "../",
    "$(id)",
    "--",
    "root",
    "deploy",
    "1.0",
)


def lines(count: int, seed: int) -> Iterator[str]:
    """Every known attack and valid line first, then mutations of them and noise, the same ones for the same seed."""
    chance = random.Random(seed)  # noqa: S311 - it has to be the same each time
    known = [*ATTACKS, *VALID]
    yield from known[:count]
    for _ in range(count - len(known)):
        yield _mutated(chance, chance.choice(known)) if chance.random() < 0.8 else _noise(chance)


def _mutated(chance: random.Random, text: str) -> str:
    for _ in range(chance.randint(1, 3)):
        at = chance.randint(0, len(text))
        end = min(len(text), at + chance.randint(0, 3))
        text = text[:at] + chance.choice(_PIECES) * chance.randint(0, 2) + text[end:]
    return text


def _noise(chance: random.Random) -> str:
    return "".join(chr(chance.choice((chance.randint(1, 126), chance.randint(1, 0xD7FF)))) for _ in range(40))
