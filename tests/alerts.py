"""For each alert rule, series that make it fire and series that leave it silent; promtool judges both.

Values are in promtool's notation (`1+2x3` is 1, 3, 5, 7), one a minute. Time begins at 0, so what is long past has a
negative one.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.project import ROOT

RULES = ROOT / "roles" / "monitoring" / "files" / "rules.yml"
APP = 'app="shop",environment="production"'
DISK = 'instance="a",mountpoint="/",fstype="ext4"'
DAY = 1440  # minutes


@dataclass(frozen=True)
class Case:
    """What fires a rule, what does not, and after how many minutes that is judged."""

    firing: dict[str, str]
    silent: dict[str, str]
    minutes: int = 0


def _latency(slow: int) -> dict[str, str]:
    """One request a second, of which `slow` in a hundred take longer than a second."""
    base = f'switchyard_request_duration_seconds_bucket{{{APP},release="1",le='
    return {
        f'{base}"0.25"}}': f"0+{60 - slow * 0.6:g}x30",
        f'{base}"1"}}': f"0+{60 - slow * 0.6:g}x30",
        f'{base}"2"}}': "0+60x30",
        f'{base}"+Inf"}}': "0+60x30",
    }


def _middling(slow: int) -> dict[str, str]:
    """The same, but the slow ones take between half a second and one."""
    base = f'switchyard_request_duration_seconds_bucket{{{APP},release="1",le='
    return {
        f'{base}"0.5"}}': f"0+{60 - slow * 0.6:g}x30",
        f'{base}"1"}}': "0+60x30",
        f'{base}"+Inf"}}': "0+60x30",
    }


def _errors(each: str) -> dict[str, str]:
    return {
        f'switchyard_requests_total{{{APP},release="1"}}': "0+600x30",
        f'switchyard_request_errors_total{{{APP},release="1"}}': each,
    }


def _one(series: str, firing: str, silent: str, minutes: int = 0) -> Case:
    return Case({series: firing}, {series: silent}, minutes)


def _idle(minute: float) -> str:
    """Seconds of idleness of one processor, `minute` of them each minute."""
    return f"0+{minute:g}x40"


def _job(name: str) -> str:
    return f'switchyard_job_success_seconds{{{APP},job_name="{name}"}}'


_archive = 'pg_stat_archiver_last_archive_age{instance="a"}'
_ready = f'switchyard_wal_ready{{instance="a",{APP}}}'
_slot = 'pg_replication_slots_pg_wal_lsn_diff{instance="a",slot_name="s"}'
_limit = 'pg_settings_max_slot_wal_keep_size_bytes{instance="a"}'
_age = 'pg_database_wraparound_age_datfrozenxid_seconds{instance="a",datname="shop"}'
_backends = 'pg_stat_database_numbackends{instance="a",datname="shop"}'
_most = 'pg_settings_max_connections{instance="a"}'
_memory = 'node_memory_MemTotal_bytes{instance="a"}'

CASES = {
    "ServiceDown": _one('probe_success{instance="https://example.com/"}', "1 0", "0 1", 1),
    # 2 % of 600 a minute; and 0.5 %, and a share that is high only because there is hardly any traffic.
    "ErrorShareHigh": Case(_errors("0+12x30"), _errors("0+3x30"), 15),
    "ResponsesSlow": Case(_middling(10), _middling(2), 15),
    "ResponsesVerySlow": Case(_latency(10), _latency(2), 15),
    "TrafficGone": _one(f"switchyard_requests_total{{{APP}}}", f"0+120x{DAY} {120 * DAY}x60", "0+120x1500", DAY + 30),
    "CertificateExpires": _one("probe_ssl_earliest_cert_expiry", f"{20 * 86400}", f"{22 * 86400}"),
    "CertificateExpiresSoon": _one("probe_ssl_earliest_cert_expiry", f"{6 * 86400}", f"{8 * 86400}"),
    "EdgeDown": _one('nginx_up{instance="a"}', "0x5", "0 1 0 1 0", 4),
    "ReleaseTakenBack": _one(f"switchyard_reverts_total{{{APP}}}", "3x5 4x5", "4x10", 8),
    "OperationFailed": _one(f"switchyard_operation_failures_total{{{APP}}}", "3x5 4x5", "4x10", 8),
    "ColoursDisagree": _one(f"switchyard_disagreements{{{APP}}}", "1x10", "0x3 1x3 0x4", 8),
    "OperationHangs": _one(f"switchyard_lease_age_seconds{{{APP}}}", "3700", "3500"),
    "LedgerChanged": _one(f"switchyard_ledger_findings{{{APP}}}", "1", "0"),
    "CollectorSilent": _one('switchyard_collected_seconds{instance="a"}', "0x10", "0+60x10", 8),
    "StandingWatchSilent": _one('switchyard_looked_seconds{instance="a"}', "0x40", "0+60x40", 35),
    "ExporterAbsent": _one('up{job="node",instance="a"}', "0x10", "0x3 1x7", 8),
    "CpuBusy": _one('node_cpu_seconds_total{mode="idle",instance="a"}', _idle(15), _idle(24), 30),
    "CpuVeryBusy": _one('node_cpu_seconds_total{mode="idle",instance="a"}', _idle(9), _idle(15), 30),
    "MemoryShort": Case(
        {_memory: "100x30", 'node_memory_MemAvailable_bytes{instance="a"}': "15x30"},
        {_memory: "100x30", 'node_memory_MemAvailable_bytes{instance="a"}': "25x30"},
        20,
    ),
    "OutOfMemory": _one('node_vmstat_oom_kill{instance="a"}', "1x5 2x5", "2x10", 8),
    "DiskShort": Case(
        {f"node_filesystem_avail_bytes{{{DISK}}}": "15x60", f"node_filesystem_size_bytes{{{DISK}}}": "100x60"},
        {f"node_filesystem_avail_bytes{{{DISK}}}": "25x60", f"node_filesystem_size_bytes{{{DISK}}}": "100x60"},
        40,
    ),
    # 20 GB left, filling by 1 GB an hour; and by half of one.
    "DiskFullSoon": _one(f"node_filesystem_avail_bytes{{{DISK}}}", "26e9-16666667x480", "26e9-8333333x480", 420),
    "InodesShort": Case(
        {f"node_filesystem_files_free{{{DISK}}}": "5x60", f"node_filesystem_files{{{DISK}}}": "100x60"},
        {f"node_filesystem_files_free{{{DISK}}}": "15x60", f"node_filesystem_files{{{DISK}}}": "100x60"},
        40,
    ),
    "ClockWrong": Case(
        {'node_timex_offset_seconds{instance="a"}': "-0.3x30", 'node_timex_sync_status{instance="a"}': "1x30"},
        {'node_timex_offset_seconds{instance="a"}': "-0.03x30", 'node_timex_sync_status{instance="a"}': "1x30"},
        20,
    ),
    "ContainerRestarts": _one(f'switchyard_container_restarts_total{{{APP},container="c"}}', "0+1x15", "0x10 1x5", 14),
    "AlertsUndelivered": _one('alertmanager_notifications_failed_total{integration="webhook"}', "0x5 2x5", "2x10", 8),
    "BackupOld": _one(_job("backup"), f"{-27 * 3600}", f"{-25 * 3600}"),
    "OffsiteLags": _one(_job("archive"), "-3700", "-3500"),
    "JobFailed": _one(f'switchyard_job_ok{{{APP},job_name="verify"}}', "0x20", "0x5 1x15", 15),
    "DrillOld": _one(_job("drill"), f"{-9 * 86400}", f"{-7 * 86400}"),
    "DrillVeryOld": _one(_job("drill"), f"{-36 * 86400}", f"{-34 * 86400}"),
    "RecoveryTooSlow": _one(f"switchyard_drill_rto_seconds{{{APP}}}", "3700", "240"),
    "RecoveryLosesTooMuch": _one(f"switchyard_drill_rpo_seconds{{{APP}}}", "3700", "60"),
    # A database that is idle archives nothing, and nothing waits: that is no fault.
    "WalArchiveLate": Case({_archive: "700", _ready: "2"}, {_archive: "700", _ready: "0"}),
    "WalArchiveVeryLate": Case({_archive: "1900", _ready: "2"}, {_archive: "1700", _ready: "2"}),
    "WalPilesUp": _one(_ready, "17x10", "16x10", 8),
    "PostgresDown": _one('pg_up{instance="a"}', "0x5", "1x5", 4),
    "PostgresRestarted": _one('pg_postmaster_start_time_seconds{instance="a"}', "0x30", "0x30", 5),
    "ConnectionsShort": Case(
        {_backends: "85x10", _most: "100x10"},
        {_backends: "75x10", _most: "100x10"},
        8,
    ),
    "TransactionLong": Case(
        {'pg_stat_activity_max_tx_duration{instance="a",datname="shop",state="idle in transaction"}': "901"},
        {'pg_stat_activity_max_tx_duration{instance="a",datname="shop",state="idle"}': "9999"},
    ),
    "LockWaits": _one(
        'pg_stat_activity_count{instance="a",datname="shop",wait_event_type="Lock"}', "2x10", "2x3 0x7", 8
    ),
    "Deadlocks": _one('pg_stat_database_deadlocks{instance="a",datname="shop"}', "1x5 2x5", "2x10", 8),
    # Without a limit (-1) a slot may keep what it wants.
    "ReplicationSlotKeeps": Case({_slot: "600", _limit: "1000"}, {_slot: "600", _limit: "-1"}),
    "TransactionIdsShort": _one(_age, "600000000x20", "200000000x20", 18),
}  # fmt: skip


def names() -> list[str]:
    """Every alert that the rules define."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule["alert"] for group in groups for rule in group["rules"]]


