"""Several hosts as one: one of them broken in every phase, two edges, rounds, and hosts lost and rebuilt."""

import contextlib
import json
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import yaml

from switchyard import PROTOCOL
from switchyard.control import survey
from switchyard.control.coordinator import Coordinator
from switchyard.control.edges import ANSWER_SECONDS, MIXED_SECONDS
from switchyard.control.ssh import FabricTransport
from switchyard.control.transport import SILENCE_SECONDS, Answer, Member
from switchyard.errors import SwitchyardError
from tests.bed import Bed, Host
from tests.bench.bars import Bench, median
from tests.fleet import APP, ENVIRONMENT, FleetLab
from tests.load import LoadConfig, LoadProcess
from tests.project import Project

VERSIONS = ("1.0.0", "1.1.0")
KILLS = int(os.environ.get("KILLS", "20"))
RUNS = 3
LEASE_SECONDS = 60
STEP = 0.05
"""Seconds between two questions to an edge."""
MADE = contextlib.ExitStack()
"""What the parts share, removed when it is closed."""
_FULL = "/var/lib/switchyard/full"
_ILL = "/run/switchyard-ill"

Before = Callable[[str, str], None]
"""Called with host and verb before an order goes out."""


def undisturbed(_: str, __: str) -> None:
    """Let every order pass."""


@dataclass
class Wire:
    """The way to a host, with a hook before each order."""

    host: str
    inner: FabricTransport
    before: Before

    def run(self, argv: Sequence[str], stdin: str = "", silence: float = SILENCE_SECONDS) -> Answer:
        """Pass an order on."""
        verb = json.loads(stdin)["verb"] if stdin.startswith("{") else argv[3]
        self.before(self.host, verb)
        return self.inner.run(argv, stdin, silence)


@dataclass
class Control:
    """The control side without Ansible, so that an order can be met by a fault."""

    lab: FleetLab
    said: list[str] = field(default_factory=list)
    _ways: dict[str, FabricTransport] = field(default_factory=dict)

    def members(self, before: Before = undisturbed) -> list[Member]:
        """Every host, reached as the deploy user."""
        known = {
            name: frozenset(group for group, names in self.lab.groups.items() if name in names)
            for names in self.lab.groups.values()
            for name in names
        }
        return [Member(groups, Wire(name, self._transport(name), before)) for name, groups in known.items()]

    def _transport(self, name: str) -> FabricTransport:
        """The way to a host, one for all commands: what hundreds of idle connections cost would be measured."""
        if name not in self._ways:
            host = self.lab.hosts[name]
            key, known = str(host.place.private_key), str(host.place.known_hosts)
            self._ways[name] = FabricTransport(name, host.address, host.port, "deploy", key, known)
        return self._ways[name]

    def request(self, version: str, start_seconds: float = 0.0) -> dict[str, Any]:
        """A deploy of the trivial service, as Ansible would render it."""
        return {
            "protocol": PROTOCOL,
            "app": "trivial",
            "environment": ENVIRONMENT,
            "version": version,
            "explicit_version": True,
            "who": "bench",
            "compose": _compose(start_seconds),
            "services": {
                "api": {
                    "image": f"{self.lab.registry.address}/trivial",
                    "tag": version,
                    "port": 8000,
                    "routes": ["/"],
                    "memory_mb": 64,
                    "env": {"START": str(start_seconds)},
                }
            },
            "migration": {"service": "api", "command": ["true"], "timeout": 30.0},
            "smoke_tests": [{"path": "/", "contains": "release"}],
            "probation_seconds": 1.0,
            "drain_seconds": 3.0,
            "retain": 2,
        }

    def _run(self, before: Before, work: Callable[[Coordinator], dict[str, Any]]) -> dict[str, Any]:
        try:
            return work(Coordinator(self.members(before), APP, self.said.append))
        except SwitchyardError as error:
            return {"code": int(error.code), "message": error.message}

    def deploy(self, version: str, before: Before = undisturbed, start_seconds: float = 0.0) -> dict[str, Any]:
        """Deploy; returns the result or the refusal."""
        return self._run(before, lambda one: one.deploy(self.request(version, start_seconds)))

    def rollback(self, wanted: str, before: Before = undisturbed) -> dict[str, Any]:
        """Go back; returns the result or the refusal."""
        return self._run(before, lambda one: one.rollback(wanted, "bench"))

    def must(self, done: dict[str, Any]) -> dict[str, Any]:
        """A command that has to succeed."""
        assert done["code"] == 0, (done["message"], self.said[-30:])
        return done

    def serves(self) -> set[str]:
        """The versions that the edges' pointers name."""
        report = survey.survey(self.members(), APP)
        return {release.partition("-")[2] for release in report["serves"].values()}


