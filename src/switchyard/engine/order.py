"""What the coordinator of several hosts asks of one of them, and what that host notes of the whole."""

import json
from dataclasses import dataclass, field
from typing import Any, Literal

from switchyard.engine.effects import replace_file
from switchyard.engine.layout import PORTS, AppPaths, HostConfig
from switchyard.engine.site import Pointer
from switchyard.errors import Exit, SwitchyardError
from switchyard.names import AppName, Colour, check_operation
from switchyard.strict import build

Verb = Literal[
    "begin", "prepare", "database", "point", "migrate", "start", "drain", "check", "switch", "smoke", "promote",
    "watch", "abandon", "end", "settle",
]  # fmt: skip


@dataclass(frozen=True)
class Order:
    """One verb for one host. What a verb does not need has its default."""

    app: str
    op: str
    kind: Literal["deploy", "rollback", "recover", "prune"]
    who: str
    verb: Verb
    fence: int = 0
    request: dict[str, Any] | None = None
    """begin, prepare: the deploy as the control side asks for it; hosts without instances get no secret values."""
    wanted: str = ""
    """begin: what to go back to; empty means the previous good release."""
    number: int = 0
    """begin: the highest release number that any host has."""
    records: dict[str, dict[str, str]] = field(default_factory=dict)
    """Release id to the files of its record, for a host that may lack them."""
    events: list[dict[str, Any]] = field(default_factory=list)
    """Most verbs: what other hosts wrote into their copies of the ledger. migrate: what is known of the schema."""
    verdict: dict[str, Any] | None = None
    """begin: what the watch on an edge decided, the worst of them, as its facts tell."""
    hosts: int = 1
    """prepare: application hosts, for the budget of database connections."""
    release: str = ""
    contracts: bool = False
    """point: whether the release contracts the schema, which wants a backup."""
    colour: Colour | None = None
    created: str = ""
    digests: dict[str, str] = field(default_factory=dict)
    architectures: dict[str, list[str]] = field(default_factory=dict)
    again: bool = False
    """prepare: make a record even when this host already runs what is asked for."""
    owner: bool = False
    """Whether this host keeps the ledger."""
    pointer: Pointer | None = None
    """What is live (most verbs), or what shall be (check, switch, promote, settle)."""
    stop: Colour | None = None
    """start: the colour to stop first, on hosts without room for both."""
    quiet: bool = False
    """switch: a step on the way, which the ledger does not tell."""
    asked_by: str = ""
    """promote: the person who asked for it, where it was one."""
    targets: list[str] = field(default_factory=list)
    """drain: `ip:port`s that must be idle."""
    within: float = 0.0
    """switch, promote: seconds for the proof, 0 for going back without one. drain: seconds to wait."""
    ledger: str = ""
    """settle: the owner's whole ledger. begin: another host's, for an owner that was rebuilt."""
    retain: int = -1
    """end, settle: good releases to keep beside live and previous; -1 removes nothing, -2 as many
    as the live release's record says."""
    gate: bool = False
    """prepare: whether this host puts the images through the environment's policy, for all."""
    evidence: dict[str, str] = field(default_factory=dict)
    """switch: what the gate left to keep in the release's record, text by file name."""
    reason: str = ""
    """switch: why the release that is left is bad."""
    outcome: str = ""
    """end: how the operation ended, with `result`."""
    result: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> AppName:
        """Application and environment."""
        return AppName.parse(self.app)


def parse(data: object) -> Order:
    """Validate an order; raises `SwitchyardError` naming what is wrong with it."""
    order = build(Order, data, "order")
    _ = order.name
    check_operation(order.op)
    return order


def read_note(paths: AppPaths) -> Pointer | None:
    """What the coordinator said last is live; None on a host that never was one of several, or when nothing is."""
    try:
        said = json.loads(paths.note.read_text())["pointer"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    try:
        return build(Pointer, said, str(paths.note)) if said else None
    except SwitchyardError:
        return None


def write_note(paths: AppPaths, pointer: Pointer | None, host: HostConfig) -> None:
    """Note what is live, for boot and recovery, which happen without a coordinator."""
    had = paths.note.is_file() and '"instances": true' in paths.note.read_text()
    data = {
        "pointer": pointer.mark() if pointer else None,
        # From then on a missing port plan is a lost one.
        "instances": "app" in host.groups and (had or PORTS.is_file()),
    }
    text = json.dumps(data) + "\n"
    if not paths.note.is_file() or paths.note.read_text() != text:
        replace_file(paths.note, text, step="fleet.note", mode=0o640)


def require_group(host: HostConfig, group: str, verb: str) -> None:
    """Refuse a verb on a host of the wrong kind: inventory and host disagree about what it is."""
    if group not in host.groups:
        raise SwitchyardError(
            f"{host.name} is not in the group {group} and cannot {verb}: run provision.yml first.", Exit.PREFLIGHT
        )
