"""Everything that can be known to go wrong before anything is changed; each refusal says what to do."""

import contextlib
import os
import platform
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from switchyard.engine import docker, edge
from switchyard.engine.layout import LOGS, STATE, AppPaths, HostConfig
from switchyard.engine.ports import Plan, addresses
from switchyard.engine.records import Record
from switchyard.errors import Exit, SwitchyardError
from switchyard.names import AppName, Colour
from switchyard.request import Request
from switchyard.secrets import generations

Say = Callable[[str], None]

# What an image that is not on the host is taken to need when the live release has none to measure it by.
_UNKNOWN_IMAGE = 500 << 20
_STATE_BYTES = 16 << 20
_FREE_INODES = 2_000
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}
_MIGRATION_CONNECTIONS = 2
_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")


def _refuse(message: str) -> SwitchyardError:
    return SwitchyardError(message, Exit.PREFLIGHT)


def ask_registry(request: Request) -> dict[str, docker.RemoteImage]:
    """Ask the registry once for each service's image."""
    return {name: docker.resolve(service.reference) for name, service in request.services.items()}


def resolve(request: Request) -> dict[str, str]:
    """Ask the registry once for each service's digest, and refuse images of another architecture."""
    found = ask_registry(request)
    require_architecture(request, {name: image.architectures for name, image in found.items()})
    return {name: image.digest for name, image in found.items()}


def require_architecture(request: Request, architectures: Mapping[str, Sequence[str]]) -> None:
    """Refuse images that are built for other machines than this one; an unknown architecture passes."""
    wanted = _ARCHITECTURES.get(platform.machine(), platform.machine())
    for name, built_for in architectures.items():
        if built_for and wanted not in built_for:
            raise _refuse(
                f"{request.services[name].reference} is built for {', '.join(built_for)}, this host is {wanted}: "
                f"push an image for {wanted}."
            )


def check_space(request: Request, digests: dict[str, str], root: str, live: Record | None) -> None:
    """Disk and inodes: twice each missing image under Docker's root, and room for records, state and logs.

    A missing image is measured by the one that the live release has for this service.
    """
    needed = 0
    for name, service in request.services.items():
        if docker.image(f"{service.image}@{digests[name]}") is None:
            known = docker.image(live.pinned(name)) if live and name in live.digests else None
            needed += 2 * int((known or {}).get("Size") or _UNKNOWN_IMAGE)
    _check_filesystem(Path(root), needed, "Docker's root")
    for path in (STATE, LOGS, Path("/run")):
        _check_filesystem(path, _STATE_BYTES if path != Path("/run") else 1 << 20, "Switchyard's state")


def _check_filesystem(path: Path, needed: int, purpose: str) -> None:
    status = os.statvfs(path)
    free = status.f_bavail * status.f_frsize
    if free < needed:
        raise _refuse(
            f"{path} ({purpose}) has {free >> 20} MiB free, this release needs {needed >> 20} MiB: "
            "remove what is not needed ('switchyard prune' removes old releases), or enlarge the disk."
        )
    # Some file systems (btrfs) count no inodes.
    if status.f_files and status.f_favail < _FREE_INODES and path != Path("/run"):
        raise _refuse(f"{path} ({purpose}) has {status.f_favail} inodes free: remove small files there.")


def held_mb(name: AppName, colour: Colour) -> int:
    """The memory in MiB that a colour's processes have for themselves, and give back when it is replaced.

    What the kernel caches of their files is not in it: that counts as available already.
    """
    held = 0
    for container in docker.of_colour(name, colour):
        pid = (docker.inspect(container.id) or {}).get("State", {}).get("Pid") or 0
        # The file is gone when the process is, and then it holds nothing.
        with contextlib.suppress(OSError, ValueError, StopIteration):
            lines = (_PROC / str(pid) / "cgroup").read_text().splitlines()
            group = next(line for line in lines if line.startswith("0::")).removeprefix("0::/")
            fields = (_CGROUPS / group / "memory.stat").read_text().splitlines()
            held += int(next(line for line in fields if line.startswith("anon ")).split()[1])
    return held >> 20


