"""The main job on one machine, whole: `make demo`.

A bare host is made, provisioned over SSH, released to, released to again under load, rolled back, and offered a
broken release that must not go live. Every step is the command that a user would type.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bed import Bed, images
from tests.bed.errors import BedError
from tests.load import LoadConfig, LoadProcess, Report, Switch, mix

ROOT = Path(__file__).resolve().parent.parent
FACTS = ROOT / ".switchyard" / "local" / "host.json"
SAMPLE = ROOT / "examples" / "sample"
VERSIONS = ("1.0.0", "1.1.0", "1.2.0")
OLD, NEW, BROKEN = VERSIONS
LOAD_SECONDS_AROUND = 2.0
DRAIN = 60  # edge_drain_seconds
_UNHEALTHY_IS_EXPECTED = 2  # ansible-playbook's exit code for a failed task


class DemoFailed(Exception):
    """A step did not do what it promises; the text says which and why."""


@dataclass
class Demo:
    """The steps so far, and what they measured."""

    phases: list[tuple[str, float]] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    def step(self, title: str) -> "Step":
        """Announce a step; its seconds go into the table."""
        return Step(self, title)

    def run(self, title: str, argv: list[str], *, expect: int = 0) -> float:
        """Run one user's command with its output shown; returns its seconds."""
        with self.step(title) as step:
            print(f"    $ {shlex.join(argv)}", flush=True)
            done = subprocess.run(argv, cwd=ROOT, env=environment(), check=False)
        if done.returncode != expect:
            raise DemoFailed(f"'{shlex.join(argv)}' ended with exit code {done.returncode}, expected {expect}.")
        return step.seconds


class Step:
    """Measures one step."""

    def __init__(self, demo: Demo, title: str) -> None:
        self.demo, self.title, self.seconds = demo, title, 0.0

    def __enter__(self) -> "Step":
        print(f"\n==> {self.title}", flush=True)
        self._started = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.monotonic() - self._started
        self.demo.phases.append((self.title, self.seconds))


def environment() -> dict[str, str]:
    """The environment of the commands: this checkout's tools first."""
    tools = Path(sys.executable).parent
    return {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "ANSIBLE_FORCE_COLOR": str(int(sys.stdout.isatty()))}


def playbook(name: str, *extra: str) -> list[str]:
    """The argv of an entry point for the local environment."""
    return ["ansible-playbook", f"{name}.yml", "-e", "env=local", *extra]


def version(number: str) -> tuple[str, str]:
    """The words that choose a version."""
    return "-e", f"version={number}"


def prepare(demo: Demo) -> str:
    """Make the registry with its images and the bare host; returns the host's address."""
    bed = Bed("local")
    with demo.step("Docker Engine and base images (first time only)"):
        images.ensure_all(("host", "edge", "postgres", "registry"))
    with demo.step("A local registry, and the sample application's images"):
        registry = bed.registry()
        registry.push(images.ensure("edge"), "nginx", "1.30")
        registry.push(images.ensure("postgres"), "postgres", "17-trixie")
        for number in VERSIONS:
            for part in ("api", "web"):
                name = f"sample-{part}"
                built = images.build(SAMPLE, name, {"RELEASE": number}, dockerfile=f"{part}/Dockerfile")
                registry.push(built, name, number)
    with demo.step("The host of env=local: a systemd container that stands for a VM"):
        host = bed.host("local-1")
        bed.write_inventory_facts(FACTS, host)
        print(f"    {host.name} answers on {host.address}:{host.port}, its host key is pinned", flush=True)
    return host.address


