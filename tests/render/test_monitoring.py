"""What the role monitoring writes: everything is asked, nothing listens where it should not."""

from typing import Any

import yaml

from tests.render.rendering import ROOT, render

HOSTS = {
    "a": {"group_names": ["app", "edge"], "monitoring_address": "10.0.0.1"},
    "b": {"group_names": ["db"], "monitoring_address": "10.0.0.2"},
}
GIVEN: dict[str, Any] = {
    "app_name": "shop", "app_version": "1.0.0", "edge_server_names": ["shop.example.com"], "edge_tls": "files",
    "edge_report_port": 8902, "groups": {"target": ["b", "a"]}, "hostvars": HOSTS, "inventory_hostname": "a",
    "group_names": ["app", "edge"], "monitoring_address": "10.0.0.1", "monitoring_postgres_password": "secret",
    "monitoring_webhooks": ["https://example.com/hook"], "monitoring_slack_url": "https://hooks.example.com/x",
}  # fmt: skip


def template(name: str, **changes: Any) -> Any:
    folder = ROOT / "roles" / "monitoring" / "templates"
    return yaml.safe_load(
        render("monitoring", f"lookup('ansible.builtin.template', '{folder}/{name}')", GIVEN | changes)
    )


def test_every_host_is_asked_at_its_private_address_under_its_own_name() -> None:
    jobs = {job["job_name"]: job for job in template("prometheus.yml.j2")["scrape_configs"]}
    assert set(jobs) == {"node", "nginx", "postgres", "prometheus", "alertmanager", "probe"}
    asked = {
        name: [(entry["targets"][0], entry["labels"]["instance"]) for entry in jobs[name]["static_configs"]]
        for name in ("node", "nginx", "postgres")
    }
    assert asked == {
        "node": [("10.0.0.1:9100", "a"), ("10.0.0.2:9100", "b")],
        "nginx": [("10.0.0.1:9113", "a")],
        "postgres": [("10.0.0.2:9187", "b")],
    }
    assert jobs["probe"]["static_configs"][0]["targets"] == ["https://shop.example.com/"]


def test_without_a_password_nobody_asks_the_database() -> None:
    jobs = template("prometheus.yml.j2", monitoring_postgres_password="")["scrape_configs"]
    assert "postgres" not in {job["job_name"] for job in jobs}


def test_data_goes_on_where_the_inventory_says() -> None:
    assert "remote_write" not in template("prometheus.yml.j2")
    (sink,) = template("prometheus.yml.j2", monitoring_remote_write_url="https://example.com/write")["remote_write"]
    assert sink == {"url": "https://example.com/write"}


def test_only_the_private_address_is_listened_on() -> None:
    placed = template("defaults.j2")
    assert {item["path"].rpartition("/")[2] for item in placed} == {
        "prometheus", "prometheus-alertmanager", "prometheus-blackbox-exporter", "prometheus-node-exporter",
        "prometheus-nginx-exporter",
    }  # fmt: skip
    assert all("--web.listen-address=10.0.0.1:" in item["content"] for item in placed)
    (database,) = [
        item
        for item in template("defaults.j2", inventory_hostname="b", group_names=["db"])
        if "postgres" in item["path"]
    ]
    assert "--web.listen-address=10.0.0.1:9187" in database["content"]


def test_people_are_told_by_every_way_that_is_named() -> None:
    (people,) = template("alertmanager.yml.j2")["receivers"]
    assert [entry["url"] for entry in people["webhook_configs"]] == ["https://example.com/hook"]
    assert people["slack_configs"][0]["text"].startswith("{{ range .Alerts }}")
    assert template("alertmanager.yml.j2", monitoring_webhooks=[], monitoring_slack_url="")["receivers"] == [
        {"name": "people"}
    ]


def test_an_application_gets_its_reporting_when_it_is_named() -> None:
    given = {"app_name": "shop", "app_version": "1.4.0", "app_environment": "staging", "app_otlp_endpoint": ""}
    assert render("app", "__app_telemetry", given | {"app_sentry_dsn": ""}) == {}
    both = given | {"app_sentry_dsn": "https://key@example.com/1", "app_otlp_endpoint": "http://10.0.0.9:4318"}
    assert render("app", "__app_telemetry", both) == {
        "SENTRY_DSN": "https://key@example.com/1",
        "SENTRY_ENVIRONMENT": "staging",
        "SENTRY_RELEASE": "shop@1.4.0",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://10.0.0.9:4318",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=staging,service.version=1.4.0",
    }
