"""The identity by which a primary's backups are read from its replica: one key and certificate, on both hosts. Pure.

pgBackRest speaks TLS between hosts and wants both ends proven. The certificate signs itself and is the only authority
that either end trusts, so the two hosts that have the key can talk, and nobody else. Its name is the replica's address.
"""

import ipaddress
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID

from switchyard.errors import Exit, SwitchyardError

_MAKE = (
    "make one with 'openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -subj "
    "/CN=ADDRESS -keyout - -out -', ADDRESS being the replica's postgres_publish_address"
)


@dataclass(frozen=True)
class Identity:
    """Where the replica is, and the two files in PEM."""

    address: str
    certificate: str
    key: str


def parse(text: str) -> Identity:
    """Read `backup_replica_identity`; raises `SwitchyardError` saying what it lacks and how one is made."""

    def refuse(what: str) -> SwitchyardError:
        return SwitchyardError(f"backup_replica_identity {what}: {_MAKE}.", Exit.USAGE)

    try:
        certificate = x509.load_pem_x509_certificate(text.encode())
        key = serialization.load_pem_private_key(_block(text, "PRIVATE KEY").encode(), password=None)
    except (ValueError, TypeError):
        raise refuse("is not a private key and a certificate in PEM, one after the other") from None
    form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    if key.public_key().public_bytes(*form) != certificate.public_key().public_bytes(*form):
        raise refuse("has a key and a certificate that do not belong together")
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    name = str(names[0].value) if names else ""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        raise refuse(f"is for '{name}', which is no address") from None
    return Identity(name, _block(text, "CERTIFICATE"), _block(text, "PRIVATE KEY"))


def _block(text: str, title: str) -> str:
    """The first PEM block whose title ends so; empty when there is none."""
    kept: list[str] = []
    for line in text.splitlines():
        if kept or (line.startswith("-----BEGIN ") and line.rstrip().endswith(f"{title}-----")):
            kept.append(line.strip())
        if kept and line.startswith("-----END "):
            return "\n".join(kept) + "\n"
    return ""
