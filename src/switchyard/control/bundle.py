"""Packs the engine into the one file that hosts run, named by its content."""

import hashlib
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
_MAIN = "import sys\nfrom switchyard.engine.cli import main\nsys.exit(main())\n"
# -I: neither the caller's environment nor the working directory can add code to what runs as root.
_SHEBANG = b"#!/usr/bin/python3 -I\n"
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Bundle:
    """The engine as bytes, and the short content hash that names it."""

    content: bytes
    digest: str

    @property
    def file_name(self) -> str:
        """Name of the file on a host."""
        return f"engine-{self.digest}.pyz"


def _sources() -> dict[str, bytes]:
    files = (path for path in PACKAGE.rglob("*.py") if PACKAGE / "control" not in path.parents)
    return {f"switchyard/{path.relative_to(PACKAGE).as_posix()}": path.read_bytes() for path in files}


def make_bundle() -> Bundle:
    """Build the zipapp; the same sources give the same bytes on every machine."""
    sources = _sources() | {"__main__.py": _MAIN.encode()}
    digest = hashlib.sha256()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for name in sorted(sources):
            digest.update(f"{name}\0{len(sources[name])}\0".encode() + sources[name])
            file.writestr(zipfile.ZipInfo(name, _EPOCH), sources[name], zipfile.ZIP_DEFLATED)
    return Bundle(_SHEBANG + archive.getvalue(), digest.hexdigest()[:16])
