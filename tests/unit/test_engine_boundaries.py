"""No effect bypasses the two functions of `effects`, and what runs on hosts needs nothing but the standard library.

Both are read from the syntax tree, so that a new module is covered by being there.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import switchyard

PACKAGE = Path(switchyard.__file__).parent
HOST_FILES = sorted(path for path in PACKAGE.rglob("*.py") if PACKAGE / "control" not in path.parents)

# Modules that exist to change something, or to reach it unseen.
FORBIDDEN_MODULES = {
    "subprocess", "shutil", "tempfile", "pty", "multiprocessing", "ctypes", "importlib", "socketserver", "http.server",
    "asyncio", "posix", "_posixsubprocess", "runpy", "mmap", "concurrent.futures", "fileinput", "sqlite3", "shelve",
}  # fmt: skip
FORBIDDEN_OS = {
    "system", "popen", "fork", "forkpty", "kill", "killpg", "rename", "renames", "replace", "remove", "unlink", "mkdir",
    "makedirs", "rmdir", "removedirs", "chmod", "fchmod", "lchmod", "chown", "fchown", "lchown", "link", "symlink",
    "truncate", "ftruncate", "write", "pwrite", "writev", "utime", "open", "fdopen", "mkfifo", "mknod", "sendfile",
    "copy_file_range", "setxattr", "chroot", "putenv", "reboot", "mount", "fsync",
}  # fmt: skip
FORBIDDEN_OS_PREFIXES = ("exec", "spawn", "posix_spawn")
FORBIDDEN_METHODS = {
    "write_text", "write_bytes", "unlink", "rename", "mkdir", "rmdir", "touch", "chmod", "lchmod", "symlink_to",
    "hardlink_to", "listen", "send_signal",
}  # fmt: skip
FORBIDDEN_SOCKET = {"create_server", "fromfd"}
FORBIDDEN_BUILTINS = {"exec", "eval", "compile", "__import__"}

# The beginnings of commands that only read. A f-string counts by its constant beginning.
READING = (
    ("docker", "logs"),
    ("ss",),
    ("docker-credential-", "get"),
    ("nginx", "-t"),
    ("systemctl", "show"),
    ("docker", "compose", "--file", "-", "--project-name", "switchyard-edge", "config"),
    ("openssl", "x509", "-in"),
    ("openssl", "pkey", "-in"),
    ("cosign", "verify"),
)


class Checker(ast.NodeVisitor):
    """Collects what a module does that only `effects` may do."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.names: dict[str, str] = {}
        self.called: set[ast.expr] = set()

    def refuse(self, node: ast.AST, what: str) -> None:
        self.found.append(f"line {getattr(node, 'lineno', '?')}: {what}")

    # What a name stands for

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            if self._forbidden_module(alias.name):
                self.refuse(node, f"imports {alias.name}")
            self.names[alias.asname or alias.name.partition(".")[0]] = (
                alias.name if alias.asname else (alias.name.partition(".")[0])
            )

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = node.module or ""
        for alias in node.names:
            whole = f"{module}.{alias.name}"
            if self._forbidden_module(module) or self._forbidden_module(whole):
                self.refuse(node, f"imports {whole}")
            self.names[alias.asname or alias.name] = whole
            self._check_meaning(node, whole)

    @staticmethod
    def _forbidden_module(name: str) -> bool:
        return any(name == module or name.startswith(f"{module}.") for module in FORBIDDEN_MODULES)

    def _meaning(self, node: ast.expr) -> str:
        if isinstance(node, ast.Name):
            return self.names.get(node.id, node.id)
        if isinstance(node, ast.Attribute):
            return f"{self._meaning(node.value)}.{node.attr}"
        return "?"

    def _check_meaning(self, node: ast.AST, meaning: str) -> None:
        module, _, name = meaning.rpartition(".")
        if module == "os" and (name in FORBIDDEN_OS or name.startswith(FORBIDDEN_OS_PREFIXES)):
            self.refuse(node, f"uses {meaning}")
        if module == "socket" and name in FORBIDDEN_SOCKET:
            self.refuse(node, f"uses {meaning}")

    # What is done

    def visit_Name(self, node: ast.Name) -> None:
        if node.id in FORBIDDEN_BUILTINS and node.id not in self.names:
            self.refuse(node, f"uses {node.id}")
        if self._is_query(node) and node not in self.called:
            self.refuse(node, "hands on query")

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self._check_meaning(node, self._meaning(node))
        if node.attr in FORBIDDEN_METHODS:
            self.refuse(node, f"uses .{node.attr}")
        if self._is_query(node) and node not in self.called:
            self.refuse(node, "hands on query")
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        self.called.add(node.func)
        meaning = self._meaning(node.func)
        name = meaning.rpartition(".")[2]
        if self._is_query(node.func):
            self._check_query(node)
        # Operations are opened, too, and are no files.
        is_file = meaning != "switchyard.engine.operation.Operation.open"
        if name == "open" and is_file and self._opens_for_writing(node, isinstance(node.func, ast.Attribute)):
            self.refuse(node, "opens a file for writing")
        # str.replace has two arguments, Path.replace one.
        if name == "replace" and meaning not in ("replace", "dataclasses.replace") and len(node.args) < 2:
            self.refuse(node, "uses .replace of a path")
        if meaning == "getattr" and (len(node.args) < 2 or not isinstance(node.args[1], ast.Constant)):
            self.refuse(node, "uses getattr with a computed name")
        if meaning == "getattr" and len(node.args) >= 2 and isinstance(node.args[1], ast.Constant):
            self._check_meaning(node, f"{self._meaning(node.args[0])}.{node.args[1].value!s}")
        self.generic_visit(node)

    @staticmethod
    def _opens_for_writing(node: ast.Call, method: bool) -> bool:
        position = 0 if method else 1
        modes = [keyword.value for keyword in node.keywords if keyword.arg == "mode"]
        modes += node.args[position : position + 1]
        if any(keyword.arg is None for keyword in node.keywords):
            return True
        # A mode that is not written out might be any mode.
        return any(
            not isinstance(mode, ast.Constant) or not set(str(mode.value)) <= set("rbt") or mode.value == ""
            for mode in modes
        )

    def _is_query(self, node: ast.expr) -> bool:
        return self._meaning(node) in ("switchyard.engine.effects.query", "effects.query")

    def _check_query(self, node: ast.Call) -> None:
        words = _beginning(node.args[0]) if node.args else []
        allowed = any(
            len(words) >= len(reading)
            and all(word == wanted or (wanted.endswith("-") and word.startswith(wanted)) for word, wanted in
                    zip(words, reading, strict=False))
            for reading in READING
        )  # fmt: skip
        if not allowed:
            self.refuse(node, f"queries with {' '.join(words) or 'a command that is not written out'}")


