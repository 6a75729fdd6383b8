"""What the Docker Engine knows, read from its socket (an answer takes milliseconds, the command-line client 50).

Only reads: what changes something goes through the `docker` command and `effects.run`.
"""

import base64
import contextlib
import functools
import http.client
import ipaddress
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from switchyard.engine.effects import query
from switchyard.errors import Exit, SwitchyardError
from switchyard.names import AppName, Colour

SOCKET = "/run/docker.sock"
_API = (1, 41)
"""What is asked for here: Docker 20.10, the oldest engine that the roles install."""
_HUB = "https://index.docker.io/v1/"
_LOGINS = Path("/root/.docker/config.json")
_REGISTRY_SECONDS = 90.0


class _Connection(http.client.HTTPConnection):
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(SOCKET)


@functools.cache
def _version() -> str:
    """The version of its interface to speak: ours, or the next one that this engine has not given up yet."""
    status, body = _ask("/version")
    if status != 200:
        raise SwitchyardError(f"Docker cannot tell its version: {_message(body)}.", Exit.PREFLIGHT)
    oldest, newest = _pair(body.get("MinAPIVersion", "1.12")), _pair(body["ApiVersion"])
    return ".".join(map(str, min(max(_API, oldest), newest)))


def _pair(version: str) -> tuple[int, int]:
    major, _, minor = version.partition(".")
    return int(major), int(minor)