def document(rules: str) -> str:
    """A test file for `promtool test rules`, which is given the rules as the file `rules` beside it."""
    tests = []
    for name, case in CASES.items():
        for kind, series in (("firing", case.firing), ("silent", case.silent)):
            minutes = case.minutes + (30 if name == "PostgresRestarted" and kind == "silent" else 0)
            fires = kind == "firing"
            tests.append(
                {
                    "name": f"{name} {kind}",
                    "interval": "1m",
                    "input_series": [{"series": s, "values": values} for s, values in series.items()],
                    "promql_expr_test": [
                        {
                            "expr": f'count by (alertname) (ALERTS{{alertname="{name}",alertstate="firing"}})',
                            "eval_time": f"{minutes}m",
                            "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": 1}] if fires else [],
                        }
                    ],
                }
            )
    # JSON is YAML, and quotes everything.
    return json.dumps({"rule_files": [rules], "evaluation_interval": "1m", "tests": tests}, indent=1)


def failures(output: str) -> list[str]:
    """The rules whose cases promtool judged otherwise."""
    return re.findall(r'expr: "count by .*?alertname=\\"(\w+)\\"', output)


def write(folder: Path) -> Path:
    """Leave rules and test file in a folder; returns the test file."""
    (folder / "rules.yml").write_text(RULES.read_text())
    (folder / "graphs.yml").write_text(graphs())
    path = folder / "cases.yml"
    path.write_text(document("rules.yml"))
    return path


def graphs() -> str:
    """What the dashboards ask, as rules that `promtool check rules` can judge: variables become what they stand for."""
    found: list[dict[str, str]] = []
    for path in sorted((RULES.parent / "dashboards").glob("*.json")):
        board = json.loads(path.read_text())
        asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
        asked += [note["expr"] for note in board["annotations"]["list"]]
        for expression in asked:
            plain = re.sub(r"\$(app|environment|instance)", ".*", expression.replace("$__rate_interval", "5m"))
            found.append({"record": f"graph:{path.stem}:{len(found)}", "expr": plain})
    return json.dumps({"groups": [{"name": "graphs", "rules": found}]}, indent=1)
