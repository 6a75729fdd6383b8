"""Where things lie on a host, and what the roles said about it."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from switchyard.errors import Exit, SwitchyardError
from switchyard.names import AppName
from switchyard.strict import build

STATE = Path("/var/lib/switchyard")
RUNTIME = Path("/run/switchyard")
LOGS = Path("/var/log/switchyard")
HOST_FILE = Path("/etc/switchyard/host.json")

EDGE = STATE / "edge"
EDGE_LIVE = EDGE / "live"
EDGE_SHADOW = EDGE / "shadow"
EDGE_LOCK = RUNTIME / "edge.lock"
EDGE_CONTAINER = "switchyard-edge"
"""The edge's container; while one takes over from another, the new one has `-next` behind its name."""
EDGE_LABEL = {"switchyard.role": "edge"}
EDGE_SOCKET = "run/switchyard-edge.sock"
"""Where an edge answers for itself, below the root directory of its own container."""
EDGE_TLS = EDGE / "tls"
TLS_SETTINGS = Path("/etc/switchyard/tls")
TLS_LOCK = RUNTIME / "tls.lock"
ACME = STATE / "acme"
"""Accounts and what the ACME client keeps: not in the edge's tree, which its container reads."""
ACME_WEBROOT = EDGE / "acme"
"""What the edge answers challenges from."""
PORTS = STATE / "ports.json"
PORTS_LOCK = RUNTIME / "ports.lock"
REQUESTS = RUNTIME / "ops"
OPERATION_LOGS = LOGS / "ops"
SALT = STATE / "salt"


@dataclass(frozen=True)
class HostConfig:
    """This host, as the `engine` role described it."""

    name: str
    groups: list[str] = field(default_factory=list)
    several: bool = False
    """Whether other hosts release together with this one."""
    keeps_ledger: bool = True
    """Whether the environment's ledger is this host's: of several, the first edge's."""
    publish_address: str = "127.0.0.1"
    port_first: int = 18000
    port_last: int = 18999
    status_port: int = 8901
    edge_image: str = ""
    preview: bool = False
    """Whether the edge lets whoever has its secret look at the idle colour."""


def load_host() -> HostConfig:
    """Read `/etc/switchyard/host.json`; raises `SwitchyardError` when provisioning never finished here."""
    try:
        data = json.loads(HOST_FILE.read_text())
    except (OSError, ValueError) as error:
        raise SwitchyardError(f"{HOST_FILE} cannot be read ({error}): run provision.yml.", Exit.PREFLIGHT) from error
    return build(HostConfig, data, str(HOST_FILE))


@dataclass(frozen=True)
class AppPaths:
    """The files of one application in one environment."""

    name: AppName

    @property
    def state(self) -> Path:
        """Everything of this application; nothing of another one."""
        return STATE / str(self.name)

    @property
    def releases(self) -> Path:
        """One directory per release record."""
        return self.state / "releases"

    @property
    def ledger(self) -> Path:
        """Append-only JSON lines: what was tried, and how it ended."""
        return self.state / "ledger.jsonl"

    @property
    def ledger_lock(self) -> Path:
        """Held while a line is added to the ledger."""
        return RUNTIME / f"{self.name}.ledger.lock"

    @property
    def note(self) -> Path:
        """On a host of a fleet: what is live there, as its coordinator said last."""
        return self.state / "fleet.json"

    @property
    def lease(self) -> Path:
        """Who may change this application now."""
        return self.state / "lease.json"

    @property
    def secrets(self) -> Path:
        """Generations of the secrets: a directory for each release that brought values, one file each."""
        return self.state / "secrets"

    @property
    def probation(self) -> Path:
        """What the watch knows of the release on probation, or of the last one that was."""
        return self.state / "probation.json"

    @property
    def promotion(self) -> Path:
        """The step that somebody gave a canary of several hosts, for the operation that leads it."""
        return self.state / "promotion.json"

    @property
    def results(self) -> Path:
        """How each operation ended, for whoever follows it."""
        return self.state / "ops"

    @property
    def lock(self) -> Path:
        """Held by a verb while it changes something."""
        return RUNTIME / f"{self.name}.lock"

    @property
    def pointer(self) -> Path:
        """The file that says which colour is live."""
        return EDGE_LIVE / "pointers" / f"{self.name}.conf"

    def result(self, operation: str) -> Path:
        """The end of one operation."""
        return self.results / f"{operation}.json"


def known_apps() -> list[AppName]:
    """Every application and environment that has state on this host, sorted."""
    if not STATE.is_dir():
        return []
    found = [
        path.name for path in STATE.iterdir() if any((path / name).is_file() for name in ("ledger.jsonl", "fleet.json"))
    ]
    return sorted((AppName.parse(name) for name in found), key=str)
