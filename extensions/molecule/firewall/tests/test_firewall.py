"""What answers from outside; the machine that runs Molecule is a neighbour of the hosts."""

import socket
from collections.abc import Iterator

import pytest
from testinfra.host import Host

from tests.molecule import address


@pytest.fixture(autouse=True)
def listeners(host: Host) -> Iterator[None]:
    """Something listens on every address, on a port that is declared and on one that is not."""
    with host.sudo():
        for port in (80, 9999):
            listens = f"ss -Hltn sport = :{port} | grep -q ."
            host.check_output(f"{listens} || systemd-run --quiet --unit listen-{port} python3 -m http.server {port}")
            host.check_output(f"for i in $(seq 600); do {listens} && exit; sleep 0.1; done; exit 1")
    yield
    with host.sudo():
        host.check_output("systemctl stop 'listen-*'")


def answers(host: Host, port: int) -> bool:
    try:
        socket.create_connection((address(host), port), timeout=1).close()
    except OSError:
        return False
    return True


def test_only_what_is_declared_answers(host: Host) -> None:
    assert {port: answers(host, port) for port in (22, 80, 9999)} == {22: True, 80: True, 9999: False}


def test_on_the_host_itself_everything_answers(host: Host) -> None:
    assert host.socket("tcp://127.0.0.1:9999").is_listening or host.socket("tcp://0.0.0.0:9999").is_listening
    assert host.run("curl -sf -o /dev/null http://127.0.0.1:9999/").rc == 0


def test_the_host_reaches_others(host: Host) -> None:
    assert host.run("python3 -c 'import socket; socket.getaddrinfo(\"deb.debian.org\", 80)'").rc == 0


def test_it_survives_a_restart_of_the_distributions_own_service(host: Host) -> None:
    with host.sudo():
        host.check_output("systemctl restart nftables && systemctl restart switchyard-firewall")
    assert not answers(host, 9999)
