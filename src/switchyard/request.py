"""What the control side asks of a host: one application's release, rendered and complete.

The control side renders everything (compose text, values of variables); the host adds what only it knows: digests,
ports and the colour. Host and control side validate with this same module.
"""

import re
from dataclasses import asdict, dataclass, field

from switchyard import PROTOCOL
from switchyard.errors import Exit, SwitchyardError
from switchyard.names import AppName, check_service, check_version
from switchyard.strict import build

_PATH = re.compile(r"/[A-Za-z0-9._~/%+@,=-]*")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_IMAGE = re.compile(r"[a-z0-9][a-zA-Z0-9.:_/-]*[a-zA-Z0-9_]")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def _require(condition: bool, where: str, rule: str) -> None:
    if not condition:
        raise SwitchyardError(f"{where}: {rule}.", Exit.USAGE)


@dataclass(frozen=True)
class Health:
    """When an instance counts as healthy: `successes` answers of 2xx in a row within `start_timeout` seconds."""

    path: str = "/health"
    interval: float = 0.2
    timeout: float = 5.0
    successes: int = 3
    start_timeout: float = 60.0


@dataclass(frozen=True)
class Service:
    """One service of the application; each of its `instances` gets a planned `ip:port` per colour."""

    image: str
    port: int
    tag: str = ""
    digest: str = ""
    instances: int = 1
    health: Health = field(default_factory=Health)
    routes: list[str] = field(default_factory=list)
    asset_paths: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    secrets: list[str] = field(default_factory=list)
    secret_env: dict[str, str] = field(default_factory=dict)
    uid: int = 10001
    memory_mb: int = 256
    database_connections: int = 0
    response_timeout: int = 60

    @property
    def reference(self) -> str:
        """The image as the inventory names it, by tag or by digest."""
        return f"{self.image}@{self.digest}" if self.digest else f"{self.image}:{self.tag}"


@dataclass(frozen=True)
class Secret:
    """A secret's value and the numeric uid that may read its file."""

    value: str
    uid: int


@dataclass(frozen=True)
class Migration:
    """The application's own migration command, run once in the new image before the new colour starts."""

    service: str
    command: list[str]
    current: list[str] = field(default_factory=list)
    timeout: float = 900.0


@dataclass(frozen=True)
class SmokeTest:
    """One request against the idle colour that must be answered as described before traffic moves."""

    path: str
    method: str = "GET"
    status: int = 200
    contains: str = ""
    timeout: float = 5.0


@dataclass(frozen=True)
class Database:
    """The connection budget of the Postgres instance that the application uses."""

    max_connections: int
    reserved: int = 13


@dataclass(frozen=True)
class Request:
    """A deploy as the control side asks for it."""

    protocol: int
    app: str
    environment: str
    version: str
    compose: str
    services: dict[str, Service]
    engine: str = ""
    explicit_version: bool = False
    revision: str = ""
    who: str = ""
    secrets: dict[str, Secret] = field(default_factory=dict)
    migration: Migration | None = None
    migration_decision: str = ""
    smoke_tests: list[SmokeTest] = field(default_factory=list)
    database: Database | None = None
    schema_epoch: int = 1
    probation_seconds: float = 10.0
    drain_seconds: float = 60.0
    retain: int = 3
    keepalive_seconds: int = 60

    @property
    def name(self) -> AppName:
        """Application and environment."""
        return AppName(self.app, self.environment)

    def public(self) -> dict[str, object]:
        """The request without any secret value, as it is kept in the release record."""
        data = asdict(self)
        data["secrets"] = {name: {"value": "", "uid": secret.uid} for name, secret in self.secrets.items()}
        return data


def parse(data: object) -> Request:
    """Validate a request; raises `SwitchyardError` naming the key, the rule and, for a typo, the nearest key."""
    if isinstance(data, dict) and data.get("protocol") != PROTOCOL:
        raise SwitchyardError(
            f"This host's engine speaks protocol {PROTOCOL}, the control side {data.get('protocol')}: "
            "run provision.yml from the checkout that you deploy from.",
            Exit.ENGINE_MISMATCH,
        )
    request = build(Request, data, "app_")
    _ = request.name
    check_version(request.version)
    _require(bool(request.services), "app_services", "name at least one service")
    for name, service in request.services.items():
        _check_one_service(request, name, service)
    _check_across(request)
    return request


