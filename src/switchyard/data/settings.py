"""What the role `backup` said about one application's data on this host."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from switchyard.engine.layout import RUNTIME, STATE
from switchyard.errors import Exit, SwitchyardError
from switchyard.names import AppName
from switchyard.strict import build

FOLDER = Path("/etc/switchyard/backup")
STANZA = "main"
OPS_DATABASE = "switchyard_ops"
"""A database of ours beside the application's: the heartbeat, and the rows that were counted at backup time."""

_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")

Kind = Literal["local", "s3", "sftp"]


@dataclass(frozen=True)
class Repository:
    """One place that holds backups. The first one is on the host itself; the others are somewhere else."""

    name: str
    type: str = "local"
    path: str = "/"
    endpoint: str = ""
    bucket: str = ""
    region: str = ""
    uri_style: str = "host"
    host: str = ""
    port: int = 0
    user: str = ""
    has_ca: bool = False

    @property
    def off_site(self) -> bool:
        """Tell whether it outlives this host."""
        return self.type != "local"


@dataclass(frozen=True)
class Assertion:
    """A statement of the user's own that must answer with one true value in a restored copy."""

    name: str
    sql: str


@dataclass(frozen=True)
class DrillSettings:
    """What a restore drill proves, and the limits that it must keep."""

    assertions: list[Assertion] = field(default_factory=list)
    noticing_seconds: int = 300
    deciding_seconds: int = 600
    rto_limit_seconds: int = 3600
    rpo_limit_seconds: int = 120
    max_age_days: int = 8
    memory_mb: int = 512
    row_tolerance_percent: int = 20
    start_application: bool = True
    application_services: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Backup:
    """The backup of one application: its database, its uploaded files, and where they go."""

    app: str
    environment: str
    image: str
    database: str
    uid: int
    data_path: str
    pgdata: str
    repositories: list[Repository]
    directory: str
    retention_days: int = 30
    process_max: int = 2
    settings: dict[str, str] = field(default_factory=dict)
    volumes: list[str] = field(default_factory=list)
    """Directories of uploaded files; on a host of the database alone they may be out of reach."""
    drill: DrillSettings = field(default_factory=DrillSettings)
    deploy_needs_drill_days: int = 0
    dump_max_age_days: int = 8
    replica: bool = False
    """Whether the database on this host follows another one; then only repositories away from that one are known."""
    standby: str = ""
    """Address of the replica that backups are read from; empty when they are read from the primary."""
    archive_warning_seconds: int = 600
    archive_critical_seconds: int = 1800

    @property
    def name(self) -> AppName:
        """Application and environment."""
        return AppName(self.app, self.environment)

    @property
    def container(self) -> str:
        """The container of the live database."""
        return f"{self.name}-postgres"

    @property
    def home(self) -> Path:
        """Directory of the live database: compose file, password, data."""
        return STATE / "postgres" / str(self.name)

    @property
    def live_data(self) -> Path:
        """The live data directory, as the host sees it."""
        return self.home / "data"

    @property
    def folder(self) -> Path:
        """Our own files about this application's backups."""
        return STATE / "backup" / str(self.name)

    @property
    def configuration(self) -> Path:
        """Settings and keys of pgBackRest, mounted into containers at /etc/pgbackrest."""
        return self.folder / "pgbackrest"

    @property
    def spool(self) -> Path:
        """Where archiving waits; the file `stanza` in it lets archiving begin."""
        return self.folder / "spool"

    @property
    def local(self) -> Path:
        """The repository on this host, as the host sees it."""
        return Path(self.directory) / "pgbackrest"

    @property
    def dumps(self) -> Path:
        """Where logical dumps are made; restic takes them from there."""
        return Path(self.directory) / "dumps"

    @property
    def lock(self) -> Path:
        """Held by what works on backups, so that two of them never meet."""
        return RUNTIME / f"{self.name}.backup.lock"

    def number(self, name: str) -> int:
        """Return pgBackRest's number of a repository; raises `SwitchyardError` naming the known ones."""
        for number, repository in enumerate(self.repositories, start=1):
            if repository.name == name:
                return number
        known = ", ".join(repository.name for repository in self.repositories)
        raise SwitchyardError(f"There is no backup repository '{name}'; there are: {known}.", Exit.USAGE)


