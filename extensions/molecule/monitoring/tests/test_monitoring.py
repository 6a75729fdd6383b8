"""Prometheus asks this host, knows the rules, and is there for nobody outside."""

import json
import time

from testinfra.host import Host

ASK = "for i in $(seq 120); do curl -sf 127.0.0.1:9090{} && exit; sleep 0.5; done; exit 1"


def test_nothing_listens_outside_the_loopback(host: Host) -> None:
    # What was started listens a moment later.
    for _ in range(120):
        with host.sudo():
            listening = [line for line in host.check_output("ss -Hltnp").splitlines() if "prometheus" in line]
        if len(listening) == 4:
            break
        time.sleep(0.5)
    assert len(listening) == 4
    assert all(line.split()[3].startswith("127.0.0.1:") for line in listening)


def test_who_is_told_is_root_s_business(host: Host) -> None:
    for name in ("prometheus", "alertmanager"):
        assert host.run(f"cat /etc/prometheus/{name}.yml").rc != 0


def test_the_rules_are_loaded_and_the_host_is_asked(host: Host) -> None:
    groups = json.loads(host.check_output(ASK.format("/api/v1/rules")))["data"]["groups"]
    assert {group["name"] for group in groups} == {"users", "releases", "host", "backups", "postgres"}
    # After a start it answers before it knows whom to ask.
    for _ in range(120):
        targets = json.loads(host.check_output(ASK.format("/api/v1/targets")))["data"]["activeTargets"]
        jobs = {target["labels"]["job"] for target in targets}
        if jobs >= {"node", "prometheus", "alertmanager"}:
            return
        time.sleep(0.5)
    raise AssertionError(f"Prometheus asks {jobs} only")
