"""A CI system's key opens the gate and nothing else."""

from testinfra.host import Host

from tests.molecule import login

CI = "switchyard-ci"


def test_the_key_opens_the_gate(host: Host) -> None:
    answer = login(host, CI, "status")
    assert "Permission denied" not in answer.stderr
    assert answer.returncode != 255, answer.stderr


def test_it_opens_no_shell_and_no_other_door(host: Host) -> None:
    for command in ("id", "sh -c id", "status; id", "sudo -n id", "cat /etc/passwd"):
        answer = login(host, CI, command)
        assert answer.returncode != 0, command
        assert "uid=" not in answer.stdout + answer.stderr
        assert "root:" not in answer.stdout + answer.stderr
    assert login(host, CI, "", "-W", "127.0.0.1:22").stdout == ""


def test_its_user_cannot_give_itself_another_key(host: Host) -> None:
    with host.sudo(CI):
        assert host.run(f"echo >> /var/lib/switchyard-access/{CI}/.ssh/authorized_keys").rc != 0
        assert host.run("sudo -n id").rc != 0
