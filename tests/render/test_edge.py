"""The edge's configuration says what the design promises, and is a tree that can be tested beside the live one."""

import re
from typing import Any

import yaml

from tests.render.rendering import render

EDGE = {"app_name": "shop", "edge_server_names": ["shop.example.com", "www.example.com"]}
TLS = EDGE | {"edge_tls": "files", "edge_tls_certificate": "CERTIFICATE", "edge_tls_key": "KEY"}


def files(given: dict[str, Any]) -> dict[str, str]:
    return {str(name): str(text) for name, text in render("edge", "__edge_files", given).items()}


def directives(text: str, name: str) -> list[str]:
    return re.findall(rf"^\s*{name}\s+(.*?);", text, re.MULTILINE | re.DOTALL)


def test_the_tree_has_no_address_of_its_own() -> None:
    for name, text in files(EDGE).items():
        assert text.count("{") == text.count("}"), name
        for included in directives(text, "include"):
            assert included == "/etc/nginx/mime.types" or not included.startswith("/")


def test_sites_are_included_by_pointers_alone() -> None:
    frame = files(EDGE)["nginx.conf"]
    assert directives(frame, "include") == ["/etc/nginx/mime.types", "pointers/*.conf"]
    assert frame.rstrip().endswith("include pointers/*.conf;\n}")


def test_a_reload_loses_nothing() -> None:
    frame = files(EDGE)["nginx.conf"]
    assert directives(frame, "keepalive_min_timeout") == ["15s"]
    assert directives(frame, "worker_shutdown_timeout") == ["60s"]
    assert directives(files(EDGE | {"edge_keepalive_min_seconds": 0})["nginx.conf"], "keepalive_min_timeout") == ["0s"]


def test_no_write_is_ever_sent_twice() -> None:
    proxy = files(EDGE)["proxy.conf"]
    assert directives(proxy, "proxy_next_upstream") == ["error timeout"]
    assert directives(proxy, "proxy_next_upstream_timeout") == ["5s"]
    assert "proxy_read_timeout" not in proxy


def test_an_unknown_name_is_closed_without_an_answer() -> None:
    frame = files(EDGE)["nginx.conf"]
    assert "listen 80 default_server;" in frame
    assert directives(frame, "return") == ["444"]
    assert "ssl" not in frame
    assert "ssl_reject_handshake on;" in files(TLS)["nginx.conf"]


def test_an_address_is_served_over_tls_although_no_handshake_names_it() -> None:
    frame = files(TLS | {"edge_server_names": ["192.0.2.7"]})["nginx.conf"]
    assert "ssl_reject_handshake" not in frame
    assert directives(frame, "ssl_certificate")
    assert directives(frame, "return") == ["444", "444"]


def test_what_clients_say_of_themselves_is_replaced() -> None:
    headers = dict(line.split(maxsplit=1) for line in directives(files(EDGE)["proxy.conf"], "proxy_set_header"))
    assert headers["X-Forwarded-For"] == "$remote_addr"
    assert headers["X-Request-ID"] == "$request_id"
    assert headers["Host"] == "$host"


def test_a_site_names_itself_and_its_limits() -> None:
    site = files(EDGE | {"edge_response_headers": {"X-Frame-Options": 'say "no"'}})["sites/shop-staging.conf"]
    assert directives(site, "server_name") == ["shop.example.com www.example.com"]
    assert directives(site, "client_max_body_size") == ["64m"]
    assert directives(site, "add_header") == [r'X-Frame-Options "say \"no\"" always']
    assert directives(site, "listen") == ["80"]


def test_tls_is_modern_and_a_new_certificate_is_a_new_file() -> None:
    site = files(TLS)["sites/shop-staging.conf"]
    assert directives(site, "ssl_protocols") == ["TLSv1.2 TLSv1.3"]
    assert directives(site, "http2") == ["on"]
    other = files(TLS | {"edge_tls_certificate": "RENEWED"})["sites/shop-staging.conf"]
    assert directives(site, "ssl_certificate") != directives(other, "ssl_certificate")
    assert "return" not in site
    redirecting = files(TLS | {"edge_redirect_http": True, "edge_https_port": 8443})["sites/shop-staging.conf"]
    assert "return 308 https://$host:8443$request_uri;" in redirecting


def test_the_key_is_roots_alone() -> None:
    placed = render("edge", "__edge_tls_files", TLS)
    assert [item.get("mode", "0644") for item in placed] == ["0644", "0600"]
    assert placed[1]["secret"] is True


def test_the_edge_has_no_more_rights_than_it_needs() -> None:
    service = yaml.safe_load(
        render("edge", "lookup('ansible.builtin.template', __edge_templates ~ '/edge.yml.j2')", EDGE)
    )
    edge = service["services"]["edge"]
    assert edge["network_mode"] == "host"
    assert edge["cap_drop"] == ["ALL"]
    assert set(edge["cap_add"]) == {"NET_BIND_SERVICE", "SETUID", "SETGID", "CHOWN", "DAC_OVERRIDE"}
    assert edge["read_only"] is True
    assert edge["init"] is False
    assert edge["stop_grace_period"] == "70s"
    assert not any(volume["target"].endswith(".conf") for volume in edge["volumes"])
