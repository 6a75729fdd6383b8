"""What the checks of the inventory refuse, without Ansible: each mistake is one sentence that says how to mend it."""

from pathlib import Path
from typing import Any

import pytest

from switchyard.control import inventory
from tests.identity import identity

ROOT = Path(__file__).resolve().parents[2]
SPECS = inventory.load(ROOT / "roles")
KEY = "ssh-ed25519 AAAA you@example.com"


def nowhere(_: object) -> str:
    return ""


def good(**changes: Any) -> dict[str, Any]:
    """Every variable with a value that is in order."""
    values: dict[str, Any] = {name: option.get("default") for name, option in SPECS.options.items()}
    values |= {
        "app_name": "shop",
        "app_version": "1.0.0",
        "app_environment": "staging",
        "app_drain_seconds": 60,
        "app_max_connections": 100,
        "app_pool_connections": 0,
        "app_pool_clients": 0,
        "app_services": {"api": {"image": "example.com/api", "port": 8000, "routes": ["/"]}},
        "edge_server_names": ["example.com"],
        "host_deploy_authorized_keys": [KEY],
    }
    return values | changes


def values(**given: Any) -> list[str]:
    return inventory.check_values(SPECS, given, nowhere)


def together(**changes: Any) -> list[str]:
    alone = inventory.Topology("vm1", {"app": ["vm1"], "edge": ["vm1"]})
    return inventory.check_together(good(**changes), alone, {})


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"engine_watch": {"cpu_share": 80.0}}, "engine_watch.cpu_share: use 0.0001 to 1, a share of the whole."),
        ({"engine_watch": {"interval": 0}}, "engine_watch.interval: use 1 to 600 seconds."),
        ({"engine_watch": {"backup_hours": 0.5}}, "engine_watch.backup_hours: use 1 to 8760 hours."),
        ({"notify_heartbeat_url": "example.com/ping"}, "notify_heartbeat_url: this is no http(s) URL."),
        ({"notify_heartbeat_seconds": 0.0}, "notify_heartbeat_seconds: use 1 to 86400 seconds."),
    ],
)
def test_a_limit_of_the_standing_watch_that_makes_no_sense_is_refused(given: dict[str, Any], sentence: str) -> None:
    assert together(**given) == [sentence]
    assert together(engine_watch={"interval": 10, "p95_seconds": None}) == []


def service(**changes: Any) -> dict[str, Any]:
    return {"api": {"image": "example.com/api", "port": 8000, "routes": ["/"], **changes}}


def test_what_is_in_order_passes() -> None:
    assert together() == []
    assert values(app_services=service(), edge_tls="off", host_kernel_settings={"a.b": 1}) == []


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"app_version": 1.1}, "app_version has to be a text, and is the number 1.1; write it in quotes."),
        ({"app_retain": "many"}, "app_retain has to be a whole number, and is the text 'many'."),
        ({"app_retain": True}, "app_retain has to be a whole number, and is true."),
        ({"edge_gzip": "perhaps"}, "edge_gzip has to be true or false, and is the text 'perhaps'."),
        ({"edge_tls": "magic"}, "edge_tls is 'magic'; use one of off, acme, files, self_signed."),
        ({"app_services": ["api"]}, "app_services has to be a dictionary, and is a list."),
        ({"app_services": {"api": None}}, "app_services.api has to be a dictionary, and is empty."),
        (
            {"app_services": service(port="8000")},
            "app_services.api.port has to be a whole number, and is the text '8000'.",
        ),
        (
            {"app_services": service(routes="/")},
            "app_services.api.routes has to be a list, and is the text '/'.",
        ),
        (
            {"app_services": service(helth={})},
            "app_services.api.helth: unknown key, did you mean 'health'?",
        ),
        (
            {"app_services": service(health={"pth": "/"})},
            "app_services.api.health.pth: unknown key, did you mean 'path'?",
        ),
        ({"engine_watch": {"cpu_shar": 1}}, "engine_watch.cpu_shar: unknown key, did you mean 'cpu_share'?"),
        ({"engine_watch": {"interval": "5"}}, "engine_watch.interval has to be a number, and is the text '5'."),
        (
            {"app_services": service(zzz=1)},
            "app_services.api.zzz: unknown key.",
        ),
        (
            {"app_smoke_tests": [{"path": "/"}, {"status": 200}]},
            "app_smoke_tests[1].path is missing: What is asked for.",
        ),
        (
            {"docker_registry_logins": [{"registry": "r", "user": "me", "password": "x"}]},
            "docker_registry_logins[0].user: unknown key, did you mean 'username'?",
        ),
        ({"app_migration": {"service": "api"}}, "app_migration.command is missing: The command."),
        ({"host_packages": [1]}, "host_packages[0] has to be a text, and is the number 1; write it in quotes."),
    ],
    ids=str,
)
def test_values_are_what_the_specs_say(given: dict[str, Any], sentence: str) -> None:
    assert sentence in values(**given)


def test_a_number_may_be_spelt_on_the_command_line() -> None:
    assert values(app_retain="5", edge_gzip="false", app_probation_seconds="0.5") == []


