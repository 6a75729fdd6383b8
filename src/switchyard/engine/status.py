"""What is so on this host: derived from pointer, Docker and ledger, and honest where the three disagree."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from switchyard import chain
from switchyard.engine import colour as colours
from switchyard.engine import docker, edge, phases, ports, records, rejoin
from switchyard.engine import lease as leases
from switchyard.engine.layout import AppPaths, HostConfig, load_host
from switchyard.engine.ledger import Ledger, content
from switchyard.engine.order import read_note
from switchyard.engine.probe import ask, judge_health
from switchyard.engine.records import Record
from switchyard.engine.site import Pointer
from switchyard.errors import SwitchyardError
from switchyard.names import COLOURS
from switchyard.report import facts, story, traffic
from switchyard.report import host as hosts
from switchyard.report.dora import duration
from switchyard.tls import certificate
from switchyard.watch import alerts, state

TRAFFIC_SECONDS = 300.0
"""How far back the figures of what users got reach."""


def status(paths: AppPaths, host: HostConfig) -> dict[str, Any]:
    """Everything about one application on this host, ready for JSON."""
    ledger, pointer = Ledger.load(paths), phases.live_pointer(paths)
    lease, schema = leases.holder(paths), ledger.schema()
    report: dict[str, Any] = {
        "host": host.name,
        "app": paths.name.app,
        "environment": paths.name.environment,
        "live": None,
        "previous": pointer.previous if pointer else "",
        "probation": pointer.probation if pointer else False,
        "share": pointer.share if pointer else 100,
        "verdict": None,
        "waits": False,
        "colours": {},
        "operation": lease.describe() if lease else "",
        "schema": {key: schema[key] for key in ("state", "release", "schema_epoch")} if schema else None,
        "bad": ledger.bad(),
        "secrets_in_environment": [],
        "exceptions": [],
        "previous_digests": {},
        "traffic": _traffic(paths),
        "jobs": facts.jobs(paths.name),
        "disks": [asdict(disk) for disk in hosts.disks()],
        "ledger": _ledger(paths),
        "groups": host.groups,
        "serves": _served(paths),
        "standing": alerts.report(str(paths.name), host),
        "disagreements": [],
    }
    if pointer and (previous := records.find(paths, pointer.previous)):
        report["previous_digests"] = previous.digests
    for colour in COLOURS:
        report["colours"][colour] = _colour(paths, colour)
    if pointer and not ports.is_lost() and _takes_part(paths):
        _add_live(report, paths, host)
    if known := state.load(paths):
        report["verdict"] = {"release": known.release, "verdict": known.verdict, "reason": known.reason}
        report["waits"] = bool(pointer and _waits(paths, pointer, known))
    report["certificate"] = _certificate(paths)
    report["disagreements"] = disagreements(paths, ledger)
    return report


def _waits(paths: AppPaths, pointer: Pointer, known: state.Probation) -> bool:
    """Whether a step of the canary has held, and somebody has to promote it."""
    if not pointer.is_canary or known.verdict or pointer.release not in records.ids(paths):
        return False
    canary = records.load(paths, pointer.release).request.canary
    return canary.manual and (known.held == pointer.share or known.observed >= canary.seconds)


def _certificate(paths: AppPaths) -> dict[str, Any] | None:
    state = certificate.state_of(paths.name)
    return asdict(state) | {"lines": certificate.describe(state)} if state else None


def _served(paths: AppPaths) -> str:
    """The release that this host's own edge serves."""
    pointer = phases.file_pointer(paths)
    return pointer.release if pointer else ""


def _is(paths: AppPaths, group: str) -> bool:
    """Tell whether this host is in a group; one alone is everything."""
    return not paths.note.is_file() or group in load_host().groups


def _takes_part(paths: AppPaths) -> bool:
    """Tell whether this host has instances of what is live; one of several may have been left out."""
    pointer = phases.live_pointer(paths)
    if pointer is None or not paths.note.is_file():
        return pointer is not None
    return _is(paths, "app") and pointer.release in records.ids(paths) and rejoin.is_member(pointer, load_host())


def _colour(paths: AppPaths, colour: Any) -> dict[str, Any]:
    found = docker.of_colour(paths.name, colour)
    release, running = colours.release_in(paths.name, colour)
    return {"release": release, "running": running, "containers": {c.name: c.status for c in found}}


