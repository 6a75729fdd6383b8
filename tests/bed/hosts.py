"""A container that stands in for a VM, and what can happen to a VM."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import tarfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker.errors

from tests.bed import engine, keys, labels, limits, links, resolvers
from tests.bed.errors import BedError
from tests.bed.paths import locked
from tests.bed.shell import need, run

USER = "admin"
USER_ID = 1000
PORT = 22
BOOT_SECONDS = 240
VOLUMES = ("/var/lib/docker", "/var/lib/containerd")


@dataclass(frozen=True)
class Place:
    """Where hosts of a bed live: its engine network, its keys, and the labels that mark its things."""

    bed: str
    network: str
    home: Path
    labels: Mapping[str, str]

    @property
    def known_hosts(self) -> Path:
        """The file in which the host keys of this bed are pinned."""
        return self.home / "known_hosts"

    @property
    def private_key(self) -> Path:
        """The key that opens every host of this bed."""
        return keys.client_key(self.home)


@dataclass(frozen=True)
class File:
    """A file to put into a container."""

    content: str | bytes
    mode: int = 0o644
    uid: int = 0


@dataclass(frozen=True)
class Host:
    """One host of a bed."""

    place: Place
    name: str
    address: str

    user = USER
    port = PORT

    @property
    def container(self) -> str:
        """The name of the container that plays this host."""
        return container_name(self.place, self.name)

    # Reaching it

    def ssh_argv(self, command: str | Sequence[str] = ()) -> list[str]:
        """Return the argv that runs a command on the host over real SSH, with its key checked."""
        words = [command] if isinstance(command, str) else list(command)
        options = [
            "IdentitiesOnly=yes",
            f"UserKnownHostsFile={self.place.known_hosts}",
            "GlobalKnownHostsFile=none",
            "StrictHostKeyChecking=yes",
            "BatchMode=yes",
            "ConnectTimeout=30",
            "LogLevel=ERROR",
        ]
        flags = [part for option in options for part in ("-o", option)]
        ssh = need("ssh", "openssh-client", "hosts are reached over SSH")
        key = str(self.place.private_key)
        return [ssh, "-F", "none", "-i", key, "-p", str(PORT), *flags, f"{USER}@{self.address}", *words]

    def ssh(
        self,
        command: str | Sequence[str],
        *,
        check: bool = True,
        stdin: str | None = None,
        timeout: float = 120,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the host as its administrator."""
        return run(self.ssh_argv(command), check=check, stdin=stdin, timeout=timeout)

    def exec(
        self, argv: Sequence[str], *, check: bool = True, stdin: str | None = None, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the host as root and past its network, for faults and for looking."""
        flags = ["-i"] if stdin is not None else []
        return engine.cli("exec", *flags, self.container, *argv, check=check, stdin=stdin, timeout=timeout)

    def put(self, path: str, content: str | bytes, mode: int = 0o644) -> None:
        """Write a file on the host as root, also while it is off."""
        put_files(self._sdk(), {path: File(content, mode)})

    # Faults

    def power_off(self) -> None:
        """Cut the power: every process dies at once."""
        if self.running():
            self._sdk().kill()
            self._sdk().wait(timeout=120)

    def power_on(self) -> None:
        """Boot the host and wait until it can be used."""
        self._sdk().start()
        self.wait()

    def power_cycle(self) -> None:
        """Cut the power and boot again."""
        self.power_off()
        self.power_on()

    def freeze(self) -> None:
        """Stop every process where it is; the kernel still answers for them, as with a stalled machine."""
        self._sdk().pause()

    def thaw(self) -> None:
        """Let a frozen host go on."""
        self._sdk().unpause()

    def disconnect(self) -> None:
        """Pull the network cable: the carrier is lost, connections hang, addresses and routes stay."""
        links.carrier(self.container, up=False)

    def connect(self) -> None:
        """Plug the network cable in again. A boot does that too."""
        links.carrier(self.container, up=True)

    def destroy(self) -> None:
        """Remove the host with its disks, and forget its key."""
        try:
            container = self._sdk()
        except BedError:
            return
        if container.status == "paused":
            container.unpause()
        container.remove(force=True, v=True)
        with locked("known", self.place.home):
            known = self.place.known_hosts.read_text()
            self.place.known_hosts.write_text(keys.unpin(known, self.address))

    # Its state

    def running(self) -> bool:
        """Tell whether the host has power."""
        return str(self._sdk().status) in ("running", "paused")

    def wait(self, seconds: float = BOOT_SECONDS) -> None:
        """Wait until the host answers on SSH and has finished booting."""
        deadline = time.monotonic() + seconds
        state = "no answer on SSH"
        while time.monotonic() < deadline:
            if not self.running():
                raise BedError(f"The host {self.name} stopped while booting: {self._last_words()}")
            if greets(self.address, PORT):
                done = self.exec(["systemctl", "is-system-running"], check=False, timeout=120)
                state = done.stdout.strip() or done.stderr.strip()
                if state in ("running", "degraded"):
                    return
            time.sleep(0.15)
        raise BedError(f"The host {self.name} did not finish booting within {seconds:.0f} s ({state}).")

    def _last_words(self) -> str:
        lines = self._sdk().logs(tail=3).decode(errors="replace").split("\n")
        return " | ".join(line.strip() for line in lines if line.strip()) or "it said nothing"

    def _sdk(self) -> Any:
        try:
            return engine.api().containers.get(self.container)
        except docker.errors.NotFound as error:
            raise BedError(f"There is no host {self.name} in the bed {self.place.bed}.") from error


def container_name(place: Place, name: str) -> str:
    """Return the name of the container that plays a host."""
    return f"switchyard-{place.bed}-{name}"


def create(
    place: Place,
    name: str,
    address: str,
    image: str,
    *,
    memory: str | None = None,
    tmpfs: Mapping[str, str] | None = None,
    volumes: Mapping[str, str] | None = None,
    engine_config: Mapping[str, object] | None = None,
) -> Host:
    """Make a host, pin its key, and power it on without waiting; `wait` waits."""
    host = Host(place, name, address)
    limits.raise_inotify()
    low = engine.api().api
    created = low.create_container(
        image,
        name=host.container,
        hostname=name,
        environment={"BED_RESOLVERS": " ".join(resolvers.upstream())},
        labels={**place.labels, labels.ROLE: "host", labels.HOST: name, labels.ADDRESS: address},
        host_config=_host_config(low, memory, tmpfs or {}, volumes or {}),
        networking_config=low.create_networking_config(
            {place.network: low.create_endpoint_config(ipv4_address=address)}
        ),
    )
    key = keys.host_key(place.home, name)
    files = {
        "/etc/ssh/ssh_host_ed25519_key": File(key.read_bytes(), 0o600),
        "/etc/ssh/ssh_host_ed25519_key.pub": File(keys.public(key) + "\n"),
        f"/home/{USER}/.ssh/authorized_keys": File(keys.public(place.private_key) + "\n", 0o600, USER_ID),
    }
    if engine_config is not None:
        files["/etc/docker/daemon.json"] = File(json.dumps(engine_config, indent=2) + "\n")
    container = engine.api().containers.get(created["Id"])
    put_files(container, files)
    with locked("known", place.home):
        known = place.known_hosts.read_text() if place.known_hosts.exists() else ""
        place.known_hosts.write_text(keys.pin(known, address, keys.public(key)))
    container.start()
    return host


def _host_config(low: Any, memory: str | None, tmpfs: Mapping[str, str], volumes: Mapping[str, str]) -> Any:
    mounts = [docker.types.Mount(target, None, type="volume") for target in VOLUMES]
    mounts += [docker.types.Mount(target, source, type="bind") for target, source in volumes.items()]
    config = low.create_host_config(
        # Everything but SYS_RESOURCE, which a machine may not have to give; that rules --privileged out.
        cap_add=["ALL"],
        cap_drop=["SYS_RESOURCE"],
        security_opt=["seccomp=unconfined", "apparmor=unconfined"],
        device_cgroup_rules=["a *:* rwm"],
        tmpfs={"/run": "", "/tmp": "", **tmpfs},
        mounts=mounts,
        mem_limit=memory,
        # A reboot from inside ends the container; cutting the power from outside is no failure to the engine.
        restart_policy={"Name": "on-failure", "MaximumRetryCount": 5},
    )
    # The SDK has no words for these three: they are the CLI's systempaths=unconfined and cgroupns=private.
    config["MaskedPaths"] = []
    config["ReadonlyPaths"] = []
    config["CgroupnsMode"] = "private"
    return config


def put_files(container: Any, files: Mapping[str, File]) -> None:
    """Write files into a container; a missing folder is made when it is the last one of its path."""
    buffer = io.BytesIO()
    made: set[Path] = {Path("/"), Path("/etc"), Path("/home/admin/.ssh")}
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, file in files.items():
            parent = Path(name).parent
            if parent not in made and parent.parts[1] == "etc":
                folder = tarfile.TarInfo(str(parent).lstrip("/"))
                folder.type, folder.mode, folder.mtime = tarfile.DIRTYPE, 0o755, int(time.time())
                archive.addfile(folder)
                made.add(parent)
            data = file.content.encode() if isinstance(file.content, str) else file.content
            entry = tarfile.TarInfo(name.lstrip("/"))
            entry.size, entry.mode, entry.mtime = len(data), file.mode, int(time.time())
            entry.uid = entry.gid = file.uid
            archive.addfile(entry, io.BytesIO(data))
    container.put_archive("/", buffer.getvalue())


def greets(address: str, port: int) -> bool:
    """Tell whether an SSH server introduces itself at an address."""
    try:
        with socket.create_connection((address, port), timeout=1) as connection:
            connection.settimeout(2)
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False