def test_the_place_of_a_mistake_is_said() -> None:
    found = inventory.check_names(
        SPECS, ["app_servics", "appetite", "edge_tls"], lambda _: "group_vars/all/app.yml:7: "
    )
    assert found == ["group_vars/all/app.yml:7: unknown variable 'app_servics', did you mean 'app_services'?"]


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        ({"verison": "1.0.0"}, "-e verison=...: unknown variable 'verison', did you mean 'version'?"),
        ({"restrat": "edge"}, "-e restrat=...: unknown variable 'restrat', did you mean 'restart'?"),
        ({"restart": "nginx"}, "-e restart=nginx: use one of edge, postgres, pooler, docker."),
        ({"migration": "again"}, "-e migration=again: use one of resume, resolve."),
        ({"version": 1.1}, "-e version: 1.1 is no text; write it in quotes."),
    ],
    ids=str,
)
def test_the_command_line_is_checked(extra: dict[str, Any], sentence: str) -> None:
    assert inventory.check_extra(SPECS, extra) == [sentence]


def test_other_words_on_the_command_line_are_the_users_own() -> None:
    extra = {"env": "staging", "restart": "edge,postgres", "version": "1.0.0", "ticket": "OPS-12", "app_retain": "2"}
    # What another store of secrets hands over in place of a vault file.
    extra["vault_postgres_app_password"] = "from-elsewhere"
    assert inventory.check_extra(SPECS, extra) == []