def _add_live(report: dict[str, Any], paths: AppPaths, host: HostConfig) -> None:
    pointer = phases.live_pointer(paths)
    if pointer is None:
        return
    since, record = _since(paths), records.find(paths, pointer.release)
    report["live"] = {
        "release": pointer.release,
        "version": pointer.release.partition("-")[2],
        "colour": pointer.colour,
        "created": record.created if record else "",
        "digests": record.digests if record else {},
        "health": _health(record, pointer, host) if record else {},
        "since": since.isoformat(timespec="seconds") if since else "",
        "age_seconds": round((story.now() - since).total_seconds(), 1) if since else None,
    }
    if record is None:
        # Among what disagrees it is said what to do.
        return
    report["secrets_in_environment"] = [
        f"{service}.{variable}" for service, spec in record.request.services.items() for variable in spec.secret_env
    ]
    report["exceptions"] = [
        f"{service}.{exception}" for service, spec in record.request.services.items() for exception in spec.exceptions
    ]


def _health(record: Record, pointer: Pointer, host: HostConfig) -> dict[str, str]:
    """What each live instance answers to its health check."""
    health = {}
    for name, target in colours.targets(record, pointer.colour, ports.load(), host).items():
        rules = record.request.services[name.rpartition("-")[0]].health
        health[name] = judge_health(ask(target, rules.path, timeout=rules.timeout), rules.path) or "healthy"
    return health


def _since(paths: AppPaths) -> datetime | None:
    """When the live release went live."""
    told = story.stays(list(Ledger.load(paths).events))
    return told[-1].since if told else None


def _traffic(paths: AppPaths) -> dict[str, Any]:
    """What users got of each release in the last minutes, by the edge's own log."""
    tallies, reach = traffic.recent(paths, TRAFFIC_SECONDS, time.time())
    releases = {
        release: {
            "requests": tally.requests,
            "errors": tally.errors,
            "error_share": round(tally.error_share, 5),
            **{f"p{share}": round(tally.percentile(share / 100), 4) for share in (50, 95, 99)},
        }
        for release, tally in sorted(tallies.items())
    }
    return {"seconds": round(reach, 1), "releases": releases}


def _ledger(paths: AppPaths) -> dict[str, Any]:
    text = content(paths)
    return {"lines": len(chain.split(text)), "findings": [f.text for f in chain.check(str(paths.name), text)]}


def disagreements(paths: AppPaths, ledger: Ledger) -> list[str]:
    """Where pointer, Docker and ledger tell different stories; empty when all is well."""
    found = []
    pointer, live = phases.live_pointer(paths), ledger.last_live()
    if paths.note.is_file():
        # One of several: the first edge's ledger is of all hosts, and a copy may be older.
        note = read_note(paths)
        live = (note.release, note.colour) if note else None
    if pointer and live and (pointer.release, pointer.colour) != live:
        found.append(f"the pointer names {pointer.release} on {pointer.colour}, the ledger {live[0]} on {live[1]}")
    if live and pointer is None:
        found.append(f"the pointer names nothing, the ledger {live[0]} on {live[1]}: run 'switchyard recover'")
    if ports.is_lost():
        return [*found, "the port plan is missing: run 'switchyard recover'"]
    if pointer and _takes_part(paths):
        release, running = colours.release_in(paths.name, pointer.colour)
        if release != pointer.release or not running:
            found.append(
                f"{pointer.colour} should run {pointer.release}, Docker has {release or 'nothing'} running={running}: "
                "run 'switchyard recover'"
            )
    found += _records(paths, pointer)
    if _is(paths, "edge"):
        try:
            edge.master_pid()
        except SwitchyardError as error:
            found.append(error.message)
    holder = leases.holder(paths)
    for start in ledger.unfinished() if _is(paths, "edge") else ():
        if holder is None or holder.op != start["op"]:
            found.append(
                f"operation {start['op']} ({start['kind']} {start['version']}) has no end: run 'switchyard recover'"
            )
    return found


def _records(paths: AppPaths, pointer: Pointer | None) -> list[str]:
    """Releases that are spoken of and have no record, and containers that run another image than their record says."""
    found = []
    for release in sorted({pointer.release, pointer.previous} - {""}) if pointer else ():
        if records.find(paths, release) is None:
            found.append(f"the pointer names {release}, whose record is missing or damaged: deploy again to have one")
    if pointer and (record := records.find(paths, pointer.release)):
        for container in docker.of_colour(paths.name, pointer.colour):
            service = container.labels.get("switchyard.service", "")
            wanted = record.digests.get(service, "")
            if wanted and "@" in container.image and not container.image.endswith(wanted):
                found.append(f"{container.name} runs {container.image}, the record of {record.id} says {wanted}")
    found += [f"the ledger: {finding.text}" for finding in chain.check(str(paths.name), content(paths))[:5]]
    return found


