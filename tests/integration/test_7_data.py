"""Backups and restores on a real database: what a small team needs on its worst day, each thing once."""

import http.client
import json
import shutil
import time
import urllib.error
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from switchyard.data.repositories import SECRET_KEYS
from tests.database import PASSPHRASE, Database
from tests.integration.conftest import APP, NEW, OLD, Environment
from tests.keeper import Keeper
from tests.s3 import Store
from tests.web import opened

ROWS = 500


def status_of(url: str) -> int:
    """The status of one request, 0 when there was no answer."""
    try:
        with opened(url) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, http.client.HTTPException):
        return 0


def recovered(data: Database) -> None:
    """Wait for the end of recovery: the result of what was killed is there a moment before it lets go."""
    data.shell("while systemctl list-units --all --no-legend 'switchyard-2*' | grep -q .; do sleep 0.2; done")


@pytest.fixture(scope="module")
def data(released: Environment) -> Iterator[Database]:
    database = Database(released.project, released.host, APP)
    database.sql(
        "INSERT INTO parcels (idempotency_key, recipient) "  # noqa: S608 - a number
        f"SELECT gen_random_uuid(), 'somebody ' || n FROM generate_series(1, {ROWS}) n"
    )
    assertion = f"SELECT count(*) >= {ROWS} FROM parcels"  # noqa: S608 - a number
    database.configure(backup_drill_assertions=[{"name": "parcels are there", "sql": assertion}])
    # News stay in the spool for the tests to read.
    database.shell("systemctl stop switchyard-notify.path switchyard-notify.service")
    yield database
    database.shell("systemctl start switchyard-notify.path")


def test_turning_backups_on_waits_for_a_restart(data: Database) -> None:
    before = data.started()
    said = data.provision()
    assert "-e restart=postgres" in said
    assert "still runs without archiving" in said
    assert data.started() == before
    data.provision("-e", "restart=postgres")
    rows = json.loads(data.engine("backups", APP, "--json").stdout)
    assert [row["type"] for row in rows] == ["full"]


def test_a_second_provision_changes_nothing_and_plans_nothing(data: Database) -> None:
    assert "changed=0" in data.provision("--check", "--diff").rpartition("PLAY RECAP")[2]


def test_a_drill_proves_the_backup_with_the_live_release(data: Database) -> None:
    data.engine("backup-job", "heartbeat", APP)
    # Else its age is that of the last segment, which a busy machine archives late.
    data.archived()
    result = data.operation("drill", "--plan", "latest")
    assert result["code"] == 0, result
    for proof in ("parcels are there", "every row can be read", "runs on the copy", "rows as counted"):
        assert proof in result["details"]
    ledger = data.shell(f"tail -n 1 /var/lib/switchyard/{APP}/ledger.jsonl")
    drill = json.loads(ledger)
    assert (drill["event"], drill["outcome"]) == ("drill", "passed")
    assert drill["rpo_seconds"] <= 120
    assert drill["restore_seconds"] <= 600
    assert "drill" not in data.shell("docker ps -a --format '{{.Names}}'; docker network ls --format '{{.Name}}'")


@pytest.mark.long
def test_a_dropped_table_comes_back_to_the_second(data: Database, released: Environment) -> None:
    data.sql("CREATE TABLE keepsake AS SELECT generate_series(1, 1000) AS n")
    data.archived()
    time.sleep(1.1)
    moment = data.sql("SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US+00')")
    time.sleep(1.1)
    data.sql("DROP TABLE keepsake")
    refused = released.project.play("restore", "-e", json.dumps({"to": moment, "into": "live"}))
    assert refused.returncode != 0
    assert "-e confirm=local-1" in " ".join((refused.stdout + refused.stderr).split()), refused.stdout
    wish = {"to": moment, "into": "live", "confirm": "local-1"}
    done = released.project.play("restore", "-e", json.dumps(wish))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "of writes were lost" in done.stdout
    assert data.sql("SELECT count(*) FROM keepsake") == "1000"
    assert data.sql("SELECT count(*) FROM parcels") >= str(ROWS)
    assert status_of(released.url + "api/v1/parcels") == 200
    # A new timeline, with a full backup of its own; the old data is kept until somebody removes it.
    rows = json.loads(data.engine("backups", APP, "--json").stdout)
    assert rows[-1]["type"] == "full"
    assert data.sql("SELECT timeline_id FROM pg_control_checkpoint()") == "2"
    removed = json.loads(data.engine("restore-forget", APP, "--json").stdout)["removed"]
    assert len(removed) == 1
    assert "data.before-" in removed[0]


