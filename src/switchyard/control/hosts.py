"""The small file that provision leaves on the control side: where an environment's hosts are, without Ansible."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from switchyard.errors import Exit, SwitchyardError
from switchyard.names import AppName, nearest
from switchyard.strict import build

PROJECT = Path(os.environ.get("SWITCHYARD_PROJECT") or Path.cwd())
"""The directory that holds the inventory; `scripts/switchyard` sets it to the checkout, if there is one."""


@dataclass(frozen=True)
class HostEntry:
    """One host: how the deploy user reaches it."""

    name: str
    address: str
    user: str
    port: int = 22
    private_key: str = ""
    known_hosts: str = ""
    groups: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Environment:
    """The hosts of one environment."""

    environment: str
    app: str
    hosts: list[HostEntry]

    @property
    def name(self) -> AppName:
        """Application and environment, as the engine names them."""
        return AppName(self.app, self.environment)


def load(environment: str, project: Path = PROJECT) -> Environment:
    """Read an environment's hosts file; raises `SwitchyardError` naming the known environments."""
    folder = project / ".switchyard" / "hosts"
    known = sorted(path.stem for path in folder.glob("*.json"))
    if environment not in known:
        names = ", ".join(known) or "none yet"
        raise SwitchyardError(
            f"Unknown environment '{environment[:64]}'{nearest(environment, known) or '.'} Provisioned from here: "
            f"{names} ('ansible-playbook provision.yml -e env=NAME' writes {folder}/NAME.json).",
            Exit.USAGE,
        )
    path = folder / f"{environment}.json"
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise SwitchyardError(f"{path} cannot be read ({error}): run provision.yml again.", Exit.USAGE) from error
    return build(Environment, data, str(path))


def resolve(path: str, project: Path = PROJECT) -> str:
    """A path in the hosts file is relative to the project; absolute and home paths stay."""
    if not path:
        return ""
    expanded = Path(path).expanduser()
    return str(expanded if expanded.is_absolute() else project / expanded)
