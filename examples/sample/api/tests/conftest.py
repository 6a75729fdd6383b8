"""Fixtures: assembled releases, running processes, and a throw-away database.

Tests that need Postgres are skipped unless TEST_DATABASE_URL names a server on which databases may be created.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
import pytest

from tests.harness import Api, alembic, running

SAMPLE = Path(__file__).resolve().parents[2]

Tree = Callable[[str], Path]
Start = Callable[..., Api]


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """Assemble the API's tree of a release, as the image build does it."""
    trees: dict[str, Path] = {}

    def of(release: str) -> Path:
        if release not in trees:
            trees[release] = tmp_path_factory.mktemp("tree") / release
            subprocess.run([SAMPLE / "assemble.sh", "api", release, trees[release]], check=True)
        return trees[release]

    return of


@pytest.fixture
def start(tree: Tree, tmp_path: Path) -> Iterator[Start]:
    """Start a release of the API; all are ended with the test."""
    with ExitStack() as stack:

        def begin(release: str = "1.0.0", *, wait: bool = True, **env: str) -> Api:
            log = tmp_path / f"{uuid4().hex}.log"
            return stack.enter_context(running(tree(release), log, wait=wait, **({"RELEASE": release} | env)))

        yield begin


@pytest.fixture
def empty_database() -> Iterator[str]:
    """Create an empty database and give its URL."""
    server = os.environ.get("TEST_DATABASE_URL")
    if not server:
        pytest.skip("TEST_DATABASE_URL names no Postgres server")
    name = f"sample_{uuid4().hex}"
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}".encode())
        yield urlsplit(server)._replace(path=f"/{name}").geturl()
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
def database(empty_database: str, tree: Tree) -> str:
    """Bring a database to the schema of 1.0.0 and give its URL."""
    alembic(tree("1.0.0"), empty_database, "upgrade", "head")
    return empty_database
