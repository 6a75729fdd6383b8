"""What the role `deploy_access` said about one application: its hosts, and the keys that may come in.

Which keys these are goes into the ledger, when provision changes them or with the first release after it.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

from switchyard.engine.ledger import Ledger
from switchyard.errors import Exit, SwitchyardError
from switchyard.names import AppName
from switchyard.strict import build

FOLDER = Path("/etc/switchyard/access")


@dataclass(frozen=True)
class Access:
    """Names of the environment's hosts, and its keys."""

    hosts: list[str] = field(default_factory=list)
    keys: dict[str, str] = field(default_factory=dict)
    """Fingerprints by name."""


def load(name: AppName, key: str) -> Access:
    """Read it; raises `SwitchyardError` when this key may not come in (any more)."""
    access = _read(name)
    if access is None:
        raise SwitchyardError(f"{name} takes no orders here: run provision.yml with deploy_access_keys.")
    if key not in access.keys:
        raise SwitchyardError(f"The key '{key}' is not in deploy_access_keys of {name} any more.", Exit.USAGE)
    return access


def refuse_fleet(name: AppName, access: Access, version: str) -> None:
    """A release to several hosts needs somebody who reaches all of them; the gate sees one."""
    if len(access.hosts) > 1:
        chosen = f" -e version={version}" if version else ""
        raise SwitchyardError(
            f"{name} has {len(access.hosts)} hosts, and this key reaches one: let the job run 'ansible-playbook "
            f"deploy.yml -e env={name.environment}{chosen}' (SWITCHYARD_WAY=ansible).",
            Exit.PREFLIGHT,
        )


def note(name: AppName, ledger: Ledger, who: str) -> dict[str, str]:
    """Write into the ledger which keys were `added`, `changed` or `removed` since it said so last; returns them."""
    access, known = _read(name), dict[str, str]()
    for event in ledger.of("key"):
        if str(event["subject"]).startswith("ci:"):
            known[str(event["subject"])] = str(event.get("fingerprint", ""))
    given = {f"ci:{key}": fingerprint for key, fingerprint in access.keys.items()} if access else {}
    changed = {}
    for subject in sorted(known | given):
        before, after = known.get(subject, ""), given.get(subject, "")
        if before != after:
            changed[subject] = "removed" if not after else "changed" if before else "added"
            ledger.append("key", who=who, subject=subject, outcome=changed[subject], fingerprint=after)
    return changed


def _read(name: AppName) -> Access | None:
    path = FOLDER / f"{name}.json"
    if not path.exists():
        return None
    try:
        return build(Access, json.loads(path.read_text()), str(path))
    except (OSError, ValueError) as error:
        raise SwitchyardError(f"{path} cannot be read ({error}): run provision.yml.") from error
