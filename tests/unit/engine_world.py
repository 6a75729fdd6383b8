"""A host in a directory for the engine's unit tests: redirected paths, a pretend Docker, a pretend edge, a clock.

Nothing here starts a container or leaves the test's own directory: the engine's two effect functions run for real, and
the commands they would start are answered by `FakeHost`.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import pkgutil
import re
import shutil
import subprocess
import typing
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from hypothesis import HealthCheck, settings

import switchyard
from switchyard import PROTOCOL
from switchyard.engine import announce, docker, effects, layout, lease, ports, records
from switchyard.engine.layout import AppPaths, HostConfig
from switchyard.engine.ledger import Ledger
from switchyard.engine.operation import Operation
from switchyard.engine.probe import Answer
from switchyard.engine.probe import ask as real_ask
from switchyard.engine.records import Record
from switchyard.engine.site import Pointer, Site, read
from switchyard.errors import SwitchyardError
from switchyard.names import AppName, Colour
from switchyard.request import Request, parse
from switchyard.watch import probes, watcher

QUICK = settings(
    max_examples=25,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
"""Settings of every property here: no timing, nothing left on disk."""

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Where tests with thousands of files put them, where there is such a place."""

NAME = AppName("shop", "test")
OPERATION = "20260102T030405-abcdef"
NOBODY = 9_999_999
"""The pretend edge's process id: above what a kernel gives, so that it is nobody's on this machine."""
_ROOTS = ("/var/lib/switchyard", "/run/switchyard", "/var/log/switchyard", "/var/spool/switchyard", "/etc/switchyard")


def modules() -> list[ModuleType]:
    """Every module of the engine and of the rooms beside it."""
    found = [module.name for module in pkgutil.walk_packages(switchyard.__path__, "switchyard.")]
    return [importlib.import_module(name) for name in found if not name.startswith("switchyard.control")]


def digest(of: object) -> str:
    """A well-formed digest that depends on `of` alone."""
    return "sha256:" + f"{sum(str(of).encode()) * 2654435761 % 16**8:08x}" * 8


def service(**changes: Any) -> dict[str, Any]:
    """One service of a request."""
    base = {"image": "registry.test/shop/api", "port": 8000, "tag": "1.0.0", "routes": ["/"]}
    return {**base, **changes}


def compose_for(services: Iterable[str]) -> str:
    """A compose template as the control side renders it, with an image for each service."""
    lines = ["services:"]
    for name in services:
        lines += [f"  {name}-1:", f"    image: ${{SWITCHYARD_IMAGE_{records.variable(name)}}}"]
        lines.append("    labels: {switchyard.release: '${SWITCHYARD_RELEASE}'}")
    return "\n".join(lines) + "\n"


def request_data(**changes: Any) -> dict[str, Any]:
    """A valid request as JSON data; `changes` replace whole keys."""
    base: dict[str, Any] = {
        "protocol": PROTOCOL,
        "app": NAME.app,
        "environment": NAME.environment,
        "version": "1.0.0",
        "services": {"api": service()},
        "probation_seconds": 2.0,
        "explicit_version": True,
    }
    data = {**base, **changes}
    return {"compose": compose_for(data["services"]), **data}


def make_request(**changes: Any) -> Request:
    """A valid request."""
    return parse(request_data(**changes))


class Clock:
    """Stands in for the `time` module: sleeping moves it on, and nothing waits."""

    CLOCK_BOOTTIME = 7

    def __init__(self) -> None:
        self.now = 1_000.0
        self.on_sleep: Callable[[], None] = lambda: None

    def monotonic(self) -> float:
        # A little passes at every look, so that no loop waits for ever for time to pass.
        self.now += 0.001
        return self.now

    def time_ns(self) -> int:
        return int(self.monotonic() * 1e9)

    def sleep(self, seconds: float) -> None:
        self.now += max(seconds, 0.001)
        self.on_sleep()

    def time(self) -> float:
        return self.now

    def clock_gettime(self, _: int) -> float:
        return self.now


