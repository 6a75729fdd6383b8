"""What a release that is tried against a copy leaves on the host, by names alone: so whoever comes can remove it."""

from dataclasses import dataclass
from pathlib import Path

from switchyard.engine import docker
from switchyard.engine.effects import run
from switchyard.engine.layout import RUNTIME
from switchyard.names import AppName


@dataclass(frozen=True)
class Traces:
    """The names of one application's trial; there is never more than one."""

    app: AppName

    @property
    def project(self) -> str:
        """Name of the compose project and of the network."""
        return f"{self.app}-drill"

    @property
    def pooler(self) -> str:
        """Name of the pooler's container."""
        return f"{self.project}-pooler"

    @property
    def file(self) -> Path:
        """The compose file of the trial, on a tmpfs: it may carry secrets that are given by environment."""
        return RUNTIME / f"{self.project}.json"

    def containers(self) -> list[docker.Container]:
        """The release's containers."""
        return docker.containers({"com.docker.compose.project": self.project})

    def remove(self, copy: str) -> None:
        """Remove containers, network and file; `copy` is the container of the database's copy, which stays."""
        ids = [container.id for container in self.containers()]
        if ids:
            run(["docker", "rm", "--force", "--volumes", *ids], step="trial.remove", timeout=120)
        run(["docker", "rm", "--force", "--volumes", self.pooler], step="trial.unpooler", check=False)
        run(["docker", "network", "disconnect", "--force", self.project, copy], step="trial.leave", check=False)
        run(["docker", "network", "rm", self.project], step="trial.unnetwork", check=False)
        run(["rm", "-f", "--", str(self.file)], step="trial.unfile")
