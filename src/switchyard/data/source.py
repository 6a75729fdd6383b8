"""The backup of another environment, as this host may read it: what was ordered, and the keys for as long as needed."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from switchyard.data import personal, pgbackrest, repositories, settings
from switchyard.data.personal import Statement
from switchyard.data.settings import Backup, Repository
from switchyard.engine.effects import replace_file, run
from switchyard.engine.layout import RUNTIME
from switchyard.errors import Exit, SwitchyardError
from switchyard.names import AppName
from switchyard.strict import build


@dataclass(frozen=True)
class Order:
    """What the control side asks for. `secrets` are the repository's passphrase and credentials that can only read."""

    source: str
    """The environment whose data it is."""
    host: str
    """Inventory name of the host that this is meant for."""
    database: str
    """The database's name in the backup."""
    repository: Repository
    secrets: dict[str, str]
    sanitise: list[Statement] = field(default_factory=list)
    personal: list[str] = field(default_factory=list)
    nothing_personal: bool = False
    to: str = "latest"

    @property
    def target(self) -> pgbackrest.Target:
        """The moment to restore."""
        return pgbackrest.parse_target(self.to)


def parse(data: object, name: AppName) -> Order:
    """Validate an order for the application `name`; raises `SwitchyardError` before anything is changed."""
    order = build(Order, data, "refresh")
    settings.check_repository(order.repository, "refresh.repository")
    if order.source == name.environment:
        raise SwitchyardError(
            f"{name} cannot be refreshed from itself: name another environment, -e from=...", Exit.USAGE
        )
    if not order.repository.off_site:
        raise SwitchyardError("refresh.repository: only a repository away from its host can be read here.", Exit.USAGE)
    if order.target.kind == "point":
        raise SwitchyardError("A refresh goes to latest, a time or backup=LABEL.", Exit.USAGE)
    personal.require_names(order.personal, "backup_refresh_personal")
    for statement in order.sanitise:
        personal.require_names(statement.covers, "backup_refresh_sanitise")
    personal.require_covered([], order.personal, order.sanitise, None, nothing_personal=order.nothing_personal)
    return order


@dataclass(frozen=True)
class Source(Backup):
    """This host's database as pgBackRest sees it, with the one repository of the other environment."""

    @property
    def place(self) -> Path:
        """Settings and keys: on a tmpfs, so that no disk ever has them."""
        return RUNTIME / f"{self.name}.refresh"

    @property
    def configuration(self) -> Path:
        """What containers see at /etc/pgbackrest."""
        return self.place / "pgbackrest"

    @property
    def local(self) -> Path:
        """Nothing: no repository of this host takes part."""
        return self.place / "local"

    def place_keys(self, order: Order) -> None:
        """Put settings and keys where containers of this source can read them, and nobody else."""
        owner = (self.uid, self.uid)
        words = ("install", "-d", "-m", "0700")
        run([*words, str(self.place), str(self.local)], step="refresh.folder")
        folders = [str(self.configuration / below) for below in ("", "conf.d", "keys")]
        run([*words, "-o", str(self.uid), "-g", str(self.uid), *folders], step="refresh.key_folders")
        for file in repositories.files(self, [order.secrets]):
            if file.path.startswith("pgbackrest/"):
                replace_file(self.place / file.path, file.text, step="refresh.keys", mode=0o400, owner=owner)

    def remove_keys(self) -> None:
        """Have them no more."""
        if self.place.exists():
            run(["rm", "-rf", "--", str(self.place)], step="refresh.forget_keys")


def of(backup: Backup, repository: Repository | None = None) -> Source:
    """The source that stands in for a host's own backups."""
    values: dict[str, Any] = dict(vars(backup))
    values["repositories"] = [repository] if repository else []
    return Source(**values)
