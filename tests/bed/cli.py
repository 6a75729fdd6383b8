"""The bed's command line: `python -m tests.bed {up,down,status,images,shell}`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import docker.errors
import requests.exceptions

from tests.bed import engine, images
from tests.bed.bed import Bed, reap
from tests.bed.errors import BedError, say
from tests.bed.paths import STATE
from tests.bed.recipes import RECIPES, SUITES

EPILOG = """\
environment:
  SWITCHYARD_IMAGES=debian     make base images from Debian's packages (the default; needs no registry)
  SWITCHYARD_IMAGES=official   pull debian, nginx and postgres from Docker Hub instead

exit codes: 0 done, 1 failed (one sentence on stderr says why), 2 wrong usage, 130 interrupted
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(
        prog="python -m tests.bed",
        description="Hosts for trying Switchyard on one machine: containers that behave as VMs.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--json", action="store_true", help="print the result as JSON on stdout")
        if name != "images":
            command.add_argument("--name", default="local", help="which bed (default: local)")
        return command

    up = add("up", "Make a bed or wake it: engine, images, registry, hosts. Safe to repeat.")
    up.add_argument("--host", action="append", metavar="NAME", help="a host, repeatable (default: local-1)")
    up.add_argument("--image", choices=("host", "docker-host"), default="host", help="bare (default) or with Docker")
    up.add_argument("--memory", help="memory limit of each new host, as 2g")
    down = add("down", "Remove a bed: its hosts with their disks, its registry, its network.")
    down.add_argument("--images", action="store_true", help="remove the bed's images as well")
    add("status", "Show the hosts of a bed.")
    make = add("images", "Build the images that hosts and tests need, and print their references.")
    make.add_argument("names", nargs="*", metavar="IMAGE", help=f"of base, {', '.join(RECIPES)} (default: all)")
    shell = add("shell", "Open a shell on a host over SSH, or run a command there.")
    shell.add_argument("host", nargs="?", help="which host (default: the only one)")
    shell.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND", help="what to run instead of a shell")
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; every failure is one sentence."""
    options = parser().parse_args(argv)
    act = {"up": up, "down": down, "status": status, "images": make_images, "shell": shell}[options.command]
    try:
        return act(options)
    except BrokenPipeError:
        # Whoever read the output has seen enough; Python must not complain again when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except BedError as error:
        print(f"bed: {error}", file=sys.stderr)
    except docker.errors.DockerException as error:
        print(f"bed: the Docker Engine refused: {getattr(error, 'explanation', None) or error}", file=sys.stderr)
    except (OSError, requests.exceptions.RequestException) as error:
        print(f"bed: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("bed: interrupted; the same command picks up where this one stopped", file=sys.stderr)
        return 130
    return 1


def up(options: argparse.Namespace) -> int:
    """Make a bed or wake it, and write what inventories read."""
    reap()
    bed = Bed(options.name)
    names = options.host or ["local-1"]
    images.ensure_all([options.image, "registry"])
    registry = bed.registry()
    hosts = bed.boot(*names, image=options.image, memory=options.memory)
    facts = STATE / options.name
    for host in hosts:
        bed.write_inventory_facts(facts / f"{host.name}.json", host)
    bed.write_inventory_facts(facts / "host.json", hosts[0])
    if options.json:
        _print_json(_describe(bed))
    told = ", ".join(f"{host.name} at {host.address}" for host in hosts)
    say(
        f"bed {bed.name} is up: {told}; registry {registry.address}; log in with: "
        f"{Path(sys.executable).name} -m tests.bed shell --name {bed.name} {hosts[0].name}"
    )
    return 0


def down(options: argparse.Namespace) -> int:
    """Remove a bed."""
    engine.ensure()
    Bed(options.name).down()
    removed = images.remove_all() if options.images else []
    if options.json:
        _print_json({"bed": options.name, "removed_images": removed})
    say(f"bed {options.name} is gone" + (f", and {len(removed)} images with it" if options.images else ""))
    return 0


def status(options: argparse.Namespace) -> int:
    """Show the hosts of a bed."""
    if not (STATE / "beds" / options.name).is_dir():
        raise BedError(f"There is no bed {options.name}; make it with: python -m tests.bed up --name {options.name}")
    described = _describe(Bed(options.name))
    if options.json:
        _print_json(described)
        return 0
    print(f"bed {described['bed']}, network {described['network']} {described['subnet']}")
    for host in described["hosts"]:
        print(f"{host['name']:<16} {host['address']:<16} {host['state']:<10} {host['image']}")
    return 0


def make_images(options: argparse.Namespace) -> int:
    """Build images and print their references."""
    engine.ensure()
    refs = images.ensure_all(options.names or (*SUITES, *RECIPES))
    if options.json:
        _print_json(refs)
    else:
        for name, ref in refs.items():
            print(f"{name:<12} {ref}")
    say(f"{len(refs)} images are ready ({'official' if images.official() else 'Debian'} bases)")
    return 0


def shell(options: argparse.Namespace) -> int:
    """Become ssh."""
    hosts = Bed(options.name).hosts() if (STATE / "beds" / options.name).is_dir() else {}
    wanted = options.host or (next(iter(hosts)) if len(hosts) == 1 else "")
    if wanted not in hosts:
        known = ", ".join(hosts) or "none"
        raise BedError(f"The bed {options.name} has no host {wanted or 'of choice'}; known: {known}.")
    argv = hosts[wanted].ssh_argv(options.words)
    sys.stdout.flush()
    os.execv(argv[0], argv)  # noqa: S606 - ssh takes over this terminal


def _describe(bed: Bed) -> dict[str, Any]:
    hosts = []
    for host in bed.hosts().values():
        container = engine.api().containers.get(host.container)
        hosts.append(
            {
                "name": host.name,
                "address": host.address,
                "state": container.status,
                "image": container.attrs["Config"]["Image"],
                "container": host.container,
                "ssh": host.ssh_argv(),
            }
        )
    return {"bed": bed.name, "id": bed.id, "network": bed.network, "subnet": str(bed.subnet), "hosts": hosts}


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2))
