"""The compose files that Switchyard writes are valid and keep the house's policy, whatever the application is like."""

import re
from typing import Any

import pytest
import yaml

from switchyard.request import parse
from tests.identity import identity
from tests.render.apps import ALL, API_WEB_DATABASE, AWKWARD_VALUES, MANY_INSTANCES, ONE_CONTAINER
from tests.render.rendering import ROOT, render

PUBLISHED = re.compile(r"\$\{SWITCHYARD_PUBLISH_[A-Z0-9_]+_\d+\}:\d+")


def compose(app: dict[str, Any]) -> dict[str, Any]:
    document = yaml.safe_load(render("app", "__app_compose", app))
    assert isinstance(document, dict)
    return document


@pytest.fixture(params=ALL, name="app")
def any_app(request: pytest.FixtureRequest) -> dict[str, Any]:
    return ALL[request.param]


def test_the_engine_accepts_the_request(app: dict[str, Any]) -> None:
    request = parse(render("app", "__app_request", app))
    assert request.app == "shop"
    assert request.version == "1.4.0"
    assert not request.explicit_version
    assert yaml.safe_load(request.compose) == compose(app)


def test_every_container_is_confined(app: dict[str, Any]) -> None:
    for name, service in compose(app)["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["init"] is True, name
        assert not service["user"].startswith("0"), name
        assert service["mem_limit"], name
        assert service["pids_limit"] > 0, name
        assert set(service["logging"]["options"]) == {"max-size", "max-file"}, name
        assert not {"privileged", "network_mode", "pid", "cap_add", "devices"} & set(service), name


def test_nothing_is_published_but_on_planned_addresses(app: dict[str, Any]) -> None:
    for service in compose(app)["services"].values():
        for port in service.get("ports", []):
            assert PUBLISHED.fullmatch(port)


def test_no_container_sees_docker_or_the_state_of_others(app: dict[str, Any]) -> None:
    for service in compose(app)["services"].values():
        for volume in service.get("volumes", []):
            assert volume["source"].startswith("/var/lib/switchyard/shop-staging/volumes/")
            assert volume["bind"] == {"create_host_path": False}


def test_images_are_left_to_the_engine(app: dict[str, Any]) -> None:
    for service in compose(app)["services"].values():
        assert re.fullmatch(r"\$\{SWITCHYARD_IMAGE_[A-Z0-9_]+\}", service["image"])


def test_each_instance_has_its_own_address() -> None:
    services = compose(MANY_INSTANCES)["services"]
    assert list(services) == ["web-shop-1", "web-shop-2", "web-shop-3", "live-feed-1", "live-feed-2"]
    assert services["web-shop-3"]["ports"] == ["${SWITCHYARD_PUBLISH_WEB_SHOP_3}:80"]
    assert services["live-feed-2"]["labels"] == {
        "switchyard.app": "shop",
        "switchyard.environment": "staging",
        "switchyard.service": "live-feed",
        "switchyard.instance": "2",
        "switchyard.release": "${SWITCHYARD_RELEASE}",
        "switchyard.colour": "${SWITCHYARD_COLOUR}",
    }


def test_another_generation_of_secrets_is_another_container() -> None:
    services = compose(API_WEB_DATABASE)["services"]
    with_secrets = [service for name, service in services.items() if name != "migrate" and service.get("secrets")]
    assert with_secrets
    for service in with_secrets:
        assert service["labels"]["switchyard.secrets"] == "${SWITCHYARD_SECRETS}"


def test_the_migration_is_a_container_apart() -> None:
    document = compose(API_WEB_DATABASE)
    migrate, api = document["services"]["migrate"], document["services"]["api-1"]
    assert migrate["profiles"] == ["migrate"]
    assert migrate["restart"] == "no"
    assert migrate["container_name"] == "${SWITCHYARD_MIGRATE_NAME}"
    assert migrate["image"] == api["image"]
    assert migrate["command"] == ["alembic", "upgrade", "head"]
    assert "ports" not in migrate
    assert migrate["labels"]["switchyard.role"] == "migrate"
    assert migrate["secrets"] == ["DATABASE_URL", "MIGRATION_URL"]
    assert api["secrets"] == ["DATABASE_URL"]
    assert migrate["environment"].items() > api["environment"].items()
    assert "switchyard.colour" not in migrate["labels"]


def test_only_services_with_a_database_reach_it() -> None:
    document = compose(API_WEB_DATABASE)
    assert set(document["services"]["api-1"]["networks"]) == {"default", "data"}
    assert set(document["services"]["web-1"]["networks"]) == {"default"}
    assert document["networks"] == {"data": {"name": "shop-staging-data", "external": True}}
    assert "networks" not in compose(ONE_CONTAINER)


def test_secrets_are_files_and_never_text() -> None:
    text = render("app", "__app_compose", API_WEB_DATABASE)
    assert "postgresql://" not in text
    assert yaml.safe_load(text)["secrets"]["DATABASE_URL"] == {"file": "${SWITCHYARD_SECRETS}/DATABASE_URL"}
    awkward = render("app", "__app_compose", AWKWARD_VALUES)
    assert "secret" not in awkward
    assert yaml.safe_load(awkward)["services"]["api-1"]["env_file"] == ["${SWITCHYARD_SECRETS}/api.env"]


def test_values_survive_yaml_and_compose() -> None:
    api = compose(AWKWARD_VALUES)["services"]["api-1"]
    given = AWKWARD_VALUES["app_services"]["api"]["env"]
    assert {key: value.replace("$$", "$") for key, value in api["environment"].items()} == given
    assert not re.search(r"(?<!\$)\$(?!\$)", "".join(api["environment"].values()).replace("$$", ""))
    assert api["command"] == ["serve", "--prefix", "$$ROOT"]
    assert api["healthcheck"] == {"test": ["CMD", "true", "$$X"]}
    assert api["tmpfs"] == ["/tmp:mode=1777", "/var/run/app:mode=1777", "/cache:size=16m"]
    assert api["cpus"] == 0.5


def test_yaml_words_become_the_text_that_was_written() -> None:
    environment = compose(API_WEB_DATABASE)["services"]["api-1"]["environment"]
    assert environment["DEBUG"] == "false"
    assert environment["WORKERS"] == "4"


def test_a_version_on_the_command_line_is_the_tag_and_is_marked() -> None:
    request = parse(render("app", "__app_request", MANY_INSTANCES | {"version": "1.5.0"}))
    assert request.explicit_version
    assert request.services["web-shop"].tag == "1.5.0"
    assert request.services["live-feed"].tag == "stable"


def test_volumes_belong_to_the_user_that_writes_to_them() -> None:
    assert render("app", "__app_volume_directories", API_WEB_DATABASE) == [
        {"path": "/var/lib/switchyard/shop-staging/volumes/uploads", "mode": "0750", "owner": "10001", "group": "10001"}
    ]


def test_a_shared_volume_is_where_its_storage_is_mounted_and_nobody_makes_its_directory() -> None:
    app = API_WEB_DATABASE | {"app_shared_volumes": {"uploads": "/mnt/uploads"}}
    assert render("app", "__app_volume_directories", app) == []
    (volume,) = compose(app)["services"]["api-1"]["volumes"]
    assert volume["source"] == "/mnt/uploads"


def test_a_database_on_another_host_has_the_same_name_and_no_network_of_this_one() -> None:
    document = compose(API_WEB_DATABASE | {"app_database_address": "192.0.2.34"})
    users = {name for name, service in document["services"].items() if "extra_hosts" in service}
    assert "api-1" in users and "web-1" not in users
    assert document["services"]["api-1"]["extra_hosts"] == ["postgres:192.0.2.34", "pooler:192.0.2.34"]
    assert all("data" not in service["networks"] for service in document["services"].values())


def test_what_uses_no_database_goes_out_by_another_way_than_to_its_host() -> None:
    document = compose(API_WEB_DATABASE | {"app_database_address": "192.0.2.34"})
    aside = {name for name, service in document["services"].items() if "aside" in service["networks"]}
    assert aside == {"web-1"}
    assert document["networks"] == {"aside": {"name": "shop-staging-aside", "external": True}}
    # Docker goes out through the first network by name.
    assert document["networks"]["aside"]["name"] < "shop-staging-blue_default"
    bridge = render("app", "__app_aside_bridge", API_WEB_DATABASE)
    assert bridge.startswith("sya-") and len(bridge) <= 15
    on_this_host = compose(API_WEB_DATABASE)
    assert all("aside" not in service["networks"] for service in on_this_host["services"].values())


POSTGRES = {"app_name": "shop", "postgres_superuser_password": "x", "postgres_app_password": "y"}


def postgres(**given: Any) -> dict[str, Any]:
    text = render("postgres", "lookup('ansible.builtin.template', __postgres_template)", POSTGRES | given)
    return dict(yaml.safe_load(text)["services"]["postgres"])


def test_postgres_is_never_process_one_and_never_published() -> None:
    service = postgres()
    assert service["init"] is True
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["stop_grace_period"] == "180s"
    assert "ports" not in service
    assert list(service["networks"]) == ["data"]
    assert "POSTGRES_PASSWORD" not in service["environment"]
    assert "--data-checksums" in service["environment"]["POSTGRES_INITDB_ARGS"]


@pytest.mark.parametrize(
    ("version", "mount", "data"),
    [
        (17, "/var/lib/postgresql/data", "/var/lib/postgresql/data"),
        (18, "/var/lib/postgresql", "/var/lib/postgresql/18/docker"),
    ],
)
def test_postgres_keeps_its_data_where_its_version_looks(version: int, mount: str, data: str) -> None:
    service = postgres(postgres_version=version)
    assert service["volumes"][0]["target"] == mount
    assert service["environment"]["PGDATA"] == data


def test_postgres_is_sized_by_its_memory() -> None:
    service = postgres(postgres_memory_mb=4096, postgres_settings={"shared_buffers": "2GB"})
    words = service["command"]
    settings = dict(word.split("=", 1) for word in words[2::2])
    assert words[0] == "postgres"
    assert set(words[1::2]) == {"-c"}
    assert settings["effective_cache_size"] == "3072MB"
    assert settings["maintenance_work_mem"] == "256MB"
    assert settings["shared_buffers"] == "2GB"
    assert service["mem_limit"] == "4096m"


def test_postgres_listens_on_a_private_address_only_when_asked() -> None:
    assert postgres(postgres_publish_address="192.0.2.7")["ports"] == ["192.0.2.7:5432:5432"]


def access(**given: Any) -> list[str]:
    text = str(render("postgres", "__postgres_access", POSTGRES | given))
    return [line for line in text.splitlines() if not line.startswith("#")]


def test_who_may_log_in_is_decided_by_where_from() -> None:
    alone = access()
    assert [line for line in alone if " all scram" in line] == []
    assert "local replication all trust" in alone
    assert alone[-1] == "host all all samenet scram-sha-256"
    assert alone.index("host all postgres all reject") < alone.index("host all all samenet scram-sha-256")
    several = access(
        postgres_app_addresses=["192.0.2.32", "2001:db8::32"], postgres_client_networks=["198.51.100.0/24"]
    )
    assert several[len(alone) :] == [
        f"host all all {address} scram-sha-256" for address in ("192.0.2.32/32", "2001:db8::32/128", "198.51.100.0/24")
    ]


def test_a_replica_streams_from_its_primary_with_a_password_in_a_file() -> None:
    given = {"postgres_replica_addresses": ["192.0.2.5"]}
    assert "host replication shop_replica 192.0.2.5/32 scram-sha-256" in access(**given)
    service = postgres(
        group_names=["replica"],
        inventory_hostname="db-2",
        postgres_primary_address="192.0.2.3",
        postgres_replica_password="canary",
    )
    (conninfo,) = (word for word in service["command"] if word.startswith("primary_conninfo="))
    assert "host=192.0.2.3" in conninfo and "passfile=/etc/switchyard/replication" in conninfo
    assert "application_name=db-2" in conninfo
    assert "canary" not in str(service)
    assert not [word for word in postgres()["command"] if "primary_conninfo" in word]


def test_the_replica_that_the_identity_names_is_read_by_backups_and_no_other() -> None:
    given = POSTGRES | {
        "group_names": ["replica"],
        "inventory_hostname": "db-2",
        "backup_enabled": True,
        "backup_image": "switchyard/postgres:17",
        "backup_directory": "/backups",
        "backup_replica_identity": identity("192.0.2.5"),
        "postgres_publish_address": "192.0.2.5",
    }
    template = "lookup('ansible.builtin.template', __postgres_template)"
    text = render("postgres", template, given)
    assert "PRIVATE KEY" not in text
    document = yaml.safe_load(text)
    source, server = (document["services"][name] for name in ("backup-source", "postgres"))
    assert source["ports"] == ["192.0.2.5:8432:8432"]
    assert source["read_only"] is True and source["cap_drop"] == ["ALL"] and source["user"] == server["user"]
    assert all(mount["read_only"] for mount in source["volumes"])
    # One socket, in memory, for both.
    assert document["volumes"]["socket"]["driver_opts"]["type"] == "tmpfs"
    assert not [place for place in server["tmpfs"] if place.startswith("/run/postgresql")]
    for other in ({"postgres_publish_address": "192.0.2.6"}, {"group_names": ["db"]}, {"backup_replica_identity": ""}):
        services = yaml.safe_load(render("postgres", template, given | other))["services"]
        assert list(services) == ["postgres"] and services["postgres"]["tmpfs"][1].startswith("/run/postgresql")


def pooler(**given: Any) -> dict[str, str]:
    text = str(render("postgres", "__postgres_pooler_ini", POSTGRES | given))
    return dict(line.split(" = ", 1) for line in text.splitlines() if " = " in line and not line.startswith("shop ="))


def test_the_pooler_holds_no_more_connections_than_the_budget_says_whatever_else_is_set() -> None:
    settings = pooler(postgres_pooler_connections=7, postgres_pooler_settings={"max_db_connections": 99, "verbose": 1})
    assert settings["pool_mode"] == "transaction"
    assert settings["max_db_connections"] == settings["default_pool_size"] == "7"
    assert settings["verbose"] == "1"
    text = str(render("postgres", "__postgres_pooler_ini", POSTGRES | {"postgres_pooler_password": "canary"}))
    assert "canary" not in text and "shop = host=postgres port=5432 dbname=shop" in text


def test_the_pooler_is_published_beside_postgres() -> None:
    template = "lookup('ansible.builtin.template', __postgres_pooler_template)"
    text = render("postgres", template, POSTGRES | {"postgres_publish_address": "192.0.2.7"})
    service = yaml.safe_load(text)["services"]["pooler"]
    assert service["ports"] == ["192.0.2.7:6432:6432"]
    assert service["image"].startswith("switchyard/pgbouncer:")
    assert service["stop_signal"] == "SIGINT"


def test_templates_ask_for_no_group_but_the_target() -> None:
    # A group may be named as well where it is narrowed to one environment at once.
    narrowed = r"groups\['(app|edge|db)'\] \| intersect\(groups\['(target'|env_)[^]]*\]"
    for path in [*(ROOT / "compose").rglob("*.j2"), *(ROOT / "roles").rglob("*.yml")]:
        for found in re.findall(r"groups\[[^]]*\]|groups\.\w+", re.sub(narrowed, "", path.read_text())):
            assert found == "groups['target']", path
