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
    secrets = f"{FOLDER}/pgbackrest/conf.d/secrets.conf"
    assert host.run(f"cat {secrets}").rc != 0
    with host.sudo():
        image = json.loads(host.file(SETTINGS).content_string)["image"]
        mount = f"-v {FOLDER}/pgbackrest:/etc/pgbackrest:ro"
        read = f"--entrypoint cat {image} /etc/pgbackrest/conf.d/secrets.conf"
        found = {uid: host.run(f"docker run --rm --network none {mount} --user {uid} {read}") for uid in (999, 998)}
        assert "molecule-passphrase" in found[999].stdout
        assert (found[998].rc, found[998].stdout) == (1, "")
        # What is handed around, and shown, opens nothing.
        assert host.run(f"grep -rq molecule-passphrase {SETTINGS} /etc/systemd/system").rc == 1


def test_restic_is_there_for_files(host: Host) -> None:
    assert host.package("restic").is_installed
