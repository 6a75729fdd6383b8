"""Where the pairs of one application lie, and how one of them comes into service.

Nginx learns of a pair by one small file of the edge's tree, `certificates/APP-ENV.conf`, which names the pair's own
directory. So a new pair is one renamed file, tested in a copy of the tree before and proven by new workers after, as
every other change of the edge; and whatever fails, the old pair is still there and still named.
"""

import contextlib
import hashlib
import json
import re
import socket
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from switchyard.engine import edge
from switchyard.engine.effects import replace_file, run
from switchyard.engine.layout import EDGE_LIVE, EDGE_TLS, TLS_SETTINGS, HostConfig
from switchyard.errors import SwitchyardError
from switchyard.names import AppName
from switchyard.strict import build
from switchyard.tls.pairs import Pair


@dataclass(frozen=True)
class Settings:
    """What the edge role says about one application's certificate; nothing in it is secret."""

    mode: str
    names: list[str]
    port: int = 443
    directory: str = ""
    """Where the ACME server describes itself."""
    authority: str = ""
    """PEM text of the authority that the ACME server's own certificate comes from; empty: the system's."""
    email: str = ""
    renew_days: int = 30
    options: list[str] = field(default_factory=list)
    """More words for certbot."""


def load(name: AppName) -> Settings | None:
    """What the role said about this application, or None when it serves no TLS."""
    path = settings_file(name)
    if not path.is_file():
        return None
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise SwitchyardError(f"{path} cannot be read ({error}): run provision.yml.") from error
    return build(Settings, data, str(path))


def settings_file(name: AppName) -> Path:
    """The file of one application."""
    return TLS_SETTINGS / f"{name}.json"


def known() -> list[AppName]:
    """Every application with a certificate."""
    return [AppName.parse(path.stem) for path in sorted(TLS_SETTINGS.glob("*.json"))]


def conf_name(name: AppName) -> str:
    """The file that names the pair in service, below the edge's live directory."""
    return f"certificates/{name}.conf"


@dataclass(frozen=True)
class Installed:
    """The pair that is named to Nginx."""

    directory: Path
    pair: Pair
    stand_in: bool
    """Self-signed for as long as the ACME server has given nothing."""


def installed(name: AppName) -> Installed | None:
    """The pair in service, or None: nothing was installed yet, or its files are gone."""
    conf = EDGE_LIVE / conf_name(name)
    text = conf.read_text() if conf.is_file() else ""
    found = re.search(r"ssl_certificate (.*)/certificate\.pem;", text)
    if not found:
        return None
    directory = Path(found[1])
    try:
        pair = Pair((directory / "certificate.pem").read_text(), (directory / "key.pem").read_text())
    except OSError:
        return None
    return Installed(directory, pair, 'stand_in "yes"' in text)


def conf(directory: Path, *, stand_in: bool) -> str:
    """The text that names a pair."""
    return (
        "# Placed by Switchyard's engine, with every new certificate.\n"
        f"ssl_certificate {directory}/certificate.pem;\n"
        f"ssl_certificate_key {directory}/key.pem;\n"
        "# Nobody is sent to a certificate that no browser trusts yet.\n"
        f'set $switchyard_stand_in "{"yes" if stand_in else ""}";\n'
    )


def install(name: AppName, pair: Pair, host: HostConfig, *, stand_in: bool = False) -> bool:
    """Put a pair, which was found good, into service; returns whether that changed anything.

    Raises `SwitchyardError` with the old pair in service when Nginx refuses the new one.
    """
    before = installed(name)
    stem = hashlib.sha256((pair.certificate + pair.key).encode()).hexdigest()[:16]
    directory = EDGE_TLS / str(name) / stem
    for file, text, mode in (("certificate.pem", pair.certificate, 0o644), ("key.pem", pair.key, 0o600)):
        path = directory / file
        if not path.is_file() or path.read_text() != text:
            replace_file(path, text, step="tls.pair", mode=mode)
    applied = edge.apply_files({conf_name(name): conf(directory, stand_in=stand_in)}, host)
    keep = {directory, before.directory if before else directory}
    old = sorted(path for path in (EDGE_TLS / str(name)).iterdir() if path not in keep)
    if applied.changed and old:
        run(["rm", "-rf", "--", *map(str, old)], step="tls.prune")
    return applied.changed


def reload() -> None:
    """Have Nginx take up what is on disk: the pair there is newer than the one that it serves."""
    with edge.edge_lock():
        edge.take_up("tls")


def forget(name: AppName) -> bool:
    """Remove what belongs to an application without TLS; returns whether anything was there."""
    paths = [settings_file(name), EDGE_LIVE / conf_name(name), EDGE_TLS / str(name), EDGE_TLS / f"{name}.json"]
    found = [path for path in paths if path.exists()]
    if found:
        run(["rm", "-rf", "--", *map(str, found)], step="tls.forget")
    return bool(found)


def served(settings: Settings) -> str:
    """Fingerprint of the certificate that the edge shows to a client now, or '' when it shows none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    # What is served is compared with what is on disk; whether to trust it is the client's question.
    context.verify_mode = ssl.CERT_NONE
    name = next((name for name in settings.names if not re.fullmatch(r"[0-9.]+|.*:.*", name)), None)
    with contextlib.suppress(OSError):
        raw = socket.create_connection(("127.0.0.1", settings.port), timeout=3)
        with raw, context.wrap_socket(raw, server_hostname=name) as connection:
            return hashlib.sha256(connection.getpeercert(binary_form=True) or b"").hexdigest()
    return ""
