"""The guides say what the code says: a message that nobody can meet, or an alert that nobody explains, is a mistake."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "troubleshooting.md"
SPEAKERS = ("src", "scripts", "plugins", "roles", "playbooks", "inventories", "tests/bed")
NOT_OURS = {
    "Attempting to decrypt but no vault secrets found": "Ansible's",
    'no pg_hba.conf entry for host "A"': "Postgres's",
    "… Server 'A' not found in known_hosts": "paramiko's",
}

_NAME = re.compile(r"…|'[^' ]*'|\b[A-Z][A-Z]*\b|\b\d+\b")
"""What stands for something else in a message: words in capitals, numbers, quoted names."""
_RUN = 3
"""Words in a row that have to be said somewhere, two in a short message; most are put together from several places."""


def messages() -> Iterator[tuple[int, str]]:
    """Every message in the first column of the guide's tables, with its line."""
    for number, line in enumerate(GUIDE.read_text().splitlines(), start=1):
        if line.startswith("| "):
            cell = re.split(r"(?<!\\)\|", line)[1]
            yield from ((number, text.replace("\\|", "|")) for text in re.findall(r"`([^`]+)`", cell))


def runs(message: str) -> list[str]:
    """Words of a message that follow each other each time it is said; none when nearly all of it is filled in."""
    parts = [part.split() for part in _NAME.split(message)]
    length = _RUN if sum(map(len, parts)) > 2 * _RUN else _RUN - 1
    rows = (words[at : at + length] for words in parts for at in range(len(words) - length + 1))
    return [" ".join(row).strip(" .,:;()'") for row in rows]


@cache
def spoken() -> str:
    """Every text that the code may say, with a gap where something is filled in."""
    texts = []
    for path in (path for folder in SPEAKERS for path in sorted((ROOT / folder).rglob("*")) if path.is_file()):
        if path.suffix == ".py":
            nodes = list(ast.walk(ast.parse(path.read_text())))
            texts += ["\0".join(_pieces(node)) for node in nodes if isinstance(node, ast.JoinedStr)]
            texts += [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
        elif path.suffix in (".sh", ".yml", ".j2", ""):
            texts.append(path.read_text(errors="replace"))
    return " ".join("\n".join(texts).split())


def _pieces(node: ast.JoinedStr) -> Iterator[str]:
    for value in node.values:
        yield str(value.value) if isinstance(value, ast.Constant) else ""


@pytest.mark.parametrize(("line", "message"), list(messages()))
def test_a_message_in_the_guide_is_one_that_can_be_met(line: int, message: str) -> None:
    wanted = runs(message)
    # Two words alone are no message, or one of which the second is filled in.
    if message not in NOT_OURS and len(wanted) > 1:
        assert any(run in spoken() for run in wanted), f"{GUIDE.name}:{line}: nothing says '{message}'"


def test_all_news_are_explained() -> None:
    told = (ROOT / "docs" / "pipeline.md").read_text()
    kinds = set()
    for path in (ROOT / "src" / "switchyard").rglob("*.py"):
        kinds |= set(re.findall(r"announce\(\s*\"([a-z.]+)\"", path.read_text()))
        kinds |= {f"backup.{kind}" for kind in re.findall(r"state\.alert\(backup, \"([a-z]+)\"", path.read_text())}
    assert len(kinds) > 5
    assert [kind for kind in sorted(kinds) if f"`{kind}`" not in told] == []
