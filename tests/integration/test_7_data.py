"""Backups and restores on a real database: what a small team needs on its worst day, each thing once."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from tests.database import PASSPHRASE, Database
from tests.integration.conftest import APP, Environment

ROWS = 500


def status_of(url: str) -> int:
    """The status of one request."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - a host of the bed
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


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
    deadline = time.monotonic() + 60
    while status_of(released.url + "api/v1/parcels") != 200:
        assert time.monotonic() < deadline, "users were not served again within 60 s"
        time.sleep(0.5)
    assert data.sql("SELECT count(*) FROM parcels") == before
    assert data.shell(f"ls /var/lib/switchyard/postgres/{APP}").count("restore.json") == 0
    data.engine("restore-forget", APP)
    assert data.operation("backup")["code"] == 0


def test_postgres_does_not_restart_when_the_repository_breaks(data: Database) -> None:
    before, place = data.started(), data.repository
    data.shell(f"chmod 000 {place}")
    try:
        for _ in range(3):
            data.sql("UPDATE parcels SET note = 'written while the repository is down'; SELECT pg_switch_wal()")
        deadline = time.monotonic() + 90
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
    data.archived(120)
    assert data.started() == before


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
