"""What Switchyard knows, as Prometheus metrics in the text format, for node exporter's directory.

Written only where that directory exists, which the role `monitoring` makes. Names end in their unit, as Prometheus
asks for; times are seconds since 1970.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

from switchyard import chain
from switchyard.engine import docker, phases, status
from switchyard.engine import lease as leases
from switchyard.engine.effects import replace_file
from switchyard.engine.layout import STATE, AppPaths
from switchyard.engine.ledger import Ledger, content
from switchyard.names import AppName
from switchyard.report import facts, host, story, traffic
from switchyard.report.dora import compute
from switchyard.watch import standing

DIRECTORY = Path("/var/lib/prometheus/node-exporter")
_LATENCY_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 2.5, 5.0, 10.0)
_DAY = 86400.0

Sample = tuple[str, dict[str, str], float]

_HELP = {
    "switchyard_requests_total": ("counter", "Requests that the edge answered, by release."),
    "switchyard_request_errors_total": ("counter", "Answers of 500 and above, by release."),
    "switchyard_request_duration_seconds": ("histogram", "Response times at the edge, by release."),
    "switchyard_live_info": ("gauge", "The live release and its colour; always 1."),
    "switchyard_live_since_seconds": ("gauge", "When the live release went live."),
    "switchyard_probation": ("gauge", "1 while the live release is on probation."),
    "switchyard_verdict_info": ("gauge", "The last verdict on a release, and which release; always 1."),
    "switchyard_deployments_total": ("counter", "Releases that a deploy made live."),
    "switchyard_reverts_total": ("counter", "Releases that were taken back by their probation."),
    "switchyard_operation_failures_total": ("counter", "Deploys and rollbacks that failed before anything was live."),
    "switchyard_disagreements": ("gauge", "Places where pointer, Docker, ledger and records disagree."),
    "switchyard_ledger_lines": ("gauge", "Lines of the ledger."),
    "switchyard_ledger_findings": ("gauge", "Lines that are wrong by the ledger's own chain."),
    "switchyard_lease_age_seconds": ("gauge", "How long the running operation has been under way; 0 without one."),
    "switchyard_job_success_seconds": ("gauge", "When a job, such as a backup, last succeeded; 0 for never."),
    "switchyard_job_ok": ("gauge", "Whether the last run of a job succeeded."),
    "switchyard_drill_rto_seconds": ("gauge", "Time that the last restore drill took until it answered."),
    "switchyard_drill_rpo_seconds": ("gauge", "Age of the newest write that the last drill restored."),
    "switchyard_wal_ready": ("gauge", "Pieces of Postgres' write-ahead log that wait to be archived."),
    "switchyard_container_restarts_total": ("counter", "Restarts of a container by Docker, since it was made."),
    "switchyard_disk_days_to_full": ("gauge", "Days until a file system is full at its rate of the last week."),
    "switchyard_looked_seconds": ("gauge", "When the standing watch last looked at this host."),
    "switchyard_collected_seconds": ("gauge", "When these metrics were made."),
}


def write(names: Sequence[AppName]) -> bool:
    """Write all metrics; tells whether there is a place for them."""
    if not DIRECTORY.is_dir():
        return False
    replace_file(DIRECTORY / "switchyard.prom", text(samples(names)), step="metrics.file")
    return True


def samples(names: Sequence[AppName]) -> Iterator[Sample]:
    """Every metric's values at this moment."""
    for name in names:
        labels = {"app": name.app, "environment": name.environment}
        yield from ((metric, labels | more, value) for metric, more, value in _of_app(AppPaths(name)))
    for disk in host.disks():
        if disk.days_to_full is not None:
            yield "switchyard_disk_days_to_full", {"path": disk.path}, disk.days_to_full
    if looked := standing.load().looked_at:
        yield "switchyard_looked_seconds", {}, looked
    yield "switchyard_collected_seconds", {}, time.time()


