"""The firewall lets in what the inventory declares, and nothing else; what it does is seen in tests/integration."""

import re
from typing import Any

import pytest
from ansible.errors import AnsibleError

from tests.render.rendering import render

NETWORKS = {"docker_bridge_address": "198.19.0.1/24", "firewall_container_networks": ["2001:2::/64"]}
EDGE, APP, DB = ({"firewall_groups": [group]} for group in ("edge", "app", "db"))


def let_in(given: dict[str, Any]) -> list[str]:
    """What comes after the rule that keeps out whatever is not for this host."""
    text = str(render("firewall", "lookup('ansible.builtin.template', 'firewall.nft.j2')", NETWORKS | given))
    assert "policy drop;" in text
    rest = text.partition("fib daddr type != local drop\n")[2]
    return [line.strip() for line in rest.splitlines() if line.strip().endswith("accept")]


def test_only_containers_may_bear_their_addresses() -> None:
    text = str(render("firewall", "lookup('ansible.builtin.template', 'firewall.nft.j2')", NETWORKS))
    for family, network in (("ip", "198.19.0.1/24"), ("ip", "172.18.0.0/15"), ("ip6", "2001:2::/64")):
        assert f"{family} saddr {network} fib saddr . iif oif missing drop" in text


def test_ssh_is_always_let_in_on_the_port_that_we_come_by() -> None:
    assert let_in({}) == ["tcp dport { 22 } accept"]
    assert let_in({"ansible_port": 2222}) == ["tcp dport { 2222 } accept"]


def test_the_edge_is_open_to_everybody_and_has_no_second_port_without_tls() -> None:
    assert let_in(EDGE)[1:] == ["tcp dport { 80 } accept"]
    assert let_in(EDGE | {"edge_tls": "files", "edge_http_port": 8080})[1:] == ["tcp dport { 8080, 443 } accept"]


def test_other_hosts_are_let_in_by_their_addresses_alone() -> None:
    assert let_in(APP | DB | {"firewall_edge_addresses": []})[1:] == []
    edges = APP | {"firewall_edge_addresses": ["192.0.2.1", "2001:db8::1"]}
    assert let_in(edges)[1:] == [
        "ip saddr 192.0.2.1 tcp dport { 18000-18999 } accept",
        "ip6 saddr 2001:db8::1 tcp dport { 18000-18999 } accept",
    ]
    assert let_in(DB | {"firewall_app_addresses": ["192.0.2.2"]})[1:] == [
        "ip saddr 192.0.2.2 tcp dport { 5432 } accept"
    ]


def test_services_without_a_database_do_not_reach_one_on_another_host() -> None:
    template = "lookup('ansible.builtin.template', 'firewall.nft.j2')"
    given = NETWORKS | APP | {"app_database_address": "192.0.2.3", "firewall_database_addresses": ["2001:db8::3"]}
    text = str(render("firewall", template, given))
    rules = [
        'iifname "sya-*" ip daddr 192.0.2.3 tcp dport { 5432, 6432 } drop',
        'iifname "sya-*" ip6 daddr 2001:db8::3 tcp dport { 5432, 6432 } drop',
    ]
    assert all(rule in text for rule in rules)
    # Before what lets containers out.
    assert text.index(rules[0]) < text.index("fib saddr . iif oif exists")
    assert "5432" not in str(render("firewall", template, given | EDGE))


def test_a_replica_reaches_its_primary_and_the_application_both() -> None:
    given = {"firewall_app_addresses": ["192.0.2.2"], "firewall_replica_addresses": ["192.0.2.5"]}
    assert let_in(DB | given | {"postgres_pooler_enabled": True})[1:] == [
        "ip saddr 192.0.2.2 tcp dport { 5432, 6432 } accept",
        "ip saddr 192.0.2.5 tcp dport { 5432 } accept",
    ]
    replica = {"firewall_groups": ["replica"], "firewall_app_addresses": ["192.0.2.2"]}
    replica["firewall_database_addresses"] = ["192.0.2.3"]
    assert let_in(replica)[1:] == ["ip saddr 192.0.2.2 tcp dport { 5432 } accept"]
    assert let_in(replica | {"backup_replica_identity": "a key"})[2:] == [
        "ip saddr 192.0.2.3 tcp dport { 8432 } accept"
    ]


def test_prometheus_reaches_the_exporters_of_every_host() -> None:
    assert let_in({"firewall_monitoring_addresses": ["192.0.2.7"]})[1:] == [
        "ip saddr 192.0.2.7 tcp dport { 9100, 9113, 9187 } accept"
    ]


def test_other_hosts_are_known_by_every_address_of_the_inventory() -> None:
    hostvars = {
        "a": {"ansible_host": "203.0.113.1", "app_publish_address": "127.0.0.1"},
        "b": {"ansible_host": "b.example.com", "host_private_address": "192.0.2.2"},
        "c": {"ansible_host": "c.example.com"},
    }
    given = {"known": hostvars}
    assert render("firewall", "['b', 'a'] | switchyard.stack.addresses(known)", given) == ["203.0.113.1", "192.0.2.2"]
    with pytest.raises(AnsibleError, match="c has no address in the inventory: set its host_private_address"):
        render("firewall", "['c'] | switchyard.stack.addresses(known)", given)


def test_what_the_user_adds_is_let_in() -> None:
    added = [{"ports": ["9100", "5000-5010"], "from": ["192.0.2.0/24"]}, {"ports": ["53"], "protocol": "udp"}]
    assert let_in({"firewall_allow": added})[1:] == [
        "ip saddr 192.0.2.0/24 tcp dport { 9100, 5000-5010 } accept",
        "udp dport { 53 } accept",
    ]


def test_the_limit_of_logins_can_be_taken_away() -> None:
    template = "lookup('ansible.builtin.template', 'firewall.nft.j2')"
    limited = str(render("firewall", template, NETWORKS))
    assert re.findall(r"limit rate over (\d+)/minute", limited) == ["60", "60"]
    assert "ssh_callers" not in str(render("firewall", template, NETWORKS | {"firewall_ssh_per_minute": 0}))
