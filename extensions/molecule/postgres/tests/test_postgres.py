"""The database answers those who have a password, gives them no more than they need, and nobody from outside."""

import socket

import pytest
from testinfra.host import Host

from tests.molecule import address

CONTAINER = "shop-molecule-postgres"


@pytest.fixture(autouse=True)
def ready(host: Host) -> None:
    """After a boot it replays its log first."""
    await_answer(host)


def await_answer(host: Host) -> None:
    with host.sudo():
        asked = f"docker exec {CONTAINER} pg_isready -q -h 127.0.0.1"
        host.check_output(f"for i in $(seq 300); do {asked} && exit; sleep 0.2; done; exit 1")


def sql(host: Host, user: str, password: str, statement: str) -> tuple[int, str]:
    words = f'docker exec -e PGPASSWORD={password} {CONTAINER} psql -h {CONTAINER} -U {user} -tAc "{statement}" shop'
    with host.sudo():
        done = host.run(words)
    return done.rc, done.stdout.strip() or done.stderr


def test_the_application_reads_and_writes_and_changes_no_schema(host: Host) -> None:
    migrate = ("shop_migrate", "molecule-migrate")
    assert sql(host, *migrate, "create table if not exists things (id int)")[0] == 0
    application = ("shop_app_a", "molecule-app")
    assert sql(host, *application, "insert into things values (1)")[0] == 0
    assert "permission denied" in sql(host, *application, "create table mine (id int)")[1]
    assert "must be owner" in sql(host, *application, "drop table things")[1]


def test_a_wrong_password_and_the_owner_do_not_log_in(host: Host) -> None:
    assert "password authentication failed" in sql(host, "shop_app_a", "wrong", "select 1")[1]
    assert sql(host, "shop_owner", "molecule-app", "select 1")[0] != 0


def test_nobody_outside_reaches_it(host: Host) -> None:
    with pytest.raises(OSError, match=r"refused|timed out"):
        socket.create_connection((address(host), 5432), timeout=1)


def test_its_data_outlives_its_container(host: Host) -> None:
    application = ("shop_app_a", "molecule-app")
    before = sql(host, *application, "select count(*) from things")
    with host.sudo():
        host.check_output(f"docker kill {CONTAINER} && docker start {CONTAINER}")
    await_answer(host)
    assert sql(host, *application, "select count(*) from things") == before
