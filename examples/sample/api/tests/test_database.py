"""Parcels, duplicates, outages, and two releases on one schema. Needs TEST_DATABASE_URL."""

from __future__ import annotations

import time
from pathlib import Path
from uuid import uuid4

import psycopg

from tests.conftest import Start, Tree
from tests.harness import Wire, alembic, eventually


def test_a_parcel_is_stored_once_per_key(start: Start, database: str) -> None:
    api = start(DATABASE_URL=database)
    key = uuid4()
    first = api.hand_in(key, recipient="Ada", note="fragile")
    again = api.hand_in(key, recipient="Ada", note="fragile")
    assert (first.status, again.status) == (201, 200)
    assert again.json() == first.json() | {"attempts": 2}
    assert api.get(f"/api/v1/parcels/{first.json()['id']}").json() == again.json()
    assert set(first.json()) == {"id", "recipient", "note", "state", "attempts", "created_at"}


def test_lists_the_newest_first(start: Start, database: str) -> None:
    api = start(DATABASE_URL=database)
    for name in ("a", "b", "c"):
        api.hand_in(uuid4(), recipient=name)
    parcels = api.get("/api/v1/parcels?limit=2").json()
    assert [parcel["recipient"] for parcel in parcels] == ["c", "b"]
    assert api.get("/api/v1/parcels?limit=0").status == 422
    assert api.get("/api/v1/parcels/999").status == 404


def test_audit_finds_lost_and_repeated_parcels(start: Start, database: str) -> None:
    api = start(DATABASE_URL=database)
    once, twice, never = (str(uuid4()) for _ in range(3))
    for key in (once, twice, twice):
        api.hand_in(key, recipient="Ada")
    answer = api.request("POST", "/api/v1/audit", {"keys": [once, twice, never]})
    assert answer.json() == {"missing": [never], "duplicated": [twice], "checked": 3}
    many = [str(uuid4()) for _ in range(5000)]
    assert api.request("POST", "/api/v1/audit", {"keys": many}).json()["missing"] == many
    assert api.request("POST", "/api/v1/audit", {"keys": [*many, once]}).status == 422


def test_reads_the_url_from_a_file(start: Start, database: str, tmp_path: Path) -> None:
    secret = tmp_path / "DATABASE_URL"
    secret.write_text(database + "\n")
    api = start(DATABASE_URL_FILE=str(secret))
    assert api.get("/health/db").status == 200


def test_recovers_from_an_outage_by_itself(start: Start, database: str) -> None:
    wire = Wire(database)
    api = start(DATABASE_URL=wire.url)
    assert api.get("/health/db").status == 503
    wire.connect()
    assert api.get("/health/db").status == 200
    assert api.hand_in(uuid4(), recipient="Ada").status == 201
    wire.cut()
    assert api.get("/health/db").status == 503
    assert api.hand_in(uuid4(), recipient="Ada").status == 503
    assert api.get("/health").status == 200
    wire.connect()
    began = time.monotonic()
    eventually(lambda: api.get("/health/db").status == 200, within=10, what="recovery")
    assert time.monotonic() - began < 1
    assert api.hand_in(uuid4(), recipient="Ada").status == 201
    wire.cut()


def test_a_frozen_database_is_reported_in_time(start: Start, database: str) -> None:
    wire = Wire(database)
    wire.connect()
    api = start(DATABASE_URL=wire.url)
    assert api.get("/health/db").status == 200
    wire.freeze()
    began = time.monotonic()
    assert api.get("/health/db").status == 503
    assert time.monotonic() - began < 2.5
    assert api.get("/api/v1/parcels").status == 503
    assert api.get("/health").status == 200
    wire.thaw()
    eventually(lambda: api.get("/health/db").status == 200, within=10, what="recovery")
    wire.cut()


def test_a_restarted_database_costs_no_request(start: Start, database: str) -> None:
    api = start(DATABASE_URL=database)
    api.hand_in(uuid4(), recipient="Ada")
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    assert api.hand_in(uuid4(), recipient="Ada").status == 201


def test_both_releases_work_on_the_expanded_schema(start: Start, tree: Tree, database: str) -> None:
    old = start("1.0.0", DATABASE_URL=database)
    before = old.hand_in(uuid4(), recipient="Ada").json()
    alembic(tree("1.1.0"), database, "upgrade", "head")
    new = start("1.1.0", DATABASE_URL=database)

    urgent = new.hand_in(uuid4(), recipient="Grace", priority="express").json()
    assert urgent["priority"] == "express"
    assert "priority" not in old.get(f"/api/v1/parcels/{urgent['id']}").json()
    after = old.hand_in(uuid4(), recipient="Ada", priority="ignored").json()
    for parcel in (before, after):
        assert new.get(f"/api/v1/parcels/{parcel['id']}").json() == parcel | {"priority": None}


def test_an_interrupted_migration_can_be_repeated(tree: Tree, database: str) -> None:
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute("ALTER TABLE parcels ADD COLUMN priority text")
        admin.execute("CREATE INDEX ix_parcels_priority ON parcels (priority)")
        admin.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'ix_parcels_priority'::regclass")
        assert alembic(tree("1.1.0"), database, "current").strip() == "0001"
        alembic(tree("1.1.0"), database, "upgrade", "head")
        assert alembic(tree("1.1.0"), database, "current").strip() == "0002 (head)"
        valid = admin.execute(
            "SELECT indisvalid FROM pg_index WHERE indexrelid = 'ix_parcels_priority'::regclass"
        ).fetchone()
        assert valid == (True,)


def test_the_owner_role_owns_what_another_login_migrated(tree: Tree, empty_database: str) -> None:
    role = f"Sample Owner {uuid4().hex}"
    with psycopg.connect(empty_database, autocommit=True) as admin:
        admin.execute(f'CREATE ROLE "{role}"'.encode())
        admin.execute(f'GRANT CREATE ON SCHEMA public TO "{role}"'.encode())
        try:
            alembic(tree("1.1.0"), empty_database, "upgrade", "head", DATABASE_OWNER_ROLE=role)
            owners = admin.execute("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'")
            assert owners.fetchall() == [(role,)]
        finally:
            admin.execute(f'DROP OWNED BY "{role}"'.encode())
            admin.execute(f'DROP ROLE "{role}"'.encode())