def _of_app(paths: AppPaths) -> Iterator[Sample]:
    ledger = Ledger.load(paths)
    told = story.stays(ledger.events)
    if told:
        live = told[-1]
        yield "switchyard_live_info", {"release": live.release, "colour": live.colour}, 1
        yield "switchyard_live_since_seconds", {}, live.since.timestamp()
    since, until = datetime.fromtimestamp(0, story.now().tzinfo), story.now()
    yield "switchyard_deployments_total", {}, compute(ledger.events, since, until).deployments
    yield "switchyard_reverts_total", {}, sum(stay.verdict == "bad" for stay in told)
    failed = [o for o in story.operations(ledger.events) if story.is_release_operation(o) and o.outcome == "failed"]
    yield "switchyard_operation_failures_total", {}, len(failed)
    yield "switchyard_disagreements", {}, len(status.disagreements(paths, ledger))
    yield "switchyard_ledger_lines", {}, len(ledger.events)
    yield "switchyard_ledger_findings", {}, len(chain.check(str(paths.name), content(paths)))
    yield from _operation(paths, ledger)
    yield from _jobs(paths)
    yield from _containers(paths)
    for release, tally in traffic.totals(paths).items():
        yield from _tally(release, tally)


def _operation(paths: AppPaths, ledger: Ledger) -> Iterator[Sample]:
    lease = leases.holder(paths)
    began = next((story.moment(start) for start in ledger.unfinished() if lease and start["op"] == lease.op), None)
    # By the pointer: a watch outlives its operation, and the lease of that.
    pointer = phases.live_pointer(paths)
    yield "switchyard_probation", {}, float(bool(pointer and pointer.probation))
    if judged := [*ledger.of("verdict")][-1:]:
        labels = {"release": str(judged[0]["release"]), "verdict": str(judged[0]["verdict"])}
        yield "switchyard_verdict_info", labels, 1
    yield "switchyard_lease_age_seconds", {}, (story.now() - began).total_seconds() if began else 0.0


def _jobs(paths: AppPaths) -> Iterator[Sample]:
    for name, job in facts.jobs(paths.name).items():
        done = str(job.get("succeeded_at") or "")
        succeeded = datetime.fromisoformat(done).timestamp() if done else 0.0
        yield "switchyard_job_success_seconds", {"job_name": name}, succeeded
        yield "switchyard_job_ok", {"job_name": name}, float(bool(job["ok"]))
        for word, value in zip(("rto", "rpo"), facts.objectives(job), strict=True):
            if value is not None:
                yield f"switchyard_drill_{word}_seconds", {}, value


def _containers(paths: AppPaths) -> Iterator[Sample]:
    name = paths.name
    for container in docker.containers({"switchyard.app": name.app, "switchyard.environment": name.environment}):
        restarts = (docker.inspect(container.id) or {}).get("RestartCount", 0)
        yield "switchyard_container_restarts_total", {"container": container.name}, float(restarts)
    data = STATE / "postgres" / str(name) / "data"
    if data.is_dir():
        # From version 18 on the official image keeps its data in a directory per major version.
        waiting = [*data.glob("pg_wal/archive_status/*.ready"), *data.glob("*/docker/pg_wal/archive_status/*.ready")]
        yield "switchyard_wal_ready", {}, len(waiting)


def _tally(release: str, tally: traffic.Tally) -> Iterator[Sample]:
    labels = {"release": release}
    yield "switchyard_requests_total", labels, tally.requests
    yield "switchyard_request_errors_total", labels, tally.errors
    for bound in _LATENCY_BOUNDS:
        yield "switchyard_request_duration_seconds_bucket", labels | {"le": f"{bound:g}"}, tally.faster_than(bound)
    count = sum(tally.slots.values())
    yield "switchyard_request_duration_seconds_bucket", labels | {"le": "+Inf"}, count
    yield "switchyard_request_duration_seconds_count", labels, count
    yield "switchyard_request_duration_seconds_sum", labels, tally.seconds


def _escape(label: str) -> str:
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def text(values: Iterable[Sample]) -> str:
    """The text format: each metric's help and type, then its values (https://prometheus.io/docs/instrumenting)."""
    by_family: dict[str, list[str]] = {}
    for metric, labels, value in values:
        family = metric if metric in _HELP else metric.rpartition("_")[0]
        inner = ",".join(f'{key}="{_escape(label)}"' for key, label in labels.items())
        by_family.setdefault(family, []).append(f"{metric}{{{inner}}} {value:.16g}")
    lines = []
    for family, entries in by_family.items():
        kind, words = _HELP[family]
        lines += [f"# HELP {family} {words}", f"# TYPE {family} {kind}", *entries]
    return "\n".join(lines) + "\n"