def _beginning(argv: ast.expr) -> list[str]:
    """The literal words that an argv begins with; those of `_in_edge(pid, ...)` are its words after the pid."""
    if isinstance(argv, ast.Call) and isinstance(argv.func, ast.Name) and argv.func.id == "_in_edge":
        items = argv.args[1:]
    elif isinstance(argv, ast.List | ast.Tuple):
        items = argv.elts
    else:
        return []
    words = []
    for item in items:
        word = item
        if isinstance(item, ast.JoinedStr) and item.values:
            word = item.values[0]
        if not (isinstance(word, ast.Constant) and isinstance(word.value, str)):
            break
        words.append(word.value)
    return words


def violations(source: str) -> list[str]:
    checker = Checker()
    checker.visit(ast.parse(source))
    return checker.found


def imports(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def foreign(source: str) -> list[str]:
    """Imports that a host cannot serve."""
    return [
        name
        for name in imports(source)
        if name.partition(".")[0] not in sys.stdlib_module_names
        and (name.partition(".")[0] != "switchyard" or name.startswith("switchyard.control"))
    ]


@pytest.mark.parametrize("path", HOST_FILES, ids=lambda path: path.name)
def test_no_effect_bypasses_the_two_functions(path: Path) -> None:
    if path.name != "effects.py":
        assert violations(path.read_text()) == []


@pytest.mark.parametrize("path", HOST_FILES, ids=lambda path: path.name)
def test_what_runs_on_hosts_needs_the_standard_library_alone(path: Path) -> None:
    assert foreign(path.read_text()) == []


def test_the_check_reads_the_whole_engine() -> None:
    names = {path.name for path in HOST_FILES}
    assert {"effects.py", "recover.py", "cli.py", "names.py", "request.py"} <= names
    assert violations((PACKAGE / "engine" / "effects.py").read_text()) != []


@pytest.mark.parametrize(
    "line",
    [
        "import subprocess",
        "import subprocess as s",
        "from subprocess import run",
        "import shutil",
        "from shutil import rmtree",
        "import tempfile",
        "import importlib.util",
        "from importlib import import_module",
        "from http import server",
        "from http.server import HTTPServer",
        "import os; os.system('x')",
        "import os; os.popen('x')",
        "import os; os.execv('x', [])",
        "import os; os.execvpe('x', [], {})",
        "import os; os.spawnl(0, 'x')",
        "import os; os.posix_spawn('x', [], {})",
        "import os; os.fork()",
        "import os; os.kill(1, 9)",
        "import os; os.rename('a', 'b')",
        "import os; os.replace('a', 'b')",
        "import os; os.remove('a')",
        "import os; os.unlink('a')",
        "import os; os.mkdir('a')",
        "import os; os.makedirs('a')",
        "import os; os.rmdir('a')",
        "import os; os.chmod('a', 0)",
        "import os; os.chown('a', 0, 0)",
        "import os; os.link('a', 'b')",
        "import os; os.symlink('a', 'b')",
        "import os; os.truncate('a', 0)",
        "import os; os.write(1, b'')",
        "import os; os.utime('a')",
        "import os; os.open('a', 1)",
        "import os as o; o.remove('a')",
        "import os; f = os.remove",
        "import os; getattr(os, 'remove')('a')",
        "import os; getattr(os, name)('a')",
        "from os import remove",
        "from os import remove as r",
        "from os import execv",
        "open('a', 'w')",
        "open('a', mode='a')",
        "open('a', 'r+')",
        "open('a', 'xb')",
        "open('a', mode)",
        "open('a', **how)",
        "path.open('w')",
        "path.open(mode='ab')",
        "Path('a').open('r+')",
        "path.write_text('x')",
        "path.write_bytes(b'')",
        "path.unlink()",
        "path.unlink(missing_ok=True)",
        "path.rename('b')",
        "path.replace('b')",
        "path.replace(target)",
        "path.replace(target=target)",
        "path.mkdir()",
        "path.rmdir()",
        "path.touch()",
        "path.chmod(0)",
        "path.symlink_to('b')",
        "path.hardlink_to('b')",
        "each = path.unlink",
        "import socket; socket.create_server(('', 0))",
        "s.listen()",
        "exec('x')",
        "eval('x')",
        "__import__('os')",
        "from switchyard.engine.effects import query; query(['rm', 'x'])",
        "from switchyard.engine.effects import query; query(['docker', 'stop', 'x'])",
        "from switchyard.engine.effects import query; query(['docker'])",
        "from switchyard.engine.effects import query; query(['systemctl', 'restart', 'x'])",
        "from switchyard.engine.effects import query; query(argv)",
        "from switchyard.engine.effects import query; query([*argv])",
        "from switchyard.engine.effects import query; query([word, 'logs'])",
        "from switchyard.engine.effects import query; query([f'{word}-credential-x', 'get'])",
        "from switchyard.engine.effects import query; query([f'docker-credential-{x}', 'erase'])",
        "from switchyard.engine.effects import query; query(_in_edge(pid, 'nginx', '-s', 'reload'))",
        "from switchyard.engine.effects import query; query(_in_edge(pid, *words))",
        "from switchyard.engine.effects import query; query(other(pid, 'nginx', '-t'))",
        "from switchyard.engine.effects import query as q; q(['rm', 'x'])",
        "from switchyard.engine import effects; effects.query(['rm', 'x'])",
        "from switchyard.engine.effects import query; do = query",
        "from switchyard.engine.effects import query; each(query, ['rm'])",
        "from switchyard.engine import effects; do = effects.query",
    ],
)
def test_a_planted_effect_is_found(line: str) -> None:
    assert violations(line) != []


@pytest.mark.parametrize(
    "line",
    [
        "import os; os.environ, os.getpid(), os.statvfs('/'), os.geteuid()",
        "text.replace('a', 'b')",
        "import dataclasses; dataclasses.replace(x, y=1)",
        "open('a')",
        "open('a', 'rb')",
        "path.open()",
        "path.open('rb')",
        "path.read_text()",
        "import socket; s.bind(('', 0)); s.connect('x')",
        "from switchyard.engine.effects import query; query(['docker', 'logs', '--tail', str(n), x])",
        "from switchyard.engine.effects import query; query(['ss', '-Htn', f'( {x} )'])",
        "from switchyard.engine.effects import query; query([f'docker-credential-{x}', 'get'], stdin=y)",
        "from switchyard.engine.effects import query; query(_in_edge(pid, 'nginx', '-t', '-q'))",
        "from switchyard.engine.effects import query; query(['systemctl', 'show', '--value', x])",
        "from switchyard.engine.effects import run, replace_file; run(['rm', 'x'], step='s')",
        "from urllib.parse import parse_qs as query; query('a=b')",
    ],
)
def test_what_only_reads_is_let_through(line: str) -> None:
    assert violations(line) == []


@pytest.mark.parametrize(
    "line",
    ["import yaml", "from fabric import Connection", "import switchyard.control", "from switchyard import control",
     "from switchyard.control import fleet", "from switchyard.control.fleet import deploy"],
)  # fmt: skip
def test_a_planted_foreign_import_is_found(line: str) -> None:
    assert foreign(line) != []


def test_own_and_standard_modules_are_no_foreign_imports() -> None:
    assert foreign("import json, http.client\nfrom switchyard.engine import edge\nfrom switchyard import names") == []
