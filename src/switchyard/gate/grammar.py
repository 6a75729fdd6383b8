"""The gate's grammar. Pure; everything that a key sends is one line, and what is not in the grammar is refused whole.

deploy VERSION [--commit SHA] [--run URL] [--idempotency-key KEY]
rollback [VERSION] [--commit SHA] [--run URL] [--idempotency-key KEY]
status | history | logs
"""

import re
from dataclasses import dataclass
from typing import Literal, cast

from switchyard.errors import Exit, SwitchyardError

Verb = Literal["deploy", "rollback", "status", "history", "logs"]

USAGE = "deploy VERSION | rollback [VERSION] | status | history | logs"
LONGEST = 640
# A container tag (distribution specification), narrower than `names.check_version`: it never begins with '_'.
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", re.ASCII)
_OPTIONS = {
    "--commit": re.compile(r"[0-9a-f]{7,64}", re.ASCII),
    "--run": re.compile(r"https://[A-Za-z0-9][A-Za-z0-9.:-]{0,100}/[A-Za-z0-9._~/-]{1,200}", re.ASCII),
    "--idempotency-key": re.compile(r"\d{8}T\d{6}-[0-9a-f]{32}", re.ASCII),
}


@dataclass(frozen=True)
class Order:
    """What a key asked for. `commit` and `run_url` are told to people; nothing is decided by them.

    The same order with the same `idempotency_key` (time and random digits, chosen by who gives it) is one operation.
    """

    verb: Verb
    version: str = ""
    commit: str = ""
    run_url: str = ""
    idempotency_key: str = ""


def parse(line: str) -> Order:
    """Read one line; raises `SwitchyardError` for whatever is not in the grammar. The line is not repeated in it."""
    words = line.split(" ")
    if len(line) > LONGEST:
        raise _refuse("the line is too long")
    if "" in words[1:]:
        raise _refuse("words are apart by one space")
    verb, rest = words[0], words[1:]
    if verb in ("status", "history", "logs"):
        if rest:
            raise _refuse(f"{verb} takes nothing")
        return Order(cast(Verb, verb))
    if verb not in ("deploy", "rollback"):
        raise _refuse("this key opens no shell and knows no such word")
    version = rest.pop(0) if rest and not rest[0].startswith("-") else ""
    if version and not _VERSION.fullmatch(version):
        raise _refuse("this is no version: use letters, digits, dot, dash and underscore, such as 1.4.0")
    if verb == "deploy" and not version:
        raise _refuse("deploy needs a version")
    given: dict[str, str] = {}
    while rest:
        option, value = rest.pop(0), rest.pop(0) if rest else ""
        if option not in _OPTIONS or option in given or not _OPTIONS[option].fullmatch(value):
            raise _refuse(
                "after the version there may be '--commit' with a hash, '--run' with an https:// address and "
                "'--idempotency-key' with time and 32 hexadecimal digits"
            )
        given[option] = value
    commit, run_url, key = (given.get(option, "") for option in ("--commit", "--run", "--idempotency-key"))
    return Order(cast(Verb, verb), version, commit, run_url, key)


def _refuse(problem: str) -> SwitchyardError:
    return SwitchyardError(f"Refused: {problem}. It may say: {USAGE}.", Exit.USAGE)