def _compose(start_seconds: float) -> str:
    labels = {
        "switchyard.app": "trivial",
        "switchyard.environment": ENVIRONMENT,
        "switchyard.service": "api",
        "switchyard.instance": "1",
        "switchyard.release": "${SWITCHYARD_RELEASE}",
    }
    common = {"image": "${SWITCHYARD_IMAGE_API}", "read_only": True, "tmpfs": ["/tmp"], "init": True}
    api = common | {"restart": "unless-stopped", "ports": ["${SWITCHYARD_PUBLISH_API_1}:8000"]}
    api |= {"labels": labels | {"switchyard.colour": "${SWITCHYARD_COLOUR}"}}
    if start_seconds:
        api["command"] = ["sh", "-c", f"sleep {start_seconds:g}; exec serve"]
    migrate = common | {"profiles": ["migrate"], "container_name": "${SWITCHYARD_MIGRATE_NAME}", "command": ["true"]}
    migrate |= {"restart": "no", "labels": labels | {"switchyard.role": "migrate"}}
    return yaml.safe_dump({"services": {"api-1": api, "migrate": migrate}})


@cache
def _control() -> Control:
    """Two edges and two application hosts, made when a part first needs them."""
    bed = Bed.for_tests("bench-hosts")
    MADE.callback(bed.down)
    folder = Path(tempfile.mkdtemp())
    MADE.callback(shutil.rmtree, folder, ignore_errors=True)
    # A small file system of its own, so that it can be filled.
    lab = FleetLab.build(Project(folder), bed, edges=2, tmpfs={"/var/lib/switchyard": "size=32m"})
    lab.push(*VERSIONS)
    return Control(lab)


# Breakages: what happens to a host, and how it ends


def _sh(host: Host, script: str) -> None:
    host.exec(["sh", "-c", script], check=False)


def _kill(host: Host, verb: str) -> None:
    """The unit that carries out this verb dies when it has begun."""
    plan = json.dumps({"step": f"lease.{verb}", "nth": 1, "when": "after", "how": "kill"})
    _sh(host, f"umask 077; mkdir -p /run/switchyard; echo '{plan}' > /run/switchyard/fault.json")


def _fall_ill(host: Host, _: str) -> None:
    """Whatever starts on this host from now on is ill."""
    watched = "docker ps -q --filter label=switchyard.colour"
    # grep says 1 for what is not in the list, and 2 once the list is gone, with which this ends.
    script = (
        f"{watched} | sort > {_ILL}; setsid sh -c 'while test -e {_ILL}; do for c in $({watched}); do "
        f"grep -q $c {_ILL}; test $? -eq 1 && docker exec $c touch /tmp/unhealthy; done; sleep 0.1; "
        "done' >/dev/null 2>&1 &"
    )
    _sh(host, script)


BREAKAGES: dict[str, tuple[Callable[[Host, str], None], Callable[[Host], None]]] = {
    "killed": (_kill, lambda host: _sh(host, "rm -f /run/switchyard/fault.json")),
    "ssh gone": (
        lambda host, _: _sh(host, "iptables -I INPUT -p tcp --dport 22 -j DROP"),
        lambda host: _sh(host, "iptables -D INPUT -p tcp --dport 22 -j DROP"),
    ),
    "frozen": (lambda host, _: host.freeze(), lambda host: host.thaw()),
    "disk full": (
        lambda host, _: _sh(host, f"cat /dev/zero > {_FULL}"),
        lambda host: _sh(host, f"rm -f {_FULL}"),
    ),
    "unhealthy": (_fall_ill, lambda host: _sh(host, f"rm -f {_ILL}")),
}

