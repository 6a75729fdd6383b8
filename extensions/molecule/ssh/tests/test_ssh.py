"""Who gets in, and who does not; asked by logging in."""

import pytest
from testinfra.host import Host

from tests.molecule import login

NO_KEY = ("-o", "PubkeyAuthentication=no", "-o", "PreferredAuthentications=password,keyboard-interactive")


def give_key(host: Host, user: str, home: str) -> None:
    """Let a user's account hold the bed's key, as somebody would who has no right to log in."""
    script = (
        f"install -d -m 0700 -o {user} {home}/.ssh && install -m 0600 -o {user} ~admin/.ssh/authorized_keys {home}/.ssh"
    )
    with host.sudo():
        host.check_output(script)


@pytest.mark.parametrize("user", ["admin", "deploy"])
def test_who_should_gets_in_by_key(host: Host, user: str) -> None:
    assert login(host, user, "id -un").stdout.strip() == user


def test_nobody_gets_in_by_password(host: Host) -> None:
    refused = login(host, "admin", "true", *NO_KEY)
    assert refused.returncode == 255
    assert "Permission denied (publickey)" in refused.stderr


def test_a_key_alone_lets_neither_root_nor_a_stranger_in(host: Host) -> None:
    with host.sudo():
        host.run("useradd --create-home stranger")
    for user, home in (("root", "/root"), ("stranger", "/home/stranger")):
        give_key(host, user, home)
        assert "Permission denied" in login(host, user, "true").stderr, user


def test_the_deploy_user_forwards_nothing(host: Host) -> None:
    assert login(host, "admin", "", "-W", "127.0.0.1:22").stdout.startswith("SSH-2.0")
    refused = login(host, "deploy", "", "-W", "127.0.0.1:22")
    assert (refused.returncode, refused.stdout) == (255, "")
