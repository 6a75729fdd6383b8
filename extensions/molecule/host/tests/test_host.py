"""What the role `host` is for, as those see it who log in."""

from testinfra.host import Host

from tests.molecule import login


def test_the_deploy_user_logs_in_by_key_and_is_nobody_special(host: Host) -> None:
    assert login(host, "deploy", "id -un").stdout.strip() == "deploy"
    assert login(host, "deploy", "sudo -n true").returncode != 0
    # Fewer than the default: a host of the bed may not have as many.
    assert login(host, "deploy", "ulimit -n").stdout.strip() == "15000"


def test_the_kernel_follows(host: Host) -> None:
    assert host.sysctl("net.core.somaxconn") == 4096
    assert host.sysctl("net.ipv4.ip_forward") == 1
    assert host.sysctl("net.ipv4.conf.all.accept_redirects") == 0


def test_time_and_packages_are_there(host: Host) -> None:
    assert host.check_output("date +%Z") == "UTC"
    with host.sudo():
        host.check_output("command -v logrotate visudo nsenter ss curl")


def test_the_journal_is_bounded(host: Host) -> None:
    shown = host.check_output("systemd-analyze cat-config systemd/journald.conf")
    assert shown.rindex("SystemMaxUse=500M") > shown.rfind("#SystemMaxUse=")
