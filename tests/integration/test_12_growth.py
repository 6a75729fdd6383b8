"""What a database needs when its application grows: a pooler before it, and a replica on a second host."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import yaml

from switchyard.control import standby
from switchyard.control.secrets import PASSWORD
from tests.bed import Bed, Host
from tests.database import Database
from tests.identity import identity
from tests.integration.conftest import APP, DRAIN, OLD, Environment
from tests.keeper import Keeper
from tests.load import LoadConfig, LoadProcess, mix
from tests.rotation import Rotation

POOL = 6
POOLER_PASSWORD = "canary-pooler-4c8e-password"
REPLICA_PASSWORD = "canary-replica-91bd-password"
REPLICA = "replica-1"
POOLED = {
    "postgres_pooler_enabled": True,
    "postgres_pooler_password": POOLER_PASSWORD,
    "postgres_pooler_connections": POOL,
}


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
    growth.set(**POOLED)
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
    for user, password in (("sample_migrate", migrate), ("postgres", superuser)):
        assert growth.pooler(user, password) != "in", user
    host, login = (
        growth.environment.host,
        ["psql", "-h", "postgres", "-U", "postgres", "-d", "sample", "-c", "SELECT 1"],
    )
    argv = ["docker", "exec", "-e", f"PGPASSWORD={superuser}", f"{APP}-postgres", *login]
    assert "pg_hba.conf rejects" in host.exec(argv, check=False).stderr


@dataclass(frozen=True)
class Replica:
    """The second host, and the environment that it belongs to."""

    growth: Growth
    host: Host
    database: Database

    def status(self) -> dict[str, object]:
        """What `switchyard status` says of it."""
        found: dict[str, object] = self.growth.environment.project.status()["replicas"][REPLICA]
        return found

    def wait(self, done: Callable[[], bool], what: str, seconds: float = 30) -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < deadline, f"{what} was not so within {seconds:.0f} s: {self.status()}"
            time.sleep(0.5)


@pytest.fixture(scope="module")
def replica(growth: Growth, bed: Bed) -> Iterator[Replica]:
    project, primary = growth.environment.project, growth.environment.host
    host = bed.host(REPLICA, image="docker-host")
    # The place away from the primary is this host, too: what matters is that backups come by another way than the disk.
    keeper = Keeper(host)
    keeper.admit()
    known, key = str(host.place.known_hosts), str(host.place.private_key)
    entry = {
        "ansible_host": host.address,
        "ansible_port": host.port,
        "ansible_user": host.user,
        "ansible_ssh_private_key_file": key,
        "ansible_ssh_common_args": f"-o UserKnownHostsFile={known} -o GlobalKnownHostsFile=/dev/null "
        "-o StrictHostKeyChecking=yes -o IdentitiesOnly=yes",
        "engine_known_hosts": known,
        "ssh_groups": ["keeper"],
        "postgres_publish_address": host.address,
    }
    inventory, local = (project.folder / "inventories" / name for name in ("growth.yml", "local.yml"))
    before = local.read_text()
    document = {
        "env_local": {"children": {"local_replica": {"hosts": {REPLICA: entry}}}},
        "replica": {"children": {"local_replica": {}}},
    }
    inventory.write_text(yaml.safe_dump(document))
    growth.set(**POOLED, postgres_publish_address=primary.address, postgres_replica_password=REPLICA_PASSWORD)
    growth.data.configure(backup_repositories=[keeper.repository()], backup_replica_identity=identity(host.address))
    done = project.play("provision", "-e", "restart=postgres,pooler")
    assert done.returncode == 0, done.stdout + done.stderr
    yield Replica(growth, host, Database(project, host, APP))
    inventory.unlink()
    local.write_text(before)
    growth.data.configure(backup_enabled=False)
    growth.set()


def test_a_replica_is_built_from_the_backups_and_streams(replica: Replica) -> None:
    replica.wait(lambda: replica.status()["streaming"] is True, "streaming")
    # As a migration makes one: what the superuser makes for itself, the next provision would open to the application.
    replica.growth.data.sql("SET ROLE sample_owner; CREATE TABLE told AS SELECT 42 AS answer")
    replica.wait(lambda: replica.database.sql("SELECT to_regclass('told') IS NOT NULL") == "t", "the new table there")
    assert replica.database.sql("SELECT answer FROM told") == "42"
    said = replica.status()
    assert said["problem"] == "" and float(str(said["lag_seconds"])) < 30, said
    refused = replica.database.shell(
        f"docker exec {APP}-postgres psql -U postgres -d sample -c 'DROP TABLE told'", check=False
    )
    assert "read-only transaction" in refused
    text = replica.growth.environment.project.run("scripts/switchyard", "status", "local").stdout
    assert f"{REPLICA}    replica streams from {replica.growth.environment.host.address}" in text, text


def test_backups_read_the_replica_and_the_primary_while_it_is_away(replica: Replica) -> None:
    data, source = replica.growth.data, f"{APP}-backup-source"
    good, said = data.job("daily")
    assert good and f"read from the replica at {replica.host.address}" in said, said
    rows = json.loads(data.engine("backups", APP, "--json").stdout)
    newest = [row["label"] for row in rows if row["repository"] == "local"][-1]
    manifest = f"backup/main/{newest}/backup.manifest"
    record = data.shell(f"docker exec {data.container} pgbackrest --stanza=main --repo=1 repo-get {manifest}")
    assert "option-backup-standby=true" in record
    replica.host.exec(["docker", "stop", source])
    good, said = data.job("daily")
    assert good and "read from the primary: port 8432 does not answer" in said, said
    alert = f"cat {data.folder}/state/alert-standby.json"
    assert f"since the replica at {replica.host.address} cannot be" in json.loads(data.shell(alert))["problem"]
    replica.host.exec(["docker", "start", source])
    good, said = data.job("daily")
    assert good and "read from the replica" in said, said
    assert json.loads(data.shell(alert))["problem"] == ""


def test_nobody_else_reads_the_replica(replica: Replica) -> None:
    address, primary = replica.host.address, replica.growth.environment.host
    with pytest.raises(OSError):
        socket.create_connection((address, 8432), timeout=3).close()
    given = standby.parse(identity(address))
    # The same name, with a key of its own.
    others = standby.parse(identity.__wrapped__(address))
    for who, let_in in ((given, True), (others, False)):
        for name, text in (("crt", who.certificate), ("key", who.key)):
            primary.exec(["sh", "-c", f"umask 077; cat > /root/who.{name}"], stdin=text)
        words = f"-connect {address}:8432 -cert /root/who.crt -key /root/who.key -tls1_2"
        done = primary.exec(["sh", "-c", f"timeout 20 openssl s_client {words} < /dev/null"], check=False)
        assert ("alert" not in done.stderr) is let_in, done.stderr
    primary.exec(["rm", "/root/who.crt", "/root/who.key"])
    (secret, *_) = (line for line in given.key.splitlines() if "-----" not in line)
    assert replica.database.count_secrets(secret) == 0
    assert replica.growth.data.count_secrets(secret) == 0


def test_a_drill_starts_the_release_behind_a_pooler_of_its_own(replica: Replica) -> None:
    result = replica.growth.data.operation("drill", "--plan", "latest")
    assert result["code"] == 0, result
    assert "runs on the copy" in result["details"]
    left = replica.growth.data.shell("docker ps -a --format '{{.Names}}'; docker network ls --format '{{.Name}}'")
    assert "drill" not in left


def test_a_second_provision_of_both_changes_nothing(replica: Replica) -> None:
    done = replica.growth.environment.project.play("provision", "--tags", "firewall,backup", "--check", "--diff")
    assert done.returncode == 0, done.stdout + done.stderr
    recap = done.stdout.rpartition("PLAY RECAP")[2]
    assert recap.count("changed=0") == len([line for line in recap.splitlines() if "changed=" in line]), done.stdout


def test_the_replica_may_stream_and_nobody_else_on_its_host_logs_in(replica: Replica) -> None:
    primary = replica.growth.environment.host.address
    kept = replica.growth.environment.project.folder / ".switchyard" / "secrets" / "local" / "postgres_migrate"
    for user, password in (("sample_migrate", kept.read_text().strip()), ("sample_replica", REPLICA_PASSWORD)):
        argv = ["docker", "exec", "-e", f"PGPASSWORD={password}", f"{APP}-postgres"]
        argv += ["psql", "-h", primary, "-U", user, "-d", "sample", "-Atc", "SELECT 1"]
        assert "no pg_hba.conf entry" in replica.host.exec(argv, check=False).stderr
    assert replica.database.count_secrets(REPLICA_PASSWORD) == 0
    assert replica.growth.data.count_secrets(REPLICA_PASSWORD) == 0


def test_a_replica_that_was_away_catches_up_and_one_that_is_away_is_told(replica: Replica) -> None:
    replica.host.exec(["docker", "stop", f"{APP}-postgres"])
    problem = str(replica.status()["problem"])
    assert "is not running" in problem or "replica.lag" in problem, problem
    replica.growth.data.sql("UPDATE told SET answer = 43; SELECT pg_switch_wal()")
    replica.host.exec(["docker", "start", f"{APP}-postgres"])
    replica.wait(lambda: replica.status()["streaming"] is True, "streaming again")
    replica.wait(lambda: replica.database.sql("SELECT answer FROM told") == "43", "what it missed")


def test_a_promoted_replica_takes_writes_and_is_never_overwritten(replica: Replica) -> None:
    assert replica.database.sql("SELECT pg_promote()", database="postgres") == "t"
    assert replica.database.sql("UPDATE told SET answer = 44 RETURNING answer") == "44"
    assert "was promoted and takes writes" in str(replica.status()["problem"])
    done = replica.growth.environment.project.play("provision", "--tags", "backup", "--limit", f"{REPLICA},localhost")
    assert done.returncode != 0
    assert "holds a database of its own, no replica" in " ".join((done.stdout + done.stderr).split())
    assert replica.database.sql("SELECT answer FROM told") == "44"


def test_in_the_group_db_the_promoted_one_gets_backups_of_its_own(replica: Replica) -> None:
    project = replica.growth.environment.project
    folder = project.folder / "inventories"
    # What the runbook says: its host into db, the old one out of it.
    text = (folder / "local.yml").read_text()
    (folder / "local.yml").write_text(
        text.replace("local_db:\n      hosts:\n        local-1:", "local_db:\n      hosts:")
    )
    text = (folder / "growth.yml").read_text()
    assert text.count("local_replica") == 2
    text = (
        text.replace("local_replica", "local_db", 1)
        .replace("\nreplica:\n", "\ndb:\n")
        .replace("local_replica", "local_db")
    )
    (folder / "growth.yml").write_text(text)
    replica.growth.set(
        **POOLED,
        postgres_publish_address=replica.growth.environment.host.address,
        app_database_address=replica.host.address,
    )
    words = ("--tags", "engine,firewall,backup", "--limit", f"{REPLICA},localhost", "-e", "restart=postgres")
    done = project.play("provision", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(replica.database.engine("backups", APP, "--json").stdout)
    assert {row["repository"] for row in rows if row["type"] == "full"} == {"local", "offsite"}, rows
    assert replica.database.sql("SELECT answer FROM told") == "44"
    assert replica.database.sql("SELECT pg_is_in_recovery()") == "f"
    # It is no copy to read any more.
    assert "backup-source" not in replica.database.shell("docker ps -a --format '{{.Names}}'")
    replica.growth.data.sql("DROP TABLE told")
