"""Release records: written once, pinned by digest, without secret values; and the secrets' files."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchyard.engine import effects, layout, records
from switchyard.errors import Exit, SwitchyardError
from switchyard.request import Request
from tests.unit.engine_world import QUICK, World, digest, make_request, service

KEY = b"salt"
TOKEN = {"TOKEN": {"value": "s3cret-value", "uid": 10001}}


def hashed(request: Request, digests: dict[str, str] | None = None, key: bytes = KEY) -> str:
    return records.config_hash(request, digests or {name: digest(name) for name in request.services}, key)


def make(world: World, number: int = 1, **changes: Any) -> records.Record:
    request = make_request(**changes)
    return records.create(world.paths, number, request, {name: digest(name) for name in request.services}, "hash")


# Records


def test_a_record_reads_back_as_it_was_made(world: World) -> None:
    services = {"api": service(instances=2), "web": service(routes=["/web/"])}
    made = make(world, 42, services=services, version="1.4.0")
    assert records.load(world.paths, "0042-1.4.0") == made
    assert (made.version, made.instances, made.name) == ("1.4.0", {"api": 2, "web": 1}, world.paths.name)


def test_every_image_is_pinned_by_digest_and_the_release_is_named(world: World) -> None:
    made = make(world, services={"api": service(), "web-shop": service(image="registry.test/web", routes=["/w/"])})
    text = made.compose_file.read_text()
    assert f"image: registry.test/shop/api@{digest('api')}" in text
    assert f"image: registry.test/web@{digest('web-shop')}" in text
    assert "0001-1.0.0" in text and "SWITCHYARD_RELEASE" not in text and "SWITCHYARD_IMAGE" not in text
    assert made.pinned("web-shop") == f"registry.test/web@{digest('web-shop')}"


def test_what_only_the_host_knows_at_start_is_left_open(world: World) -> None:
    open_ones = "services: {a: {image: '${SWITCHYARD_IMAGE_API}', ports: ['${SWITCHYARD_PUBLISH_API_1}:80']}}"
    assert "${SWITCHYARD_PUBLISH_API_1}" in make(world, compose=open_ones).compose_file.read_text()


def test_an_image_that_no_service_names_is_refused_and_nothing_is_written(world: World) -> None:
    with pytest.raises(SwitchyardError, match="service that app_services lacks") as error:
        make(world, compose="image: ${SWITCHYARD_IMAGE_WORKER}")
    assert error.value.code is Exit.USAGE
    assert not world.paths.releases.exists()


def test_a_record_without_its_last_file_does_not_count(world: World) -> None:
    for number in (1, 2, 10, 9):
        make(world, number)
    (world.paths.releases / "0009-1.0.0" / "release.json").unlink()
    (world.paths.releases / "notes").mkdir()
    assert records.ids(world.paths) == ["0001-1.0.0", "0002-1.0.0", "0010-1.0.0"]


def test_records_sort_by_number_also_beyond_four_digits(world: World) -> None:
    for number in (10000, 9999):
        make(world, number)
    assert records.ids(world.paths) == ["9999-1.0.0", "10000-1.0.0"]


@pytest.mark.parametrize("text", ["", "{", '{"id": "x"}'])
def test_a_damaged_record_is_named(world: World, text: str) -> None:
    (make(world).directory / "release.json").write_text(text)
    with pytest.raises(SwitchyardError, match=r"record of release 0001-1\.0\.0 cannot be read"):
        records.load(world.paths, "0001-1.0.0")


def test_a_missing_record_is_named(world: World) -> None:
    with pytest.raises(SwitchyardError, match="record of release 0007-7 cannot be read"):
        records.load(world.paths, "0007-7")


def test_a_removed_record_is_gone_and_the_others_stay(world: World) -> None:
    first, second = make(world, 1), make(world, 2)
    records.remove(first)
    assert records.ids(world.paths) == [second.id]
    assert not first.directory.exists()


@QUICK
@given(st.from_regex(r"[A-Za-z0-9+/=.%&-]{8,40}", fullmatch=True))
def test_no_file_of_a_record_holds_a_secret_value(world: World, value: str) -> None:
    secret = f"<{value}>"
    made = make(
        world,
        secrets={"TOKEN": {"value": secret, "uid": 1}},
        services={"api": service(secrets=["TOKEN"], secret_env={"API_TOKEN": "TOKEN"})},
    )
    for path in made.directory.iterdir():
        assert secret not in path.read_text()
    assert records.load(world.paths, made.id).request.secrets["TOKEN"].value == ""


def test_files_of_a_record_are_not_for_everybody(world: World) -> None:
    for path in make(world).directory.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o640


# The configuration's hash


@pytest.mark.parametrize(
    "change",
    [
        {"version": "1.0.1"},
        {"compose": "x: y\n"},
        {"services": {"api": service(tag="1.0.1")}},
        {"services": {"api": service(instances=2)}},
        {"services": {"api": service(memory_mb=512)}},
        {"services": {"api": service(health={"path": "/up"})}},
        {"services": {"api": service(env={"A": ""})}},
        {"services": {"api": service(), "web": service(routes=["/web/"])}},
        {"smoke_tests": [{"path": "/"}]},
        {"migration": {"service": "api", "command": ["up"]}},
        {"schema_epoch": 2},
        {"keepalive_seconds": 30},
        {"secrets": TOKEN},
        {"probation_seconds": 7.0},
    ],
)
def test_what_matters_changes_the_hash(change: dict[str, Any]) -> None:
    assert hashed(make_request(**change)) != hashed(make_request())


@pytest.mark.parametrize(
    "change", [{"who": "you"}, {"revision": "abc"}, {"engine": "e.pyz"}, {"explicit_version": False},
               {"migration_decision": "resume"}],
)  # fmt: skip
def test_who_asks_and_how_does_not_change_the_hash(change: dict[str, Any]) -> None:
    assert hashed(make_request(**change)) == hashed(make_request())


def test_a_moved_tag_changes_the_hash() -> None:
    assert hashed(make_request(), {"api": digest(1)}) != hashed(make_request(), {"api": digest(2)})


values = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
environments = st.dictionaries(st.sampled_from(["A", "B", "C"]), values, max_size=3)


@QUICK
@given(environments, environments)
def test_two_environments_have_one_hash_exactly_when_they_are_equal(a: dict[str, str], b: dict[str, str]) -> None:
    left, right = (hashed(make_request(services={"api": service(env=env)})) for env in (a, b))
    assert (left == right) == (a == b)


@QUICK
@given(values, values)
def test_two_secrets_have_one_hash_exactly_when_they_are_equal(a: str, b: str) -> None:
    left, right = (hashed(make_request(secrets={"T": {"value": value, "uid": 1}})) for value in (a, b))
    assert (left == right) == (a == b)


def test_the_order_of_keys_does_not_change_the_hash() -> None:
    one, two = service(env={"A": "1", "B": "2"}), service(env={"B": "2", "A": "1"})
    assert hashed(make_request(services={"api": one})) == hashed(make_request(services={"api": two}))


def test_a_fingerprint_depends_on_the_hosts_salt_and_tells_no_value(world: World) -> None:
    salt = records.salt()
    assert records.salt() == salt and len(salt) == 64
    assert stat.S_IMODE(layout.SALT.stat().st_mode) == 0o400
    assert world.root in layout.SALT.parents
    assert records.fingerprint("value", salt) != records.fingerprint("value", KEY)
    assert "value" not in records.fingerprint("value", salt)


@pytest.mark.parametrize("step", ["record.compose", "record.release"])
def test_a_record_whose_write_failed_does_not_count(world: World, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    original: Callable[..., None] = effects.replace_file

    def fail(path: Path, data: str, **named: Any) -> None:
        if named["step"] == step:
            raise SwitchyardError("disk full")
        original(path, data, **named)

    monkeypatch.setattr(records, "replace_file", fail)
    with pytest.raises(SwitchyardError):
        make(world)
    assert records.ids(world.paths) == []
