"""What the role `deploy_access` said about one application: its hosts, and the keys that may come in."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from switchyard.errors import Exit, SwitchyardError
from switchyard.names import AppName
from switchyard.strict import build

FOLDER = Path("/etc/switchyard/access")


@dataclass(frozen=True)
class Access:
    """Names of the environment's hosts and of its keys."""

    hosts: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)


def load(name: AppName, key: str) -> Access:
    """Read it; raises `SwitchyardError` when this key may not come in (any more)."""
    path = FOLDER / f"{name}.json"
    try:
        access = build(Access, json.loads(path.read_text()), str(path))
    except (OSError, ValueError) as error:
        raise SwitchyardError(f"{name} takes no orders here: run provision.yml with deploy_access_keys.") from error
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
