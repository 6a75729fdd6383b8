"""A place for backups away from the host: another host of the bed, reached by SFTP with a key of its own."""

from dataclasses import dataclass
from typing import Any

from tests.bed import Bed, Host

_SETUP = """
set -e
id keeper >/dev/null 2>&1 || useradd --create-home --shell /bin/sh keeper
install -d -m 0700 -o keeper -g keeper /home/keeper/.ssh /srv/backups
[ -e /root/keeper ] || ssh-keygen -q -t ed25519 -N '' -C keeper -f /root/keeper
install -m 0600 -o keeper -g keeper /root/keeper.pub /home/keeper/.ssh/authorized_keys
# An address whose logins failed is kept out for a while (PerSourcePenalties); a new daemon has forgotten it.
systemctl restart ssh
"""


@dataclass(frozen=True)
class Keeper:
    """The host that keeps backups."""

    host: Host

    @classmethod
    def build(cls, bed: Bed, name: str = "keeper") -> "Keeper":
        """Have the host with its login."""
        keeper = cls(bed.host(name))
        keeper.admit()
        return keeper

    def admit(self) -> None:
        """Let the key in."""
        self.host.exec(["sh", "-c", _SETUP])

    def lock_out(self) -> None:
        """Let the key in no more, as when a credential has expired."""
        self.host.exec(["sh", "-c", "echo > /home/keeper/.ssh/authorized_keys"])

    def repository(self, name: str = "offsite") -> dict[str, Any]:
        """What the inventory says of it."""
        host_key = self.host.exec(["cat", "/etc/ssh/ssh_host_ed25519_key.pub"]).stdout.split()
        return {
            "name": name,
            "type": "sftp",
            "host": self.host.address,
            "user": "keeper",
            "path": "/srv/backups/switchyard",
            "private_key": self.host.exec(["cat", "/root/keeper"]).stdout,
            "known_hosts": f"{self.host.address} {host_key[0]} {host_key[1]}",
        }
