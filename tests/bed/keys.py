"""SSH keys of a bed: one for the client, one per host, and the file in which hosts are pinned."""

from __future__ import annotations

from pathlib import Path

from tests.bed.shell import need, run


def client_key(home: Path) -> Path:
    """Return the bed's private key, made on first use."""
    key = home / "id_ed25519"
    if not key.exists():
        generate(key, "switchyard-bed")
    return key


def host_key(home: Path, host: str) -> Path:
    """Return the private host key of one host; it is made before the host is, so it can be pinned first."""
    folder = home / "host-keys"
    folder.mkdir(mode=0o700, exist_ok=True)
    key = folder / host
    if not key.exists():
        generate(key, host)
    return key


def generate(path: Path, comment: str) -> None:
    """Make an ed25519 key pair without a passphrase, readable by its user alone."""
    keygen = need("ssh-keygen", "openssh-client", "hosts are reached over SSH")
    run([keygen, "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)])
    path.chmod(0o600)


def public(key: Path) -> str:
    """Return the public half of a key, as one line."""
    return key.with_name(f"{key.name}.pub").read_text().strip()


def pin(known: str, address: str, public_key: str) -> str:
    """Return a known_hosts text in which an address has exactly this key."""
    kind, data = public_key.split()[:2]
    return unpin(known, address) + f"{address} {kind} {data}\n"


def unpin(known: str, address: str) -> str:
    """Return a known_hosts text without an address."""
    return "".join(f"{line}\n" for line in known.splitlines() if line.split(" ", 1)[0] != address)