def parse(data: object, where: str) -> Backup:
    """Validate a description of backups; raises `SwitchyardError` naming the key and the rule."""
    backup = build(Backup, data, where)
    _ = backup.name
    names = [repository.name for repository in backup.repositories]
    for repository in backup.repositories:
        check_repository(repository, f"{where}.repositories")
    if len(set(names)) != len(names):
        raise SwitchyardError(f"{where}.repositories: two have the same name.", Exit.USAGE)
    if backup.replica:
        if not names or any(not r.off_site for r in backup.repositories):
            raise SwitchyardError(
                "A replica is built from backups that are not on the database's own host: name a place for them in "
                "backup_repositories.",
                Exit.USAGE,
            )
    elif not names or backup.repositories[0].off_site or any(not r.off_site for r in backup.repositories[1:]):
        raise SwitchyardError(f"{where}.repositories: the first one is local, the others are not.", Exit.USAGE)
    if len({assertion.name for assertion in backup.drill.assertions}) != len(backup.drill.assertions):
        raise SwitchyardError(f"{where}.drill.assertions: two have the same name.", Exit.USAGE)
    return backup


def check_repository(repository: Repository, where: str) -> None:
    """Refuse a repository that lacks something, or has what could be mistaken; names the key and the rule."""

    def require(condition: bool, key: str, rule: str) -> None:
        if not condition:
            raise SwitchyardError(f"{where}.{repository.name}.{key}: {rule}.", Exit.USAGE)

    require(_NAME.fullmatch(repository.name) is not None, "name", "use small letters, digits and dashes")
    require(repository.type in ("local", "s3", "sftp"), "type", "use s3 or sftp")
    require(repository.path.startswith("/"), "path", "start it with a slash")
    needed = {"s3": ("endpoint", "bucket", "region"), "sftp": ("host", "user")}.get(repository.type, ())
    texts = {key: str(value) for key, value in vars(repository).items()}
    for key in needed:
        require(bool(texts[key]), key, f"a repository of type {repository.type} needs it")
    for key in ("path", "endpoint", "bucket", "region", "host", "user"):
        plain = re.fullmatch(r"[A-Za-z0-9._:/@~-]*", texts[key]) is not None
        require(plain, key, "use letters, digits and . _ : / @ ~ - only")
    require(repository.uri_style in ("host", "path"), "uri_style", "use host or path")
    require(0 <= repository.port < 65536, "port", "use a port from 1 to 65535, or 0 for the usual one")


def find(name: AppName) -> Backup | None:
    """Read an application's backup settings; None when the role `backup` has not set it up here."""
    path = FOLDER / f"{name}.json"
    if not path.is_file():
        return None
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise SwitchyardError(f"{path} cannot be read ({error}): run provision.yml.", Exit.PREFLIGHT) from error
    return parse(data, str(path))


def load(name: AppName, *, replica: bool = False) -> Backup:
    """Read an application's backup settings; raises `SwitchyardError` when there are none.

    Also when the database here follows another one, unless the caller is about replicas: backups are that one's.
    """
    backup = find(name)
    if backup and backup.replica and not replica:
        raise SwitchyardError(
            f"{name} is a replica on this host: ask for this on the host of its primary, or promote it first "
            "(docs/runbook.md).",
            Exit.PREFLIGHT,
        )
    if backup is None:
        raise SwitchyardError(
            f"{name} has no backup on this host: set backup_enabled to true and run provision.yml.", Exit.PREFLIGHT
        )
    return backup
