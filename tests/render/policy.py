"""What a container may be, read from a compose file. Pure."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

# Whoever can write to one of these owns the host.
_SOCKETS = ("docker.sock", "containerd.sock", "podman.sock")
_OF_THE_HOST = ("/", "/etc", "/run", "/var/run", "/var/lib/docker", "/proc", "/sys", "/dev", "/root", "/boot")
_NAMESPACES = ("pid", "ipc", "uts", "userns_mode", "cgroup", "cgroup_parent")


def breaches(service: Mapping[str, Any]) -> set[str]:
    """Name every rule that a container breaks; the names are those of the exceptions that allow it."""
    found = {f"cap:{name}" for name in service.get("cap_add", [])}
    options = service.get("security_opt", [])
    user = str(service.get("user", "0")).partition(":")[0]
    broken = {
        "root": not user.isdigit() or int(user) == 0,
        "writable_root": service.get("read_only") is not True,
        "capabilities": service.get("cap_drop") != ["ALL"],
        "new_privileges": "no-new-privileges:true" not in options,
        "unconfined": any("unconfined" in option for option in options),
        "privileged": bool(service.get("privileged") or service.get("devices") or service.get("device_cgroup_rules")),
        "host_network": service.get("network_mode") not in (None, "bridge"),
        "host_namespace": any(name in service for name in _NAMESPACES),
        "memory": not _positive(service.get("mem_limit")),
        "processes": not _positive(service.get("pids_limit")),
        "log_size": not {"max-size", "max-file"} <= set(service.get("logging", {}).get("options", {})),
        "docker_socket": any(_is_of_the_host(source) for source in _sources(service)),
        "public_port": any(not _has_address(str(port)) for port in service.get("ports", [])),
    }
    return found | {name for name, is_broken in broken.items() if is_broken}


def started_by(argv: Sequence[str]) -> dict[str, Any]:
    """A `docker run` as the service of a compose file that it amounts to; an option that nobody judges is refused."""
    assert argv[:2] == ["docker", "run"]
    parser = argparse.ArgumentParser(allow_abbrev=False, exit_on_error=False)
    for flag in ("--rm", "--detach", "--init", "--read-only"):
        parser.add_argument(flag, action="store_true")
    for once in ("--name", "--network", "--network-alias", "--user", "--entrypoint", "--memory", "--pids-limit"):
        parser.add_argument(once)
    for often in ("--cap-drop", "--cap-add", "--security-opt", "--tmpfs", "--mount", "-v", "--log-opt", "--label"):
        parser.add_argument(often, action="append", default=[])
    parser.add_argument("--env", "--shm-size", action="append")
    parser.add_argument("image")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args(argv[2:])
    mounts = [dict(part.partition("=")[::2] for part in mount.split(",")) for mount in given.mount]
    return {
        "user": given.user or "0",
        "read_only": given.read_only,
        "cap_drop": given.cap_drop,
        "cap_add": given.cap_add,
        "security_opt": [f"{option}:true" if ":" not in option else option for option in given.security_opt],
        "network_mode": given.network if given.network == "host" else None,
        "mem_limit": given.memory,
        "pids_limit": given.pids_limit,
        "logging": {"options": dict(option.split("=") for option in given.log_opt)},
        "volumes": [*given.v, *mounts],
    }


def _positive(value: object) -> bool:
    digits = "".join(character for character in str(value or 0) if character.isdigit() or character == "-")
    return bool(digits) and int(digits) > 0


def _sources(service: Mapping[str, Any]) -> list[str]:
    volumes = service.get("volumes", [])
    bound = [volume for volume in volumes if not isinstance(volume, Mapping) or volume["type"] != "tmpfs"]
    return [volume["source"] if isinstance(volume, Mapping) else str(volume).partition(":")[0] for volume in bound]


def _is_of_the_host(source: str) -> bool:
    path = PurePosixPath(source)
    return path.name in _SOCKETS or str(path) in _OF_THE_HOST


def _has_address(port: str) -> bool:
    """`ADDRESS:PUBLISHED:TARGET`, or what the engine fills in as ADDRESS:PUBLISHED."""
    address, _, rest = port.partition(":")
    return address.startswith("${SWITCHYARD_PUBLISH_") or (":" in rest and address not in ("0.0.0.0", "[", ""))  # noqa: S104 - refused
