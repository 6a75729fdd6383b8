"""A bed: one network with hosts and a registry on it, named by checkout and purpose."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import docker.errors

from tests.bed import engine, hosts, images, labels, owner, registry, subnets
from tests.bed.errors import BedError
from tests.bed.facts import inventory_facts
from tests.bed.hosts import Host, Place
from tests.bed.paths import ROOT, checkout_id, locked, state_dir
from tests.bed.registry import Registry


class Bed:
    """Hosts, a registry and their network; what it makes carries its label, and only that is removed."""

    def __init__(self, name: str, *, owned_by: str | None = None) -> None:
        if not name.replace("-", "").isalnum() or name != name.lower():
            raise BedError(f"A bed's name has small letters, digits and hyphens, so {name!r} is none.")
        self.name = name
        self.id = f"{checkout_id()}-{name}"
        self.owned_by = owned_by
        self.home = state_dir("beds", name)
        self._network: str | None = None

    @classmethod
    def for_tests(cls, name: str) -> Bed:
        """Return a bed that lives as long as this process at most, whatever ends the process."""
        reap()
        bed = cls(f"{name}-{os.getpid()}", owned_by=owner.me())
        bed._watch()
        return bed

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    # What is in it

    @property
    def network(self) -> str:
        """The name of the bed's network, made on first use."""
        if self._network is None:
            self._network = self._find_network() or self._make_network()
        return self._network

    @property
    def subnet(self) -> subnets.Network:
        """The bed's addresses."""
        return _subnet(engine.api().networks.get(self.network).attrs)

    @property
    def place(self) -> Place:
        """What hosts need to know about this bed."""
        return Place(self.id, self.network, self.home, labels.for_bed(self.id, self.owned_by))

    def host(
        self,
        name: str,
        *,
        image: str = "host",
        memory: str | None = None,
        tmpfs: Mapping[str, str] | None = None,
        volumes: Mapping[str, str] | None = None,
        engine_config: Mapping[str, object] | None = None,
        wait: bool = True,
    ) -> Host:
        """Return a host that is up, made on first use; an existing one keeps its image and options."""
        ref = images.ensure(image)
        with locked("hosts", self.home):
            host = self.hosts().get(name)
            if host is None:
                taken = [other.address for other in self.hosts().values()]
                host = hosts.create(
                    self.place,
                    name,
                    subnets.next_host(self.subnet, taken),
                    ref,
                    memory=memory,
                    tmpfs=tmpfs,
                    volumes=volumes,
                    engine_config=engine_config,
                )
            elif not host.running():
                engine.api().containers.get(host.container).start()
        if wait:
            host.wait()
        return host

    def boot(self, *names: str, image: str = "host", **options: Any) -> list[Host]:
        """Return several hosts that are up; they boot side by side."""
        made = [self.host(name, image=image, wait=False, **options) for name in names]
        with ThreadPoolExecutor(max_workers=4) as pool:
            list(pool.map(lambda host: host.wait(), made))
        return made

    def hosts(self) -> dict[str, Host]:
        """Return the hosts of this bed by name, also those without power."""
        found: dict[str, Host] = {}
        chosen = {"label": [f"{labels.BED}={self.id}", f"{labels.ROLE}=host"]}
        for container in engine.api().containers.list(all=True, filters=chosen, ignore_removed=True):
            name = container.labels[labels.HOST]
            found[name] = Host(self.place, name, container.labels[labels.ADDRESS])
        return dict(sorted(found.items()))

    def registry(self, *, login: tuple[str, str] | None = None) -> Registry:
        """Return the bed's registry, started on first use; with a login, a second one that asks for it."""
        number = subnets.PRIVATE_REGISTRY if login else subnets.REGISTRY
        with locked("registry", self.home):
            return registry.start(
                network=self.network,
                bed=self.id,
                marks=labels.for_bed(self.id, self.owned_by),
                ip=subnets.address(self.subnet, number),
                suffix="-private" if login else "",
                login=login,
            )

    def engine_config(self) -> dict[str, object]:
        """Return a daemon.json for hosts that no role configures: test addresses, trusted registries."""
        trusted = [
            f"{subnets.address(self.subnet, n)}:{registry.PORT}" for n in (subnets.REGISTRY, subnets.PRIVATE_REGISTRY)
        ]
        return {
            "bip": subnets.NESTED_BRIDGE,
            "default-address-pools": [{"base": str(subnets.NESTED_POOL), "size": 24}],
            "insecure-registries": trusted,
        }

    def write_inventory_facts(self, path: Path, host: Host) -> None:
        """Write what an inventory needs to reach a host; `down` removes the file again."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = inventory_facts(host, f"{subnets.address(self.subnet, subnets.REGISTRY)}:{registry.PORT}", ROOT)
        path.write_text(json.dumps(facts, indent=2) + "\n")
        with locked("hosts", self.home):
            index = self.home / "facts"
            known = index.read_text().splitlines() if index.exists() else []
            index.write_text("".join(f"{line}\n" for line in dict.fromkeys([*known, str(path.resolve())])))

    def down(self) -> None:
        """Remove the bed: its containers with their disks, its network, its keys. Images stay."""
        labels.remove(self.id)
        index = self.home / "facts"
        for line in index.read_text().splitlines() if index.exists() else []:
            Path(line).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                Path(line).parent.rmdir()
        shutil.rmtree(self.home, ignore_errors=True)
        self._network = None

    # The network

    def _find_network(self) -> str | None:
        found = engine.api().networks.list(filters={"label": f"{labels.BED}={self.id}"})
        return str(found[0].name) if found else None

    def _make_network(self) -> str:
        with locked("subnets"):
            if found := self._find_network():
                return found
            name = f"switchyard-{self.id}"
            for subnet in subnets.free_subnets(_taken()):
                pool = docker.types.IPAMPool(subnet=str(subnet), gateway=str(subnet[1]))
                with contextlib.suppress(docker.errors.APIError):
                    # Another checkout may take the subnet at the same moment: the engine refuses one.
                    engine.api().networks.create(
                        name,
                        driver="bridge",
                        ipam=docker.types.IPAMConfig(pool_configs=[pool]),
                        labels=labels.for_bed(self.id, self.owned_by),
                    )
                    return name
        raise BedError(f"The engine gave the bed {self.name} no network: every subnet of {subnets.BEDS} is taken.")

    def _watch(self) -> None:
        """Leave a process behind that removes the bed when its owner is killed."""
        argv = [sys.executable, "-m", "tests.bed.watchdog", self.name, self.owned_by or ""]
        with (self.home / "watchdog.log").open("wb") as log:
            subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)


def reap() -> list[str]:
    """Remove the beds of this checkout whose owner is dead, and return their names."""
    engine.ensure()
    removed = []
    for bed in sorted(labels.orphans()):
        name = bed.removeprefix(f"{checkout_id()}-")
        Bed(name).down()
        removed.append(name)
    return removed


def _taken() -> list[subnets.Network]:
    networks = [_subnet(network.attrs) for network in engine.api().networks.list() if network.attrs["IPAM"]["Config"]]
    routes = Path("/proc/net/route")
    return networks + (subnets.routed(routes.read_text()) if routes.exists() else [])


def _subnet(attributes: Mapping[str, Any]) -> subnets.Network:
    configs = [config["Subnet"] for config in attributes["IPAM"]["Config"] if ":" not in config["Subnet"]]
    return subnets.Network(configs[0]) if configs else subnets.Network("255.255.255.255/32")
