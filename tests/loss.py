"""Counts lost requests over switches both ways, with the protecting directive on and, as the control, off."""

import json
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import HTTPError

import yaml

from tests.bed import Host
from tests.load import LoadConfig, LoadProcess, Report, Switch, mix
from tests.load.certificates import certificate
from tests.project import Project
from tests.web import opened

NAME = "sample.test"


@dataclass
class Switching:
    """A released environment whose two warm releases, the live one first, take turns under load."""

    project: Project
    host: Host
    versions: tuple[str, str]
    switches: list[Switch] = field(default_factory=list)
    missing_assets: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where users come in."""
        return f"http://{self.host.address}/"

    @property
    def authority(self) -> Path:
        """The certificate that clients trust."""
        return self.project.folder / ".switchyard" / "tls.pem"

    def set_edge(self, **variables: object) -> None:
        """Give the edge TLS and other settings, by the inventory and a provision, as a user would."""
        public, key = self._certificate()
        settings: dict[str, object] = {
            "edge_tls": "files",
            "edge_tls_certificate": public,
            "edge_tls_key": key,
            "edge_server_names": [NAME, self.host.address],
        }
        self._overrides.write_text(yaml.safe_dump(settings | variables))
        self._provision()

    def give_back(self) -> None:
        """Leave the edge as the inventory alone has it."""
        self._overrides.unlink(missing_ok=True)
        self._provision()

    @property
    def _overrides(self) -> Path:
        return self.project.folder / "inventories" / "group_vars" / "env_local" / "zz_edge.yml"

    def _provision(self) -> None:
        done = self.project.play("provision", "--tags", "edge")
        assert done.returncode == 0, done.stdout + done.stderr

    def _certificate(self) -> tuple[str, str]:
        key = self.authority.with_suffix(".key")
        if not self.authority.exists():
            self.authority.parent.mkdir(parents=True, exist_ok=True)
            for path, text in zip((self.authority, key), certificate(NAME), strict=True):
                path.write_text(text)
        return self.authority.read_text(), key.read_text()

    def load(self, workers: dict[str, int]) -> LoadProcess:
        """Start the strict client with these workers."""
        return LoadProcess(
            LoadConfig(
                url=self.url,
                app="parcels",
                workers=workers,
                tls_url=f"https://{NAME}/",
                connect=self.host.address,
                server_name=NAME,
                ca=str(self.authority),
                drain=60,  # edge_drain_seconds
                max_duration=1800,
            )
        ).start()

    def switch(self) -> None:
        """Move to the other release. The old page's assets are asked for afterwards."""
        before, after = self.versions
        self.versions = (after, before)
        assets = re.findall(r'(/assets/[^"]+)"', opened(self.url).read().decode())
        done = self.project.run("scripts/rollback.sh", "local", after, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        # The instant of the rename itself: a connection that was opened while the command ran drains from there.
        now = time.monotonic()
        renamed = json.loads(done.stdout)["switched_at"] - time.time() + now
        self.switches.append(Switch(renamed, before, after, now))
        for path in assets:
            try:
                opened(self.url.rstrip("/") + path).read()
            except HTTPError as error:
                self.missing_assets.append(f"{path}: {error.code} after {before} -> {after}")

    def run(self, switches: int, requests: int) -> Report:
        """Switch under full load until both counts are reached."""
        load = self.load(mix("full", tls=True))
        try:
            number = 0
            while number < switches or load.snapshot().sent < requests:
                self.switch()
                number += 1
        finally:
            report = load.stop(self.switches)
        return report

    def control(self, wanted: int, limit: int) -> int:
        """Switch under keep-alive load without the protection until `wanted` requests are lost; returns the losses."""
        load = self.load({"get": 40, "post": 8})
        self.switches.clear()
        try:
            for _ in range(limit):
                self.switch()
                if load.snapshot().lost >= wanted:
                    break
        finally:
            report = load.stop(self.switches)
        return report.lost