@dataclass
class FakeHost:
    """Docker, registry and edge of a host, as far as the engine looks at them."""

    root: Path
    containers: dict[str, dict[str, Any]] = field(default_factory=dict)
    images: dict[str, dict[str, Any]] = field(default_factory=dict)
    architectures: tuple[str, ...] = ()
    refused: dict[str, tuple[int, dict[str, str]]] = field(default_factory=dict)
    """What the registry answers for a reference instead of a digest."""
    answers: dict[str, tuple[int, str, str]] = field(default_factory=dict)
    """What a command whose joined words match the pattern answers: exit code, output, errors."""
    commands: list[list[str]] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    """What commands were given on standard input, such as SQL."""
    loaded: dict[str, str] = field(default_factory=dict)
    """The pointer files as Nginx read them at its last reload."""
    sick: set[str] = field(default_factory=set)
    """Releases whose instances answer 503."""
    edge: bool = True
    takes_up: bool = True
    """Whether a reload takes up what is on disk."""
    watches: list[str] = field(default_factory=list)
    """Units that were started to watch a release, and have not run yet."""
    watch: Callable[[], None] = lambda: None
    migration_exit: int = 0
    revisions: list[str] = field(default_factory=lambda: ["r1"])
    """What the application's `current` command prints, in turn; the last one repeats."""

    # Commands

    def run(self, argv: Sequence[str], **options: Any) -> SimpleNamespace:
        self.commands.append(list(argv))
        self.inputs += [text] if (text := options.get("input")) else []
        joined = " ".join(argv)
        for pattern, (code, out, err) in self.answers.items():
            if re.search(pattern, joined):
                return SimpleNamespace(returncode=code, stdout=out, stderr=err)
        code, out, err = self._act(list(argv), options.get("env") or {})
        return SimpleNamespace(returncode=code, stdout=out, stderr=err)

    def _act(self, argv: list[str], env: dict[str, str]) -> tuple[int, str, str]:
        if argv[0] in ("rm", "mkdir", "cp", "find", "mv"):
            return self._files(argv)
        if argv[:2] == ["docker", "compose"]:
            return self._compose(argv, env)
        if argv[:2] == ["docker", "logs"]:
            return 0, f"log of {argv[-1]}\n", ""
        if argv[:2] == ["kill", "-HUP"]:
            if self.takes_up:
                self.reload()
        elif argv[0] == "systemd-run" and (found := re.search(r"--unit=switchyard-watch-(\S+)", " ".join(argv))):
            self.watches.append(found[1])
            self.watch()
        elif argv[0] == "docker":
            self._docker(argv)
        elif argv[0] not in ("nsenter", "ss", "systemd-run", "systemctl"):
            raise AssertionError(f"unexpected command {argv}")
        return 0, "", ""

    def _files(self, argv: list[str]) -> tuple[int, str, str]:
        for word in argv[1:]:
            assert not word.startswith("/") or Path(word).is_relative_to(self.root), f"{word} is outside"
        paths = [Path(word) for word in argv[1:] if word.startswith("/")]
        if argv[0] == "rm":
            for path in paths:
                if path.is_dir():
                    shutil.rmtree(path)
                path.unlink(missing_ok=True)
        elif argv[0] == "mkdir":
            for path in paths:
                path.mkdir(parents=True, exist_ok=True)
        elif argv[0] == "mv":
            paths[0].rename(paths[1])
        elif argv[0] == "cp":
            shutil.copytree(paths[0], paths[1])
        else:
            assert argv[2:] == ["-name", ".*.tmp", "-type", "f", "-delete"]
            for path in [*paths[0].rglob(".*.tmp")]:
                path.unlink()
        return 0, "", ""

    def _docker(self, argv: list[str]) -> None:
        if argv[1] == "stop":
            for name in argv[2:]:
                # Docker leaves alone what does not run, also what was created and never started.
                if self.containers.get(name, {}).get("State") == "running":
                    self.containers[name]["State"] = "exited"
        elif argv[1] == "rm":
            self.containers.pop(argv[-1], None)
        elif argv[1] == "pull":
            self.images.setdefault(argv[-1], {})
        elif argv[1:3] == ["image", "rm"]:
            self.images.pop(argv[-1], None)
        elif argv[1] == "start" and (found := self.containers.get(argv[-1].removeprefix("id-"))):
            found["State"] = "running"
        elif argv[1] == "start":
            self.edge = True
        else:
            raise AssertionError(f"unexpected command {argv}")

    def _compose(self, argv: list[str], env: dict[str, str]) -> tuple[int, str, str]:
        project, file = argv[3], Path(argv[5])
        if argv[6] == "run":
            return 0, (self.revisions.pop(0) if len(self.revisions) > 1 else self.revisions[0]) + "\n", ""
        if argv[-1] == "migrate":
            name = env["SWITCHYARD_MIGRATE_NAME"]
            self.add(name, {"switchyard.role": "migrate"}, state="exited", code=self.migration_exit)
            return 0, "", ""
        record = json.loads((file.parent / "release.json").read_text())
        colour = env["SWITCHYARD_COLOUR"]
        before = [n for n in self.containers if n.startswith(f"{project}-")]
        if "--no-recreate" in argv:
            for name in before:
                self.containers[name]["State"] = "running"
            return 0, "", ""
        for name in before:
            del self.containers[name]
        for service_name, spec in record["request"]["services"].items():
            for index in range(1, spec["instances"] + 1):
                self.add_instance(
                    record["id"],
                    colour,
                    f"{service_name}-{index}",
                    env[f"SWITCHYARD_PUBLISH_{records.variable(service_name)}_{index}"],
                    env["SWITCHYARD_SECRETS"],
                )
        return 0, "", ""

    def reload(self) -> None:
        """Read the pointers as Nginx does at a reload."""
        self.loaded = {path.stem: path.read_text() for path in (layout.EDGE_LIVE / "pointers").glob("*.conf")}

    def add(
        self, name: str, labels: dict[str, str], *, state: str = "running", code: int = 0, status: str = "Up"
    ) -> None:
        """Put a container on this host."""
        self.containers[name] = {
            "Id": f"id-{name}", "Names": [f"/{name}"], "State": state, "Status": status, "Labels": labels,
            "ExitCode": code, "Created": 0,
        }  # fmt: skip

    def add_instance(self, release: str, colour: str, instance: str, address: str, secrets: str = "") -> None:
        """Put one instance of a colour on this host."""
        labels = {
            "switchyard.app": NAME.app, "switchyard.environment": NAME.environment, "switchyard.colour": colour,
            "switchyard.release": release, "switchyard.service": instance.rpartition("-")[0],
        }  # fmt: skip
        self.add(f"{NAME}-{colour}-{instance}", labels)
        more = {"address": address, "Mounts": [{"Source": f"{secrets}/TOKEN"}] if secrets else []}
        self.containers[f"{NAME}-{colour}-{instance}"] |= more

    # Docker's socket

    def get(self, path: str, *, timeout: float = 10.0, headers: object = None) -> tuple[int, Any]:  # noqa: ARG002 - the real `get` has them; a pretend Docker neither waits nor reads headers
        url = urlsplit(path)
        if url.path == "/info":
            return 200, {"DockerRootDir": str(self.root)}
        if url.path == "/containers/json":
            wanted = dict(label.split("=", 1) for label in json.loads(parse_qs(url.query)["filters"][0])["label"])
            listed = [*self.containers.values(), *self._edges()]
            return 200, [c for c in listed if wanted.items() <= c["Labels"].items()]
        kind, name = url.path.split("/")[1], unquote(url.path.split("/", 2)[2].removesuffix("/json"))
        if kind == "containers":
            return self._inspect(name)
        if kind == "images":
            known = self.images.get(name)
            return (404, {"message": "no such image"}) if known is None else (200, {"Id": name, **known})
        if name in self.refused:
            return self.refused[name]
        found = {"Descriptor": {"digest": digest(name)}}
        return 200, found | {"Platforms": [{"architecture": a} for a in self.architectures]}

    def _edges(self) -> list[dict[str, Any]]:
        name, state = layout.EDGE_CONTAINER, "running" if self.edge else "exited"
        return [
            {"Id": name, "Names": [f"/{name}"], "State": state, "Status": "", "Created": 0, "Labels": layout.EDGE_LABEL}
        ]

    def _inspect(self, name: str) -> tuple[int, Any]:
        name = name.removeprefix("id-")
        if name == layout.EDGE_CONTAINER:
            return 200, {"State": {"Running": self.edge, "Pid": NOBODY if self.edge else 0}}
        if (found := self.containers.get(name.removeprefix("id-"))) is None:
            return 404, {"message": "no such container"}
        bindings = [{"HostIp": address, "HostPort": "5432"} for address in found.get("publishes", [])]
        return 200, {
            "State": {"Status": found["State"], "ExitCode": found["ExitCode"], "Pid": found.get("Pid", 0)},
            "Config": {"StopTimeout": found.get("StopTimeout")},
            "HostConfig": {"PortBindings": {"5432/tcp": bindings}},
        }

    # HTTP

    def ask(self, address: str, path: str, *, host: str = "", **_: object) -> Answer:
        if host.endswith(".proof"):
            service = path.removeprefix("/").removeprefix("via/").partition("/")[0]
            return self._prove(host.removesuffix(".proof"), service)
        return self._instance(address)

    def _instance(self, address: str) -> Answer:
        for container in self.containers.values():
            if container.get("address") == address and container["State"] == "running":
                well = container["Labels"]["switchyard.release"] not in self.sick
                return Answer(200, {}, b"ok") if well else Answer(503, {}, b"no database")
        return Answer(0, {}, b"", "Connection refused")

    def _prove(self, app: str, service_name: str) -> Answer:
        text = self.loaded.get(app, "")
        pointer = read(text)
        if pointer is None or not self.edge:
            return Answer(0, {}, b"", "Connection refused")
        upstream = text.partition(f"upstream {app}.{service_name} {{")[2].partition("}")[0]
        tried: list[str] = []
        for target in re.findall(r"server (\S+) ", upstream):
            tried.append(target)
            answer = self._instance(target)
            if not answer.problem:
                break
        headers = {"x-switchyard-release": pointer.release, "x-switchyard-upstream": ", ".join(tried)}
        return Answer(answer.status or 502, headers, answer.body)

    def serving(self) -> str:
        """The release that a user reaches through the edge now, or '' when nobody answers."""
        answer = self._prove(str(NAME), "api")
        last = answer.headers.get("x-switchyard-upstream", "").rpartition(", ")[2]
        for container in self.containers.values():
            if container.get("address") == last and answer.status == 200:
                return str(container["Labels"]["switchyard.release"])
        return ""


