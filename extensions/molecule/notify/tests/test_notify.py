"""News that is left in the spool is delivered, here to the journal, and its targets are nobody's business."""

import json
import time

from testinfra.host import Host

SPOOL = "/var/spool/switchyard/news"


def test_news_reach_the_journal(host: Host) -> None:
    title = f"molecule {time.time_ns()}"
    news = {"time": "2026-01-01T00:00:00.000+00:00", "kind": "test", "severity": "info", "app": "", "title": title}
    text = json.dumps(news | {"details": {}})
    with host.sudo():
        host.check_output(f"umask 027; echo '{text}' > {SPOOL}/.new && mv {SPOOL}/.new {SPOOL}/1-1.json")
        seen = f"journalctl -u switchyard-notify -o cat | grep -q '{title}'"
        host.check_output(f"for i in $(seq 600); do {seen} && exit; sleep 0.1; done; exit 1")


def test_only_root_reads_what_is_delivered_where(host: Host) -> None:
    assert host.run("cat /etc/switchyard/notify.json").rc != 0
    assert host.run(f"ls {SPOOL}").rc != 0
