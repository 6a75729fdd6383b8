"""A private registry on the bed's network, and pushing to it from the machine outside."""

from __future__ import annotations

import base64
import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import bcrypt
import docker.errors

from tests.bed import engine, hosts, images, labels
from tests.bed.errors import BedError, say

PORT = 5000
ACCEPT = ", ".join(
    (
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.oci.image.index.v1+json",
    )
)


@dataclass(frozen=True)
class Pushed:
    """An image in the registry, as hosts of the bed name it."""

    ref: str
    digest: str

    @property
    def by_digest(self) -> str:
        """The reference that can never mean anything else."""
        return f"{self.ref.rpartition(':')[0]}@{self.digest}"


@dataclass(frozen=True)
class Registry:
    """A running registry; hosts use `address`, the machine outside uses a port on its loopback."""

    container: str
    ip: str
    user: str | None = None
    password: str | None = None

    @property
    def address(self) -> str:
        """What hosts of the bed call this registry."""
        return f"{self.ip}:{PORT}"

    @property
    def local(self) -> str:
        """What the outer engine calls it: its loopback needs no TLS. The port may change with a restart."""
        container = engine.api().containers.get(self.container)
        bindings = container.attrs["NetworkSettings"]["Ports"].get(f"{PORT}/tcp")
        if not bindings:
            raise BedError(f"The registry {self.container} is not running.")
        return f"127.0.0.1:{bindings[0]['HostPort']}"

    def push(self, image: str, name: str, version: str) -> Pushed:
        """Make a local image available to hosts as NAME:VERSION; sends nothing that is already there."""
        ref = f"{self.address}/{name}:{version}"
        image_id = engine.api().images.get(image).id
        present = self._manifest(name, version)
        if present and image_id in present:
            return Pushed(ref, present[0])
        repository = f"{self.local}/{name}"
        engine.api().images.get(image).tag(repository, version)
        try:
            self._send(repository, version)
        finally:
            # The tag only served the push, and its port means nothing later.
            engine.api().images.remove(f"{repository}:{version}", noprune=True)
        stored = self._manifest(name, version)
        if stored is None:
            raise BedError(f"The registry took {name}:{version} but does not have it.")
        return Pushed(ref, stored[0])

    def digest(self, name: str, version: str) -> str | None:
        """Return the digest of an image in the registry, or None."""
        found = self._manifest(name, version)
        return found[0] if found else None

    def wait(self, seconds: float = 120) -> None:
        """Wait until the registry answers."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                if self._get("/v2/") is not None:
                    return
            except (OSError, BedError):
                pass
            time.sleep(0.1)
        raise BedError(f"The registry {self.container} did not answer within {seconds:.0f} s.")

    def _send(self, repository: str, version: str) -> None:
        login = {"username": self.user, "password": self.password} if self.user else None
        for event in engine.api().images.push(repository, version, stream=True, decode=True, auth_config=login):
            if "error" in event:
                raise BedError(f"{repository}:{version} could not be pushed: {event['error']}")

    def _manifest(self, name: str, version: str) -> tuple[str, str] | None:
        """Return the manifest's digest and the image id that it names."""
        found = self._get(f"/v2/{name}/manifests/{version}")
        if found is None:
            return None
        body, digest = found
        return digest, str(json.loads(body).get("config", {}).get("digest", digest))

    def _get(self, path: str) -> tuple[bytes, str] | None:
        request = urllib.request.Request(f"http://{self.local}{path}", headers={"Accept": ACCEPT})
        if self.user:
            token = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
            request.add_header("Authorization", f"Basic {token}")
        # A proxy from the environment must not be asked for this machine's loopback.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=60) as answer:
                return answer.read(), str(answer.headers.get("Docker-Content-Digest", ""))
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise BedError(f"The registry answered {error.code} to {path}.") from error


def start(
    *,
    network: str,
    bed: str,
    marks: Mapping[str, str],
    ip: str,
    suffix: str = "",
    login: tuple[str, str] | None = None,
) -> Registry:
    """Find or start a registry of a bed."""
    user, password = login or (None, None)
    registry = Registry(f"switchyard-{bed}-registry{suffix}", ip, user, password)
    api = engine.api()
    try:
        found = api.containers.get(registry.container)
        if found.status != "running":
            found.start()
        registry.wait()
        return registry
    except docker.errors.NotFound:
        pass
    image = images.ensure("registry")
    say(f"starting the registry {registry.address}")
    environment = {"REGISTRY_HTTP_SECRET": "one-registry-alone-needs-no-shared-secret"}
    if login:
        environment |= {
            "REGISTRY_AUTH": "htpasswd",
            "REGISTRY_AUTH_HTPASSWD_REALM": "switchyard",
            "REGISTRY_AUTH_HTPASSWD_PATH": "/etc/registry/htpasswd",
        }
    low: Any = api.api
    created = low.create_container(
        image,
        name=registry.container,
        hostname="registry",
        labels={**marks, labels.ROLE: "registry"},
        environment=environment,
        ports=[PORT],
        host_config=low.create_host_config(
            port_bindings={PORT: ("127.0.0.1", None)},
            mounts=[docker.types.Mount("/var/lib/registry", None, type="volume")],
            restart_policy={"Name": "unless-stopped"},
        ),
        networking_config=low.create_networking_config({network: low.create_endpoint_config(ipv4_address=ip)}),
    )
    container = api.containers.get(created["Id"])
    if login:
        hosts.put_files(container, {"/etc/registry/htpasswd": hosts.File(htpasswd(*login))})
    container.start()
    registry.wait()
    return registry


def htpasswd(user: str, password: str) -> str:
    """Return the one line that lets a user in; the registry accepts bcrypt alone."""
    return f"{user}:{bcrypt.hashpw(password.encode(), bcrypt.gensalt(rounds=5)).decode()}\n"
