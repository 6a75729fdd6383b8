"""Several pretend hosts for the coordinator's unit tests: each runs the real engine, in a directory of its own.

The engine keeps its paths in module variables, so one host at a time is at work: a transport takes the lock, moves the
paths to its host, runs the verb, and lets go. A unit that the engine starts runs at once, with its recovery after it.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import sys
import threading
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from switchyard.control import coordinator, edges, fleet, operations, rounds
from switchyard.control.transport import SILENCE_SECONDS, ConnectionLost, Member
from switchyard.control.transport import Answer as Said
from switchyard.engine import announce, cli, docker, effects, layout, lease
from switchyard.engine.layout import AppPaths
from switchyard.engine.ledger import Ledger
from switchyard.engine.probe import Answer
from switchyard.engine.probe import ask as real_ask
from switchyard.engine.site import Pointer, read
from switchyard.errors import SwitchyardError
from switchyard.watch import probes
from tests.unit.engine_world import _ROOTS, NAME, Clock, FakeHost, modules, request_data

EDGE_1, EDGE_2, APP_1, APP_2, APP_3, DB_1 = "edge1", "edge2", "app1", "app2", "app3", "db1"
# Loopback addresses, since preflight tries to bind to them.
ADDRESSES = {APP_1: "127.0.1.1", APP_2: "127.0.1.2", APP_3: "127.0.1.3", EDGE_1: "127.0.2.1", EDGE_2: "127.0.2.2"}
ADDRESSES |= {DB_1: "127.0.3.1"}


class Killed(BaseException):
    """What SIGKILL does to a process: nothing of it goes on, not even its error handling."""


@dataclass
class Machine(FakeHost):
    """Docker and edge of one host, on a network with the other hosts."""

    name: str = ""
    fleet: dict[str, Machine] = field(default_factory=dict)
    up: bool = True
    """Whether its containers can be reached."""
    docker: bool = True
    """Whether its Docker answers; what runs goes on without it."""
    full: bool = False
    """Whether its disk is full."""
    dies_after: int = -1
    """How many more effects its next unit gets to."""
    in_unit: bool = False

    def effect(self) -> None:
        """Pass an effect of a unit; it is the last one when the unit shall die."""
        if self.in_unit and self.dies_after >= 0:
            self.dies_after -= 1
            if self.dies_after < 0:
                raise Killed

    def run(self, argv: Sequence[str], **options: Any) -> SimpleNamespace:
        if argv[0] not in ("ss", "systemctl"):
            self.effect()
        return super().run(argv, **options)

    def _instance(self, address: str) -> Answer:
        for machine in self.fleet.values():
            if address.rpartition(":")[0] == ADDRESSES[machine.name]:
                return FakeHost._instance(machine, address) if machine.up else Answer(0, {}, b"", "timed out")
        return Answer(0, {}, b"", "no route")

    def get(self, path: str, *, timeout: float = 10.0, headers: object = None) -> tuple[int, Any]:
        if not self.docker:
            raise docker._silent(ConnectionRefusedError("Connection refused"))
        return super().get(path, timeout=timeout, headers=headers)

    def _act(self, argv: list[str], env: dict[str, str]) -> tuple[int, str, str]:
        if argv[0] == "docker" and not self.docker:
            return 1, "", "Cannot connect to the Docker daemon"
        if argv[0] == "systemd-run":
            self.unit(argv)
            return 0, "", ""
        if argv[:2] == ["systemctl", "show"]:
            return 0, "inactive\n", ""
        return super()._act(argv, env)

    def unit(self, argv: Sequence[str]) -> None:
        """Run a unit's command and what systemd runs after it."""
        log = next(word for word in argv if word.startswith("--property=StandardOutput")).partition("append:")[2]
        if argv[-3] == "watch":
            with Path(log).open("a") as file, contextlib.redirect_stdout(file), contextlib.suppress(Killed):
                cli.main(argv[-3:])
            return
        after = next(word for word in argv if "ExecStopPost" in word).split()[2:]
        self.in_unit = True
        with Path(log).open("a") as file, contextlib.redirect_stdout(file), contextlib.suppress(Killed):
            cli.main(argv[-2:])
        self.in_unit, self.dies_after = False, -1
        with Path(log).open("a") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
            cli.main(["recover", *after])

    def _inspect(self, name: str) -> tuple[int, Any]:
        code, body = super()._inspect(name.removeprefix("id-"))
        if code == 200 and "address" in self.containers.get(name.removeprefix("id-"), {}):
            address, _, port = self.containers[name.removeprefix("id-")]["address"].rpartition(":")
            body["HostConfig"] = {"PortBindings": {"8000/tcp": [{"HostIp": address, "HostPort": port}]}}
        return code, body