def test_what_roles_need_is_asked_for() -> None:
    missing = inventory.check_required(SPECS, ["db"], ["host_deploy_authorized_keys"])
    assert [sentence.partition(" is not set")[0] for sentence in missing] == [
        "'postgres_superuser_password'",
        "'postgres_app_password'",
        "'postgres_migrate_password'",
    ]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"app_name": "Shop"}, "'Shop' is not a valid application name"),
        ({"app_version": "one two"}, "'one two' is not a valid version"),
        ({"app_services": {}}, "app_services: name at least one service"),
        ({"app_services": service(database=True)}, "no host of this environment is in the group db"),
        ({"app_services": service(secrets=["TOKEN"])}, "wants the secret 'TOKEN', which app_secrets does not have"),
        (
            {"app_services": service(secrets=["TOKEN"]), "app_secrets": {"TOKEN": ""}},
            "app_secrets.TOKEN is empty, and app_services.api wants it",
        ),
        (
            {
                "app_services": service(secrets=["TOKEN"])
                | {"web": {"image": "example.com/web", "port": 1, "uid": 10002, "secrets": ["TOKEN"]}},
                "app_secrets": {"TOKEN": "x"},
            },
            "both want the secret 'TOKEN', which has one owner",
        ),
        (
            {
                "app_services": service(volumes={"data": "/data"})
                | {"web": {"image": "example.com/web", "port": 1, "uid": 10002, "volumes": {"data": "/data"}}}
            },
            "both want the volume 'data', which has one owner",
        ),
        (
            {"app_services": service() | {"web": {"image": "example.com/web", "port": 1, "routes": ["/"]}}},
            "'/' is also api's",
        ),
        ({"app_services": service(digest="sha256:12")}, "a digest is sha256: and 64 hexadecimal digits"),
        ({"app_services": service(image="Nope!")}, "'Nope!' is no image name"),
        ({"app_services": service(health={"path": "health"})}, "'health' is no path: start it with a slash"),
        ({"app_services": service(pids_limit=0)}, "app_services.api.pids_limit: use 1 or more"),
        ({"firewall_allow": [{"ports": ["http"]}]}, "firewall_allow[0].ports: 'http' is no port"),
        ({"firewall_allow": [{"ports": ["1"], "from": ["vpn"]}]}, "firewall_allow[0].from: 'vpn' is no address"),
        ({"firewall_edge_addresses": ["edge-1"]}, "firewall_edge_addresses: 'edge-1' is no address"),
        ({"app_services": service(port=0)}, "use a port from 1 to 65535"),
        ({"app_smoke_tests": [{"path": "x"}]}, "app_smoke_tests[0].path: start it with a slash"),
        ({"app_migration": {"service": "ap", "command": ["x"]}}, "app_migration.service: 'ap' is not in app_services"),
        ({"host_deploy_authorized_keys": []}, "name at least one public key"),
        ({"ansible_user": "deploy"}, "host_deploy_user is 'deploy', who is ansible_user, too"),
        ({"edge_server_names": []}, "name at least one host name"),
        ({"edge_tls": "files"}, "needs edge_tls_certificate and edge_tls_key"),
        ({"edge_redirect_http": True}, "edge_redirect_http needs edge_tls"),
        ({"edge_tls": "acme", "edge_server_names": ["192.0.2.1", "localhost"]}, "needs plain host names"),
        ({"edge_tls": "acme", "edge_server_names": ["*.example.com"]}, "needs plain host names"),
        ({"edge_tls": "self_signed", "edge_hsts_seconds": 300}, "edge_hsts_seconds needs edge_tls acme or files"),
        ({"edge_open_files": 100}, "at least twice edge_worker_connections"),
        ({"engine_port_last": 1}, "engine_port_last has to be above engine_port_first"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_variables_fit_together(changes: dict[str, Any], words: str) -> None:
    found = together(**changes)
    assert len(found) == 1
    assert words in found[0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"postgres_pooler_enabled": True}, "postgres_pooler_enabled needs postgres_pooler_password"),
        ({"postgres_pooler_enabled": True, "postgres_pooler_password": 'with "quotes"'}, "use letters, digits and"),
        (
            {
                "postgres_pooler_enabled": True,
                "postgres_pooler_password": "plain",
                "postgres_pooler_settings": {"a\nb": 1},
            },
            "is no setting of PgBouncer",
        ),
        ({"app_services": service(database_pooled=True)}, "there is no PgBouncer"),
        ({"postgres_client_networks": ["bastion"]}, "'bastion' is no address and no network"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_pooler_and_who_may_log_in_are_said_whole(changes: dict[str, Any], words: str) -> None:
    found = together(**changes)
    assert len(found) == 1
    assert words in found[0]


REPLICATED = {
    "postgres_replica_password": "plain",
    "postgres_publish_address": "192.0.2.3",
    "backup_repositories": [
        {"name": "away", "type": "s3", "endpoint": "e", "bucket": "b", "region": "r", "key": "k", "key_secret": "s"}
    ],
    "backup_passphrase": "p",
    "backup_enabled": True,
}


@pytest.mark.parametrize(
    ("host", "changes", "words"),
    [
        ("db1", {}, ""),
        ("db2", {}, ""),
        ("db2", {"backup_repositories": []}, "name a place for them in backup_repositories"),
        ("db2", {"backup_enabled": False}, "backup_enabled is false"),
        ("db2", {"postgres_replica_password": ""}, "A replica needs postgres_replica_password"),
        ("db1", {"postgres_publish_address": ""}, "at which the replica reaches it"),
        ("db2", {"backup_replica_identity": identity("192.0.2.3")}, ""),
        ("db2", {"backup_replica_identity": identity("192.0.2.9")}, "is for 192.0.2.9 and postgres_publish_address"),
        ("db1", {"backup_replica_identity": "a key"}, "backup_replica_identity is not a private key and a certificate"),
    ],
)
def test_a_replica_has_what_it_is_built_from_and_a_primary_that_it_reaches(
    host: str, changes: dict[str, Any], words: str
) -> None:
    groups = {"app": ["app1"], "edge": ["app1"], "db": ["db1"], "replica": ["db2"]}
    given = good() | REPLICATED | changes
    found = inventory.check_together(given, inventory.Topology(host, groups), {})
    assert [words in problem for problem in found] == ([True] if words else [])


def test_a_replica_follows_the_one_primary() -> None:
    for groups in ({"replica": ["db2"]}, {"db": ["db1", "db3"], "replica": ["db2"]}):
        found = inventory.check_together(good() | REPLICATED, inventory.Topology("db2", groups), {})
        assert any("A replica follows the one host in the group db" in problem for problem in found), found
    both = inventory.Topology("db1", {"db": ["db1"], "replica": ["db1"]})
    assert any("is in the groups db and replica" in p for p in inventory.check_together(good() | REPLICATED, both, {}))


FLEET = inventory.Topology("app1", {"app": ["app1", "app2"], "edge": ["edge1"], "db": ["db1"]})


def in_a_fleet(**changes: Any) -> list[str]:
    given = good(app_publish_address="192.0.2.1", app_database_address="192.0.2.3") | changes
    return inventory.check_together(given, FLEET, {})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"app_publish_address": "127.0.0.1"}, "app_publish_address is '127.0.0.1' and an edge is on another host"),
        ({"app_publish_address": "0.0.0.0"}, "give app1 its private address"),  # noqa: S104 - refused, not bound to
        ({"app_publish_address": "app1.example.com"}, "give app1 its private address"),
        ({"app_services": service(database=True), "app_database_address": ""}, "set app_database_address to the"),
        (
            {"app_services": service(volumes={"files": "/data"})},
            "app_services.api.volumes.files is a directory of each",
        ),
        ({"app_rolling": 2}, "app_rolling is 2 of 2 application hosts"),
    ],
)
def test_several_hosts_need_what_reaches_across_them(changes: dict[str, Any], words: str) -> None:
    (problem,) = in_a_fleet(**changes)
    assert words in problem


def test_what_is_given_on_the_command_line_is_compared_as_the_number_that_it_spells() -> None:
    given = inventory.from_words(SPECS, good(app_publish_address="192.0.2.1", app_rolling="2", edge_tls="off"))
    (problem,) = inventory.check_together(given, FLEET, {})
    assert "app_rolling is 2 of 2 application hosts" in problem
    given |= inventory.from_words(SPECS, {"app_rolling": "1"})
    assert inventory.check_together(given, FLEET, {}) == []


def test_several_hosts_that_are_in_order_pass() -> None:
    assert in_a_fleet(app_services=service(database=True)) == []
    shared = {"app_services": service(volumes={"files": "/data"}), "app_shared_volumes": {"files": "/mnt/files"}}
    assert in_a_fleet(**shared) == []
