"""How the control side reaches a host: anything that runs a command there and returns what it answered."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

ENGINE = "/usr/local/sbin/switchyard"
SILENCE_SECONDS = 15.0
"""How long a host may say nothing before it counts as lost. What lasts longer is followed, and answers every 2 s."""
WORK_SECONDS = 600.0
"""The same for a verb that works while it is asked, such as recover: it may wait for locks (30 s and 60 s), and then
for containers that stop and start, of which it says nothing before the end."""


@dataclass(frozen=True)
class Answer:
    """What a command on a host answered."""

    code: int
    out: str
    err: str


class ConnectionLost(Exception):
    """The host could not be reached, or the connection died; what ran there goes on.

    `sent` tells whether the command may have arrived.
    """

    def __init__(self, reason: str, *, sent: bool) -> None:
        super().__init__(reason)
        self.sent = sent


class Transport(Protocol):
    """A way to one host, for several threads. Ansible's connections and Fabric's both fit."""

    host: str

    def run(self, argv: Sequence[str], stdin: str = "", silence: float = SILENCE_SECONDS) -> Answer:
        """Run a command; raises `ConnectionLost` when the host cannot be asked, or says nothing for that long."""


@dataclass(frozen=True)
class Member:
    """One host of the environment: its groups and the way to it."""

    groups: frozenset[str]
    transport: Transport

    @property
    def name(self) -> str:
        """The host's name in the inventory."""
        return self.transport.host


def engine_argv(*words: str) -> list[str]:
    """The engine's command as the deploy user may run it."""
    return ["sudo", "-n", ENGINE, *words]