@dataclass
class Wire:
    """The way to one host; `cut` decides for each call what becomes of it."""

    host: str
    fleet: Fleet
    cut: Callable[[dict[str, Any]], str] = lambda _: ""
    """Given what is asked: '' lets it pass, 'refused' never arrives, 'gone' may have, 'lost' did without answer."""

    def run(self, argv: Sequence[str], stdin: str = "", silence: float = SILENCE_SECONDS) -> Said:  # noqa: ARG002 - a pretend host answers at once, so there is no silence to limit
        asked = json.loads(stdin) if stdin.startswith("{") else {}
        what = {"verb": asked.get("verb") or argv[3], "order": asked}
        with self.fleet.lock:
            self.fleet.calls.append((self.host, str(what["verb"])))
            how = self.cut(what)
            if how in ("refused", "gone"):
                raise ConnectionLost("Connection refused", sent=how == "gone")
            answer = self.fleet.at(self.host, list(argv[3:]), stdin)
            if how == "lost":
                raise ConnectionLost("reset by peer", sent=True)
            return answer


class Fleet:
    """Hosts, ways to them, and what users see."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, root: Path, groups: dict[str, list[str]]) -> None:
        self.lock = threading.RLock()
        self.root, self.groups, self.clock = root, groups, Clock()
        self.copy = root / "copy.jsonl"
        """The control side's copy of the ledger."""
        self.calls: list[tuple[str, str]] = []
        self.said: list[str] = []
        self._patch = monkeypatch
        self._slots: list[tuple[ModuleType, str, Path]] = [
            (module, name, value)
            for module in modules()
            for name, value in vars(module).items()
            if isinstance(value, Path) and str(value).startswith(_ROOTS)
        ]
        self._here = ""
        self.machines: dict[str, Machine] = {}
        for name in groups:
            self.machines[name] = Machine(root / name, name=name, fleet=self.machines)
        self.wires = {name: Wire(name, self) for name in groups}
        self._fake_world()
        for name in groups:
            self.build(name)

    def _fake_world(self) -> None:
        patch = self._patch.setattr
        for module in modules():
            if vars(module).get("ask") is real_ask:
                patch(module, "ask", self._turn("ask"))
            if "time" in vars(module) and module is not effects:
                patch(module, "time", self.clock)
        for module in (operations, rounds, edges):
            patch(module, "time", self.clock)
        # Here hosts take turns, and a busy machine is no silent edge.
        patch(edges, "ANSWER_SECONDS", 600.0)
        # Threads would ask when another host has its turn.
        patch(probes, "launch", lambda question, deliver: deliver(probes.ask_once(question)))
        run = SimpleNamespace(run=self._turn("run"), TimeoutExpired=TimeoutError)
        patch(effects, "subprocess", run)
        patch(docker, "_get", self._turn("get"))
        patch(os, "fsync", lambda _: None)
        patch(os, "geteuid", lambda: 0)
        patch(lease, "boot_id", lambda: "this boot")
        # Every unit of this world runs in this process, and is over when its call is.
        patch(lease, "_started", lambda _: "")
        # The same dataclasses are read thousands of times here, and reading their hints is most of the time.
        patch("switchyard.strict.get_type_hints", functools.cache(typing.get_type_hints))
        patch(cli, "_parser", functools.cache(cli._parser))
        patch(sys, "argv", ["/usr/local/lib/switchyard/switchyard-test.pyz"])
        real = effects.replace_file

        def replace_file(path: Path, data: str | bytes, **options: Any) -> None:
            self.machine.effect()
            if self.machine.full and "/run/" not in str(path):
                raise SwitchyardError(f"{options['step']}: cannot write {path}: no space left; free space.")
            real(path, data, **options)
            if options["step"] == "watch.held":
                # A unit that waits for its coordinator would keep this one process; it is started again when asked for.
                raise Killed

        for module in modules():
            if vars(module).get("replace_file") is real:
                patch(module, "replace_file", replace_file)

    def _turn(self, name: str) -> Callable[..., Any]:
        """A method of the host whose turn it is when it is called."""

        def call(*words: Any, **options: Any) -> Any:
            return getattr(self.machine, name)(*words, **options)

        return call

    @property
    def machine(self) -> Machine:
        """The host whose turn it is."""
        return self.machines[self._here]

    @contextlib.contextmanager
    def on(self, name: str) -> Iterator[AppPaths]:
        """Let the engine's paths be those of one host."""
        with self.lock:
            before, self._here = self._here, name
            for module, slot, value in self._slots:
                setattr(module, slot, self.root / name / value.relative_to("/"))
            try:
                yield AppPaths(NAME)
            finally:
                self._here = before

    def restore(self) -> None:
        """Give the engine its own paths back."""
        for module, slot, value in self._slots:
            setattr(module, slot, value)

    def build(self, name: str) -> None:
        """What provision makes of a machine; its disk and containers are as new."""
        self.machines[name].containers.clear()
        self.machines[name].images.clear()
        self.machines[name].loaded.clear()
        with self.on(name):
            for directory in (layout.STATE, layout.LOGS, layout.RUNTIME, layout.EDGE_LIVE / "pointers"):
                directory.mkdir(parents=True, exist_ok=True)
            layout.HOST_FILE.parent.mkdir(parents=True, exist_ok=True)
            (layout.LOGS / "edge").mkdir(exist_ok=True)
            (layout.LOGS / "edge" / f"{NAME}.jsonl").touch()
            host = {"name": name, "groups": self.groups[name], "publish_address": ADDRESSES[name], "edge_image": "e@1"}
            several = sum(bool({"app", "edge"} & set(groups)) for groups in self.groups.values()) > 1
            layout.HOST_FILE.write_text(json.dumps(host | {"several": several}))

    def at(self, name: str, words: list[str], stdin: str = "") -> Said:
        """Run a verb of the engine on one host."""
        out, err = io.StringIO(), io.StringIO()
        with self.on(name), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            before, sys.stdin = sys.stdin, io.StringIO(stdin)
            try:
                code = cli.main(words)
            except Killed:
                code = 137
            finally:
                sys.stdin = before
        return Said(code, out.getvalue(), err.getvalue())

    # The control side

    def members(self) -> list[Member]:
        """The hosts as the control side has them."""
        return [Member(frozenset(self.groups[name]), wire) for name, wire in self.wires.items()]

    def coordinator(self, excused: Sequence[str] = ()) -> coordinator.Coordinator:
        """A new command."""
        return coordinator.Coordinator(self.members(), str(NAME), self.said.append, excused, self.copy)

    def deploy(self, version: str, excused: Sequence[str] = (), **changes: Any) -> dict[str, Any]:
        """Deploy a version of the one service."""
        return self.coordinator(excused).deploy(self.request(version, **changes))

    def release(self, version: str, excused: Sequence[str] = (), **changes: Any) -> dict[str, Any]:
        """The same, as the playbook does it: one host does it by itself."""
        return fleet.deploy(self.members(), self.request(version, **changes), self.said.append, excused=excused)

    def request(self, version: str, **changes: Any) -> dict[str, Any]:
        """What a deploy asks for."""
        service = {"image": "registry.test/shop/api", "port": 8000, "tag": version, "routes": ["/"]}
        changes = {"services": {"api": service | changes.pop("service", {})}, "version": version} | changes
        return request_data(**changes) | {"who": "tester", "engine": ""}

    def rollback(self, wanted: str = "", excused: Sequence[str] = ()) -> dict[str, Any]:
        """Go back."""
        return self.coordinator(excused).rollback(wanted, "tester")

    def expire(self) -> None:
        """Let a dead coordinator's lease end."""
        self.clock.now += lease.LEASE_SECONDS + 1

    # What is so

    def names(self, group: str) -> list[str]:
        """The hosts of a group."""
        return [name for name, groups in self.groups.items() if group in groups]

    def pointer(self, edge: str) -> Pointer | None:
        """What an edge's Nginx has loaded."""
        return read(self.machines[edge].loaded.get(str(NAME), ""))

    def serves(self, edge: str) -> str:
        """The version that a user of this edge gets, or ''."""
        machine = self.machines[edge]
        answer = machine._prove(str(NAME), "api")
        last = answer.headers.get("x-switchyard-upstream", "").rpartition(", ")[2]
        for other in self.machines.values():
            for container in other.containers.values():
                if container.get("address") == last and answer.status == 200:
                    return str(container["Labels"]["switchyard.release"].partition("-")[2])
        return ""

    def upstream(self, edge: str) -> list[str]:
        """The addresses that an edge sends users to, without stand-ins."""
        text = self.machines[edge].loaded.get(str(NAME), "")
        block = text.partition(f"upstream {NAME}.api {{")[2].partition("}")[0]
        return [line.split()[1] for line in block.splitlines() if "server " in line and "backup" not in line]

    def runs(self, host: str, colour: str) -> str:
        """The version that runs in a colour of a host, or ''."""
        found = {
            c["Labels"]["switchyard.release"].partition("-")[2]
            for c in self.machines[host].containers.values()
            if c["Labels"].get("switchyard.colour") == colour and c["State"] == "running"
        }
        return ",".join(sorted(found))

    def history(self, host: str) -> list[dict[str, Any]]:
        """The events of a host's ledger."""
        with self.on(host) as paths:
            return Ledger.load(paths).events

    def news(self, host: str) -> list[str]:
        """The kinds of what a host announced."""
        with self.on(host):
            return [json.loads(path.read_text())["kind"] for path in sorted(announce.SPOOL.glob("*.json"))]


@contextlib.contextmanager
def make_fleet(monkeypatch: pytest.MonkeyPatch, root: Path, groups: dict[str, list[str]]) -> Iterator[Fleet]:
    """Several hosts, gone at the end."""
    with monkeypatch.context() as patch:
        fleet = Fleet(patch, root, groups)
        try:
            yield fleet
        finally:
            fleet.restore()
