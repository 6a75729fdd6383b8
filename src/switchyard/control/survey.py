"""What is so in an environment of several hosts, from what each host says of itself."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from switchyard.control.operations import ask
from switchyard.control.transport import ConnectionLost, Member
from switchyard.data import replica
from switchyard.engine import status
from switchyard.errors import SwitchyardError
from switchyard.watch import alerts

Report = dict[str, Any]
_NOTHING: Report = {"alerts": [], "problems": []}
"""What an engine of before there was a standing watch says of it."""


def survey(members: Sequence[Member], app: str) -> Report:
    """Every host's own report, what the edges serve, and whether they agree."""
    hosts = sorted((m for m in members if m.groups & {"app", "edge"}), key=lambda member: member.name)
    with ThreadPoolExecutor(max_workers=max(1, len(hosts))) as pool:
        reports = dict(
            zip([m.name for m in hosts], pool.map(lambda m: _one(m, ["status", app, "--json"]), hosts), strict=True)
        )
    edges = [m.name for m in hosts if "edge" in m.groups]
    served = {name: reports[name].get("serves", "") for name in edges if "unreachable" not in reports[name]}
    first = next(iter(served), "")
    disagreements = [f"{name}: {item}" for name, report in reports.items() for item in report.get("disagreements", [])]
    mixed = len(set(served.values())) > 1
    if mixed:
        told = ", ".join(f"{name} serves {release or 'nothing'}" for name, release in served.items())
        disagreements.insert(0, f"mixed: {told}: the same command again, a rollback or 'switchyard recover' settles it")
    wanted = served.get(first, "")
    for member in hosts:
        report = reports[member.name]
        has = (report.get("live") or {}).get("release", "")
        if "app" in member.groups and "unreachable" not in report and has != wanted:
            disagreements.append(f"{member.name} has no part in {wanted}: the next deploy brings it up to date")
    databases = _databases(members, app)
    followers = replicas(members, app)
    disagreements += [f"{name}: {report['problem']}" for name, report in followers.items() if report.get("problem")]
    head = reports[first] if first else {}
    return {
        "app": app.rpartition("-")[0],
        "environment": app.rpartition("-")[2],
        "live": next((r["live"] for r in reports.values() if r.get("live")), None),
        "serves": served,
        "mixed": mixed,
        "operation": head.get("operation", ""),
        "bad": head.get("bad", {}),
        "unreachable": {
            name: r["unreachable"] for name, r in (reports | databases | followers).items() if "unreachable" in r
        },
        "disagreements": disagreements,
        "alerts": [
            alert for report in (reports | databases).values() for alert in report.get("standing", {}).get("alerts", [])
        ],
        "hosts": reports,
        "databases": databases,
        "replicas": followers,
    }


def _databases(members: Sequence[Member], app: str) -> dict[str, Report]:
    """What each host of the database alone says of backups, disks and alerts; it has no part in what is live."""
    hosts = [m for m in members if "db" in m.groups and not m.groups & {"app", "edge"}]
    told = ("unreachable", "jobs", "disks", "standing")
    found = {member.name: _one(member, ["status", app, "--json"]) for member in hosts}
    return {name: {key: report[key] for key in told if key in report} for name, report in found.items()}


def replicas(members: Sequence[Member], app: str) -> dict[str, Report]:
    """What each replica of the database says of itself, by host."""
    hosts = sorted((m for m in members if "replica" in m.groups), key=lambda member: member.name)
    with ThreadPoolExecutor(max_workers=max(1, len(hosts))) as pool:
        found = list(pool.map(lambda m: _one(m, ["replica", app, "--json"]), hosts))
    missing = {"problem": "there is no replica yet: run provision.yml"}
    return {member.name: report or missing for member, report in zip(hosts, found, strict=True)}


def replica_lines(found: dict[str, Report]) -> list[str]:
    """The same for a person, a line for each."""
    return [f"  {name:<12} replica {_replica_words(report)}" for name, report in found.items()]


def _replica_words(report: Report) -> str:
    if "unreachable" in report:
        return f"UNREACHABLE {report['unreachable']}"
    return replica.words(report)


def _one(member: Member, words: list[str]) -> Report:
    try:
        return ask(member.transport, words)
    except (ConnectionLost, SwitchyardError) as error:
        return {"unreachable": str(error)}


def text(report: Report) -> str:
    """The report for a person."""
    reached = {name: host for name, host in report["hosts"].items() if "unreachable" not in host}
    head = reached.get(next(iter(report["serves"]), ""))
    lines = []
    if head:
        live = report["live"] and report["live"] | {"health": {}}
        colours = [colour for host in reached.values() for colour in host["colours"].values()]
        lines += status.release_lines(head | {"live": live}, colours) + status.schema_lines(head)
    lines += [f"{edge:<12} serves {release or 'nothing'}" for edge, release in report["serves"].items()]
    for name, host in (report["hosts"] | report["databases"]).items():
        lines += [f"{name:<12} {line}" for line in _host_lines(host)]
    lines += [line.removeprefix("  ") for line in replica_lines(report["replicas"])]
    lines += [f"bad          {release}: {reason}" for release, reason in report["bad"].items()]
    lines += status.allowed_lines([*reached.values()])
    lines.append(f"operation    {report['operation'] or 'none'}")
    lines += [f"DISAGREE     {item}" for item in report["disagreements"]]
    title = f"{report['app']} in {report['environment']} on {len(report['hosts'])} hosts"
    return "\n".join([title, *(f"  {line}" for line in lines)])


def _host_lines(host: Report) -> list[str]:
    if "unreachable" in host:
        return [f"UNREACHABLE {host['unreachable']}"]
    lines = []
    for colour, found in host.get("colours", {}).items():
        if found["release"]:
            lines.append(f"{colour:<5} {found['release']} {'runs' if found['running'] else 'stopped'}")
    lines += alerts.lines(host.get("standing", _NOTHING))
    lines += [f"      {name}: {health}" for name, health in (host.get("live") or {}).get("health", {}).items()]
    if "edge" in host.get("groups", []):
        lines += status.traffic_lines(host["traffic"]) + status.tls_lines(host)
    return lines + status.host_lines(host)
