"""The ledger answers questions and cannot be changed unseen; the page and Prometheus show what happened."""

from __future__ import annotations

import http.client
import json
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import alerts
from tests.bed import Bed
from tests.lab import APP, VERSIONS, Lab
from tests.project import Project

OLD, NEW = VERSIONS
LEDGER = f"/var/lib/switchyard/{APP}/ledger.jsonl"
REQUESTS = 40
WRITTEN = 4.0
"""Seconds after which every worker of the edge has written its log: one, and room for a busy machine."""


def use(lab: Lab, count: int, path: str = "/") -> None:
    """Be a user, who carries what must not be kept."""
    connection = http.client.HTTPConnection(lab.host.address, timeout=60)
    for _ in range(count):
        connection.request("GET", path, headers={"Authorization": "Bearer canary-header"})
        assert connection.getresponse().read()


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A host that is watched by Prometheus, with two releases behind it and some users."""
    with tempfile.TemporaryDirectory() as folder, Bed.for_tests("ledger") as bed:
        project = Project(Path(folder))
        watched = project.folder / "inventories" / "group_vars" / "env_local" / "zz_monitoring.yml"
        watched.write_text("monitoring_enabled: true\npostgres_monitor_password: not-to-be-seen\n")
        lab = Lab.build(project, bed)
        for version in VERSIONS:
            done = lab.deploy(version, revision="abc1234", committed="2026-01-02T03:04:05+00:00")
            assert done["code"] == 0, done
            use(lab, REQUESTS)
        time.sleep(WRITTEN)
        lab.engine("collect", check=True)
        yield lab


def test_questions_are_answered(lab: Lab) -> None:
    """The first one: `status` counts what users got in the last five minutes."""
    project = lab.project
    status = project.run("scripts/switchyard", "status", "local").stdout
    assert f"{lab.digests[NEW]}" in status and f"{lab.digests[OLD]}" in status
    assert len(status.splitlines()) <= 30
    figures = project.control("status", "local")
    assert figures["disagreements"] == [] and figures["ledger"]["findings"] == []
    seen = figures["traffic"]["releases"]
    assert {name.partition("-")[2]: tally["requests"] >= REQUESTS for name, tally in seen.items() if name} == {
        OLD: True, NEW: True
    }  # fmt: skip
    assert [row["version"] for row in project.control("history", "local")["rows"]][-2:] == [OLD, NEW]
    shown = project.control("show", "local", "2")
    assert shown["what"] == f"0002-{NEW}" and shown["record"]["revision"] == "abc1234"
    assert shown["live"][0]["lead_time_seconds"] > 0
    assert {event["event"] for event in shown["events"]} >= {"start", "live", "end"}
    dora = project.control("dora", "local", "--days", "1")
    assert (dora["deployments"], dora["failures"]) == (2, 0)
    assert project.run("scripts/switchyard", "show", "local", "77").returncode == 10


@pytest.fixture
def whole(lab: Lab) -> Iterator[Lab]:
    """The same, with the ledger put back afterwards."""
    assert lab.project.control("status", "local")["live"]["version"] == NEW
    lab.host.exec(["cp", "-a", LEDGER, "/root/ledger"])
    yield lab
    lab.host.exec(["cp", "-a", "/root/ledger", LEDGER])
    assert lab.project.control("verify", "local")["findings"] == []


def lines(lab: Lab) -> int:
    return len(lab.host.exec(["cat", LEDGER]).stdout.splitlines())


@pytest.mark.parametrize(
    ("edit", "line", "kind"),
    [("3s/deploy/delete/", 3, "edited"), ("4d", 4, "removed"), ("4{h;d};5G", 4, "moved")],
)
def test_a_line_that_was_touched_is_named(whole: Lab, edit: str, line: int, kind: str) -> None:
    text = whole.host.exec(["cat", LEDGER]).stdout.splitlines()
    edit = edit if "deploy" not in edit or "deploy" in text[line - 1] else f"{line}s/:/: /"
    whole.host.exec(["sed", "-i", edit, LEDGER])
    found = json.loads(whole.engine("verify", APP, "--json").stdout)["findings"]
    assert [(entry["line"], entry["kind"]) for entry in found] == [(line, kind)]
    answer = whole.project.run("scripts/switchyard", "verify", "local")
    assert answer.returncode == 1 and f"line {line} " in answer.stdout, answer.stdout + answer.stderr
    assert whole.engine("status", APP, "--json").stdout.count(f"the ledger: line {line} was {kind}") == 1


def test_newest_lines_that_are_gone_show_against_the_copy_here(whole: Lab) -> None:
    count = lines(whole)
    whole.host.exec(["sed", "-i", f"{count - 2},{count}d", LEDGER])
    assert json.loads(whole.engine("verify", APP, "--json").stdout)["findings"] == []
    (finding,) = whole.project.control("verify", "local")["findings"]
    assert (finding["line"], finding["kind"]) == (count - 2, "missing")
    # The next command does not bless it.
    done = whole.project.run("scripts/switchyard", "history", "local")
    assert "is not what it was" in done.stderr


def test_a_file_of_the_edge_that_changed_is_told_by_name(whole: Lab) -> None:
    for text in ("canary-content", None):
        data = json.dumps({"files": {"ledger-test.txt": text}})
        whole.host.exec(["switchyard", "edge-apply", "--json"], stdin=data)
        last = json.loads(whole.host.exec(["tail", "-n", "1", LEDGER]).stdout)
        assert (last["event"], last["subject"]) == ("config", "edge")
        assert [path.rpartition("/")[2] for path in last["files"]] == ["ledger-test.txt"]
    assert "canary-content" not in whole.host.exec(["cat", LEDGER]).stdout
    assert json.loads(whole.engine("verify", APP, "--json").stdout)["findings"] == []


def test_the_page_is_served_to_this_host_and_written_here(lab: Lab) -> None:
    served = lab.host.exec(["curl", "-sf", f"http://127.0.0.1:8902/{APP}/"]).stdout
    assert f"0002-{NEW}" in served and "<script" not in served
    with pytest.raises(OSError):
        http.client.HTTPConnection(lab.host.address, 8902, timeout=3).request("GET", "/")
    written = lab.project.control("report", "local")["path"]
    text = Path(written).read_text()
    counted = re.search(r"([\d\u202f]+) requests, ", text)
    # Prometheus asks as well.
    assert f"0002-{NEW}" in text and counted and int(counted[1].replace("\u202f", "")) >= 2 * REQUESTS


def test_a_rotated_log_loses_no_request_and_no_query_is_kept(lab: Lab) -> None:
    def counted() -> int:
        lab.engine("collect", check=True)
        text = lab.host.exec(["cat", f"/var/lib/switchyard/{APP}/traffic/read.json"]).stdout
        return sum(tally["n"] for tally in json.loads(text)["totals"].values())

    # It asks the edge like a user, and would be counted.
    lab.host.exec(["systemctl", "stop", "prometheus"])
    time.sleep(WRITTEN)
    before = counted()
    use(lab, 20, "/?token=canary-query")
    lab.host.exec(["logrotate", "--force", "/etc/logrotate.d/switchyard-edge"])
    # It signals; until the last worker has heeded that, a request may still go to the old file.
    log = f"/var/log/switchyard/edge/{APP}.jsonl"
    lab.host.exec(
        ["sh", "-c", f"while ls -l /proc/[0-9]*/fd 2> /dev/null | grep -q '{APP}.jsonl.1'; do sleep 0.1; done"]
    )
    use(lab, 20, "/?token=canary-query")
    time.sleep(WRITTEN)
    assert lab.host.exec(["sh", "-c", f"wc -l < {log}"]).stdout.strip() == "20"
    assert counted() == before + 40
    lab.host.exec(["systemctl", "start", "prometheus"])
    assert lab.host.exec(["grep", "-rq", "canary", "/var/log/switchyard"], check=False).returncode == 1
    assert lab.host.exec(["stat", "-c", "%a", "/var/log/switchyard/edge"]).stdout.strip() == "751"
    # Its size is looked at all day, or `edge_log_max_size` would mean nothing.
    ask = "systemctl show --property=NextElapseUSecRealtime --value logrotate.timer"
    seconds = lab.host.exec(["sh", "-c", f'echo $(($(date -d "$({ask})" +%s) - $(date +%s)))']).stdout
    assert int(seconds) <= 16 * 60


def test_the_database_says_who_came_and_what_changed_its_schema(lab: Lab) -> None:
    container = f"{APP}-postgres"
    sql = "CREATE TABLE audited (id int); DROP TABLE audited; SELECT 'canary-select'"
    lab.host.exec(["docker", "exec", container, "psql", "-qU", "postgres", "-c", sql])
    # What the server says reaches Docker's log a moment later.
    deadline = time.monotonic() + 60
    while "CREATE TABLE audited" not in (log := lab.host.exec(["sh", "-c", f"docker logs {container} 2>&1"]).stdout):
        assert time.monotonic() < deadline, log
        time.sleep(0.5)
    assert "connection authorized: user=postgres" in log
    # Passwords are set by statements too; none of those is kept.
    assert "not-to-be-seen" not in log and "SCRAM-SHA-256$" not in log


# Prometheus


def ask(lab: Lab, path: str) -> Any:
    return json.loads(lab.host.exec(["curl", "-sf", f"http://127.0.0.1:{path}"]).stdout)


def test_everything_is_watched_and_nothing_listens_outside(lab: Lab) -> None:
    lab.engine("collect", check=True)
    deadline = time.monotonic() + 180
    while True:
        targets = ask(lab, "9090/api/v1/targets")["data"]["activeTargets"]
        ill = [f"{t['labels']['job']}: {t['lastError'] or t['health']}" for t in targets if t["health"] != "up"]
        found = ask(lab, "9090/api/v1/query?query=sum(switchyard_requests_total)")["data"]["result"]
        database = ask(lab, "9090/api/v1/query?query=pg_up")["data"]["result"]
        probe = ask(lab, "9090/api/v1/query?query=probe_success")["data"]["result"]
        jobs = {t["labels"]["job"] for t in targets}
        # After a start, the first that was asked may have been busy.
        well = [result[0]["value"][1] if result else "" for result in (database, probe)] == ["1", "1"]
        if len(jobs) == 6 and not ill and found and well:
            break
        assert time.monotonic() < deadline, (jobs, ill, found, database, probe)
        time.sleep(1)
    assert jobs == {"node", "nginx", "postgres", "prometheus", "alertmanager", "probe"}
    assert int(found[0]["value"][1]) >= 2 * REQUESTS
    rules = ask(lab, "9090/api/v1/rules")["data"]["groups"]
    assert sorted(rule["name"] for group in rules for rule in group["rules"]) == sorted(alerts.names())
    listening = lab.host.exec(["ss", "-Hltnp"]).stdout.splitlines()
    exposed = [line for line in listening if "prometheus" in line and "127.0.0.1:" not in line.split()[3]]
    assert exposed == []


def test_rules_and_graphs_are_what_promtool_accepts(lab: Lab, tmp_path: Path) -> None:
    alerts.write(tmp_path)
    for name in ("rules.yml", "cases.yml", "graphs.yml"):
        lab.host.exec(["sh", "-c", f"cat > /tmp/{name}"], stdin=(tmp_path / name).read_text())
    done = lab.host.exec(["promtool", "test", "rules", "/tmp/cases.yml"], check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    lab.host.exec(["promtool", "check", "rules", "/tmp/graphs.yml"])
    # And a rule that is wrong is found out.
    broken = (tmp_path / "rules.yml").read_text().replace("> 0.01", "> 0.5")
    lab.host.exec(["sh", "-c", "cat > /tmp/rules.yml"], stdin=broken)
    done = lab.host.exec(["promtool", "test", "rules", "/tmp/cases.yml"], check=False, timeout=300)
    assert done.returncode != 0 and alerts.failures(done.stdout + done.stderr) == ["ErrorShareHigh"]