VICTIM = "fleet-app-2"
# A phase begins when this host gets this order; the victim may be another one.
PHASES = {
    "preflight": (VICTIM, "prepare"),
    "migrate": ("fleet-app-1", "migrate"),
    "start": (VICTIM, "start"),
    "verify": ("fleet-edge-1", "check"),
    "switch": ("fleet-edge-1", "switch"),
    "watch": ("fleet-edge-1", "watch"),
    "finish": (VICTIM, "settle"),
}
OF_ROLLBACK = ("start", "verify", "switch", "finish")
# The load goes to the first edge: what befalls the second one is felt by its own users alone.
SECOND_EDGE = "fleet-edge-2"
OF_EDGES = ("ssh gone", "frozen", "disk full")
WORKERS = {"get": 4, "post": 2, "new": 2}


def _cases(breakage: str, kind: str) -> list[tuple[str, tuple[str, str], str]]:
    """What is broken: the phase, the host and the order by which it begins, and the victim."""
    cases = []
    for phase in PHASES if kind == "deploy" else OF_ROLLBACK:
        host, verb = PHASES[phase]
        # What is killed is the process of the phase; everything else befalls an application host, and an edge, too.
        cases.append((phase, (host, verb), host if breakage == "killed" else VICTIM))
        if "edge" in host and breakage in OF_EDGES:
            cases.append((f"{phase} on the second edge", (SECOND_EDGE, verb), SECOND_EDGE))
    return cases


def broken(bench: Bench, breakage: str, kind: str) -> None:
    """One host broken in every phase of a deploy or of a rollback: all end on one version."""
    control, (strike, heal) = _control(), BREAKAGES[breakage]
    cases, bad = _cases(breakage, kind), list[str]()
    for version in VERSIONS:
        control.must(control.deploy(version))
    wanted, old = VERSIONS
    stuck = _stuck(control.lab)
    with _load(control.lab) as load:
        for phase, trigger, name in cases:
            victim, struck = control.lab.hosts[name], list[str]()
            began, lost = time.monotonic(), load.snapshot().lost
            before = _strikes(trigger, struck, partial(strike, victim, trigger[1]))
            try:
                done = control.deploy(wanted, before) if kind == "deploy" else control.rollback(wanted, before)
                found = control.serves()
                if not struck or found != {wanted if done["code"] == 0 else old}:
                    bad.append(f"{phase}: {done['message']}: {found}, struck {struck}")
            finally:
                heal(victim)
            seconds = time.monotonic() - began
            control.must(control.deploy(wanted))
            if control.serves() != {wanted}:
                bad.append(f"{phase}: does not converge")
            lost = load.snapshot().lost - lost
            bench.say(
                f"{kind}, {breakage} in {phase}, {seconds:.0f} s, {lost} lost: {done['code']} {done['message'][:150]}"
            )
            # The next phase is broken on the way back, which needs no release in between.
            wanted, old = old, wanted
        report = load.stop()
    title = f"{kind}, one of N hosts {breakage} in each phase, {len(cases)} cases"
    bench.add(f"{title}: not one version at the end", len(bad), 0, "cases", note="; ".join(bad)[:300])
    note = f"{report.lost} lost of {report.sent}"
    if breakage == "frozen":
        # The kernel of such a host still takes connections: who is sent there waits until he gives up.
        stuck = _stuck(control.lab) - stuck
        note += f", {stuck} of them without an answer from the frozen host"
        bench.add(f"{title}: lost on the healthy path", max(0, report.lost - stuck), 0, "requests", note=note)
    else:
        bench.add(f"{title}: lost", report.lost, 0, "requests", note=note)


def _stuck(lab: FleetLab) -> int:
    """How many requests, by the first edge's log, ended at the victim and without its answer."""
    time.sleep(2)  # the edge writes its log once a second
    last = re.escape(lab.hosts[VICTIM].address)
    # 000: cut off with the worker that waited for it, at the end of its drain time.
    without = f'"status":(000|499|502|504),.*"upstream":"[^"]*{last}:[0-9]+"'
    log = f"/var/log/switchyard/edge/{APP}.jsonl"
    return int(lab.hosts["fleet-edge-1"].exec(["grep", "-cE", without, log], check=False).stdout)


def _strikes(trigger: tuple[str, str], struck: list[str], strike: Callable[[], None]) -> Before:
    """Break something once, when a host is about to get an order."""

    def before(host: str, verb: str) -> None:
        if (host, verb) == trigger and not struck:
            struck.append(verb)
            strike()

    return before