@dataclass
class World:
    """One application on one pretend host."""

    root: Path
    docker: FakeHost
    clock: Clock
    paths: AppPaths = field(default_factory=lambda: AppPaths(NAME))
    host: HostConfig = field(default_factory=lambda: HostConfig("vm1", ["app", "edge"], edge_image="edge@sha256:0"))

    def ledger(self) -> Ledger:
        """The ledger as it is on disk."""
        return Ledger.load(self.paths)

    def operation(self, kind: str = "deploy", identity: str = OPERATION) -> Operation:
        """An operation that has taken nothing yet."""
        return Operation.open(identity, kind, "tester", self.paths, self.host)

    def begun(self, kind: str = "deploy", identity: str = OPERATION) -> Operation:
        """An operation that holds the lease and has its start in the ledger."""
        op = self.operation(kind, identity)
        op.ledger = self.ledger()
        op.begin("1.0.0")
        return op

    def record(self, number: int, **changes: Any) -> Record:
        """A record on disk, its ports planned and its images on this host."""
        changes.setdefault("version", f"{number}.0.0")
        request = make_request(**changes)
        digests = {name: digest(f"{name}{number}") for name in request.services}
        ports.ensure(self.paths.name, {n: s.instances for n, s in request.services.items()}, self.host)
        made = records.create(self.paths, number, request, digests, f"hash{number}")
        for name in request.services:
            self.docker.images[made.pinned(name)] = {}
        return made

    def start(self, record: Record, colour: Colour) -> None:
        """Let a record run in a colour."""
        for service_name, count in record.instances.items():
            targets = ports.addresses(ports.load(), NAME, service_name, count, colour, self.host.publish_address)
            for index, target in enumerate(targets, start=1):
                self.docker.add_instance(record.id, colour, f"{service_name}-{index}", target)

    def site(self, pointer: Pointer, live: Record, previous: Record | None = None) -> Site:
        """What a pointer file is made from."""
        return Site(pointer, live, previous, ports.load(), self.host)

    def point(self, pointer: Pointer) -> None:
        """Put a pointer on disk and let the edge read it, as a proven switch leaves it."""
        known = records.ids(self.paths)
        previous = records.load(self.paths, pointer.previous) if pointer.previous in known else None
        text = self.site(pointer, records.load(self.paths, pointer.release), previous).render()
        effects.replace_file(self.paths.pointer, text, step="test.pointer")
        self.docker.reload()

    def release(
        self, number: int, colour: Colour, *, previous: str = "", probation: bool = False, **changes: Any
    ) -> Record:
        """A release that was deployed and proven."""
        record = self.record(number, **changes)
        self.start(record, colour)
        self.point(Pointer(record.id, colour, previous, probation))
        epoch = record.request.schema_epoch
        self.ledger().append("live", op=f"op{number}", release=record.id, colour=colour, schema_epoch=epoch)
        return record

    def run_watches(self) -> None:
        """Run the units that watch, unless an operation holds the application: they run after it."""
        try:
            with effects.exclusive(self.paths.lock, wait=0, busy="an operation is at work"):
                pass
        except SwitchyardError:
            return
        while self.docker.watches:
            watcher.watch(self.paths, self.host, self.docker.watches.pop(0), lambda _: None)

    def pointer(self) -> Pointer | None:
        """What the pointer file on disk says."""
        return read(self.paths.pointer.read_text()) if self.paths.pointer.is_file() else None

    def news(self) -> list[dict[str, Any]]:
        """What was announced, oldest first."""
        paths = sorted(announce.SPOOL.glob("*.json"), key=lambda path: int(path.name.partition("-")[0]))
        return [json.loads(path.read_text()) for path in paths]

    def ran(self, *words: str) -> list[list[str]]:
        """The commands that began with these words."""
        return [argv for argv in self.docker.commands if argv[: len(words)] == list(words)]


