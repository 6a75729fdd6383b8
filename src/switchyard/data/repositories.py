"""The files that tell pgBackRest and restic where backups go. Pure: the control side renders them, hosts get the text.

Secrets are in files of their own, readable by one user, and in nothing else: pgBackRest reads them from its
configuration directory, restic from the files that its options name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from switchyard.data.settings import STANZA, Backup, Repository
from switchyard.errors import Exit, SwitchyardError

INSIDE = "/etc/pgbackrest"
"""Where containers see the configuration directory."""
LOCAL_INSIDE = "/var/lib/pgbackrest"
SPOOL_INSIDE = "/var/spool/pgbackrest"
DUMPS_INSIDE = "/var/lib/dumps"
STANDBY_PORT = 8432
"""Where a replica lets backups read it: pgBackRest's own default."""
_CERTIFICATE, _KEY = f"{INSIDE}/keys/standby.crt", f"{INSIDE}/keys/standby.key"
SECRET_KEYS = ("passphrase", "key", "key_secret", "private_key", "known_hosts", "ca", "reader")
"""What the inventory says of a repository and only files on the host may hold."""


@dataclass(frozen=True)
class File:
    """A file that the host gets; `path` is relative to the backup's folder."""

    path: str
    text: str
    secret: bool = False
    root: bool = False
    """Belongs to root, not to the database's user."""


def public(repository: Mapping[str, Any]) -> dict[str, Any]:
    """A repository without what is secret, as the host's settings describe it."""
    kept = {key: value for key, value in repository.items() if key not in SECRET_KEYS}
    return kept | {"has_ca": bool(repository.get("ca"))}


def files(backup: Backup, given: Sequence[Mapping[str, Any]]) -> list[File]:
    """Every file for these repositories; `given` is in the order of `backup.repositories` and has the secrets.

    Raises `SwitchyardError` naming the repository and the key that is missing.
    """
    lines = _global(backup)
    secrets = ["[global]"]
    result: list[File] = []
    for number, (repository, values) in enumerate(zip(backup.repositories, given, strict=True), start=1):
        require(repository, values)
        lines += [f"repo{number}-{key}={value}" for key, value in _options(backup, repository).items()]
        secrets += [f"repo{number}-{key}={value}" for key, value in _secrets(repository, values).items()]
        result += _keys(repository, values)
        result += _restic(repository, values)
    if backup.replica and backup.standby:
        lines += _server(backup)
    lines += ["", f"[{STANZA}]", f"pg1-path={backup.pgdata}", "pg1-socket-path=/run/postgresql"]
    return [
        File("pgbackrest/pgbackrest.conf", "\n".join([_HEAD, *lines]) + "\n"),
        File("pgbackrest/conf.d/secrets.conf", "\n".join([_HEAD, *secrets]) + "\n", secret=True),
        *result,
    ]


_HEAD = "# Placed by Switchyard's role backup; changes here are overwritten."


def _global(backup: Backup) -> list[str]:
    return [
        "[global]",
        "log-level-console=warn",
        "log-level-file=off",
        "lock-path=/tmp/pgbackrest",
        f"spool-path={SPOOL_INSIDE}",
        # Several repositories need it: else one that is down holds up the others.
        "archive-async=y",
        # There is no archive-push-queue-max: it would drop WAL and report it as archived.
        "archive-timeout=60",
        f"process-max={backup.process_max}",
        "start-fast=y",
        "compress-type=zst",
    ]


def _server(backup: Backup) -> list[str]:
    """How a replica answers those who have the same identity, and for this database only."""
    return [
        "tls-server-address=*",
        f"tls-server-ca-file={_CERTIFICATE}",
        f"tls-server-cert-file={_CERTIFICATE}",
        f"tls-server-key-file={_KEY}",
        f"tls-server-auth={backup.standby}={STANZA}",
    ]


def standby_words(backup: Backup) -> list[str]:
    """The options of `backup` that have it read the replica, or the primary when the replica does not answer."""
    if not backup.standby:
        return []
    return [
        "--backup-standby=prefer",
        f"--pg2-path={backup.pgdata}",
        "--pg2-socket-path=/run/postgresql",
        f"--pg2-host={backup.standby}",
        f"--pg2-host-port={STANDBY_PORT}",
        "--pg2-host-type=tls",
        f"--pg2-host-ca-file={_CERTIFICATE}",
        f"--pg2-host-cert-file={_CERTIFICATE}",
        f"--pg2-host-key-file={_KEY}",
    ]


def standby_files(certificate: str, key: str) -> list[File]:
    """What proves the two hosts to each other, on both of them."""
    return [File("pgbackrest/keys/standby.crt", certificate), File("pgbackrest/keys/standby.key", key, secret=True)]