def _load(lab: FleetLab, edge: str = "fleet-edge-1") -> LoadProcess:
    return LoadProcess(
        LoadConfig(url=lab.url(edge), workers=WORKERS, think=(0.02, 0.1), drain=3, max_duration=3600)
    ).start()


def edges(bench: Bench) -> None:
    """The control machine dies between two edges, again and again; the next command converges."""
    control, bad = _control(), list[str]()
    mixed, lost, sent, waits, took = 0, 0, 0, list[float](), list[float]()
    for version in VERSIONS:
        control.must(control.deploy(version))
    loads = [_load(control.lab, edge) for edge in control.lab.groups["edge"]]
    try:
        for number in range(KILLS):
            first, second = control.lab.groups["edge"][:: 1 if number % 2 else -1]
            (old,) = control.serves()
            new = VERSIONS[1 - VERSIONS.index(old)]
            _dies_between(control, new, second)
            report = survey.survey(control.members(), APP)
            mixed += report["mixed"]
            again = partial(control.deploy, new) if number % 4 < 2 else partial(control.rollback, old)
            began = asked = time.monotonic()
            done = again()
            while done["code"] == 3 and asked - began < LEASE_SECONDS + 30:
                time.sleep(2)
                asked = time.monotonic()
                done = again()
            waits.append(asked - began)
            took.append(time.monotonic() - asked)
            if done["code"] not in (0, 11) or len(control.serves()) != 1:
                bad.append(f"{number}: {done['message']} {control.serves()}")
            bench.say(
                f"kill {number + 1} of {KILLS} between {first} and {second}: mixed={report['mixed']}, then "
                f"{done['message'][:80]}"
            )
    finally:
        for load in loads:
            account = load.stop()
            lost, sent = lost + account.lost, sent + account.sent
    bench.add("two edges, control killed between them: status says mixed", mixed, KILLS, "times", want=">=")
    note = f"the lease is of {LEASE_SECONDS} s"
    bench.add("two edges: longest until a command is let in", max(waits), LEASE_SECONDS + 10, "s", note=note)
    whole = max(map(sum, zip(waits, took, strict=True)))
    note = f"the command itself took {max(took):.0f} s at the most"
    bench.add("two edges: longest until it has converged", whole, LEASE_SECONDS + 30, "s", note=note)
    bench.add("two edges: next command does not converge", len(bad), 0, "times", note="; ".join(bad)[:300])
    bench.add("two edges: lost", lost, 0, "requests", note=f"of {sent}")


def _dies_between(control: Control, version: str, second: str) -> None:
    """Deploy in a process of its own that is killed when one edge has its order and the other not yet."""
    child = os.fork()
    if child == 0:

        def before(host: str, verb: str) -> None:
            if (host, verb) == (second, "switch"):
                time.sleep(1.0)
                os.kill(os.getpid(), 9)

        # With connections of its own: those of the parent go on there.
        Control(control.lab).deploy(version, before)
        os._exit(0)
    os.waitpid(child, 0)
    # The first edge's part goes on alone, and ends.
    time.sleep(3)


def silent(bench: Bench) -> None:
    """One of two edges cannot be reached any more when it is to switch: how long they answer with two releases."""
    control, struck, windows = _control(), list[str](), list[float]()
    for version in VERSIONS:
        control.must(control.deploy(version))
    second = control.lab.groups["edge"][1]
    strike, heal = BREAKAGES["ssh gone"]
    victim = control.lab.hosts[second]
    for _ in range(RUNS):
        (old,) = control.serves()
        struck.clear()
        polls = [_Poll(control.lab.hosts[edge].address) for edge in control.lab.groups["edge"]]
        try:
            before = _strikes((second, "switch"), struck, partial(strike, victim, "switch"))
            done = control.deploy(VERSIONS[1 - VERSIONS.index(old)], before)
        finally:
            heal(victim)
            windows.append(_differed([poll.stop() for poll in polls]))
        bench.say(f"edges differed for {windows[-1]:.2f} s: {done['code']} {done['message'][:150]}")
        assert struck and done["code"], done
        control.must(control.deploy(old))
    note = ", ".join(f"{window:.2f}" for window in windows)
    limit = ANSWER_SECONDS + MIXED_SECONDS + STEP
    bench.add("two edges, one silent at its switch: they differ", max(windows), limit, "s", note=note)


