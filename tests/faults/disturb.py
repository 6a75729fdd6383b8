"""Ways to disturb a real host, and to time a disturbance by the phase that an operation is in."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self

import yaml

from tests.bed import Registry
from tests.bed import engine as outer
from tests.faults.invariants import check, converge, pointer_release
from tests.lab import APP, VERSIONS, Lab
from tests.load import LoadConfig, LoadProcess

SMOKE = os.environ.get("SWITCHYARD_FAULTS") == "smoke"
STATE = "/var/lib/switchyard"
POINTER = f"{STATE}/edge/live/pointers/{APP}.conf"
LEASE_SECONDS = 60.0
WORKERS = {"get": 3, "post": 1, "new": 1}

# Runs on the host, so that a phase of a few milliseconds is met. Bounded, and it says when it has begun to look.
_WATCH = """
import json, os, signal, sys, time
path, phase, stop, seconds = sys.argv[1], sys.argv[2], sys.argv[3] == "stop", float(sys.argv[4])
deadline = time.monotonic() + seconds
print("ready", flush=True)
while time.monotonic() < deadline:
    try:
        lease = json.load(open(path))
    except (OSError, ValueError):
        continue
    if lease["op"] and lease["phase"] == phase:
        if stop:
            os.kill(lease["pid"], signal.SIGSTOP)
        print(json.dumps(lease), flush=True)
        sys.exit(0)
    time.sleep(0.0003)
sys.exit(1)
"""


def chosen(short: Iterable[Any], more: Iterable[Any] = ()) -> list[Any]:
    """The parameters of a test: `short` in the smoke run of `make test`, all of them in `make test-faults`."""
    return [*short] if SMOKE else [*short, *more]


def other(version: str) -> str:
    """The version to go to from `version`."""
    return VERSIONS[1] if version == VERSIONS[0] else VERSIONS[0]


def live(lab: Lab) -> str:
    """The version that is live."""
    return pointer_release(lab).partition("-")[2]


def idle(lab: Lab) -> str:
    """The colour that is not live."""
    return "green" if lab.status()["live"]["colour"] == "blue" else "blue"


def both_warm(lab: Lab) -> None:
    """Have one version live and the other one warm beside it, whatever the test before left."""
    lab.settle()
    lab.engine("recover", "--app", APP)
    for version in VERSIONS:
        result = lab.deploy(version, migration=None)
        assert result["code"] == 0, result
    lab.settle()


def ready(lab: Lab) -> None:
    """Have that, where it is not so yet."""
    lab.disarm()
    lab.settle()
    report = lab.status()
    found = {colour["release"].partition("-")[2] for colour in report.get("colours", {}).values() if colour["running"]}
    if not report.get("live") or report["probation"] or report["disagreements"] or found != set(VERSIONS):
        both_warm(lab)


def after(lab: Lab, wanted: str, why: str, **changes: Any) -> None:
    """What must hold after a disturbance: the lease is free in time, all is whole, the same command converges."""
    lease_free(lab)
    check(lab, why)
    converge(lab, wanted, why, **({"migration": None} | changes))


def lease_free(lab: Lab, seconds: float = LEASE_SECONDS) -> float:
    """Wait until nobody holds the application; returns how long it took."""
    started = time.monotonic()
    while lab.status()["operation"]:
        assert time.monotonic() - started < seconds, f"the lease was not free within {seconds:.0f} s: {lab.status()}"
        time.sleep(0.1)
    return time.monotonic() - started


def sh(lab: Lab, script: str, *, check: bool = True) -> str:
    """Run a shell script on the host as root and return what it printed."""
    return lab.host.exec(["sh", "-c", script], check=check).stdout


def begin(lab: Lab, kind: str = "deploy", version: str = "", **changes: Any) -> str:
    """Start an operation through the engine without following it; returns its id."""
    if kind == "deploy":
        request = lab.request(version, **({"migration": None} | changes))
        done = lab.engine("deploy", "--json", stdin=json.dumps(request))
    else:
        done = lab.engine("rollback", APP, *([version] if version else []), "--json")
    seen = json.loads(done.stdout.splitlines()[-1])
    assert "op" in seen, seen
    return str(seen["op"])


def result_of(lab: Lab, operation: str, seconds: float = 180.0) -> dict[str, Any]:
    """Follow an operation to its end and return its result."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done = lab.engine("follow", APP, operation, "--wait", "2")
        seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        if seen["done"]:
            return dict(seen["result"])
    raise AssertionError(f"{operation} had no result within {seconds:.0f} s")


def compose(lab: Lab, version: str, **service: Any) -> str:
    """The compose text of a release whose service has these keys changed."""
    document = yaml.safe_load(lab.request(version)["compose"])
    document["services"]["api-1"] |= service
    return str(yaml.safe_dump(document))


def slow_start(lab: Lab, version: str, seconds: float) -> str:
    """The compose text of a release that takes its time before it listens."""
    return compose(lab, version, entrypoint=["sh", "-c", f"sleep {seconds}; exec /usr/local/bin/serve"])


