"""An ACME server for tests: Pebble, which the makers of Let's Encrypt test clients against, on a host of the bed."""

import json
from collections.abc import Mapping
from pathlib import Path

from tests.bed import Host
from tests.load.certificates import certificate

NAME = "acme.test"
DIRECTORY = f"https://{NAME}:14000/dir"
_FOLDER = "/root/acme"


class Pebble:
    """The server, on a host that may be an edge itself. It validates by HTTP-01 on port 80 and forgets at its end."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.authority, self._key = certificate(NAME)

    def start(self, names: Mapping[str, str]) -> None:
        """Install and start it; `names` are the names that it can resolve, with their addresses.

        Other hosts that ask it for certificates need its own name in their `/etc/hosts`.
        """
        settings = {
            "listenAddress": "0.0.0.0:14000",
            "managementListenAddress": "127.0.0.1:15000",
            "certificate": f"{_FOLDER}/server.pem",
            "privateKey": f"{_FOLDER}/server.key",
            "httpPort": 80,
            "tlsPort": 443,
            "certificateValidityPeriod": 90 * 86_400,
        }
        for file, text in {
            "server.pem": self.authority,
            "server.key": self._key,
            "settings.json": json.dumps({"pebble": settings}),
        }.items():
            self.host.put(f"{_FOLDER}/{file}", text)
        self.resolve(self.host, {NAME: self.host.address, **names})
        install = (
            "command -v pebble >/dev/null || { apt-get update -qq; "
            "DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends pebble; }"
        )
        self.host.exec(["sh", "-c", install], timeout=300)
        self.host.exec(
            [
                *("systemd-run", "--unit=acme-server", "--collect"),
                # Each name is proven each time, without the delays that find races in clients.
                *("--setenv=PEBBLE_VA_NOSLEEP=1", "--setenv=PEBBLE_WFE_NONCEREJECT=0", "--setenv=PEBBLE_AUTHZREUSE=0"),
                *("pebble", "-config", f"{_FOLDER}/settings.json"),
            ]
        )
        wait = f"for _ in $(seq 600); do curl -fsk {DIRECTORY} >/dev/null && exit 0; sleep 0.1; done; exit 1"
        self.host.exec(["sh", "-c", wait])

    def stop(self) -> None:
        """Stop the server: whoever asks it is refused."""
        self.host.exec(["systemctl", "stop", "acme-server"], check=False)

    @staticmethod
    def resolve(host: Host, names: Mapping[str, str]) -> None:
        """Let a host know names by its `/etc/hosts`, whose file a container cannot have replaced."""
        lines = "".join(f"{address} {name}\n" for name, address in names.items())
        host.exec(["sh", "-c", "cat >> /etc/hosts"], stdin=lines)

    def root(self, path: Path) -> Path:
        """Write the authority of what it issues to `path`, for clients to trust."""
        text = self.host.exec(["curl", "-fsk", "https://127.0.0.1:15000/roots/0"]).stdout
        path.write_text(text)
        return path
