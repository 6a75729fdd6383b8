"""SCRAM-SHA-256 verifiers as Postgres stores them (RFC 5802, RFC 7677).

A verifier is computed here so that a clear password reaches neither a command line nor the server's log. Passwords
have to be ASCII: for those, the SASLprep normalisation that the RFC asks for changes nothing.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets

ITERATIONS = 4096
_VERIFIER = re.compile(r"SCRAM-SHA-256\$(\d+):([A-Za-z0-9+/=]+)\$[A-Za-z0-9+/=]+:[A-Za-z0-9+/=]+")


def verifier(password: str, salt: bytes | None = None, iterations: int = ITERATIONS) -> str:
    """Return the text that Postgres keeps instead of the password."""
    used = secrets.token_bytes(16) if salt is None else salt
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), used, iterations)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")

    def text(data: bytes) -> str:
        return base64.b64encode(data).decode()

    return f"SCRAM-SHA-256${iterations}:{text(used)}${text(stored)}:{text(server)}"


def matches(password: str, stored: str) -> bool:
    """Tell whether a stored verifier is this password's."""
    found = _VERIFIER.fullmatch(stored)
    if not found:
        return False
    return hmac.compare_digest(verifier(password, base64.b64decode(found[2]), int(found[1])), stored)