def _check_one_service(request: Request, name: str, service: Service) -> None:
    where = f"app_services.{name}"
    check_service(name)
    _require(_IMAGE.fullmatch(service.image) is not None, f"{where}.image", f"'{service.image}' is no image name")
    if service.tag:
        check_version(service.tag)
    _require(bool(service.tag or service.digest), f"{where}.tag", "a tag or a digest is needed")
    digest_is_valid = not service.digest or _DIGEST.fullmatch(service.digest) is not None
    _require(digest_is_valid, f"{where}.digest", "a digest is sha256: and 64 hexadecimal digits")
    _require(0 < service.port < 65536, f"{where}.port", "use a port from 1 to 65535")
    _require(1 <= service.instances <= 50, f"{where}.instances", "use 1 to 50 instances")
    health = service.health
    _require(1 <= health.successes <= 100, f"{where}.health.successes", "use 1 to 100")
    _require(0.01 <= health.interval <= 60, f"{where}.health.interval", "use 0.01 to 60 seconds")
    _require(0.1 <= health.timeout <= 300, f"{where}.health.timeout", "use 0.1 to 300 seconds")
    _require(1 <= health.start_timeout <= 3600, f"{where}.health.start_timeout", "use 1 to 3600 seconds")
    _require(1 <= service.response_timeout <= 86400, f"{where}.response_timeout", "use 1 to 86400 seconds")
    _require(service.memory_mb >= 6, f"{where}.memory_mb", "use 6 or more: Docker's own minimum")
    _require(service.uid >= 0, f"{where}.uid", "use a numeric user id")
    _require(
        len(set(service.asset_paths)) == len(service.asset_paths), f"{where}.asset_paths", "one path is named twice"
    )
    for path in (service.health.path, *service.routes, *service.asset_paths):
        _require(_PATH.fullmatch(path) is not None, where, f"'{path}' is no path: start it with a slash")
    for variable in (*service.env, *service.secret_env):
        _require(_ENV_NAME.fullmatch(variable) is not None, f"{where}.env.{variable}", "is no variable name")
    for secret in (*service.secrets, *service.secret_env.values()):
        _require(secret in request.secrets, f"{where}.secrets", f"secret '{secret}' is not in app_secrets")


def _check_across(request: Request) -> None:
    for name in request.secrets:
        _require(_ENV_NAME.fullmatch(name) is not None, f"app_secrets.{name}", "is no variable name")
    owner: dict[str, str] = {}
    for name, service in request.services.items():
        for route in service.routes:
            _require(route not in owner, f"app_services.{name}.routes", f"'{route}' is also {owner.get(route)}'s")
            owner[route] = name
        for path in service.asset_paths:
            _require(
                route_owner(request, path) == name,
                f"app_services.{name}.asset_paths",
                f"'{path}' is not routed here",
            )
    if request.migration:
        known = request.migration.service in request.services
        _require(known, "app_migration.service", f"'{request.migration.service}' is not in app_services")
        _require(bool(request.migration.command), "app_migration.command", "name the command as a list")
    decisions = ("", "resume", "resolve")
    _require(request.migration_decision in decisions, "migration", "use resume or resolve")
    for index, test in enumerate(request.smoke_tests):
        where = f"app_smoke_tests[{index}]"
        is_path = (
            _PATH.fullmatch(test.path.partition("?")[0]) is not None and test.path.isascii() and " " not in test.path
        )
        _require(is_path, f"{where}.path", "start it with a slash, and write other characters as %XX")
        _require(0.1 <= test.timeout <= 300, f"{where}.timeout", "use 0.1 to 300 seconds")
        routed = route_owner(request, test.path) is not None
        _require(routed, f"app_smoke_tests[{index}].path", f"no service has a route for '{test.path}'")
    for key, value in (("probation_seconds", request.probation_seconds), ("drain_seconds", request.drain_seconds)):
        _require(0 <= value <= 86400, f"app_{key}", "use 0 to 86400 seconds")
    _require(1 <= request.keepalive_seconds <= 86400, "app_keepalive_seconds", "use 1 to 86400 seconds")
    _require(request.schema_epoch >= 1, "app_schema_epoch", "use 1 or more")
    _require(request.retain >= 0, "app_retain", "use 0 or more")


def route_owner(request: Request, path: str) -> str | None:
    """Name the service that the edge would send `path` to: the one with the longest matching route."""
    routes = [(route, name) for name, service in request.services.items() for route in service.routes]
    matching = [(len(route), name) for route, name in routes if path == route or path.startswith(_prefix(route))]
    return max(matching)[1] if matching else None


def _prefix(route: str) -> str:
    """A route that ends in a slash covers what is below it; another one covers itself alone, and its query."""
    return route if route.endswith("/") else f"{route}?"
