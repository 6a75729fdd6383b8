"""Which TCP ports of an address answer, asked from a host of the bed.

The loop runs on the asking host, in one process with non-blocking sockets: the whole range takes seconds.
"""

import json
from collections.abc import Iterable, Sequence

from tests.bed import Host, subnets

EVERY = range(1, 65536)

_SCRIPT = r"""
import errno, json, resource, select, socket, sys, time

address, wait, ports = sys.argv[1], float(sys.argv[2]), json.loads(sys.stdin.read())
family = socket.AF_INET6 if ":" in address else socket.AF_INET
target = socket.getaddrinfo(address, 1, family, socket.SOCK_STREAM)[0][4]
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
size = min(8000, hard - 64)

def ask(batch, wait):
    poll, pending, answered = select.epoll(), {}, []
    for port in batch:
        handle = socket.socket(family, socket.SOCK_STREAM)
        handle.setblocking(False)
        code = handle.connect_ex((target[0], port, *target[2:]))
        if code == 0:
            answered.append(port)
            handle.close()
        elif code == errno.EINPROGRESS:
            pending[handle.fileno()] = (handle, port)
            poll.register(handle, select.EPOLLOUT)
        else:
            handle.close()
    deadline = time.monotonic() + wait
    # One that was kept waiting itself takes a last look: what has answered by now is there.
    while pending and (ready := poll.poll(max(0.0, deadline - time.monotonic()))):
        for number, _ in ready:
            handle, port = pending.pop(number)
            poll.unregister(number)
            if handle.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                answered.append(port)
            handle.close()
    for handle, _ in pending.values():
        handle.close()
    poll.close()
    return answered

found = []
for start in range(0, len(ports), size):
    found += ask(ports[start:start + size], wait)
print(json.dumps(sorted(found)))
"""


def answering(asker: Host, address: str, ports: Iterable[int] = EVERY, *, wait: float = 0.6) -> list[int]:
    """The ports of `address` that accept a connection from the asking host; `wait` is seconds per batch of 8000."""
    argv: Sequence[str] = ["python3", "-c", _SCRIPT, address, str(wait)]
    done = asker.exec(argv, stdin=json.dumps(list(ports)), timeout=300)
    found: list[int] = json.loads(done.stdout)
    return found


def give_ipv6(*hosts: Host) -> None:
    """Give hosts addresses of 2001:2::/48, the range reserved for benchmarks; a boot forgets them."""
    for host in hosts:
        script = (
            "sysctl -qw net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.eth0.disable_ipv6=0 && "
            f"ip -6 address replace {ipv6_of(host)}/64 dev eth0 nodad"
        )
        host.exec(["sh", "-c", script])


def ipv6_of(host: Host) -> str:
    """The IPv6 address that `give_ipv6` gives."""
    return f"2001:2::{host.address.rpartition('.')[2]}"


def force_routes(asker: Host, through: Host) -> None:
    """Send what is for the loopback and for networks of containers to another host, as a bad neighbour would."""
    script = (
        "for part in all eth0; do "
        "sysctl -qw net.ipv4.conf.$part.route_localnet=1 net.ipv4.conf.$part.rp_filter=0; done; "
        "ip address flush dev lo; "
        f"for network in 127.0.0.0/8 {subnets.NESTED}; do ip route replace $network via {through.address}; done"
    )
    asker.exec(["sh", "-c", script])


def containers(host: Host) -> list[str]:
    """The addresses of the containers on a host."""
    inspect = "docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}'"
    script = f'running=$(docker ps -q); test -z "$running" || {inspect} $running'
    return sorted(set(host.exec(["sh", "-c", script]).stdout.split()))