def _get(path: str, *, timeout: float = 10.0, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    return _ask(f"/v{_version()}{path}", timeout=timeout, headers=headers)


def _ask(path: str, *, timeout: float = 10.0, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    connection = _Connection("docker", timeout=timeout)
    try:
        connection.request("GET", path, headers=headers or {})
        answer = connection.getresponse()
        body = answer.read()
        return answer.status, json.loads(body) if body else None
    except TimeoutError as error:
        if "/distribution/" not in path:
            raise _silent(error) from error
        return 504, {"message": f"no answer within {timeout:.0f} s"}
    except (OSError, ValueError) as error:
        raise _silent(error) from error
    finally:
        connection.close()


def _silent(error: Exception) -> SwitchyardError:
    return SwitchyardError(
        f"Docker does not answer on {SOCKET} ({error}): 'systemctl status docker' says why; "
        "what serves now goes on serving.",
        Exit.PREFLIGHT,
    )


def _message(body: Any) -> str:
    return str(body.get("message", body)) if isinstance(body, dict) else str(body)


def info() -> dict[str, Any]:
    """The engine's description of itself: root directory, architecture and so on."""
    status, body = _get("/info")
    if status != 200:
        raise SwitchyardError(f"Docker cannot describe itself: {_message(body)}.", Exit.PREFLIGHT)
    return dict(body)


@dataclass(frozen=True)
class Container:
    """A container that carries Switchyard's labels."""

    id: str
    name: str
    state: str
    labels: dict[str, str]
    status: str
    created: int = 0
    """Seconds since the epoch."""
    image: str = ""
    """The image as it was asked for; of ours always by digest."""
    mounts: tuple[str, ...] = ()
    """What of this host it was started with: paths of files and directories."""

    @property
    def running(self) -> bool:
        """Tell whether its process runs (not: whether it is healthy)."""
        return self.state == "running"

    @property
    def release(self) -> str:
        """Release id from its label."""
        return self.labels.get("switchyard.release", "")


def containers(labels: dict[str, str]) -> list[Container]:
    """Every container, running or not, that has all these labels."""
    return _list({"label": [f"{key}={value}" for key, value in labels.items()]})


def _list(filters: dict[str, list[str]]) -> list[Container]:
    status, body = _get(f"/containers/json?all=1&filters={quote(json.dumps(filters))}")
    if status != 200:
        raise SwitchyardError(f"Docker cannot list containers: {_message(body)}.", Exit.PREFLIGHT)
    return [
        Container(
            item["Id"],
            item["Names"][0].lstrip("/"),
            item["State"],
            item["Labels"],
            item["Status"],
            item["Created"],
            str(item.get("Image", "")),
            tuple(str(mount.get("Source", "")) for mount in item.get("Mounts") or ()),
        )
        for item in body
    ]


def labelled() -> list[Container]:
    """Every container of every application that the engine started."""
    return _list({"label": ["switchyard.app"]})


def of_colour(name: AppName, colour: Colour) -> list[Container]:
    """The containers of one colour of an application, sorted by name."""
    found = containers(
        {"switchyard.app": name.app, "switchyard.environment": name.environment, "switchyard.colour": colour}
    )
    ours = [container for container in found if container.labels.get("switchyard.role") != "migrate"]
    return sorted(ours, key=lambda container: container.name)


def inspect(container: str) -> dict[str, Any] | None:
    """Everything Docker knows of a container, or None when there is none of that name."""
    return _found(container, *_get(f"/containers/{quote(container)}/json"))


def published(container: str) -> list[str]:
    """The host's addresses that a container publishes ports on, also while it does not run."""
    ports = (inspect(container) or {}).get("HostConfig", {}).get("PortBindings") or {}
    return sorted({binding["HostIp"] for bindings in ports.values() for binding in bindings or []})


def image(reference: str) -> dict[str, Any] | None:
    """What Docker knows of a local image, or None when it is not on this host."""
    return _found(reference, *_get(f"/images/{quote(reference, safe='')}/json"))


def _found(what: str, status: int, body: Any) -> dict[str, Any] | None:
    if status not in (200, 404):
        raise SwitchyardError(f"Docker cannot tell about {what}: {_message(body)}.", Exit.PREFLIGHT)
    return dict(body) if status == 200 else None


def registry_of(reference: str) -> str:
    """The registry's name as Docker's configuration file keys it."""
    first, slash, _ = reference.partition("/")
    is_host = slash and ("." in first or ":" in first or first == "localhost")
    return first if is_host else _HUB


def _credentials(registry: str) -> dict[str, str]:
    """Read root's registry login the way the docker client does: a credential helper, else the stored login."""
    try:
        text = _LOGINS.read_text()
    except OSError:
        return {}
    source = str(_LOGINS)
    try:
        config = json.loads(text)
        helper = config.get("credHelpers", {}).get(registry) or config.get("credsStore")
        if helper:
            asked = query([f"docker-credential-{helper}", "get"], stdin=registry)
            if asked.code == 0:
                source = f"docker-credential-{helper}"
                answer = json.loads(asked.out)
                return {"username": answer["Username"], "password": answer["Secret"], "serveraddress": registry}
        stored = config.get("auths", {}).get(registry, {}).get("auth")
        if not stored:
            return {}
        user, _, password = base64.b64decode(stored, validate=True).decode().partition(":")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        # Without the error's own words, which may quote the login.
        raise SwitchyardError(
            f"The login for {registry} cannot be read from {source}: run provision.yml --tags docker.", Exit.PREFLIGHT
        ) from error
    return {"username": user, "password": password, "serveraddress": registry}


@dataclass(frozen=True)
class RemoteImage:
    """What a registry says of an image reference."""

    digest: str
    architectures: tuple[str, ...]


def resolve(reference: str) -> RemoteImage:
    """Ask the registry, through the engine (its mirrors, insecure registries and proxies hold), for a digest.

    Raises `SwitchyardError` that says whether the tag, the login or the registry is at fault.
    """
    registry = registry_of(reference)
    headers = {}
    if credentials := _credentials(registry):
        headers["X-Registry-Auth"] = base64.urlsafe_b64encode(json.dumps(credentials).encode()).decode()
    status, body = _get(f"/distribution/{quote(reference)}/json", timeout=_REGISTRY_SECONDS, headers=headers)
    if status == 200:
        platforms = body.get("Platforms") or []
        return RemoteImage(body["Descriptor"]["digest"], tuple(p.get("architecture", "") for p in platforms))
    raise SwitchyardError(f"{reference}: {registry_reason(_message(body), reference)}.", Exit.PREFLIGHT)


def registry_reason(text: str, reference: str) -> str:
    """What an operator can do about what Docker says of a registry."""
    lowered = text.lower()
    if any(word in lowered for word in ("unauthorized", "denied", "no basic auth", "authentication required")):
        return f"the registry refuses this host's login: check docker_registry_logins for {registry_of(reference)}"
    if any(word in lowered for word in ("verification failed", "digest mismatch", "unexpected eof", "invalid tar")):
        return "a layer arrives damaged: it is broken in the registry or on the way; push the image again"
    if "manifest unknown" in lowered or "not found" in lowered:
        return "the registry has no such tag: push it first, or check image and version"
    said = [line for line in text.strip().splitlines() if line] or ["no answer"]
    return f"the registry cannot be reached or answered badly ({said[-1]})"


def is_plain(daemon: Mapping[str, Any], registry: str) -> bool:
    """Tell whether Docker was told to speak to a registry without TLS; `daemon` is `info()`."""
    config = daemon.get("RegistryConfig", {})
    if not config.get("IndexConfigs", {}).get(registry, {"Secure": True})["Secure"]:
        return True
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(registry.rpartition(":")[0].strip("[]") or registry)
        return any(address in ipaddress.ip_network(r) for r in config.get("InsecureRegistryCIDRs") or [])
    return False