def release_under_load(demo: Demo, url: str) -> Report:
    """Release the new version, go back, and offer the broken one, with users at work all the time."""
    load = LoadProcess(LoadConfig(url=url, app="parcels", workers=mix("full"), drain=DRAIN)).start()
    switches: list[Switch] = []
    try:
        time.sleep(LOAD_SECONDS_AROUND)
        switches.append(Switch(time.monotonic(), OLD, NEW))
        seconds = demo.run(f"Release {NEW} under load", playbook("deploy", *version(NEW)))
        demo.figures["deploy_seconds"] = round(seconds, 2)
        demo.figures["switch_ms"] = last_operation()["switch_ms"]
        time.sleep(LOAD_SECONDS_AROUND)
        switches.append(Switch(time.monotonic(), NEW, OLD))
        seconds = demo.run("Roll back under load", ["scripts/rollback.sh", "local"])
        demo.figures["rollback_command_seconds"] = round(seconds, 2)
        demo.figures["rollback_ms"] = last_operation()["live_ms"]
        time.sleep(LOAD_SECONDS_AROUND)
        demo.run(
            f"Release {BROKEN}, which never becomes healthy and must not go live",
            playbook("deploy", *version(BROKEN)),
            expect=_UNHEALTHY_IS_EXPECTED,
        )
        time.sleep(LOAD_SECONDS_AROUND)
    finally:
        report = load.stop(switches)
    return report


def last_operation() -> dict[str, Any]:
    """How the last operation on the host ended, from its ledger."""
    argv = ["scripts/switchyard", "history", "local", "--limit", "1", "--json"]
    answer = subprocess.run(argv, cwd=ROOT, env=environment(), check=True, capture_output=True, text=True)
    return dict(json.loads(answer.stdout)[-1]["end"])


def summary(demo: Demo, report: Report) -> str:
    """The table at the end."""
    figures = demo.figures
    width = max(len(title) for title, _ in demo.phases)
    lines = [
        "",
        f"{'phase':<{width}}  seconds",
        *(f"{title:<{width}}  {seconds:7.1f}" for title, seconds in demo.phases),
    ]
    answered = ", ".join(f"{count} by {release}" for release, count in sorted(report.by_release.items()))
    lines += [
        "",
        f"requests   {figures['requests']} sent, {figures['lost']} lost, {figures['duplicated']} duplicated",
        f"answered   {answered}",
        f"switch     {figures['switch_ms']:.0f} ms from the pointer's rename to its proof on new connections",
        f"rollback   {figures['rollback_ms']:.0f} ms from the engine's start to the old release on new connections, "
        f"{figures['rollback_command_seconds']:.2f} s for the whole command",
        f"broken     {BROKEN} answered {figures['broken_release_served']} requests",
        f"open       {figures['url']}",
    ]
    return "\n".join(lines)


def demonstrate(demo: Demo) -> None:
    """Run every step; raises `DemoFailed` when one does not hold what it promises."""
    started = time.monotonic()
    address = prepare(demo)
    url = f"http://{address}/"
    demo.run("Provision the bare host", playbook("provision"))
    demo.run(f"Release {OLD}", playbook("deploy", *version(OLD)))
    report = release_under_load(demo, url)
    demo.figures |= {
        "url": url,
        "requests": report.sent,
        "lost": report.lost,
        "duplicated": report.duplicated,
        "answered_by": dict(report.by_release),
        "broken_release_served": report.by_release.get(BROKEN, 0),
        "seconds": round(time.monotonic() - started, 1),
        "phases": {title: round(seconds, 1) for title, seconds in demo.phases},
    }
    target = ROOT / "build" / "demo.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(demo.figures, indent=2) + "\n")
    print(summary(demo, report))
    if report.lost or report.duplicated or demo.figures["broken_release_served"]:
        print(report.summary(), file=sys.stderr)
        raise DemoFailed("requests were lost or duplicated, or the broken release answered")


def main() -> int:
    """Run the demo, or remove what it made."""
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("action", choices=["up", "down"], help="up: run it; down: remove all of it and nothing else")
    action = parser.parse_args().action
    try:
        if action == "down":
            Bed("local").down()
            (ROOT / ".switchyard" / "hosts" / "local.json").unlink(missing_ok=True)
            print("demo: the host, the registry and their network are gone; built images stay for the next time.")
            return 0
        demonstrate(Demo())
    except (DemoFailed, BedError) as error:
        print(f"\ndemo: FAILED: {error}", file=sys.stderr)
        return 1
    print("\ndemo: done. The environment keeps running; 'make demo-down' removes all of it.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
