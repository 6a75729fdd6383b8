"""The edge's configuration says what the design promises, and is a tree that can be tested beside the live one."""

import re
from typing import Any

import yaml

from tests.render.rendering import render

EDGE: dict[str, Any] = {
    "app_name": "shop",
    "edge_server_names": ["shop.example.com", "www.example.com"],
    "inventory_hostname": "edge-1",
    "groups": {"target": ["edge-1"]},
    "hostvars": {"edge-1": {"group_names": ["edge"], "ansible_host": "192.0.2.1"}},
}
ACME = EDGE | {"edge_tls": "acme"}
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
    assert "listen 80 default_server reuseport;" in frame
    assert directives(frame, "return") == ["204", "444", "444"]
    assert "ssl" not in frame
    assert "ssl_reject_handshake on;" in files(TLS)["nginx.conf"]


def test_an_address_is_served_over_tls_although_no_handshake_names_it() -> None:
    frame = files(TLS | {"edge_server_names": ["192.0.2.7"]})["nginx.conf"]
    assert "ssl_reject_handshake" not in frame
    assert "certificates/shop-staging.conf" in directives(frame, "include")
    assert directives(frame, "return") == ["204", "444", "444", "444"]


def test_every_port_can_be_opened_by_the_next_edge_as_well() -> None:
    given = TLS | {"edge_ipv6": True}
    frame = files(given)["nginx.conf"]
    opened = [item.split() for item in directives(frame, "listen") if not item.startswith("unix:")]
    assert [words[0] for words in opened if "reuseport" not in words] == []
    shared = {words[0] for words in opened}
    assert {"127.0.0.1:8901", "80", "[::]:80", "443", "[::]:443"} <= shared
    assert {item.split()[0] for item in directives(files(given)["sites/shop-staging.conf"], "listen")} <= shared


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


def test_tls_is_modern_and_its_pair_is_the_engines() -> None:
    site = files(TLS)["sites/shop-staging.conf"]
    assert directives(site, "ssl_protocols") == ["TLSv1.2 TLSv1.3"]
    assert directives(site, "ssl_session_tickets") == ["off"]
    assert directives(site, "http2") == ["on"]
    assert directives(site, "include") == ["certificates/shop-staging.conf", "maintenance/shop-staging.[c]onf"]
    assert "KEY" not in "".join(files(TLS).values())
    assert "return" not in site
    redirecting = files(TLS | {"edge_redirect_http": True, "edge_https_port": 8443})["sites/shop-staging.conf"]
    assert "return 308 https://$host:8443$request_uri;" in redirecting
    assert "acme-challenge" not in redirecting


def test_challenges_are_answered_before_the_redirect_and_before_the_first_release() -> None:
    given = ACME | {"edge_redirect_http": True}
    assert "challenge.conf" in directives(files(given)["nginx.conf"], "include")
    site = files(given)["sites/shop-staging.conf"]
    assert "challenge.conf" in directives(site, "include")
    assert site.index('if ($uri ~ "^/\\.well-known/acme-challenge/")') < site.index("return 308")
    assert directives(files(given)["challenge.conf"], "try_files") == ["$uri =404"]


def peers(given: dict[str, Any]) -> list[str]:
    return re.findall(r"server (\S+) max_fails=0;", files(given)["nginx.conf"])


def test_a_challenge_that_is_not_known_here_is_asked_of_the_other_edges_once() -> None:
    given = ACME | {"edge_acme_peers": ["192.0.2.2", "2001:db8::2"]}
    assert peers(given) == ["192.0.2.2:80", "[2001:db8::2]:80"]
    others = {"edge-2": (["edge"], "192.0.2.9"), "app-1": (["app"], "192.0.2.10")}
    hosts = {name: {"group_names": groups, "ansible_host": address} for name, (groups, address) in others.items()}
    everybody = {"groups": {"target": ["edge-1", *others]}, "hostvars": EDGE["hostvars"] | hosts}
    assert peers(ACME | everybody) == ["192.0.2.9:80"]
    asked = files(given)["challenge.conf"]
    assert directives(asked, "try_files") == ["$uri @switchyard-peers"]
    assert asked.index("if ($http_x_switchyard_peer)") < asked.index("proxy_pass")


def test_browsers_are_bound_to_tls_only_when_asked_and_never_to_a_stand_in() -> None:
    assert "Strict-Transport-Security" not in files(ACME)["sites/shop-staging.conf"]
    site = files(ACME | {"edge_hsts_seconds": 300, "edge_hsts_subdomains": True})["sites/shop-staging.conf"]
    assert "max-age=300; includeSubDomains" in site
    assert directives(site, "add_header") == ["Strict-Transport-Security $switchyard_hsts always"]
    assert site.index("max-age=300") < site.index("if ($switchyard_stand_in)")


def test_certificates_are_asked_for_names_alone() -> None:
    given = ACME | {"edge_server_names": ["shop.example.com", "192.0.2.7", "2001:db8::7", "localhost"]}
    assert render("edge", "__edge_tls_settings", given)["names"] == ["shop.example.com"]


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


def test_pages_are_the_users_own_or_ours() -> None:
    ours = files(EDGE)
    assert "maintenance" in ours["pages/shop-staging/maintenance.html"]
    assert "<html" in ours["pages/shop-staging/error.html"]
    given = files(EDGE | {"edge_maintenance_page": "<p>closed</p>", "edge_error_page": "<p>oh</p>"})
    assert given["pages/shop-staging/maintenance.html"] == "<p>closed</p>"
    assert given["pages/shop-staging/error.html"] == "<p>oh</p>"


def test_the_page_of_maintenance_comes_before_the_one_of_errors() -> None:
    site = files(EDGE)["sites/shop-staging.conf"]
    assert site.index("include maintenance/shop-staging.[c]onf;") < site.index("error_page 502 503 504")


def test_the_preview_is_off_and_its_secret_is_in_a_file_of_its_own() -> None:
    off = files(EDGE)["sites/shop-staging.conf"]
    assert 'set $switchyard_preview "";' in off and ".preview" not in off
    assert render("edge", "__edge_secret_files", EDGE)["sites/shop-staging.preview"] is None
    given = TLS | {"edge_preview_secret": "s" * 32}
    assert "s" * 32 not in "".join(files(given).values())
    site = files(given)["sites/shop-staging.conf"]
    # Nginx takes these in order, and the first one clears what a client cannot set anyway.
    assert site.index('set $switchyard_preview "";') < site.index("include sites/shop-staging.preview;")
    secret = render("edge", "__edge_secret_files", given)["sites/shop-staging.preview"]
    assert f'if ($http_x_switchyard_preview = "{"s" * 32}")' in secret
    assert 'proxy_set_header X-Switchyard-Preview "";' in files(given)["proxy.conf"]


def test_who_may_see_the_report_is_removed_with_the_last_login_and_shown_to_nobody() -> None:
    assert render("edge", "__edge_secret_files", EDGE)["sites/shop-staging.users"] is None
    given = TLS | {"edge_report_users": {"ops": "$6$hash"}}
    assert "$6$hash" not in "".join(files(given).values())
    assert "ops:$6$hash" in render("edge", "__edge_secret_files", given)["sites/shop-staging.users"]
