"""Backups read a replica: what proves the two hosts to each other, and what each of them is told."""

import pytest

from switchyard.control import backup as control
from switchyard.control import standby
from switchyard.data import pgbackrest, repositories
from switchyard.errors import SwitchyardError
from tests.identity import identity
from tests.unit.test_data_settings import variables

ADDRESS = "192.0.2.5"


def test_an_identity_is_for_an_address_and_is_parted_into_key_and_certificate() -> None:
    found = standby.parse(identity(ADDRESS))
    assert found.address == ADDRESS
    assert "PRIVATE KEY" in found.key and "CERTIFICATE" not in found.key
    assert "CERTIFICATE" in found.certificate and "PRIVATE KEY" not in found.certificate


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nothing", "is not a private key and a certificate"),
        (standby.parse(identity(ADDRESS)).key, "is not a private key and a certificate"),
        (standby.parse(identity(ADDRESS)).certificate, "is not a private key and a certificate"),
        (identity("db-2"), "is for 'db-2', which is no address"),
        (
            standby.parse(identity(ADDRESS)).key + standby.parse(identity("192.0.2.6")).certificate,
            "do not belong together",
        ),
    ],
    ids=["no PEM", "key alone", "certificate alone", "for a name", "of two pairs"],
)
def test_anything_else_is_refused_with_the_command_that_makes_one(text: str, words: str) -> None:
    with pytest.raises(SwitchyardError, match=words) as caught:
        standby.parse(text)
    assert "openssl req -x509" in caught.value.message and "PRIVATE KEY---" not in caught.value.message


def test_the_primary_reads_the_replica_and_the_replica_lets_nobody_else_in() -> None:
    given = variables(replica_identity=identity(ADDRESS))
    primary, replica = (control.build(given | {"replica": value}) for value in (False, True))
    words = repositories.standby_words(primary)
    assert {"--backup-standby=prefer", f"--pg2-host={ADDRESS}", "--pg2-host-type=tls"} < set(words)
    texts = {
        found.replica: repositories.files(found, control.given(given | {"replica": found.replica}))[0].text
        for found in (primary, replica)
    }
    assert f"tls-server-auth={ADDRESS}=main" in texts[True] and "tls-server" not in texts[False]
    for is_replica in (False, True):
        placed = control.placing(given | {"replica": is_replica}, "/f")["files"]
        holding = [(file["path"], file["mode"], file["secret"]) for file in placed if "PRIVATE KEY" in file["content"]]
        assert holding == [("/f/pgbackrest/keys/standby.key", "0400", True)]


def test_without_an_identity_nothing_is_read_elsewhere() -> None:
    assert repositories.standby_words(control.build(variables())) == []


def test_why_the_primary_was_read_is_found_in_what_pgbackrest_says() -> None:
    said = "P00   WARN: unable to check pg2: [HostConnectError] unable to connect to '192.0.2.5:8432': timeout\n"
    why = "unable to check pg2: [HostConnectError] unable to connect to '192.0.2.5:8432': timeout"
    assert pgbackrest.standby_problem(said) == why
    assert pgbackrest.standby_problem("P00   WARN: expire command took long\n") == ""