class _Poll:
    """Asks one edge again and again, on new connections, what it serves."""

    def __init__(self, address: str) -> None:
        self._address, self._seen = address, list[tuple[float, str]]()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped.wait(STEP):
            asked = time.monotonic()
            with contextlib.suppress(OSError, HTTPException):
                connection = HTTPConnection(self._address, timeout=2)
                connection.request("GET", "/")
                self._seen.append((asked, connection.getresponse().read().decode()))
                connection.close()

    def stop(self) -> list[tuple[float, str]]:
        """When it was asked, and what it answered."""
        self._stopped.set()
        self._thread.join()
        return self._seen


def _differed(polls: Sequence[Sequence[tuple[float, str]]]) -> float:
    """Seconds from the first to the last moment at which the newest answers of all were not the same."""
    newest: dict[int, str] = {}
    moments = []
    for asked, edge, text in sorted((asked, edge, text) for edge, seen in enumerate(polls) for asked, text in seen):
        newest[edge] = text
        if len(set(newest.values())) > 1:
            moments.append(asked)
    return max(moments) - min(moments) + STEP if moments else 0.0


def rounds(bench: Bench) -> None:
    """A deploy to four application hosts against one: rounds, and wall time."""
    figures: dict[int, dict[float, tuple[float, float]]] = {}
    for apps in (1, 4):
        with tempfile.TemporaryDirectory() as folder, Bed.for_tests(f"rounds{apps}") as bed:
            lab = FleetLab.build(Project(Path(folder)), bed, edges=1, apps=apps)
            lab.push(*VERSIONS)
            control = Control(lab)
            figures[apps] = {start: _timed(control, start) for start in (0.0, 10.0)}
    same = figures[4][0.0][1] - figures[1][0.0][1]
    bench.add("deploy to 4 hosts: sequential rounds more than to 1", same, 0, "rounds", note=f"{figures[1][0.0][1]:g}")
    for start, limit, what in ((10.0, 1.3, "needs 10 s to start"), (0.0, 2.5, "is trivial")):
        four, one = figures[4][start][0], figures[1][start][0]
        note = f"{four:.1f} s, {one:.1f} s"
        bench.add(f"deploy to 4 hosts against 1, application {what}", four / one, limit, "times", note=note)


def _timed(control: Control, start: float) -> tuple[float, float]:
    """The median time of a deploy without its probation, and its rounds."""
    walls, counted = [], 0.0
    for number in range(RUNS + 1):
        began = time.monotonic()
        done = control.must(control.deploy(VERSIONS[number % 2], start_seconds=start))
        walls.append(time.monotonic() - began - done["phases"].get("watch", 0.0))
        counted = done["data"]["rounds"]
    return median(walls[1:]), counted


def rebuild(bench: Bench) -> None:
    """Lose an application host, the first edge, then everything, and have it back from the inventory alone."""
    control = _control()
    lab = control.lab
    control.must(control.deploy(VERSIONS[0]))
    failed = 0
    for lost in (["fleet-app-1"], ["fleet-edge-1"], lab.groups["app"] + lab.groups["edge"]):
        number = _number(lab)
        for name in lost:
            lab.rebuild(name)
        began = time.monotonic()
        lab.provision()
        lab.deploy(VERSIONS[1])
        lab.deploy(VERSIONS[0])
        # A number never repeats, also when no host knows the last one.
        fine = _number(lab) > number and control.serves() == {VERSIONS[0]}
        fine = fine and all(lab.running(lab.groups["app"]).values())
        failed += not fine
        bench.say(f"rebuilt {', '.join(lost)} in {time.monotonic() - began:.0f} s: {fine}")
    bench.add("hosts lost and not rebuilt by provision and deploy", failed, 0, "times")


def _number(lab: FleetLab) -> int:
    """The live release's number."""
    return int(lab.status()["live"]["release"].partition("-")[0])


PARTS: dict[str, Callable[[Bench], None]] = {
    **{
        f"broken-{name.replace(' ', '-')}-{kind}": partial(broken, breakage=name, kind=kind)
        for name in BREAKAGES
        for kind in ("deploy", "rollback")
    },
    "two-edges": edges,
    "silent-edge": silent,
    "rounds": rounds,
    "rebuild": rebuild,
}
"""What `make bench-hosts` runs of this, by name."""
