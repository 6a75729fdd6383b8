"""Release records: what a release is, written once and never changed.

A record holds the compose file with every image pinned by digest, configuration by value and secrets by name. Going
back to a release restores its record: yesterday's configuration with yesterday's image.
"""

import hashlib
import hmac
import json
import secrets as random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from switchyard.engine.effects import replace_file, run
from switchyard.engine.layout import SALT, AppPaths
from switchyard.errors import Exit, SwitchyardError
from switchyard.names import AppName, parse_release_id, release_id
from switchyard.request import Request
from switchyard.strict import build

_FILES = ("compose.yml", "release.json")  # in the order of their writing


@dataclass(frozen=True)
class Record:
    """One release of one application."""

    id: str
    created: str
    config_hash: str
    digests: dict[str, str]
    request: Request
    directory: Path

    @property
    def version(self) -> str:
        """The version this release was made from."""
        return self.request.version

    @property
    def name(self) -> AppName:
        """Application and environment."""
        return self.request.name

    @property
    def compose_file(self) -> Path:
        """The pinned compose file; ports and colour are given to it by the environment."""
        return self.directory / "compose.yml"

    @property
    def instances(self) -> dict[str, int]:
        """How many instances each service has."""
        return {name: service.instances for name, service in self.request.services.items()}

    def pinned(self, service: str) -> str:
        """The image of a service by digest, the only way it is ever run."""
        return f"{self.request.services[service].image}@{self.digests[service]}"


def variable(service: str) -> str:
    """The part of a compose variable that stands for a service: `web-shop` becomes `WEB_SHOP`."""
    return service.upper().replace("-", "_")


def salt() -> bytes:
    """This host's own salt for fingerprints of secrets; made on first use."""
    if not SALT.is_file():
        replace_file(SALT, random.token_hex(32), step="records.salt", mode=0o400)
    return SALT.read_bytes()


def fingerprint(value: str, key: bytes) -> str:
    """A keyed hash that tells whether a secret changed, and nothing else about it."""
    return hmac.new(key, value.encode(), hashlib.sha256).hexdigest()[:16]


# Who asks, from where, and what was asked of the images: none of it makes a release behave differently.
_VOLATILE = (
    "engine", "who", "explicit_version", "revision", "committed", "run_url", "migration_decision",
    "image_policy", "image_override", "rolling", "slo", "canary", "watch",
)  # fmt: skip


def config_hash(request: Request, digests: dict[str, str], key: bytes) -> str:
    """Hash everything that makes two releases behave differently."""
    public = request.public()
    for volatile in _VOLATILE:
        del public[volatile]
    prints = {name: fingerprint(secret.value, key) for name, secret in sorted(request.secrets.items())}
    text = json.dumps([public, digests, prints], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def now() -> str:
    """When a record is made (UTC), as it says so."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def create(
    paths: AppPaths,
    number: int,
    request: Request,
    digests: dict[str, str],
    hashed: str,
    evidence: Mapping[str, str] | None = None,
    created: str = "",
) -> Record:
    """Write a new record; `release.json` comes last, so a record that has it is complete.

    `evidence` is what the gate for images leaves in it, text by file name. `created` is given where several hosts make
    the same record.
    """
    identity = release_id(number, request.version)
    directory = paths.releases / identity
    text = request.compose.replace("${SWITCHYARD_RELEASE}", identity)
    for name, service in request.services.items():
        text = text.replace(f"${{SWITCHYARD_IMAGE_{variable(name)}}}", f"{service.image}@{digests[name]}")
    if "${SWITCHYARD_IMAGE_" in text:
        raise SwitchyardError("The compose template names the image of a service that app_services lacks.", Exit.USAGE)
    record = Record(identity, created or now(), hashed, dict(digests), request, directory)
    replace_file(record.compose_file, text, step="record.compose", mode=0o640)
    for name, content in (evidence or {}).items():
        replace_file(directory / name, content, step="record.evidence", mode=0o640)
    data = {
        "id": record.id,
        "created": record.created,
        "config_hash": hashed,
        "digests": record.digests,
        "request": request.public(),
    }
    replace_file(directory / "release.json", json.dumps(data, indent=1) + "\n", step="record.release", mode=0o640)
    return record


def load(paths: AppPaths, identity: str) -> Record:
    """Read a record; raises `SwitchyardError` when it is missing or damaged."""
    directory = paths.releases / identity
    try:
        data: dict[str, Any] = json.loads((directory / "release.json").read_text())
        request = build(Request, data["request"], f"{identity}.request")
        return Record(data["id"], data["created"], data["config_hash"], data["digests"], request, directory)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SwitchyardError(f"The record of release {identity} cannot be read: {error}.") from error


def find(paths: AppPaths, identity: str) -> Record | None:
    """Read a record, or None when it is missing or damaged: for what goes on without it."""
    try:
        return load(paths, identity) if identity else None
    except SwitchyardError:
        return None


def export(paths: AppPaths, identity: str) -> dict[str, str]:
    """The files of a record by name, for a host of the same fleet that lacks it."""
    directory = load(paths, identity).directory
    return {name: (directory / name).read_text() for name in _FILES}


def adopt(paths: AppPaths, identity: str, files: Mapping[str, str]) -> None:
    """Write a record that another host of the fleet exported; one that is here already stays."""
    directory = paths.releases / identity
    if parse_release_id(identity) is None or (directory / "release.json").is_file():
        return
    for name in _FILES:
        replace_file(directory / name, files[name], step="record.adopt", mode=0o640)


def ids(paths: AppPaths) -> list[str]:
    """The complete records of this application, oldest first."""
    if not paths.releases.is_dir():
        return []
    complete = [path.name for path in paths.releases.iterdir() if (path / "release.json").is_file()]
    parsed = [(number[0], name) for name in complete if (number := parse_release_id(name))]
    return [name for _, name in sorted(parsed)]


def unfinished(paths: AppPaths) -> list[Path]:
    """The directories of records whose writing was cut short, sorted."""
    found = sorted(paths.releases.glob("[0-9]*-*"))
    return [path for path in found if parse_release_id(path.name) and not (path / "release.json").is_file()]


def remove(record: Record) -> None:
    """Delete a record's directory."""
    run(["rm", "-rf", "--", str(record.directory)], step="prune.record")