def _options(backup: Backup, repository: Repository) -> dict[str, str]:
    options = {
        "path": LOCAL_INSIDE if not repository.off_site else repository.path,
        "cipher-type": "aes-256-cbc",
        "bundle": "y",
        "block": "y",
        "retention-full-type": "time",
        "retention-full": str(backup.retention_days),
    }
    if repository.type == "s3":
        options |= {
            "type": "s3",
            "s3-endpoint": repository.endpoint,
            "s3-bucket": repository.bucket,
            "s3-region": repository.region,
            "s3-uri-style": repository.uri_style,
        }
        if repository.port:
            options["storage-port"] = str(repository.port)
        if repository.has_ca:
            options["storage-ca-file"] = f"{INSIDE}/keys/{repository.name}.ca"
    if repository.type == "sftp":
        options |= {
            "type": "sftp",
            "sftp-host": repository.host,
            "sftp-host-user": repository.user,
            "sftp-host-key-hash-type": "sha256",
            "sftp-host-key-check-type": "strict",
            "sftp-known-host": f"{INSIDE}/keys/{repository.name}.known_hosts",
            "sftp-private-key-file": f"{INSIDE}/keys/{repository.name}.key",
        }
        if repository.port:
            options["sftp-host-port"] = str(repository.port)
    return options


def _secrets(repository: Repository, values: Mapping[str, Any]) -> dict[str, str]:
    secrets = {"cipher-pass": str(values["passphrase"])}
    if repository.type == "s3":
        secrets |= {"s3-key": str(values["key"]), "s3-key-secret": str(values["key_secret"])}
    return secrets


def _keys(repository: Repository, values: Mapping[str, Any]) -> list[File]:
    wanted = {"sftp": {"private_key": "key", "known_hosts": "known_hosts"}, "s3": {"ca": "ca"}}
    return [
        File(f"pgbackrest/keys/{repository.name}.{suffix}", _ended(str(values[key])), secret=key == "private_key")
        for key, suffix in wanted.get(repository.type, {}).items()
        if values.get(key)
    ]


def _restic(repository: Repository, values: Mapping[str, Any]) -> list[File]:
    result = [File(f"restic/{repository.name}.password", _ended(str(values["passphrase"])), secret=True, root=True)]
    if repository.type == "s3":
        text = f"[default]\naws_access_key_id={values['key']}\naws_secret_access_key={values['key_secret']}\n"
        result.append(File(f"restic/{repository.name}.aws", text, secret=True, root=True))
    return result


def require(repository: Repository, values: Mapping[str, Any]) -> None:
    """Refuse a repository whose secrets are missing or are no single line; names the key."""
    needed = {"s3": ("key", "key_secret"), "sftp": ("private_key", "known_hosts")}.get(repository.type, ())
    for key in ("passphrase", *needed):
        value = str(values.get(key) or "")
        if not value:
            raise SwitchyardError(f"backup_repositories.{repository.name}.{key} is not set: put it into the vault.")
        if key in ("passphrase", "key", "key_secret") and (any(c in value for c in "\r\n") or value != value.strip()):
            raise SwitchyardError(
                f"backup_repositories.{repository.name}.{key}: use one line without spaces at its ends.", Exit.USAGE
            )


def _ended(text: str) -> str:
    return text if text.endswith("\n") else text + "\n"


def restic(backup: Backup, repository: Repository) -> tuple[list[str], dict[str, str]]:
    """The beginning of a restic command on a repository, and its environment. Secrets are named by file."""
    folder = backup.folder / "restic"
    argv = ["restic", "--quiet", "--password-file", str(folder / f"{repository.name}.password")]
    environment = {"RESTIC_CACHE_DIR": str(backup.folder / "cache"), "RESTIC_PROGRESS_FPS": "0.01"}
    if repository.type == "s3":
        port = f":{repository.port}" if repository.port else ""
        place = f"s3:https://{repository.endpoint}{port}/{repository.bucket}{repository.path.rstrip('/')}/files"
        environment |= {
            "AWS_SHARED_CREDENTIALS_FILE": str(folder / f"{repository.name}.aws"),
            "AWS_DEFAULT_REGION": repository.region,
        }
        if repository.uri_style == "path":
            argv += ["--option", "s3.bucket-lookup=path"]
        if repository.has_ca:
            argv += ["--cacert", str(backup.configuration / "keys" / f"{repository.name}.ca")]
    elif repository.type == "sftp":
        keys = backup.configuration / "keys" / repository.name
        place = f"sftp:{repository.user}@{repository.host}:{repository.path.rstrip('/')}-files"
        command = (
            f"ssh -p {repository.port or 22} -i {keys}.key -o IdentitiesOnly=yes -o BatchMode=yes "
            f"-o StrictHostKeyChecking=yes -o UserKnownHostsFile={keys}.known_hosts -o ConnectTimeout=20 "
            f"{repository.user}@{repository.host} -s sftp"
        )
        argv += ["--option", f"sftp.command={command}"]
    else:
        place = f"{backup.directory}/files"
    return [*argv, "--repo", place], environment
