"""What the environment tells this process, read once at the start and checked there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from parcel_desk.faults import Faults
from parcel_desk.values import ConfigurationError, number


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the API needs to know to serve."""

    release: str
    database_url: str = field(repr=False)
    pool_size: int
    upload_dir: Path
    port: int
    faults: Faults

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Settings:
        """Read the settings, or raise a ConfigurationError that names the variable."""
        return cls(
            release=environ.get("RELEASE", "dev"),
            database_url=database_url(environ),
            pool_size=int(number(environ, "DATABASE_POOL_SIZE", default=5, low=1, high=200, whole=True)),
            upload_dir=Path(environ.get("UPLOAD_DIR") or "/data/uploads"),
            port=int(number(environ, "PORT", default=8000, low=1, high=65535, whole=True)),
            faults=Faults.from_environ(environ),
        )


def database_url(environ: Mapping[str, str]) -> str:
    """Return the URL that the API works with."""
    return _required_url(environ, ("DATABASE_URL",))


def migration_database_url(environ: Mapping[str, str]) -> str:
    """Return the URL that Alembic works with: its own where there is one, else the API's."""
    return _required_url(environ, ("MIGRATION_DATABASE_URL", "DATABASE_URL"))


def _required_url(environ: Mapping[str, str], names: tuple[str, ...]) -> str:
    for name in names:
        url = _value_or_file(environ, name)
        if url:
            return _with_driver(name, url)
    choices = " or ".join(f"{name} or {name}_FILE" for name in names)
    raise ConfigurationError(f"No database is configured: set {choices}.")


def _value_or_file(environ: Mapping[str, str], name: str) -> str:
    """Return the value of `name`; a file named by `name`_FILE comes first, as it is the safer of the two."""
    file = environ.get(f"{name}_FILE")
    if not file:
        return environ.get(name, "").strip()
    try:
        content = Path(file).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigurationError(f"{name}_FILE cannot be read: {error.strerror}: {file}.") from error
    if not content:
        raise ConfigurationError(f"{name}_FILE names an empty file: {file}.")
    return content


def _with_driver(name: str, url: str) -> str:
    """Name the driver in the URL, since the rest of the world writes plain postgresql:// (or postgres://)."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.split("+", 1)[0] not in {"postgresql", "postgres"}:
        # The value itself may hold a password, so it is not repeated here.
        raise ConfigurationError(f"{name} must start with postgresql://.")
    return f"postgresql+psycopg://{rest}"