def test_a_restore_that_is_killed_leaves_one_whole_database(data: Database, released: Environment) -> None:
    before = data.sql("SELECT count(*) FROM parcels")
    plan = {"step": "restore.swap_old", "nth": 1, "when": "after", "how": "kill"}
    data.host.exec(["sh", "-c", "umask 077; cat > /run/switchyard/fault.json"], stdin=json.dumps(plan))
    result = data.operation("restore", "--to", "latest", "--into", "live", "--confirm", "local-1")
    assert result["code"] == 8, result
    recovered(data)
    deadline = time.monotonic() + 180
    while status_of(released.url + "api/v1/parcels") != 200:
        assert time.monotonic() < deadline, "users were not served again within 180 s"
        time.sleep(0.5)
    assert data.sql("SELECT count(*) FROM parcels") == before
    assert data.shell(f"ls /var/lib/switchyard/postgres/{APP}").count("restore.json") == 0
    data.engine("restore-forget", APP)
    assert data.operation("backup")["code"] == 0


@pytest.mark.long
def test_a_killed_restore_to_before_a_migration_ends_with_the_release_before_it(
    data: Database, released: Environment
) -> None:
    assert released.live() == OLD
    done = released.project.play("deploy", "-e", f"version={NEW}")
    assert done.returncode == 0, done.stdout + done.stderr
    number = released.project.status()["live"]["release"].partition("-")[0].lstrip("0")
    plan = {"step": "restore.swap_new", "nth": 1, "when": "before", "how": "kill"}
    data.host.exec(["sh", "-c", "umask 077; cat > /run/switchyard/fault.json"], stdin=json.dumps(plan))
    wish = ("--to", f"before-deploy={number}", "--into", "live", "--confirm", "local-1")
    result = data.operation("restore", *wish)
    assert result["code"] == 8, result
    recovered(data)
    deadline = time.monotonic() + 180
    while status_of(released.url + "api/v1/parcels") != 200:
        assert time.monotonic() < deadline, "users were not served again within 180 s"
        time.sleep(0.5)
    assert released.live() == OLD
    assert data.shell(f"ls /var/lib/switchyard/postgres/{APP}").count("restore.json") == 0
    data.engine("restore-forget", APP)
    assert data.operation("backup")["code"] == 0


def test_postgres_does_not_restart_when_the_repository_breaks(data: Database) -> None:
    before, place = data.started(), data.repository
    data.shell(f"chmod 000 {place}")
    try:
        for _ in range(3):
            data.sql("UPDATE parcels SET note = 'written while the repository is down'; SELECT pg_switch_wal()")
        deadline = time.monotonic() + 180
        while data.sql("SELECT failed_count > 0 FROM pg_stat_archiver") != "t":
            assert time.monotonic() < deadline, "no attempt to archive failed"
            time.sleep(0.5)
        # What a worker of the archiver does when it gives up: an orphan that ends badly.
        data.shell(f"docker exec {data.container} sh -c '(sleep 1; exit 103) & exit 0'")
        _, said = data.job("archive")
        assert "segments wait" in said or "does not answer" in said, said
        assert [news for news in data.news() if news["kind"] == "backup.archive"], data.news()
    finally:
        data.shell(f"chmod 700 {place}")
    data.archived()
    assert data.started() == before