def text(report: dict[str, Any]) -> str:
    """The report for a person, on one screen."""
    lines = release_lines(report, [*report["colours"].values()])
    lines += traffic_lines(report["traffic"]) + schema_lines(report) + host_lines(report) + tls_lines(report)
    lines += [f"bad       {release}: {reason}" for release, reason in report["bad"].items()]
    lines += allowed_lines([report])
    lines.append(f"ledger    {report['ledger']['lines']} lines")
    lines.append(f"operation {report['operation'] or 'none'}")
    lines += alerts.lines(report["standing"])
    lines += [f"DISAGREE  {item}" for item in report["disagreements"]]
    title = f"{report['app']} in {report['environment']} on {report['host']}"
    return "\n".join([title, *(f"  {line}" for line in lines)])


# Parts of the screen, which one host and several have in common


def release_lines(report: dict[str, Any], colours: Sequence[dict[str, Any]]) -> list[str]:
    """What is live and what stands by; `colours` are those of every host."""
    lines, live, previous = [], report["live"], report["previous"]
    if live:
        age = f" for {duration(live['age_seconds'])}" if live["age_seconds"] is not None else ""
        lines.append(f"live      {live['release']} on {live['colour']}{age} (made {live['created'] or 'unknown'})")
        lines += [f"          {service} {digest}" for service, digest in live["digests"].items()]
        lines += [f"          {name}: {health}" for name, health in live["health"].items()]
    else:
        lines.append("live      nothing yet")
    if previous:
        warm = any(colour["release"] == previous and colour["running"] for colour in colours)
        lines.append(f"previous  {previous} ({'warm' if warm else 'not running'})")
        lines += [f"          {service} {digest}" for service, digest in report["previous_digests"].items()]
    return lines + _probation_lines(report)


def _probation_lines(report: dict[str, Any]) -> list[str]:
    # An engine of before says less.
    lines, share, judged = [], report.get("share", 100), report.get("verdict")
    if report["probation"] and share == 100:
        lines.append("probation the previous release stands by as backup")
    elif report["probation"]:
        waits = f"; it waits for 'switchyard promote {report['environment']}'" if report["waits"] else ""
        lines.append(f"canary    the live release has {share} % of the clients, the previous one the others{waits}")
    if judged and judged["verdict"]:
        reason = f": {judged['reason']}" if judged["reason"] else ""
        lines.append(f"verdict   {judged['verdict']} for {judged['release']}{reason}")
    return lines


def schema_lines(report: dict[str, Any]) -> list[str]:
    """What the database was brought to."""
    if not (schema := report["schema"]):
        return []
    return [f"schema    {schema['state']} since {schema['release']}, epoch {schema['schema_epoch']}"]


def host_lines(report: dict[str, Any]) -> list[str]:
    """Backup, drill and disks of one host."""
    return _job_lines(report["jobs"]) + [f"disk      {_disk_words(disk)}" for disk in report["disks"]]


def tls_lines(report: dict[str, Any]) -> list[str]:
    """The certificate of one edge."""
    if not report["certificate"]:
        return []
    first, *more = report["certificate"]["lines"]
    return [f"tls       {first}", *(f"          {line}" for line in more)]


def allowed_lines(reports: Sequence[dict[str, Any]]) -> list[str]:
    """What an inventory allows that is not the rule, each once for all hosts."""
    lines = [f"env       {n} carries a secret in its environment" for r in reports for n in r["secrets_in_environment"]]
    lines += [f"exception {name}" for report in reports for name in report["exceptions"]]
    return list(dict.fromkeys(lines))


def traffic_lines(data: dict[str, Any]) -> list[str]:
    """What users got of each release, by one edge."""
    span = duration(data["seconds"])
    if not data["releases"]:
        return [f"users     no request in the last {span}"]
    return [
        f"users     {release or 'no release'}: {seen['requests']} requests in {span}, "
        f"{seen['error_share']:.2%} errors, p50 {_ms(seen['p50'])}, p95 {_ms(seen['p95'])}, p99 {_ms(seen['p99'])}"
        for release, seen in data["releases"].items()
    ]


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def _job_lines(jobs: dict[str, dict[str, Any]]) -> list[str]:
    lines = []
    for name, job in jobs.items():
        done = job.get("succeeded_at") or ""
        age = (story.now() - datetime.fromisoformat(done)).total_seconds() if done else None
        last = f"{duration(age)} ago" if age is not None else "never"
        figures = [f"{word} {duration(v)}" for word, v in zip(("RTO", "RPO"), facts.objectives(job), strict=True) if v]
        failed = "" if job["ok"] else f"; the last one FAILED: {job.get('message', '')}"
        lines.append(f"{name[:9]:<9} {', '.join([last, *figures])}{failed}")
    return lines


def _disk_words(disk: dict[str, Any]) -> str:
    full = f", full in {disk['days_to_full']:g} days" if disk["days_to_full"] is not None else ""
    return f"{disk['path']} {disk['free'] / max(disk['size'], 1):.0%} of {disk['size'] / 1e9:.0f} GB free{full}"
