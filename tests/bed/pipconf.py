"""The machine's own pip settings, as build secrets: they reach a build and never an image."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from tests.bed.errors import say
from tests.bed.shell import run

if TYPE_CHECKING:
    from tests.bed.hosts import Host

# Paths below which BuildKit mounts secrets by default.
CA_IN_BUILD = "/run/secrets/ca"
CA_ON_HOST = "/etc/pip-authorities.pem"
SINGLE = ("index-url", "timeout", "retries")
MANY = ("extra-index-url", "trusted-host")


def parse(listing: str) -> dict[str, str]:
    """Read what `pip config list` prints; the environment wins over files, as in pip."""
    found: dict[str, str] = {}
    ranks: dict[str, int] = {}
    for line in listing.splitlines():
        name, separator, value = line.partition("=")
        section, _, key = name.rpartition(".")
        rank = {"global": 0, "install": 1, ":env:": 2}.get(section, -1)
        if not separator or rank < ranks.get(key, 0):
            continue
        ranks[key] = rank
        found[key] = " ".join(shlex.split(value))
    return found


def usable(urls: str) -> list[str]:
    """Keep the addresses that a container can reach; folders of this machine are not among them."""
    return [url for url in urls.split() if "://" in url and not url.startswith("file:")]


def assemble(settings: Mapping[str, str], *, with_ca: bool, ca: str = CA_IN_BUILD) -> str:
    """Return the text of a pip.conf for use inside a build, or on a host that has the authorities at `ca`."""
    kept = {key: settings[key] for key in SINGLE if settings.get(key) and (key != "index-url" or usable(settings[key]))}
    if extra := usable(settings.get("extra-index-url", "")):
        kept["extra-index-url"] = "\n    ".join(extra)
    if settings.get("trusted-host"):
        kept["trusted-host"] = "\n    ".join(settings["trusted-host"].split())
    if with_ca:
        kept["cert"] = ca
    return "[global]\n" + "".join(f"{key} = {value}\n" for key, value in kept.items())


def ca_bundle(settings: Mapping[str, str], environment: Mapping[str, str]) -> Path | None:
    """Return the bundle of certificate authorities that this machine is told to use, if any."""
    for value in (settings.get("cert"), environment.get("PIP_CERT"), environment.get("SSL_CERT_FILE")):
        if value and Path(value).is_file():
            return Path(value)
    return None


@contextmanager
def secrets(*, wanted: bool = True) -> Iterator[list[str]]:
    """Yield the `docker build` arguments that carry pip's settings; wanted ones always exist, if empty."""
    if not wanted:
        yield []
        return
    settings = parse(run([sys.executable, "-m", "pip", "config", "list"], check=False).stdout)
    local = [url for url in settings.get("extra-index-url", "").split() if url not in usable(url)]
    if local:
        say("pip's package folders on this machine are not visible inside builds; using its index alone")
    bundle = ca_bundle(settings, os.environ)
    with TemporaryDirectory(prefix="switchyard-build-") as folder:
        conf, authority = Path(folder, "pip.conf"), Path(folder, "ca.pem")
        conf.write_text(assemble(settings, with_ca=bundle is not None))
        authority.write_bytes(bundle.read_bytes() if bundle else b"")
        yield ["--secret", f"id=pip_conf,src={conf}", "--secret", f"id=ca,src={authority}"]


def give(host: Host) -> None:
    """Let pip on a host reach what it reaches here."""
    settings = parse(run([sys.executable, "-m", "pip", "config", "list"], check=False).stdout)
    bundle = ca_bundle(settings, os.environ)
    if bundle:
        host.put(CA_ON_HOST, bundle.read_bytes())
    host.put("/etc/pip.conf", assemble(settings, with_ca=bundle is not None, ca=CA_ON_HOST))