@pytest.mark.long
@pytest.mark.parametrize(
    ("what", "named"),
    [("byte", "checksum invalid"), ("segment", "is missing, so nothing after it can be restored")],
)
def test_the_scheduled_backup_finds_what_is_spoilt(data: Database, what: str, named: str) -> None:
    told = len(data.news())
    mend = data.spoil(what)
    try:
        good, said = data.job("daily")
    finally:
        data.shell(mend)
    assert not good
    assert named in said
    assert "backup.failed" in [news["kind"] for news in data.news()[told:]]


def test_another_passphrase_is_named(data: Database) -> None:
    mend = data.change_passphrase()
    try:
        good, said = data.job("daily")
    finally:
        data.shell(mend)
    assert not good
    assert "the passphrase is another one" in said
    assert "canary" not in said
    assert data.job("daily")[0]


def test_a_dump_is_checked_by_a_restore(data: Database) -> None:
    good, said = data.job("dump")
    assert good, said
    assert "proven by a restore" in said


def test_no_secret_is_where_others_can_read_it(data: Database) -> None:
    assert data.count_secrets(PASSPHRASE) == 0
    readable = data.shell(
        f"find {data.folder} /var/backups/switchyard -type f -perm /077 -exec grep -l canary {{}} +; true"
    )
    assert readable.strip() == ""


# Another environment's data


@dataclass(frozen=True)
class Production:
    """A database of its own on the same host, whose backups also lie in a bucket."""

    data: Database
    passphrase: str
    repository: dict[str, Any]
    store: Store

    def configure(self, data: Database, **variables: Any) -> None:
        """Let the other environment be refreshed with this one's data, and say how it is sanitised."""
        data.configure(backup_refresh_from=["production"], **variables)


MASK: dict[str, Any] = {"covers": ["parcels.recipient"], "sql": "UPDATE parcels SET recipient = 'Recipient ' || id"}


@pytest.fixture(scope="module")
def production(data: Database, released: Environment) -> Iterator[Production]:
    with Store(str(next(released.bed.subnet.hosts()))) as store:
        reader = dict(zip(("key", "key_secret"), store.admit("reader", "s3:GetObject", "s3:ListBucket"), strict=True))
        repository = store.repository(store.admit("writer")) | {"reader": reader}
        yield from provisioned_production(data, store, repository)


def provisioned_production(data: Database, store: Store, repository: dict[str, Any]) -> Iterator[Production]:
    """Provision it, give it the application's tables, and people; take it away again."""
    variables = data.project.folder / "inventories" / "group_vars"
    shutil.rmtree(variables / "env_production")
    shutil.copytree(variables / "env_local", variables / "env_production")
    twin = Database(data.project, data.host, "sample-production")
    passphrase = "canary-91c7-passphrase-of-production"
    given = {"backup_enabled": True, "backup_passphrase": passphrase, "backup_repositories": [repository]}
    (variables / "env_production" / "zz_backup.yml").write_text(yaml.safe_dump(given))
    hosts = variables.parent / "production.yml"
    hosts.write_text(hosts.read_text().replace("          ansible_host: 203.0.113.20\n", ""))
    done = data.project.play("provision", "--tags", "backup", env="production")
    assert done.returncode == 0, done.stdout + done.stderr
    data.shell(
        f"docker exec {data.container} pg_dump -U postgres {data.name} | "
        f"docker exec -i {twin.container} psql -Xq -v ON_ERROR_STOP=1 -U postgres {twin.name}"
    )
    twin.sql(
        "UPDATE parcels SET recipient = 'Realperson ' || id, note = 'from production'; "
        "COMMENT ON COLUMN parcels.recipient IS 'Who gets it; personal'"
    )
    twin.archived()
    yield Production(twin, passphrase, repository, store)
    unit = "switchyard-backup-sample-production"
    data.shell(
        f"systemctl disable --now {unit}.target; systemctl stop '{unit}-*.timer'; docker rm -f {twin.container}; "
        "docker network rm sample-production-data; rm -rf /etc/switchyard/backup/sample-production.json "
        "/var/lib/switchyard/postgres/sample-production /var/lib/switchyard/backup/sample-production "
        "/var/lib/switchyard/sample-production /var/backups/switchyard/sample-production"
    )


