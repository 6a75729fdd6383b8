"""The host has room for the application, and nobody else looks into it."""

import json

from testinfra.host import Host

from tests.molecule import login

HOME = "/var/lib/switchyard/shop-molecule"


def test_secrets_are_for_root_alone(host: Host) -> None:
    assert login(host, "deploy", f"ls {HOME}/secrets").returncode != 0
    assert host.run(f"ls {HOME}/secrets").rc != 0


def test_each_colour_has_its_port(host: Host) -> None:
    with host.sudo():
        plan = json.loads(host.check_output("cat /var/lib/switchyard/ports.json"))
    ports = {key: port for key, port in plan.items() if key.startswith("shop-molecule/")}
    assert set(ports) == {"shop-molecule/api/1/blue", "shop-molecule/api/1/green"}
    assert len(set(ports.values())) == 2


def test_the_way_to_the_database_leads_nowhere_else(host: Host) -> None:
    with host.sudo():
        found = json.loads(host.check_output("docker network inspect shop-molecule-data"))[0]
    assert found["Internal"] is True
