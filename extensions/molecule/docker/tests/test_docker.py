"""Docker works, is not for everybody, and its restart is nobody's outage."""

import json

from testinfra.host import Host

from tests.molecule import registry


def test_root_alone_speaks_to_the_daemon(host: Host) -> None:
    assert "permission denied" in host.run("docker ps").stderr
    with host.sudo():
        assert host.check_output("docker compose version --short").lstrip("v").split(".")[0] >= "2"


def test_containers_outlive_a_restart_of_the_daemon(host: Host) -> None:
    with host.sudo():
        host.run("docker rm -f probe")
        host.check_output(f"docker run -d --name probe {registry()}/trivial:1.0.0 sleep 600")
        before = host.check_output("docker inspect -f '{{.State.StartedAt}} {{.State.Pid}}' probe")
        host.check_output("systemctl restart docker")
        assert host.check_output("docker inspect -f '{{.State.StartedAt}} {{.State.Pid}}' probe") == before
        assert host.check_output("docker inspect -f '{{.State.Running}}' probe") == "true"


def test_logs_are_bounded_and_addresses_are_the_planned_ones(host: Host) -> None:
    with host.sudo():
        found = json.loads(host.check_output("docker inspect probe"))[0]
    assert found["HostConfig"]["LogConfig"]["Config"] == {"max-size": "10m", "max-file": "5"}
    assert found["NetworkSettings"]["IPAddress"].startswith("198.19.")
