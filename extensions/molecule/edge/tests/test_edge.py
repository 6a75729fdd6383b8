"""The edge takes in requests, knows its names, and comes back."""

import socket

import pytest
from testinfra.host import Host

from tests.molecule import address

CONTAINER = "switchyard-edge"


def request(host: Host, name: str) -> bytes:
    with socket.create_connection((address(host), 80), timeout=30) as connection:
        connection.sendall(f"GET / HTTP/1.1\r\nHost: {name}\r\n\r\n".encode())
        try:
            return connection.recv(1000)
        except ConnectionResetError:
            return b""


@pytest.mark.parametrize("name", ["molecule.test", "elsewhere.test"])
def test_a_name_without_a_release_is_closed_without_an_answer(host: Host, name: str) -> None:
    assert request(host, name) == b""


def test_it_can_be_asked_to_read_its_configuration_again(host: Host) -> None:
    with host.sudo():
        workers = "pgrep -P $(docker inspect -f '{{.State.Pid}}' switchyard-edge) | sort"
        before = host.check_output(workers)
        host.check_output(f"kill -HUP $(docker inspect -f '{{{{.State.Pid}}}}' {CONTAINER})")
        host.check_output(
            f"for i in $(seq 600); do [ \"$({workers})\" != '{before}' ] && exit; sleep 0.1; done; exit 1"
        )
    assert request(host, "molecule.test") == b""


def test_it_comes_back_when_it_dies(host: Host) -> None:
    with host.sudo():
        # Until it is gone, the sockets that are looked for are its own.
        gone = "while kill -0 $pid 2> /dev/null; do sleep 0.1; done"
        host.check_output(f"pid=$(docker inspect -f '{{{{.State.Pid}}}}' {CONTAINER}); kill -9 $pid; {gone}")
        host.check_output("for i in $(seq 600); do ss -Hltn sport = :80 | grep -q . && exit; sleep 0.1; done; exit 1")
    assert request(host, "molecule.test") == b""


def test_keys_and_configuration_are_not_for_everybody(host: Host) -> None:
    assert host.run("ls /var/lib/switchyard/edge/tls").rc != 0
    assert host.run("echo >> /var/lib/switchyard/edge/live/nginx.conf").rc != 0