def check_memory(request: Request, freed_mb: int) -> None:
    """Two colours run at once, so the new one's limits must fit into what is available now.

    `freed_mb` is what the warm release gives back, since it is stopped for the new one.
    """
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    available = int(fields["MemAvailable"].split()[0]) // 1024 + freed_mb
    needed = sum(service.memory_mb * service.instances for service in request.services.values())
    if available < needed:
        raise _refuse(
            f"The new colour may use {needed} MiB of memory (memory_mb x instances) beside the live one, and "
            f"{available} MiB are available: lower memory_mb, or give the host more memory."
        )


def check_ports(name: AppName, request: Request, colour: Colour, plan: Plan, host: HostConfig) -> None:
    """The idle colour's ports are free, or held by the idle colour itself."""
    if any(container.running for container in docker.of_colour(name, colour)):
        return
    for service, spec in request.services.items():
        for target in addresses(plan, name, service, spec.instances, colour, host.publish_address):
            address, _, port = target.rpartition(":")
            family = socket.AF_INET6 if "[" in address else socket.AF_INET
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((address.strip("[]"), int(port)))
                except OSError as error:
                    raise _refuse(
                        f"{target}, planned for {service} of {name}, is taken ({error.strerror}): "
                        f"'ss -ltnp sport = :{port}' names the process to stop."
                    ) from error


def check_connections(request: Request, hosts: int = 1) -> None:
    """Both colours hold database connections during a switch, on each host; their sum must fit.

    Those of pooled services end at the pooler, which holds no more than its own number of connections to Postgres.
    """
    database = request.database
    if database is None:
        return

    def of_colour(pooled: bool) -> int:
        services = [s for s in request.services.values() if s.database_pooled is pooled]
        return hosts * sum(s.database_connections * s.instances for s in services)

    direct, pooled = of_colour(pooled=False), of_colour(pooled=True)
    if pooled and 2 * pooled > database.pool_clients:
        raise _refuse(
            f"Two colours need {2 * pooled} connections to PgBouncer (2 x {pooled}) and it takes "
            f"{database.pool_clients}: lower database_connections or raise postgres_pooler_clients."
        )
    pool = database.pool_connections
    needed = 2 * direct + pool + (_MIGRATION_CONNECTIONS if request.migration else 0)
    room = database.max_connections - database.reserved
    if needed > room:
        of_pool = f" + {pool} of PgBouncer" if pool else ""
        lower = "database_connections or postgres_pooler_connections" if pool else "database_connections"
        raise _refuse(
            f"Two colours need {needed} database connections (2 x {direct}{of_pool} + migration) and Postgres has "
            f"{room} for them (postgres_max_connections - reserved): lower {lower} or raise postgres_max_connections."
        )


def check_database(name: AppName) -> None:
    """A Postgres of ours on this host must run and be healthy before a release is built on it."""
    labels = {"switchyard.role": "postgres", "switchyard.app": name.app, "switchyard.environment": name.environment}
    for container in docker.containers(labels):
        if not container.running or "unhealthy" in container.status:
            raise _refuse(
                f"The database is not healthy (container {container.name} is {container.state}, {container.status}): "
                f"'docker logs {container.name}' says why."
            )


def check_secrets(paths: AppPaths, request: Request) -> None:
    """Every secret a service names has a value, now or from before."""
    for secret, content in request.secrets.items():
        if not content.value and not (generations.today(paths) / secret).is_file():
            raise _refuse(f"app_secrets.{secret} is empty: give it a value in the environment's vault file.")


def check_edge() -> None:
    """The edge runs, and would also start with what is on its disk."""
    edge.check_live(edge.master_pid())
