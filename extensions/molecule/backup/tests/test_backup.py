"""The image can back up, and what opens the backups is readable by one user."""

import json

from testinfra.host import Host

FOLDER = "/var/lib/switchyard/backup/shop-molecule"
SETTINGS = "/etc/switchyard/backup/shop-molecule.json"


def test_the_image_has_a_pgbackrest_that_reads_its_settings(host: Host) -> None:
    with host.sudo():
        settings = json.loads(host.file(SETTINGS).content_string)
        words = f"--network none --read-only --tmpfs /tmp --user 999:999 --entrypoint pgbackrest {settings['image']}"
        mounts = f"-v {FOLDER}/pgbackrest:/etc/pgbackrest:ro -v {settings['directory']}/pgbackrest:/var/lib/pgbackrest"
        said = host.check_output(f"docker run --rm {mounts} {words} info")
    assert "No stanzas exist in the repository" in said


def test_only_one_user_reads_what_opens_the_backups(host: Host) -> None:
    with host.sudo():
        secrets = host.file(f"{FOLDER}/pgbackrest/conf.d/secrets.conf")
        assert "cipher-pass=molecule-passphrase" in secrets.content_string
        assert (secrets.mode, secrets.uid) == (0o400, 999)
        assert "molecule-passphrase" not in host.file(SETTINGS).content_string
    assert host.run(f"cat {FOLDER}/pgbackrest/conf.d/secrets.conf").rc != 0


def test_restic_is_there_for_files(host: Host) -> None:
    assert host.package("restic").is_installed
