"""What the control side asks of a host: one application's release, rendered and complete.

The control side renders everything (compose text, values of variables); the host adds what only it knows: digests,
ports and the colour. Host and control side validate with this same module.
"""

import re
from dataclasses import asdict, dataclass, field
from datetime import datetime

from switchyard import PROTOCOL
from switchyard.errors import Exit, SwitchyardError
from switchyard.names import AppName, check_service, check_version
from switchyard.strict import build, require
from switchyard.trust import policy
from switchyard.trust.policy import ImagePolicy

_PATH = re.compile(r"/[A-Za-z0-9._~/%+@,=-]*")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_IMAGE = re.compile(r"[a-z0-9][a-zA-Z0-9.:_/-]*[a-zA-Z0-9_]")
_URL = re.compile(r"https?://[A-Za-z0-9][A-Za-z0-9.:-]{0,253}(/[A-Za-z0-9._~/%+=?&#-]{0,500})?")
_HEADER = re.compile(r"[A-Za-z0-9-]{1,64}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_EXCEPTION = re.compile(r"root|writable_root|new_privileges|cap:[A-Z][A-Z_]+")


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
    database_pooled: bool = False
    response_timeout: int = 60
    exceptions: list[str] = field(default_factory=list)

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
    """One request that a release must answer as described: before traffic moves, after it moved, or both."""

    path: str
    method: str = "GET"
    status: int = 200
    contains: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    """Headers that the answer must have, with a part of their value; '' asks for the header alone."""
    json: dict[str, str] = field(default_factory=dict)
    """Fields that the JSON answer must have: `items.0.name` to the value as text; '' asks for the field alone."""
    timeout: float = 5.0
    """Seconds that the whole answer may take."""
    login: str = ""
    """Name of the secret that is sent as `Authorization: Bearer`; a value with a space in it is sent as it is."""
    body: str = ""
    """What is sent; it has to be JSON."""
    when: str = "both"
    """`before`: to the idle colour, privately; `after`: through the edge, after the switch; `both`."""

    @property
    def repeatable(self) -> bool:
        """Whether it may be asked each second: it changes nothing."""
        return self.method in ("GET", "HEAD")


@dataclass(frozen=True)
class RouteSlo:
    """What one route promises; a broken route is seen although most of the traffic is well."""

    path: str
    requests: int = 20
    error_share: float = 0.05
    p95_seconds: float = 2.0


@dataclass(frozen=True)
class Slo:
    """What a release promises its users; one on probation that falls short of it goes back."""

    error_share: float = 0.05
    errors: int = 5
    """Fewest errors in the window that count as a share."""
    requests: int = 100
    """Fewest requests in the window that are judged."""
    p95_seconds: float = 2.0
    window_seconds: float = 60.0
    routes: list[RouteSlo] = field(default_factory=list)


@dataclass(frozen=True)
class Canary:
    """How users move to a new release: a few percent first, each step judged before the next."""

    steps: list[int] = field(default_factory=list)
    """Percent of the clients, rising, with 0 for testers alone; empty: all at once."""
    seconds: float = 60.0
    """How long each step is watched."""
    manual: bool = False
    """Whether each step waits for `switchyard promote`."""
    key: str = "address"
    """What a client is told apart by: `address`, `cookie:NAME` or `header:NAME`."""
    tester: str = ""
    """Name of a header and cookie by which testers choose: `always` the new release, or `never`."""


@dataclass(frozen=True)
class Database:
    """The connection budget of the Postgres instance that the application uses."""

    max_connections: int
    reserved: int = 13
    pool_connections: int = 0
    """Of these, how many the pooler holds at most; 0: there is no pooler."""
    pool_clients: int = 0
    """Connections that the pooler takes from the application."""


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
    committed: str = ""
    """When that revision was committed, in ISO 8601 with its offset from UTC; lead time is counted from here."""
    who: str = ""
    run_url: str = ""
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
    slo: Slo = field(default_factory=Slo)
    canary: Canary = field(default_factory=Canary)
    watch: str = ""
    """`detached`: the deploy ends with the switch, and the host goes on watching."""
    image_policy: ImagePolicy = field(default_factory=ImagePolicy)
    image_override: str = ""
    """Why images may become this release that the policy does not let pass."""
    rolling: int = 0
    """Hosts that are replaced at a time, for hosts without room for two colours; 0: all at once, blue/green."""

    @property
    def name(self) -> AppName:
        """Application and environment."""
        return AppName(self.app, self.environment)

    @property
    def on_probation(self) -> bool:
        """Whether the release is watched after the switch."""
        return self.probation_seconds > 0 or bool(self.canary.steps)

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
    require(bool(request.services), "app_services", "name at least one service")
    for name, service in request.services.items():
        _check_one_service(request, name, service)
    _check_across(request)
    return request


def _check_one_service(request: Request, name: str, service: Service) -> None:
    where = f"app_services.{name}"
    check_service(name)
    require(_IMAGE.fullmatch(service.image) is not None, f"{where}.image", f"'{service.image}' is no image name")
    if service.tag:
        check_version(service.tag)
    require(bool(service.tag or service.digest), f"{where}.tag", "a tag or a digest is needed")
    digest_is_valid = not service.digest or _DIGEST.fullmatch(service.digest) is not None
    require(digest_is_valid, f"{where}.digest", "a digest is sha256: and 64 hexadecimal digits")
    require(0 < service.port < 65536, f"{where}.port", "use a port from 1 to 65535")
    require(1 <= service.instances <= 50, f"{where}.instances", "use 1 to 50 instances")
    health = service.health
    require(1 <= health.successes <= 100, f"{where}.health.successes", "use 1 to 100")
    require(0.01 <= health.interval <= 60, f"{where}.health.interval", "use 0.01 to 60 seconds")
    require(0.1 <= health.timeout <= 300, f"{where}.health.timeout", "use 0.1 to 300 seconds")
    require(1 <= health.start_timeout <= 3600, f"{where}.health.start_timeout", "use 1 to 3600 seconds")
    require(1 <= service.response_timeout <= 86400, f"{where}.response_timeout", "use 1 to 86400 seconds")
    require(service.memory_mb >= 6, f"{where}.memory_mb", "use 6 or more: Docker's own minimum")
    require(service.uid >= 0, f"{where}.uid", "use a numeric user id")
    for exception in service.exceptions:
        is_known = _EXCEPTION.fullmatch(exception) is not None
        rule = f"'{exception}' is none: use root, writable_root, new_privileges or cap:NAME"
        require(is_known, f"{where}.exceptions", rule)
    confined = service.uid > 0 or "root" in service.exceptions
    require(confined, f"{where}.uid", "0 is root: use another user, or declare it with exceptions: [root]")
    require(
        len(set(service.asset_paths)) == len(service.asset_paths), f"{where}.asset_paths", "one path is named twice"
    )
    for path in (service.health.path, *service.routes, *service.asset_paths):
        require(_PATH.fullmatch(path) is not None, where, f"'{path}' is no path: start it with a slash")
    for variable in (*service.env, *service.secret_env):
        require(_ENV_NAME.fullmatch(variable) is not None, f"{where}.env.{variable}", "is no variable name")
    for secret in (*service.secrets, *service.secret_env.values()):
        require(secret in request.secrets, f"{where}.secrets", f"secret '{secret}' is not in app_secrets")


def _check_across(request: Request) -> None:
    for name in request.secrets:
        require(_ENV_NAME.fullmatch(name) is not None, f"app_secrets.{name}", "is no variable name")
    owner: dict[str, str] = {}
    for name, service in request.services.items():
        for route in service.routes:
            require(route not in owner, f"app_services.{name}.routes", f"'{route}' is also {owner.get(route)}'s")
            owner[route] = name
        for path in service.asset_paths:
            require(
                route_owner(request, path) == name,
                f"app_services.{name}.asset_paths",
                f"'{path}' is not routed here",
            )
    if request.migration:
        known = request.migration.service in request.services
        require(known, "app_migration.service", f"'{request.migration.service}' is not in app_services")
        require(bool(request.migration.command), "app_migration.command", "name the command as a list")
    decisions = ("", "resume", "resolve")
    require(request.migration_decision in decisions, "migration", "use resume or resolve")
    for index, test in enumerate(request.smoke_tests):
        where = f"app_smoke_tests[{index}]"
        _check_smoke_test(request, test, where)
        is_path = (
            _PATH.fullmatch(test.path.partition("?")[0]) is not None and test.path.isascii() and " " not in test.path
        )
        require(is_path, f"{where}.path", "start it with a slash, and write other characters as %XX")
        require(0.1 <= test.timeout <= 300, f"{where}.timeout", "use 0.1 to 300 seconds")
        routed = route_owner(request, test.path) is not None
        require(routed, f"app_smoke_tests[{index}].path", f"no service has a route for '{test.path}'")
    require(
        _is_time(request.committed), "app_committed_at", "use ISO 8601 with an offset, as 'git log -1 --format=%cI'"
    )
    _check_judging(request)
    for key, value in (("probation_seconds", request.probation_seconds), ("drain_seconds", request.drain_seconds)):
        require(0 <= value <= 86400, f"app_{key}", "use 0 to 86400 seconds")
    run_url_is_valid = not request.run_url or _URL.fullmatch(request.run_url) is not None
    require(run_url_is_valid, "run_url", "use the https:// address of the job's page")
    require(1 <= request.keepalive_seconds <= 86400, "app_keepalive_seconds", "use 1 to 86400 seconds")
    require(request.schema_epoch >= 1, "app_schema_epoch", "use 1 or more")
    require(request.retain >= 0, "app_retain", "use 0 or more")
    require(request.rolling >= 0, "app_rolling", "use 0 or more")
    policy.check(request.image_policy, request.image_override)


def _is_time(text: str) -> bool:
    try:
        return not text or datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def _check_smoke_test(request: Request, test: SmokeTest, where: str) -> None:
    require(re.fullmatch("[A-Z]{3,10}", test.method) is not None, f"{where}.method", "write it in capitals, as GET")
    require(100 <= test.status <= 599, f"{where}.status", "use 100 to 599")
    require(test.when in ("before", "after", "both"), f"{where}.when", "use before, after or both")
    known = not test.login or test.login in request.secrets
    require(known, f"{where}.login", f"secret '{test.login}' is not in app_secrets")
    for name in test.headers:
        require(_HEADER.fullmatch(name) is not None, f"{where}.headers.{name}", "is no header's name")


def _check_judging(request: Request) -> None:
    slo, canary = request.slo, request.canary
    promised: dict[str, Slo | RouteSlo] = {"app_slo": slo}
    promised |= {f"app_slo.routes[{index}]": route for index, route in enumerate(slo.routes)}
    for where, limits in promised.items():
        require(0 < limits.error_share <= 1, f"{where}.error_share", "use a share above 0, up to 1")
        require(limits.requests >= 1, f"{where}.requests", "use 1 or more")
        require(0 < limits.p95_seconds <= 3600, f"{where}.p95_seconds", "use more than 0, up to 3600 seconds")
    require(slo.errors >= 1, "app_slo.errors", "use 1 or more")
    require(10 <= slo.window_seconds <= 3600, "app_slo.window_seconds", "use 10 to 3600 seconds")
    for index, route in enumerate(slo.routes):
        routed = route_owner(request, route.path) is not None
        require(routed, f"app_slo.routes[{index}].path", f"no service has a route for '{route.path}'")
    rising = canary.steps == sorted(set(canary.steps)) and all(0 <= step <= 99 for step in canary.steps)
    require(rising, "app_canary.steps", "use rising percentages from 0 to 99, such as [5, 25, 50]")
    require(1 <= canary.seconds <= 86400, "app_canary.seconds", "use 1 to 86400 seconds")
    kind, _, name = canary.key.partition(":")
    known = canary.key == "address" or (kind in ("cookie", "header") and _HEADER.fullmatch(name) is not None)
    require(known, "app_canary.key", "use address, cookie:NAME or header:NAME")
    require(kind != "cookie" or "-" not in name, "app_canary.key", "Nginx reads no cookie with a '-' in its name")
    require(
        not canary.tester or _HEADER.fullmatch(canary.tester) is not None, "app_canary.tester", "is no header's name"
    )
    require(request.watch in ("", "detached"), "watch", "use detached, or leave it out")


def route_owner(request: Request, path: str) -> str | None:
    """Name the service that the edge would send `path` to: the one with the longest matching route."""
    routes = [(route, name) for name, service in request.services.items() for route in service.routes]
    matching = [(len(route), name) for route, name in routes if path == route or path.startswith(_prefix(route))]
    return max(matching)[1] if matching else None


def _prefix(route: str) -> str:
    """A route that ends in a slash covers what is below it; another one covers itself alone, and its query."""
    return route if route.endswith("/") else f"{route}?"
