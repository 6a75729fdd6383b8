"""What a database needs when its application grows: a pooler before it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import yaml

from switchyard.control.secrets import PASSWORD
from tests.database import Database
from tests.integration.conftest import APP, DRAIN, OLD, Environment
from tests.load import LoadConfig, LoadProcess, mix
from tests.rotation import Rotation

POOL = 6
POOLER_PASSWORD = "canary-pooler-4c8e-password"


@dataclass(frozen=True)
class Growth:
    """The environment, its database, and the inventory that changes."""

    environment: Environment
    data: Database

    def set(self, **variables: object) -> None:
        """Set variables of the environment."""
        folder = self.environment.project.folder / "inventories" / "group_vars" / "env_local"
        (folder / "zz_growth.yml").write_text(yaml.safe_dump(variables))

    def use_pooler(self) -> None:
        """What a person changes in the application's description."""
        path = self.environment.project.folder / "inventories" / "group_vars" / "all" / "app.yml"
        text = path.read_text()
        text = text.replace("}}@postgres/{{ app_name }}", "}}@pooler:6432/{{ app_name }}", 1)
        path.write_text(text.replace("    database: true\n", "    database: true\n    database_pooled: true\n", 1))

    def pooler(self, user: str, password: str) -> str:
        """Log in at the pooler, as the application would; returns what was answered."""
        argv = ["docker", "exec", "-e", f"PGPASSWORD={password}", f"{APP}-postgres"]
        argv += ["psql", "-h", "pooler", "-p", "6432", "-U", user, "-d", "sample", "-Atc", "SELECT 'in'"]
        done = self.environment.host.exec(argv, check=False)
        return (done.stdout + done.stderr).strip()

    def show(self, what: str) -> list[dict[str, str]]:
        """Ask the pooler's own console."""
        script = (
            f"docker exec {APP}-pooler psql -h /run/pgbouncer -p 6432 -U pgbouncer -d pgbouncer --csv -c 'SHOW {what}'"
        )
        head, *rows = self.data.shell(script).splitlines()
        return [dict(zip(head.split(","), row.split(","), strict=True)) for row in rows]


@pytest.fixture(scope="module")
def growth(released: Environment) -> Iterator[Growth]:
    growth = Growth(released, Database(released.project, released.host, APP))
    path = released.project.folder / "inventories" / "group_vars" / "all" / "app.yml"
    before = path.read_text()
    yield growth
    path.write_text(before)


def test_a_pooler_needs_its_password_and_nobody_uses_one_that_is_not_there(growth: Growth) -> None:
    growth.set(postgres_pooler_enabled=True)
    done = growth.environment.project.play("provision", "--tags", "postgres")
    assert (
        done.returncode != 0 and "postgres_pooler_enabled needs postgres_pooler_password" in done.stdout + done.stderr
    )
    growth.set()
    growth.use_pooler()
    done = growth.environment.project.play("deploy", "-e", f"version={OLD}")
    assert done.returncode != 0
    assert "database_pooled is true and there is no PgBouncer" in " ".join((done.stdout + done.stderr).split())


def test_the_application_moves_behind_a_pooler_and_rotates_its_password_there_under_load(growth: Growth) -> None:
    released = growth.environment
    growth.set(postgres_pooler_enabled=True, postgres_pooler_password=POOLER_PASSWORD, postgres_pooler_connections=POOL)
    rotation = Rotation(released.project, released.host)
    old = rotation.values()[PASSWORD]
    load = LoadProcess(
        LoadConfig(url=released.url, app="parcels", workers=mix("get=6,post=2,new=2"), drain=DRAIN)
    ).start()
    try:
        rotation.play("provision", "--tags", "postgres")
        plan = rotation.play("provision", "--tags", "postgres", "--check", "--diff")
        assert "changed=0" in plan.rpartition("PLAY RECAP")[2]
        rotation.play("deploy", "-e", f"version={OLD}")
        clients = {row["user"] for row in growth.show("CLIENTS")}
        assert any(user.startswith("sample_app") for user in clients), clients

        rotation.secrets("rotate")
        new = rotation.values()[PASSWORD]
        rotation.play("provision", "--tags", "postgres")
        (login,) = (name for name in ("sample_app_a", "sample_app_b") if growth.pooler(name, new) == "in")
        (former,) = {"sample_app_a", "sample_app_b"} - {login}
        assert growth.pooler(former, old) == "in"
        rotation.play("deploy", "-e", f"version={OLD}")
        rotation.secrets("retire")
        rotation.play("provision", "--tags", "postgres")
        assert growth.pooler(login, new) == "in"
        assert growth.pooler(former, old) != "in"
        assert rotation.logins() == {login}
    finally:
        report = load.stop([])
        rotation.leave()
    growth.data.shell(f"docker restart {APP}-pooler")
    assert growth.pooler(login, new) == "in"
    assert report.sent > 500
    assert rotation.traces([old, new]) == []
    assert growth.data.count_secrets(POOLER_PASSWORD) == 0
    # Postgres saw no more of the application than the pool, and never anybody but the pooler.
    seen = growth.data.sql("SELECT count(*), count(DISTINCT client_addr) FROM pg_stat_activity WHERE usename ~ '_app_'")
    count, addresses = map(int, seen.split("|"))
    assert 1 <= count <= POOL and addresses == 1
    assert json.dumps(growth.show("POOLS")).count("transaction")
    assert report.lossless, report.summary()


def test_the_pooler_lets_in_nobody_but_the_application(growth: Growth) -> None:
    kept = growth.environment.project.folder / ".switchyard" / "secrets" / "local"
    migrate = (kept / "postgres_migrate").read_text().strip()
    superuser = (kept / "postgres_superuser").read_text().strip()
    for user, password in (("sample_migrate", migrate), ("postgres", superuser), ("sample_pooler", POOLER_PASSWORD)):
        assert growth.pooler(user, password) != "in", user
    host, login = (
        growth.environment.host,
        ["psql", "-h", "postgres", "-U", "postgres", "-d", "sample", "-c", "SELECT 1"],
    )
    argv = ["docker", "exec", "-e", f"PGPASSWORD={superuser}", f"{APP}-postgres", *login]
    assert "pg_hba.conf rejects" in host.exec(argv, check=False).stderr
