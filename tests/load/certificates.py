"""A throw-away certificate for tests of TLS."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def certificate(*names: str, hours_left: float = 24) -> tuple[str, str]:
    """Return a certificate for these names and addresses, its own authority since a day, and its key, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    alternatives = x509.SubjectAlternativeName([entry for name in names for entry in _general_names(name)])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(hours=hours_left))
        .add_extension(alternatives, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return made.public_bytes(serialization.Encoding.PEM).decode(), private.decode()


def _general_names(name: str) -> list[x509.GeneralName]:
    try:
        # As a name, too: some clients compare what they were told with names alone.
        return [x509.IPAddress(ipaddress.ip_address(name)), x509.DNSName(name)]
    except ValueError:
        return [x509.DNSName(name)]


def self_signed(directory: Path, protocol: str) -> tuple[ssl.SSLContext, str]:
    """Return a server's TLS context for 127.0.0.1 and the CA file that accepts it."""
    public, private = directory / "test.crt", directory / "test.key"
    for path, text in zip((public, private), certificate("127.0.0.1"), strict=True):
        path.write_text(text)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(public, private)
    context.set_alpn_protocols([protocol])
    return context, str(public)