class Phase:
    """Meets an operation in a phase; with `stop`, the engine's process stands still there until `go`.

    Use: `with Phase(lab, "start") as phase: ...start the operation...; phase.reached(); ...disturb...; phase.go()`.
    """

    def __init__(self, lab: Lab, phase: str, *, stop: bool = True, seconds: float = 180.0) -> None:
        self.lab, self.phase, self.stop, self.seconds = lab, phase, stop, seconds
        self.lease: dict[str, Any] = {}
        self._watcher: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        how = "stop" if self.stop else "look"
        words = ["python3", "-", f"{STATE}/{APP}/lease.json", self.phase, how, str(self.seconds)]
        self._watcher = subprocess.Popen(
            [outer.client(), "exec", "-i", self.lab.host.container, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._watcher.stdin and self._watcher.stdout
        self._watcher.stdin.write(_WATCH)
        self._watcher.stdin.close()
        assert self._watcher.stdout.readline() == "ready\n"
        return self

    def reached(self) -> dict[str, Any]:
        """Wait until the operation is in the phase; returns its lease."""
        assert self._watcher and self._watcher.stdout
        line = self._watcher.stdout.readline()
        assert line, f"no operation came to {self.phase} within {self.seconds:.0f} s"
        self.lease = json.loads(line)
        return self.lease

    def go(self) -> None:
        """Let the operation go on, if it still is there."""
        if self.lease and self.stop:
            self.lab.host.exec(["kill", "-CONT", str(self.lease["pid"])], check=False)
            self.lease = {}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._watcher:
            if self._watcher.poll() is None:
                # The part on the host ends by itself, at its deadline or when it has nobody to tell.
                self._watcher.kill()
            self._watcher.wait()
            if self._watcher.stdout:
                self._watcher.stdout.close()
        with contextlib.suppress(Exception):
            self.go()


@contextlib.contextmanager
def users(lab: Lab, *, may_lose: int = 0) -> Iterator[LoadProcess]:
    """Users at work all the while, who notice nothing; or lose `may_lose` at most, where the fault itself cuts some."""
    load = LoadProcess(LoadConfig(url=lab.url, workers=WORKERS, max_duration=1200, think=(0.02, 0.06))).start()
    try:
        yield load
        report = load.stop()
    finally:
        load.kill()
    assert report.sent > 20, report.summary()
    assert report.lost <= may_lose, report.summary()
    assert report.duplicated == 0, report.summary()


@contextlib.contextmanager
def registry_gone(registry: Registry, how: str) -> Iterator[None]:
    """A registry that is not there (`stopped`), or takes connections and never answers (`silent`)."""
    container = outer.api().containers.get(registry.container)
    container.stop(timeout=1) if how == "stopped" else container.pause()
    try:
        yield
    finally:
        container.start() if how == "stopped" else container.unpause()
        registry.wait()


def kill_group(process: subprocess.Popen[str], how: signal.Signals = signal.SIGKILL) -> str:
    """Signal a command that `Project.start` began, with all its children, and return what it had said."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, how)
    return process.communicate(timeout=60)[0]


def block_ssh(lab: Lab, seconds: float, *, reset: bool = False) -> None:
    """Make SSH to the host fall silent (or, with `reset`, break) for a while; the host itself ends it."""
    verdict = "REJECT --reject-with tcp-reset" if reset else "DROP"
    rules = [f"INPUT -p tcp --dport 22 -j {verdict}", f"OUTPUT -p tcp --sport 22 -j {verdict}"]
    on = "; ".join(f"iptables -I {rule}" for rule in rules)
    off = "; ".join(f"iptables -D {rule}" for rule in rules)
    script = f"{on}; sleep {seconds}; {off}"
    name = f"--unit=test-ssh-{time.monotonic_ns()}"
    lab.host.exec(["systemd-run", "--quiet", "--collect", name, "sh", "-c", script])
    _wait_for_ssh(lab, blocked=True)


def ssh_returns(lab: Lab) -> None:
    """Wait until the host has ended `block_ssh`."""
    _wait_for_ssh(lab, blocked=False)


def _wait_for_ssh(lab: Lab, *, blocked: bool) -> None:
    deadline = time.monotonic() + 90
    while ("--sport 22 " in sh(lab, "iptables -S OUTPUT")) is not blocked:
        assert time.monotonic() < deadline, f"SSH did not become {'silent' if blocked else 'open'}"
        time.sleep(0.05)


@contextlib.contextmanager
def full(lab: Lab, folder: str, what: str = "space") -> Iterator[None]:
    """Use up the space or the inodes of a small file system of the host (a tmpfs), and give them back."""
    fill(lab, folder, what)
    try:
        yield
    finally:
        free(lab, folder)


def fill(lab: Lab, folder: str, what: str = "space") -> None:
    """Use up a file system; refuses one that is not small, so that no test fills a machine."""
    script = f"""
import os, sys
status = os.statvfs({folder!r})
sys.exit("not a small file system") if status.f_blocks * status.f_frsize > 4 << 30 else None
target = os.path.join({folder!r}, ".test-filler")
os.makedirs(target, exist_ok=True)
try:
    if {what!r} == "space":
        block = b"x" * (1 << 20)
        with open(os.path.join(target, "all"), "wb", buffering=0) as file:
            for size in (1 << 20, 1 << 12, 1):
                try:
                    while file.write(block[:size]) == size: pass
                except OSError as error:
                    if error.errno != 28: raise
    else:
        for number in range(status.f_files + 1):
            open(os.path.join(target, str(number)), "w").close()
except OSError as error:
    if error.errno != 28: raise
"""
    lab.host.exec(["python3", "-"], stdin=script)


def free(lab: Lab, folder: str) -> None:
    """Give back what `fill` took."""
    lab.host.exec(["rm", "-rf", f"{folder}/.test-filler"])


def run_both(first: Sequence[str], second: Sequence[str], inputs: Sequence[str] = ("", "")) -> list[tuple[int, str]]:
    """Run two commands at the same moment; returns exit code and output of each."""
    running = [
        subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for argv in (first, second)
    ]
    for process, text in zip(running, inputs, strict=True):
        assert process.stdin
        process.stdin.write(text)
        process.stdin.close()
    ended = []
    for process in running:
        assert process.stdout
        said = process.stdout.read()
        ended.append((process.wait(timeout=120), said))
        process.stdout.close()
    return ended
