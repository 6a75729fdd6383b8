"""The deploy user runs the engine as root, and nothing else."""

from testinfra.host import Host

from tests.molecule import login


def test_the_deploy_user_runs_the_engine_and_nothing_else(host: Host) -> None:
    answer = login(host, "deploy", "sudo -n /usr/local/sbin/switchyard --help")
    assert (answer.returncode, "usage" in answer.stdout) == (0, True), answer.stderr
    for command in ("sudo -n true", "sudo -n python3 -c 1", "sudo -n /usr/bin/env /usr/local/sbin/switchyard --help"):
        assert login(host, "deploy", command).returncode != 0, command
    assert login(host, "deploy", "echo >> /usr/local/sbin/switchyard").returncode != 0


def test_recovery_runs_at_boot(host: Host) -> None:
    assert host.service("switchyard-recover.service").is_enabled
    with host.sudo():
        host.check_output("switchyard recover")
        assert host.file("/run/switchyard").mode == 0o700


def test_the_host_is_looked_at_also_between_releases(host: Host) -> None:
    timer = host.service("switchyard-standing.timer")
    assert timer.is_enabled and timer.is_running
    with host.sudo():
        host.check_output("systemctl start switchyard-standing.service")
        assert '"looked_at"' in host.file("/var/lib/switchyard/standing.json").content_string
