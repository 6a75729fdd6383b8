"""What each image is made of, and the name that follows from it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

PREFIX = "switchyard-bed"

SUITES = {"base": "trixie", "base-debian12": "bookworm"}
"""Roots that are made from packages, and the release that each is made of."""

BOOTSTRAP = ("mmdebstrap", "--variant=minbase", "--include=ca-certificates")

OFFICIAL = {
    "base": "debian:trixie-slim",
    "base-debian12": "debian:bookworm-slim",
    "edge": "nginx:1.30",
    "postgres": "postgres:17-trixie",
}


# Left behind by working on a folder, and never part of what it says.
DEBRIS = frozenset({"__pycache__", "node_modules", ".venv", ".pytest_cache", ".mypy_cache", ".ruff_cache"})


@dataclass(frozen=True)
class Recipe:
    """One image of the bed: a folder with a Dockerfile, on top of another image."""

    name: str
    parent: str
    seconds: int
    args: Mapping[str, str] = field(default_factory=dict)
    folder: str = ""
    """Of its Dockerfile, when it does not bear the image's own name."""


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("host", "base", 20),
        Recipe("host-debian12", "base-debian12", 20, folder="host"),
        Recipe("docker-host", "host", 30),
        Recipe("edge", "base", 15),
        Recipe("postgres", "base", 25),
        Recipe("registry", "base", 10),
        Recipe("trivial", "edge", 2),
    )
}


def content_hash(folder: Path, args: Mapping[str, str], parent: str) -> str:
    """Return the hash of everything that an image is made of: files, arguments, and the image below."""
    total = hashlib.sha256(f"parent {parent}\n".encode())
    for key in sorted(args):
        total.update(f"arg {key}={args[key]}\n".encode())
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_file() or DEBRIS.intersection(path.relative_to(folder).parts):
            continue
        executable = bool(path.stat().st_mode & 0o100)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        total.update(f"file {path.relative_to(folder)} {executable} {digest}\n".encode())
    return total.hexdigest()[:16]


def tag(name: str, digest: str) -> str:
    """Return the local reference of an image of the bed."""
    return f"{PREFIX}/{name}:{digest}"
