"""From what the inventory says of an application to the request that the engine is given. Pure."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from switchyard import PROTOCOL
from switchyard.errors import Exit, SwitchyardError
from switchyard.request import Health, Service

COMPOSE_ONLY: dict[str, Any] = {
    "cpus": 0,
    "pids_limit": 256,
    "database": False,
    "volumes": {},
    "tmpfs": [],
    "command": [],
    "stop_grace_seconds": 70,
    "healthcheck": {},
}
"""Keys of a service that end in the compose file alone, with their defaults."""

_MIGRATION_COMPOSE_ONLY = ("secrets", "env")


def _defaults(cls: type) -> dict[str, Any]:
    result = {}
    for field in fields(cls):
        if field.default is not MISSING:
            result[field.name] = field.default
        elif field.default_factory is not MISSING:
            result[field.name] = field.default_factory()
    return result


def text(value: object) -> str:
    """A variable's value as the container sees it; a YAML boolean becomes the word that it was written as."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def complete_services(services: Mapping[str, Mapping[str, Any]], version: str) -> dict[str, dict[str, Any]]:
    """Every service with every key: what the inventory leaves out has its default, the tag is the version."""
    result = {}
    for name, given in services.items():
        service = {**_defaults(Service), **COMPOSE_ONLY, **given}
        service["health"] = {**_defaults(Health), **dict(given.get("health") or {})}
        service["tag"] = "" if service["digest"] else service["tag"] or version
        service["env"] = {str(key): text(value) for key, value in service["env"].items()}
        result[str(name)] = service
    return result


def complete_migration(migration: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The migration with every key, or None."""
    if not migration:
        return None
    given = {"current": [], "secrets": [], "env": {}, "timeout": 900.0, **migration}
    return {**given, "env": {str(key): text(value) for key, value in given["env"].items()}}


class _Owners:
    """Which uid owns a thing that services share by name; two uids for one thing are refused."""

    def __init__(self, kind: str, fix: str) -> None:
        self.kind, self.fix = kind, fix
        self._claims: dict[str, tuple[int, str]] = {}

    def claim(self, thing: str, uid: int, where: str) -> None:
        """Note that `where` uses `thing` as `uid`."""
        known = self._claims.setdefault(thing, (uid, where))
        if known[0] != uid:
            raise SwitchyardError(
                f"{where} runs as uid {uid} and {known[1]} as uid {known[0]}, and both want the {self.kind} '{thing}', "
                f"which has one owner: give them the same uid, or {self.fix}.",
                Exit.USAGE,
            )

    def result(self) -> dict[str, int]:
        """Thing to uid."""
        return {thing: uid for thing, (uid, _) in self._claims.items()}


def secret_owners(services: Mapping[str, Mapping[str, Any]], migration: Mapping[str, Any] | None) -> dict[str, int]:
    """The uid that reads each secret's file. Raises `SwitchyardError` when two uids would have to."""
    owners = _Owners("secret", "put the value under two names in app_secrets")
    for name, service in services.items():
        for secret in service["secrets"]:
            owners.claim(secret, service["uid"], f"app_services.{name}")
    if migration and migration["service"] in services:
        for secret in migration["secrets"]:
            owners.claim(secret, services[migration["service"]]["uid"], "app_migration")
    return owners.result()


def volume_owners(services: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """The uid that each volume belongs to. Raises `SwitchyardError` when two uids would share one."""
    owners = _Owners("volume", "give each its own")
    for name, service in services.items():
        for volume in service["volumes"]:
            owners.claim(volume, service["uid"], f"app_services.{name}")
    return owners.result()


def build_request(
    variables: Mapping[str, Any],
    *,
    compose: str = "",
    version: str | None = None,
    decision: str = "",
    override: str = "",
) -> dict[str, Any]:
    """The request for `switchyard.request.parse`, from the role's variables (`app_name` and so on, all of them).

    `version`, `decision` and `override` are what `-e version=`, `-e migration=` and `-e image_override=` said.
    Raises `SwitchyardError` for a secret or a volume that cannot be given as described.
    """
    services = complete_services(variables["app_services"], version or variables["app_version"])
    migration = complete_migration(variables["app_migration"])
    if migration and migration["service"] not in services:
        raise SwitchyardError(f"app_migration.service: '{migration['service']}' is not in app_services.", Exit.USAGE)
    owners = secret_owners(services, migration)
    volume_owners(services)
    _require_secrets(variables["app_secrets"], services, migration)
    _require_limits(services)
    request: dict[str, Any] = {
        "protocol": PROTOCOL,
        "app": variables["app_name"],
        "environment": variables["app_environment"],
        "version": variables["app_version"] if version is None else version,
        "explicit_version": version is not None,
        "revision": str(variables["app_revision"]),
        "committed": str(variables["app_committed_at"]),
        "compose": compose,
        "services": {
            name: {key: value for key, value in service.items() if key not in COMPOSE_ONLY}
            for name, service in services.items()
        },
        "secrets": {
            str(name): {"value": str(value), "uid": owners.get(str(name), 0)}
            for name, value in variables["app_secrets"].items()
        },
        "migration": migration and {k: v for k, v in migration.items() if k not in _MIGRATION_COMPOSE_ONLY},
        "migration_decision": decision,
        "smoke_tests": [_smoke_test(test) for test in variables["app_smoke_tests"]],
        "slo": dict(variables["app_slo"]),
        "canary": dict(variables["app_canary"]),
        "watch": str(variables.get("watch") or ""),
        "schema_epoch": int(variables["app_schema_epoch"]),
        "probation_seconds": float(variables["app_probation_seconds"]),
        "drain_seconds": float(variables["app_drain_seconds"]),
        "retain": int(variables["app_retain"]),
        "keepalive_seconds": int(variables["app_keepalive_seconds"]),
        "rolling": int(variables["app_rolling"]),
        "image_policy": dict(variables.get("app_image_policy") or {}),
        "image_override": override,
    }
    if any(service["database"] for service in services.values()):
        request["database"] = {
            "max_connections": int(variables["app_max_connections"]),
            "pool_connections": int(variables["app_pool_connections"]),
            "pool_clients": int(variables["app_pool_clients"]),
        }
    return request


def _require_limits(services: Mapping[str, Mapping[str, Any]]) -> None:
    for name, service in services.items():
        if int(service["pids_limit"]) < 1:
            raise SwitchyardError(f"app_services.{name}.pids_limit: use 1 or more; 0 would mean no limit.", Exit.USAGE)


def _smoke_test(test: Mapping[str, Any]) -> dict[str, Any]:
    """What is compared as text is text: `json: {ok: true}` in the inventory means the JSON word."""
    result = dict(test)
    for key in ("json", "headers"):
        if isinstance(result.get(key), Mapping):
            result[key] = {str(name): "" if value is None else text(value) for name, value in result[key].items()}
    return result


def _require_secrets(
    secrets: Mapping[str, Any], services: Mapping[str, Mapping[str, Any]], migration: Mapping[str, Any] | None
) -> None:
    wanted = {
        secret: f"app_services.{name}"
        for name, service in services.items()
        for secret in (*service["secrets"], *service["secret_env"].values())
    }
    wanted |= dict.fromkeys(migration["secrets"] if migration else [], "app_migration")
    for secret, where in wanted.items():
        if secret not in secrets:
            raise SwitchyardError(f"{where} wants the secret '{secret}', which app_secrets does not have.", Exit.USAGE)
        if secrets[secret] in (None, ""):
            raise SwitchyardError(f"app_secrets.{secret} is empty, and {where} wants it.", Exit.USAGE)
