"""How the sample application's releases are put together from one tree and small overlays."""

import filecmp
import subprocess
from pathlib import Path

import pytest

SAMPLE = Path(__file__).resolve().parents[2] / "examples" / "sample"
RELEASES = sorted(path.name for path in (SAMPLE / "releases").iterdir())


def assemble(part: str, release: str, target: Path) -> subprocess.CompletedProcess[str]:
    command = ["sh", str(SAMPLE / "assemble.sh"), part, release, str(target)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def changed(part: str, one: str, other: str, tmp_path: Path) -> set[str]:
    for release in (one, other):
        assert assemble(part, release, tmp_path / release).returncode == 0
    return set(_differences(filecmp.dircmp(tmp_path / one, tmp_path / other, ignore=["__pycache__"]), ""))


def _differences(found: filecmp.dircmp[str], prefix: str) -> list[str]:
    here = [prefix + name for name in found.left_only + found.right_only + found.diff_files]
    return here + [name for child, sub in found.subdirs.items() for name in _differences(sub, f"{prefix}{child}/")]


def test_the_first_release_is_the_tree_itself(tmp_path: Path) -> None:
    assert assemble("web", "1.0.0", tmp_path / "web").returncode == 0
    assert _differences(filecmp.dircmp(SAMPLE / "web", tmp_path / "web"), "") == []


def test_what_each_release_changes(tmp_path: Path) -> None:
    assert changed("api", "1.0.0", "1.1.0", tmp_path / "a") == {
        "migrations/versions/v0002_add_priority.py",
        "parcel_desk/shape.py",
    }
    assert changed("web", "1.0.0", "1.1.0", tmp_path / "b") == {"src/accent.css", "src/fields.ts"}
    assert changed("api", "1.1.0", "1.2.0", tmp_path / "c") == {"parcel_desk/readiness.py"}
    assert changed("web", "1.1.0", "1.2.0", tmp_path / "d") == set()


@pytest.mark.parametrize("release", RELEASES)
def test_the_notes_name_every_changed_file(release: str) -> None:
    overlay = SAMPLE / "releases" / release
    notes = (overlay / "NOTES.md").read_text()
    files = [path for part in ("api", "web") for path in (overlay / part).rglob("*") if path.is_file()]
    missing = [
        path for path in files if "__pycache__" not in path.parts and f"`{path.relative_to(overlay)}`" not in notes
    ]
    assert missing == []


def test_an_unknown_release_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    done = assemble("api", "9.9.9", tmp_path / "api")
    assert done.returncode == 2
    assert done.stderr.strip() == f"assemble: there is no release '9.9.9'; known are: {' '.join(RELEASES)}"
    assert not (tmp_path / "api").exists()
