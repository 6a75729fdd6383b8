"""A certificate and its key: what they say, and whether they may serve.

Read by the host's own `openssl`, since Python's library cannot take a certificate apart.
"""

import re
import ssl
import time
from dataclasses import dataclass

from switchyard.engine.effects import query
from switchyard.errors import Exit, SwitchyardError

DAY = 86_400.0
WARN_DAYS = 21
"""From here on a certificate that nobody renewed is worth a word; below a week it is urgent."""


@dataclass(frozen=True)
class Pair:
    """A certificate with its chain, and its private key, as PEM text."""

    certificate: str
    key: str

    def __repr__(self) -> str:
        """Say nothing: what is printed by accident must not hold a key."""
        return "Pair(...)"


@dataclass(frozen=True)
class Facts:
    """What a certificate says of itself; times are in seconds since the epoch."""

    subject: str
    issuer: str
    names: tuple[str, ...]
    not_before: float
    not_after: float
    fingerprint: str
    """SHA-256 of the certificate, in small hexadecimal digits."""
    public_key: str

    @property
    def days_left(self) -> float:
        """Days until it ends, below zero afterwards."""
        return (self.not_after - time.time()) / DAY

    @property
    def days(self) -> float:
        """Days for which it was issued."""
        return (self.not_after - self.not_before) / DAY

    @property
    def self_signed(self) -> bool:
        """Tell whether nobody vouches for it."""
        return self.issuer == self.subject

    def uncovered(self, names: list[str]) -> list[str]:
        """Those of the names that it does not hold for."""
        return [name for name in names if not self._covers(name.lower())]

    def _covers(self, name: str) -> bool:
        parent = name.partition(".")[2]
        return name in self.names or bool(parent and f"*.{parent}" in self.names)


def read(certificate: str) -> Facts:
    """Take a certificate apart (the first one of a chain); raises `SwitchyardError` when it is none."""
    what = ["-startdate", "-enddate", "-subject", "-issuer", "-nameopt", "RFC2253", "-ext", "subjectAltName"]
    answer = query(
        ["openssl", "x509", "-in", "/dev/stdin", "-noout", *what, "-fingerprint", "-sha256", "-pubkey"],
        stdin=certificate,
    )
    found = {
        key.strip().lower(): value.strip()
        for key, mark, value in (line.partition("=") for line in answer.out.splitlines())
        if mark
    }
    if answer.code != 0 or "notafter" not in found:
        raise SwitchyardError(f"the certificate cannot be read: {answer.reason}", Exit.USAGE)
    return Facts(
        found.get("subject", ""),
        found.get("issuer", ""),
        tuple(name.lower() for name in re.findall(r"(?:DNS|IP Address):([^,\s]+)", answer.out)),
        float(ssl.cert_time_to_seconds(found["notbefore"])),
        float(ssl.cert_time_to_seconds(found["notafter"])),
        found["sha256 fingerprint"].replace(":", "").lower(),
        _public_key(answer.out),
    )


def _public_key(text: str) -> str:
    found = re.search(r"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", text, re.DOTALL)
    return "".join(found[0].split()) if found else ""


def objection(pair: Pair) -> str:
    """Why this pair must not serve, or '': unreadable, not belonging together, not valid now."""
    try:
        facts = read(pair.certificate)
    except SwitchyardError as error:
        return error.message
    answer = query(["openssl", "pkey", "-in", "/dev/stdin", "-pubout", "-passin", "pass:"], stdin=pair.key)
    if answer.code != 0:
        return "the key cannot be read; it must be a PEM text without a passphrase"
    if _public_key(answer.out) != facts.public_key:
        return "certificate and key do not belong together"
    now = time.time()
    if facts.not_after <= now:
        return f"the certificate has expired on {day(facts.not_after)}"
    if facts.not_before > now:
        return f"the certificate is valid from {day(facts.not_before)} on only; is this host's clock right?"
    return ""


def day(moment: float) -> str:
    """A moment as people write a day."""
    return time.strftime("%Y-%m-%d", time.gmtime(moment))
