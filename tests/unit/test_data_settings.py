"""What the inventory says of backups becomes files, and no secret is in any but those that hold secrets."""

from typing import Any

import pytest

from switchyard.control import backup as control
from switchyard.data import repositories, settings
from switchyard.errors import SwitchyardError

CANARIES = ("pass-canary", "key-canary", "secret-canary", "ssh-canary")


def variables(**more: Any) -> dict[str, Any]:
    return {
        "app": "shop",
        "environment": "staging",
        "image": "img",
        "database": "shop",
        "uid": "999",
        "data_path": "/var/lib/postgresql",
        "pgdata": "/var/lib/postgresql/18/docker",
        "directory": "/backups",
        "retention_days": 30,
        "process_max": 2,
        "settings": {},
        "services": {"api": {"volumes": {"uploads": "/data"}, "database": True}, "web": {"volumes": {"media": "/m"}}},
        "shared_volumes": {"media": "/mnt/media"},
        "repositories": [S3, SFTP],
        "passphrase": "pass-canary",
        "assertions": [],
        "start_application": True,
        "memory_mb": 512,
        "row_tolerance_percent": 20,
        "max_age_days": 8,
        "dump_max_age_days": 8,
        "noticing_seconds": 300,
        "deciding_seconds": 600,
        "rto_limit_seconds": 3600,
        "rpo_limit_seconds": 120,
        "deploy_needs_drill_days": 0,
        "replica": False,
        "replica_identity": "",
    } | more


S3 = {
    "name": "cloud",
    "type": "s3",
    "endpoint": "s3.example.com",
    "bucket": "b",
    "region": "r",
    "key": "key-canary",
    "key_secret": "secret-canary",
}
SFTP = {
    "name": "other",
    "type": "sftp",
    "host": "198.18.0.9",
    "user": "keeper",
    "private_key": "ssh-canary",
    "known_hosts": "198.18.0.9 ssh-ed25519 AAAA",
}


def test_secrets_are_in_files_of_their_own_that_one_user_reads() -> None:
    placed = control.placing(variables(), "/var/lib/switchyard/backup/shop-staging")
    for file in placed["files"]:
        holds = [canary for canary in CANARIES if canary in file["content"]]
        assert bool(holds) <= (file.get("mode") == "0400" and file.get("secret") is True), file["path"]
    everywhere = "".join(file["content"] for file in placed["files"])
    assert all(canary in everywhere for canary in CANARIES)


def test_every_repository_is_configured_by_number_and_never_drops_wal() -> None:
    found = control.build(variables())
    text = repositories.files(found, control.given(variables()))[0].text
    for line in (
        "repo1-path=/var/lib/pgbackrest",
        "repo2-type=s3",
        "repo3-type=sftp",
        "repo3-sftp-host-key-check-type=strict",
        "repo3-retention-full=30",
        "archive-async=y",
        "pg1-path=/var/lib/postgresql/18/docker",
    ):
        assert line in text.splitlines()
    assert "archive-push-queue-max" not in text
    assert found.volumes == ["/mnt/media", "/var/lib/switchyard/shop-staging/volumes/uploads"]
    assert found.drill.application_services == ["api"]
    assert found.number("other") == 3


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"passphrase": ""}, "backup_passphrase is not set"),
        ({"repositories": [S3 | {"bucket": ""}]}, "cloud.bucket: a repository of type s3 needs it"),
        ({"repositories": [SFTP | {"host": "a b"}]}, "other.host: use letters"),
        ({"repositories": [SFTP | {"private_key": ""}]}, "other.private_key is not set"),
        ({"repositories": [S3 | {"key": "a\nrepo1-path=/"}]}, "cloud.key: use one line"),
        ({"repositories": [S3, S3]}, "two have the same name"),
        ({"repositories": [S3 | {"path": "x"}]}, "start it with a slash"),
        ({"repositories": [S3 | {"name": "local"}]}, "two have the same name"),
    ],
)
def test_what_cannot_work_is_refused_in_one_sentence(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SwitchyardError) as caught:
        control.placing(variables(**change), "/x")
    assert sentence in caught.value.message


def test_restic_names_its_secrets_by_file() -> None:
    found = control.build(variables())
    for repository in found.repositories:
        argv, environment = repositories.restic(found, repository)
        assert not any(canary in " ".join([*argv, *environment.values()]) for canary in CANARIES)
        assert "--password-file" in argv


def test_the_schedule_has_a_timer_for_each_job_and_a_target_for_all() -> None:
    jobs = {"daily": {"at": "*-*-* 02:10:00", "jitter": 900, "text": "Backup"}}
    units = {unit["path"].rpartition("/")[2]: unit["content"] for unit in control.units(jobs, "shop-staging")}
    timer = units["switchyard-backup-shop-staging-daily.timer"]
    assert "OnCalendar=*-*-* 02:10:00 UTC" in timer
    assert "Persistent=true" in timer
    assert "RandomizedDelaySec=900" in timer
    assert "Wants=switchyard-backup-shop-staging-daily.timer" in units["switchyard-backup-shop-staging.target"]


def test_a_file_on_the_host_is_read_as_strictly_as_the_inventory() -> None:
    with pytest.raises(SwitchyardError, match="retention_dayz: unknown key, did you mean 'retention_days'"):
        settings.parse({"retention_dayz": 3}, "backup")


def test_a_replica_knows_the_places_that_outlive_its_primary_and_no_other() -> None:
    placed = control.placing(variables(replica=True), "/f")
    (text,) = (file["content"] for file in placed["files"] if file["path"].endswith("pgbackrest.conf"))
    assert "repo1-type=s3" in text and "repo2-type=sftp" in text and "repo1-path=/var/lib/pgbackrest" not in text
    with pytest.raises(SwitchyardError, match="not on the database's own host: name a place for them"):
        control.build(variables(replica=True, repositories=[]))
