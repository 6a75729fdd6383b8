"""What `deploy_access_keys` becomes on a host: lines of authorized_keys that can do one thing. Pure."""

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any

from switchyard.control.transport import ENGINE
from switchyard.errors import Exit, SwitchyardError
from switchyard.strict import require

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
# Type, key, comment; options in front of a key would be options of ours.
_KIND = re.compile(r"(?:sk-)?(?:ssh|ecdsa)-[a-z0-9@.-]+")
_KEY = re.compile(r"((?:sk-)?(?:ssh|ecdsa)-[a-z0-9@.-]+ [A-Za-z0-9+/]+=*)(?: [^\x00-\x1f\"]*)?")
_SOURCE = re.compile(r"!?[A-Za-z0-9.:/*?-]+")


def lines(keys: Sequence[Mapping[str, Any]], app: str) -> str:
    """The text of authorized_keys; `app` is the APP-ENV. Raises `SwitchyardError` naming the entry that is wrong."""
    names = [str(key["name"]) for key in keys]
    text = "# Placed by Switchyard's role deploy_access; changes here are overwritten.\n"
    for index, key in enumerate(keys):
        where, name = f"deploy_access_keys[{index}]", str(key["name"])
        require(_NAME.fullmatch(name) is not None, f"{where}.name", "use lower-case letters, digits and single dashes")
        require(names.count(name) == 1, f"{where}.name", f"two keys are named '{name}'")
        public = _public(where, key)
        options = ["restrict", f'command="/usr/bin/sudo -n {ENGINE} gate {app} {name}"']
        sources = [str(source) for source in key.get("from") or []]
        for source in sources:
            require(_SOURCE.fullmatch(source) is not None, f"{where}.from", f"'{source}' is no address or pattern")
        if sources:
            options.append(f'from="{",".join(sources)}"')
        if key.get("expires"):
            options.append(f'expiry-time="{_day(f"{where}.expires", str(key["expires"]))}"')
        text += f"{','.join(options)} {public} {name}\n"
    return text


def fingerprints(keys: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Each key's fingerprint by its name, as `ssh-keygen -l` prints it (RFC 4648 base64 of SHA-256, without padding).

    Raises `SwitchyardError` for a key that is none.
    """
    found = {}
    for index, key in enumerate(keys):
        blob = base64.b64decode(_public(f"deploy_access_keys[{index}]", key).split()[1])
        digest = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
        found[str(key["name"])] = f"SHA256:{digest}"
    return found


def _public(where: str, key: Mapping[str, Any]) -> str:
    """Type and material of a key, without its comment; raises `SwitchyardError` when it is none."""
    public = _KEY.fullmatch(str(key["key"]).strip())
    if public is not None and _is_key(public[1].split()[1]):
        return public[1]
    raise SwitchyardError(f"{where}.key: give one public key without options, as ssh-keygen wrote it.", Exit.USAGE)


def check_shell_keys(entries: Sequence[str]) -> None:
    """Refuse what is no line of authorized_keys, options included: it would replace the keys that work today.

    Raises `SwitchyardError` naming the entry.
    """
    for index, entry in enumerate(entries):
        words = str(entry).split()
        kinds = [number for number, word in enumerate(words) if _KIND.fullmatch(word)]
        material = words[kinds[0] + 1] if kinds and kinds[0] + 1 < len(words) else ""
        require(
            "\n" not in str(entry).strip() and _is_key(material),
            f"host_deploy_authorized_keys[{index}]",
            "give one public key as ssh-keygen wrote it, on one line (a file's text, not its name)",
        )


def check(keys: Sequence[Mapping[str, Any]], opens_a_shell: Iterable[str]) -> None:
    """Refuse a key that also is one of the deploy user's: it would open a shell there."""
    material = {line.split()[1] for line in opens_a_shell if len(line.split()) > 1}
    for index, key in enumerate(keys):
        if set(str(key["key"]).split()) & material:
            raise SwitchyardError(
                f"deploy_access_keys[{index}].key is in host_deploy_authorized_keys, too, where it opens a shell: make "
                "a key for the CI system alone.",
                Exit.USAGE,
            )


def _is_key(material: str) -> bool:
    """Whether it is a key's material: base64 that begins with the length of its type (RFC 4253, section 6.6)."""
    try:
        return base64.b64decode(material, validate=True).startswith(b"\0\0\0")
    except ValueError:
        return False


def _day(where: str, text: str) -> str:
    try:
        return date.fromisoformat(text).strftime("%Y%m%d")
    except ValueError:
        raise SwitchyardError(f"{where}: '{text}' is no day; write it as '2027-03-31'.", Exit.USAGE) from None
