"""Certificates from a real ACME server, and the edge's own replacement: users notice neither.

The engine's verbs are called as role and timer call them, since a provision takes ten times as long.
"""

import contextlib
import http.client
import json
import socket
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import edges
from tests.acme import DIRECTORY, Pebble
from tests.lab import APP, Fault, Lab
from tests.load import LoadConfig, LoadProcess
from tests.load.certificates import certificate

NAME = "trivial.test"


@dataclass(frozen=True)
class Secured:
    """The lab behind TLS, and the server that certified it."""

    lab: Lab
    server: Pebble
    authority: Path
    variables: dict[str, Any]
    """What the inventory says of the edge."""

    def get(self, path: str = "/", *, tls: bool = True) -> http.client.HTTPResponse:
        """Ask on a new connection, by name, as a client that trusts the authority alone."""
        address = self.lab.host.address
        connection = http.client.HTTPConnection(address, timeout=60)
        if tls:
            context = ssl.create_default_context(cafile=str(self.authority))
            connection.sock = context.wrap_socket(socket.create_connection((address, 443), 60), server_hostname=NAME)
        connection.request("GET", path, headers={"Host": NAME})
        return connection.getresponse()

    def served(self) -> str:
        """The certificate that a client is shown."""
        return ssl.get_server_certificate((self.lab.host.address, 443), timeout=60)

    def load(self, **workers: int) -> LoadProcess:
        """Start the strict client."""
        config = LoadConfig(
            url=f"http://{self.lab.host.address}/",
            tls_url=f"https://{NAME}/",
            connect=self.lab.host.address,
            server_name=NAME,
            ca=str(self.authority),
            workers=workers,
            max_duration=600,
        )
        return LoadProcess(config).start()

    def renew(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run what the timer runs."""
        return self.lab.engine("tls-renew", APP, *words)

    def state(self) -> dict[str, Any]:
        """What `status` says of the certificate."""
        found: dict[str, Any] = self.lab.status()["certificate"]
        return found


def provision(lab: Lab, **variables: object) -> subprocess.CompletedProcess[str]:
    path = lab.project.folder / "inventories" / "group_vars" / "env_local" / "zz_tls.yml"
    path.write_text(yaml.safe_dump(variables or {"edge_tls": "off"}))
    done = lab.project.play("provision", "--tags", "edge")
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def secured(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    result = lab.deploy("1.0.0")
    assert result["code"] == 0, result
    server = Pebble(lab.host)
    server.start({NAME: lab.host.address})
    wanted: dict[str, Any] = {
        "edge_tls": "acme",
        "edge_acme_directory": DIRECTORY,
        "edge_acme_authority": server.authority,
        "edge_server_names": [NAME, lab.host.address],
        "edge_hsts_seconds": 300,
    }
    done = provision(lab, **wanted)
    assert "Certificate:" not in done.stdout + done.stderr, done.stderr
    yield Secured(lab, server, server.root(tmp_path_factory.mktemp("acme") / "root.pem"), wanted)
    server.stop()
    provision(lab)


def test_provision_has_a_certificate_issued(secured: Secured) -> None:
    answer = secured.get()
    assert (answer.status, answer.getheader("Strict-Transport-Security")) == (200, "max-age=300")
    assert secured.get(tls=False).getheader("Strict-Transport-Security") is None
    state = secured.state()
    assert (state["mode"], state["state"], state["renewal"]) == ("acme", "valid", "")
    assert state["names"] == [NAME] and "Pebble" in state["issuer"] and 88 < state["days_left"] < 91
    told = secured.lab.engine("status", APP).stdout
    assert "  tls       acme: valid, 90 days left" in told, told
    assert secured.renew("--check", "--json").returncode == 0
    timer = secured.lab.host.exec(["systemctl", "is-active", "switchyard-tls.timer"]).stdout
    assert timer.strip() == "active"


def test_a_renewal_loses_nothing(secured: Secured) -> None:
    before = secured.served()
    load = secured.load(tls=6, h2=2, new=4)
    load.await_sent(20)
    done = secured.renew("--force")
    load.await_sent(101)
    report = load.stop()
    assert done.returncode == 0, done.stderr
    assert secured.served() != before
    assert report.lost == 0 and report.sent > 100, report.summary()


@pytest.mark.parametrize(
    ("public", "private", "problem"),
    [
        (certificate(NAME)[0], certificate(NAME)[1], "certificate and key do not belong together. "),
        (*certificate(NAME, hours_left=-1), "the certificate has expired on "),
    ],
    ids=["mismatched", "expired"],
)
def test_a_pair_that_must_not_serve_is_refused(secured: Secured, public: str, private: str, problem: str) -> None:
    before = secured.served()
    request: dict[str, Any] = {"app": "trivial", "environment": "local", "certificate": public, "key": private}
    request["settings"] = {"mode": "files", "names": [NAME]}
    done = secured.lab.engine("tls-keep", stdin=json.dumps(request))
    assert done.returncode == 2 and problem in done.stdout and "The pair in service stays." in done.stdout, done.stdout
    assert secured.served() == before


@pytest.mark.parametrize("state", ["expired", "mismatched", "missing"])
def test_what_becomes_of_the_files_is_said_and_the_edge_serves_on(secured: Secured, state: str) -> None:
    before = secured.served()
    named = f"sed -n 's/^ssl_certificate \\(.*\\);/\\1/p' /var/lib/switchyard/edge/live/certificates/{APP}.conf"
    folder = str(Path(secured.lab.host.exec(["sh", "-c", named]).stdout.strip()).parent)
    secured.lab.host.exec(["cp", "-a", folder, "/root/pair"])
    public, private = certificate(NAME, hours_left=-1 if state == "expired" else 24)
    if state == "missing":
        secured.lab.host.exec(["rm", f"{folder}/certificate.pem"])
    else:
        secured.lab.host.put(f"{folder}/certificate.pem", public)
    if state == "expired":
        secured.lab.host.put(f"{folder}/key.pem", private, mode=0o600)
    try:
        assert secured.state()["state"] == state
        assert secured.served() == before and secured.get().status == 200
    finally:
        secured.lab.host.exec(["sh", "-c", f"rm -rf {folder} && mv /root/pair {folder}"])
    assert secured.state()["state"] == "valid"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_old_tls_is_refused_by_the_edge(secured: Secured) -> None:
    for version, refused in ((ssl.TLSVersion.TLSv1_1, True), (ssl.TLSVersion.TLSv1_2, False)):
        context = ssl.create_default_context(cafile=str(secured.authority))
        context.set_ciphers("DEFAULT@SECLEVEL=0")
        context.minimum_version = context.maximum_version = version
        with socket.create_connection((secured.lab.host.address, 443), 60) as connection:
            # The alert is the edge's: this client itself would go on.
            said = pytest.raises(ssl.SSLError, match="ALERT_PROTOCOL_VERSION") if refused else contextlib.nullcontext()
            with said:
                context.wrap_socket(connection, server_hostname=NAME).close()


def test_what_fails_leaves_the_old_pair_in_service(secured: Secured) -> None:
    before = secured.served()
    # The challenge is not answered: its file would have to be written where a file stands in the way.
    challenges = "/var/lib/switchyard/edge/acme/.well-known"
    secured.lab.host.exec(["sh", "-c", f"rm -rf {challenges} && touch {challenges}"])
    done = secured.renew("--force")
    secured.lab.host.exec(["rm", "-f", challenges])
    assert done.returncode == 1 and "The old pair stays in service (valid)" in done.stderr, done.stderr
    assert secured.state()["renewal"] and secured.served() == before
    assert secured.get().status == 200


def test_a_killed_renewal_is_finished_by_the_next(secured: Secured) -> None:
    before = secured.served()
    secured.lab.arm(Fault("edge_files.rename", 1, "after", "kill"))
    assert secured.renew("--force").returncode == 137
    assert (secured.served(), secured.state()["state"]) == (before, "not loaded")
    assert secured.renew().returncode == 0
    assert secured.served() != before and secured.state()["state"] == "valid"


def test_the_edge_is_replaced_while_users_keep_coming_in(secured: Secured) -> None:
    host = secured.lab.host
    before = edges.only(host)
    waiting = json.loads(edges.keep(host, 15_000, restart=False).stdout)
    assert waiting["waiting"] and not waiting["started"] and edges.only(host)["ID"] == before["ID"]
    load = secured.load(get=8, post=4, new=8, tls=4, h2=2)
    load.await_sent(20)
    done = edges.keep(host, 15_000)
    load.await_sent(101)
    report = load.stop()
    assert done.returncode == 0 and json.loads(done.stdout)["started"], done.stdout
    assert report.lost == 0 and report.sent > 100, report.summary()
    assert edges.only(host)["ID"] != before["ID"]
    assert secured.lab.deploy("1.1.0")["code"] == 0


@pytest.mark.parametrize("step", ["edge.up", "edge.quit", "edge.remove"])
def test_a_killed_take_over_serves_and_is_finished_by_the_next(secured: Secured, step: str) -> None:
    host = secured.lab.host
    wanted = 15_000 + len(step)
    secured.lab.arm(Fault(step, 1, "after", "kill"))
    assert edges.keep(host, wanted).returncode == 137
    assert 1 <= len([found for found in edges.containers(host) if found["State"] == "running"]) <= 2
    assert all(secured.get().status == 200 for _ in range(10))
    assert edges.keep(host, wanted).returncode == 0
    edges.only(host)


def test_a_new_edge_that_cannot_serve_leaves_the_old_one(secured: Secured) -> None:
    host = secured.lab.host
    before = edges.only(host)
    text = host.exec(["cat", edges.COMPOSE]).stdout
    data = {"compose": text.replace("live/nginx.conf", "live/none.conf"), "image": "x", "drain_seconds": 1}
    done = host.exec(["switchyard", "edge-keep"], stdin=json.dumps(data | {"restart": True}), check=False)
    host.exec(["sh", "-c", f"cat > {edges.COMPOSE}"], stdin=text)
    assert done.returncode == 5 and "the old one serves on" in done.stdout and "none.conf" in done.stdout
    assert edges.only(host)["ID"] == before["ID"] and secured.get().status == 200


def test_plain_http_is_redirected_but_for_challenges(secured: Secured) -> None:
    """The last one: what asks by plain HTTP above would be sent away."""
    provision(secured.lab, **secured.variables, edge_redirect_http=True)
    answer = secured.get("/a?b=c", tls=False)
    assert (answer.status, answer.getheader("Location")) == (308, f"https://{NAME}/a?b=c")
    assert secured.get().status == 200
    before = secured.served()
    done = secured.renew("--force")
    assert done.returncode == 0 and secured.served() != before, done.stderr