@pytest.mark.long
def test_database_and_files_go_to_a_bucket_and_come_back(production: Production) -> None:
    twin, app = production.data, production.data.app
    uploads = f"/var/lib/switchyard/{app}/volumes/uploads"
    twin.shell(f"install -d {uploads}; echo an uploaded file > {uploads}/letter")
    result = twin.operation("backup")
    assert result["code"] == 0, result
    kept = production.store.objects()
    assert [name for name in kept if name.startswith("switchyard/backup/main/") and "/bundle/" in name]
    assert [name for name in kept if name.startswith("switchyard/files/data/")]
    result = twin.operation("restore", "--to", "latest", "--into", "scratch", "--repository", "cloud")
    assert result["code"] == 0, result
    copied = twin.sql("SELECT count(*) FROM parcels", container=f"{app}-scratch")
    assert copied == twin.sql("SELECT count(*) FROM parcels") != "0"
    twin.engine("scratch-remove", app)
    place = json.loads(twin.engine("restore-files", app, "--repository", "cloud", "--json").stdout)["path"]
    assert twin.shell(f"cat {place}{uploads}/letter") == "an uploaded file\n"


@pytest.mark.long
def test_a_bucket_that_knows_the_key_no_more_is_named(production: Production) -> None:
    twin, told = production.data, len(production.data.news())
    production.store.lock_out("writer")
    try:
        good, said = twin.job("daily")
        _, watched = twin.job("archive")
    finally:
        production.store.let_in("writer")
    assert not good
    assert "cloud: " in said
    assert "files to cloud: " in said
    assert "InvalidAccessKeyId" in said
    assert "cloud: " in watched
    assert {"backup.failed", "backup.archive"} <= {news["kind"] for news in twin.news()[told:]}
    assert twin.job("daily")[0]


def left_behind(data: Database) -> str:
    """What a refresh must not leave on the host outside the server."""
    return data.shell(
        f"ls /run/switchyard /var/backups/switchyard/{APP}/dumps {data.folder} /var/lib/switchyard/postgres/{APP} "
        "| grep refresh; docker ps -a --format '{{.Names}}' | grep refresh; true"
    ).strip()


@pytest.mark.long
def test_what_is_personal_and_not_sanitised_never_arrives(production: Production, data: Database) -> None:
    refused = data.project.play("refresh", "-e", "from=production")
    assert refused.returncode != 0
    assert "does not let its data be replaced by production's" in " ".join((refused.stdout + refused.stderr).split())
    production.configure(data, backup_refresh_sanitise=[{"sql": "UPDATE parcels SET note = ''"}])
    before = data.sql("SELECT count(*) FROM parcels")
    refused = data.project.play("refresh", "-e", "from=production")
    assert refused.returncode != 0
    said = " ".join((refused.stdout + refused.stderr).split())
    assert "Nothing sanitises these personal columns: public.parcels.recipient." in said
    assert "the database before serves on" in said
    assert data.sql("SELECT count(*) FROM parcels") == before
    assert data.sql("SELECT count(*) FROM parcels WHERE recipient ~ 'Realperson'") == "0"
    assert left_behind(data) == ""


@pytest.mark.long
def test_production_itself_is_never_refreshed(production: Production, data: Database) -> None:
    repository = {key: value for key, value in production.repository.items() if key not in SECRET_KEYS}
    secrets = {
        "passphrase": production.passphrase,
        "ca": production.repository["ca"],
        **production.repository["reader"],
    }
    repository["has_ca"] = True
    order: dict[str, Any] = {"source": "elsewhere", "host": "local-1", "database": data.name, "repository": repository}
    order |= {"secrets": secrets, "sanitise": [MASK]}
    for change, sentence in (
        ({}, "is the very one that elsewhere backs up"),
        ({"host": "x-1"}, "calls itself local-1"),
    ):
        done = data.host.exec(
            ["switchyard", "refresh-data", "sample-production", "--check"],
            stdin=json.dumps(order | change),
            check=False,
            timeout=120,
        )
        assert done.returncode != 0
        assert sentence in done.stderr


