"""Where the load goes: never off this machine or the network that is set aside for tests."""

from __future__ import annotations

import ipaddress
import socket
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

from tests.load.config import BadUsage, LoadConfig

# Loopback, and the range that RFC 2544 sets aside for benchmarks.
HOME = tuple(ipaddress.ip_network(net) for net in ("127.0.0.0/8", "::1/128", "198.18.0.0/15"))


@dataclass(frozen=True)
class Endpoint:
    """One address to connect to, already resolved, so that nothing can be looked up differently later."""

    address: str
    port: int
    host: str  # for the Host header
    server_name: str | None  # of the certificate; None without TLS

    @property
    def family(self) -> socket.AddressFamily:
        """The socket family of the address."""
        return socket.AF_INET6 if ":" in self.address else socket.AF_INET


@dataclass(frozen=True)
class Targets:
    """Both ways to the application, with the TLS settings for each protocol."""

    plain: Endpoint
    plain_tls: ssl.SSLContext | None
    tls: Endpoint | None
    tls_http1: ssl.SSLContext | None
    tls_http2: ssl.SSLContext | None


def targets(config: LoadConfig) -> Targets:
    """Resolve and check all that the run will connect to."""
    plain = _endpoint(config.url, config)
    tls = _endpoint(config.tls_target, config) if config.tls_target else None
    if tls is not None and tls.server_name is None:
        raise BadUsage("The URL for TLS must begin with https://.")
    http1 = _context(config.ca, "http/1.1") if tls else None
    return Targets(
        plain=plain,
        plain_tls=http1 if plain.server_name else None,
        tls=tls,
        tls_http1=http1,
        tls_http2=_context(config.ca, "h2") if tls else None,
    )


def _endpoint(url: str, config: LoadConfig) -> Endpoint:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise BadUsage(f"{url} is not a URL that this client understands.") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise BadUsage(f"{url} is not a URL of the form http://HOST[:PORT]/ or https://HOST[:PORT]/.")
    if parts.path not in {"", "/"} or parts.query or parts.username is not None:
        raise BadUsage(f"{url} must end after the host and port, because the routes are the client's own.")
    tls = parts.scheme == "https"
    port = port or (443 if tls else 80)
    address = _resolve(parts.hostname, port) if config.connect is None else _literal(config.connect)
    return Endpoint(address, port, parts.netloc, (config.server_name or parts.hostname) if tls else None)


def _resolve(host: str, port: int) -> str:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise BadUsage(f"The host {host} has no address: {error.strerror}.") from None
    # IPv4 first: a server on 127.0.0.1 alone must be found through "localhost" too.
    addresses = [str(entry[4][0]) for entry in sorted(found, key=lambda entry: entry[0] != socket.AF_INET)]
    for address in addresses:
        _stay_home(address)
    return addresses[0]


def _literal(address: str) -> str:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        raise BadUsage(f"The address to connect to must be an IP address, not {address}.") from None
    _stay_home(address)
    return address


def _stay_home(address: str) -> None:
    ip = ipaddress.ip_address(address)
    if not any(ip in net for net in HOME):
        raise BadUsage(f"{address} is refused: load goes only to loopback or 198.18.0.0/15 addresses.")


def _context(ca: str | None, protocol: str) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca)
    except ssl.SSLError:
        raise BadUsage(f"The CA file {ca} holds no certificate.") from None
    context.set_alpn_protocols([protocol])
    return context