def redirect(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    """Move every path of the engine below `root`, in every module that holds one."""
    for module in modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, Path) and str(value).startswith(_ROOTS):
                monkeypatch.setattr(module, name, root / value.relative_to("/"))
    monkeypatch.setattr(docker, "SOCKET", str(root / "docker.sock"))


def make_world(monkeypatch: pytest.MonkeyPatch, root: Path) -> World:
    """Redirect the engine to `root` and put a pretend host under it."""
    redirect(monkeypatch, root)
    host, clock = FakeHost(root), Clock()
    for module in modules():
        if vars(module).get("ask") is real_ask:
            monkeypatch.setattr(module, "ask", host.ask)
        if "time" in vars(module) and module is not effects:
            monkeypatch.setattr(module, "time", clock)
    fake = SimpleNamespace(run=host.run, TimeoutExpired=subprocess.TimeoutExpired)
    monkeypatch.setattr(effects, "subprocess", fake)
    monkeypatch.setattr(effects, "_faults", effects._Faults())
    monkeypatch.setattr(docker, "_get", host.get)
    # The same dataclasses are read thousands of times here, and reading their hints is most of the time.
    monkeypatch.setattr("switchyard.strict.get_type_hints", functools.cache(typing.get_type_hints))
    # Whether content reaches the disk is asked by the tests of `effects`; here it would only take time.
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(lease, "boot_id", lambda: "this boot")
    for directory in (layout.STATE, layout.LOGS, layout.RUNTIME, layout.EDGE_LIVE / "pointers"):
        directory.mkdir(parents=True, exist_ok=True)
    log = layout.LOGS / "edge" / f"{NAME}.jsonl"
    log.parent.mkdir(exist_ok=True)
    log.touch()
    # Threads would ask at times of their own.
    monkeypatch.setattr(probes, "launch", lambda question, deliver: deliver(probes.ask_once(question)))
    world = World(root, host, clock)
    host.watch = world.run_watches
    return world