@pytest.mark.long
def test_a_refresh_brings_sanitised_data_and_nothing_else(
    production: Production, data: Database, released: Environment
) -> None:
    production.configure(data, backup_refresh_sanitise=[MASK])
    planned = data.project.play("refresh", "-e", "from=production", "--check")
    assert planned.returncode == 0, planned.stdout + planned.stderr
    assert "would be refreshed from" in planned.stdout
    data.sql("UPDATE parcels SET note = 'from before'")
    plan = {"step": "refresh.rename", "nth": 1, "when": "after", "how": "kill"}
    data.host.exec(["sh", "-c", "umask 077; cat > /run/switchyard/fault.json"], stdin=json.dumps(plan))
    killed = data.project.play("refresh", "-e", "from=production")
    assert killed.returncode != 0, killed.stdout
    recovered(data)
    deadline = time.monotonic() + 180
    while status_of(released.url + "api/v1/parcels") != 200:
        assert time.monotonic() < deadline, "users were not served again within 180 s"
        time.sleep(0.5)
    assert data.sql("SELECT DISTINCT note FROM parcels") == "from before"
    assert left_behind(data) == ""

    done = data.project.play("refresh", "-e", "from=production", "-vvv")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "has the data of production as of" in done.stdout
    secrets = [production.passphrase, production.repository["key_secret"]]
    secrets.append(production.repository["reader"]["key_secret"])
    assert [secret for secret in secrets if secret in done.stdout + done.stderr] == []
    assert data.count_secrets(*secrets) == 0
    assert data.sql("SELECT DISTINCT note FROM parcels") == "from production"
    assert data.sql("SELECT count(*) FROM parcels WHERE recipient !~ '^Recipient '") == "0"
    assert status_of(released.url + "api/v1/parcels") == 200
    assert left_behind(data) == ""
    # Not one page of the server here, and nothing that it archived, ever held a personal value.
    data.sql("CHECKPOINT")
    assert data.shell(f"grep -rl Realperson /var/lib/switchyard/postgres/{APP}; true").strip() == ""
    event = json.loads(data.shell(f"grep '\"refresh\"' /var/lib/switchyard/{APP}/ledger.jsonl | tail -n 1"))
    assert (event["subject"], event["outcome"], event["columns"]) == ("production", "refreshed", 1)
    assert data.operation("backup")["code"] == 0
    removed = json.loads(data.engine("restore-forget", APP, "--json").stdout)["removed"]
    assert removed == ["database sample_before_refresh"]


# A place away from the host that cannot be reached


@pytest.mark.long
def test_a_restore_lets_users_in_while_another_repository_is_away(data: Database, released: Environment) -> None:
    keeper = Keeper.build(released.bed)
    data.configure(backup_repositories=[keeper.repository()])
    data.provision("-e", "restart=postgres")
    before, told = data.sql("SELECT count(*) FROM parcels"), len(data.news())
    keeper.lock_out()
    try:
        result = data.operation("restore", "--to", "latest", "--into", "live", "--confirm", "local-1")
        assert result["code"] == 0, result
        assert "at most 0 s of writes were lost" in result["message"]
        assert "WARNING: Not every repository archives after the restore" in result["message"]
        assert "WARNING: the full backup after the restore failed (offsite: " in result["message"]
        assert status_of(released.url + "api/v1/parcels") == 200
        assert data.sql("SELECT count(*) FROM parcels") == before
        assert data.shell(f"ls /var/lib/switchyard/postgres/{APP}").count("restore.json") == 0
        assert {"backup.archive", "backup.failed"} <= {news["kind"] for news in data.news()[told:]}
    finally:
        keeper.admit()
    data.archived()
    assert data.operation("backup", "--type", "full")["code"] == 0
    assert data.job("archive")[0]
    data.engine("restore-forget", APP)
    data.configure()
    data.provision("-e", "restart=postgres")
