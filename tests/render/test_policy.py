"""No compose file that Switchyard writes gives a container more than it declares."""

from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from tests.render.apps import ALL, IMAGE
from tests.render.policy import breaches
from tests.render.rendering import ROOT, render

POSTGRES = {
    "app_name": "shop",
    "postgres_superuser_password": "x",
    "postgres_app_password": "y",
    "postgres_publish_address": "192.0.2.7",
}

# Template to the role and the expression that render it, what the inventory says, and what its containers may.
# Nginx's master binds ports below 1024 and becomes the worker's user; on the host's network no translation of
# addresses can lose a connection.
HOUSE: dict[str, tuple[str, str, dict[str, Any], set[str]]] = {
    "edge.yml.j2": (
        "edge",
        "lookup('ansible.builtin.template', __edge_templates ~ '/edge.yml.j2')",
        {"app_name": "shop", "edge_server_names": ["shop.example.com"]},
        {"root", "host_network"}
        | {f"cap:{name}" for name in ("NET_BIND_SERVICE", "SETUID", "SETGID", "CHOWN", "DAC_OVERRIDE")},
    ),
    "postgres.yml.j2": ("postgres", "lookup('ansible.builtin.template', __postgres_template)", POSTGRES, set()),
    "pooler.yml.j2": ("postgres", "lookup('ansible.builtin.template', __postgres_pooler_template)", POSTGRES, set()),
}
APP = "app.yml.j2"


def services(text: str) -> dict[str, Any]:
    return dict(yaml.safe_load(text)["services"])


def test_every_compose_file_is_judged() -> None:
    assert {path.name for path in (ROOT / "compose").glob("*.yml.j2")} == {APP, *HOUSE}


@pytest.mark.parametrize("template", HOUSE)
def test_what_the_house_runs_breaks_no_rule_but_those_it_declares(template: str) -> None:
    role, expression, given, allowed = HOUSE[template]
    for name, service in services(render(role, expression, given)).items():
        assert breaches(service) == allowed, name


@pytest.mark.parametrize("app", ALL)
def test_applications_break_no_rule(app: str) -> None:
    for name, service in services(render("app", "__app_compose", ALL[app])).items():
        assert breaches(service) == set(), name


@pytest.mark.parametrize("exception", ["root", "writable_root", "new_privileges", "cap:NET_BIND_SERVICE"])
def test_an_exception_allows_what_it_names_and_nothing_else(exception: str) -> None:
    uid = 0 if exception == "root" else 10001
    odd = {"image": f"{IMAGE}/odd", "port": 80, "routes": ["/"], "uid": uid, "exceptions": [exception]}
    plain = {"image": f"{IMAGE}/plain", "port": 81}
    given = {"app_name": "shop", "app_version": "1", "app_services": {"odd": odd, "plain": plain}}
    rendered = services(render("app", "__app_compose", given))
    assert breaches(rendered["odd-1"]) == {exception}
    assert breaches(rendered["plain-1"]) == set()
    record = render("app", "__app_request", given)["services"]
    assert (record["odd"]["exceptions"], record["plain"]["exceptions"]) == ([exception], [])


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"user": "0:0"}, "root"),
        ({"user": "root"}, "root"),
        ({"user": None}, "root"),
        ({"read_only": False}, "writable_root"),
        ({"cap_drop": ["NET_RAW"]}, "capabilities"),
        ({"cap_add": ["SYS_ADMIN"]}, "cap:SYS_ADMIN"),
        ({"security_opt": []}, "new_privileges"),
        ({"security_opt": ["no-new-privileges:true", "seccomp=unconfined"]}, "unconfined"),
        ({"privileged": True}, "privileged"),
        ({"devices": ["/dev/sda"]}, "privileged"),
        ({"network_mode": "host"}, "host_network"),
        ({"pid": "host"}, "host_namespace"),
        ({"mem_limit": None}, "memory"),
        ({"mem_limit": "0m"}, "memory"),
        ({"pids_limit": -1}, "processes"),
        ({"logging": {"driver": "json-file"}}, "log_size"),
        ({"volumes": [{"type": "bind", "source": "/var/run/docker.sock", "target": "/s"}]}, "docker_socket"),
        ({"volumes": ["/:/host"]}, "docker_socket"),
        ({"ports": ["8000:8000"]}, "public_port"),
        ({"ports": ["0.0.0.0:8000:8000"]}, "public_port"),
        ({"ports": ["8000"]}, "public_port"),
    ],
)
def test_each_rule_notices_its_breach(change: Mapping[str, Any], rule: str) -> None:
    service = services(render("app", "__app_compose", ALL["one container"]))["web-1"]
    changed = {key: value for key, value in {**service, **change}.items() if value is not None}
    assert breaches(changed) == {rule}
