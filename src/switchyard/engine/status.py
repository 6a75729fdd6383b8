"""What is so on this host: derived from pointer, Docker and ledger, and honest where the three disagree."""

from typing import Any

from switchyard.engine import colour as colours
from switchyard.engine import docker, edge, phases, ports, records
from switchyard.engine import lease as leases
from switchyard.engine.layout import AppPaths, HostConfig
from switchyard.engine.ledger import Ledger
from switchyard.engine.probe import ask, judge_health
from switchyard.errors import SwitchyardError
from switchyard.names import COLOURS


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
        "colours": {},
        "operation": lease.describe() if lease else "",
        "schema": {key: schema[key] for key in ("state", "release", "schema_epoch")} if schema else None,
        "bad": ledger.bad(),
        "secrets_in_environment": [],
        "disagreements": [],
    }
    for colour in COLOURS:
        report["colours"][colour] = _colour(paths, colour)
    if pointer and not ports.is_lost():
        _add_live(report, paths, host)
    report["disagreements"] = disagreements(paths, ledger)
    return report


def _colour(paths: AppPaths, colour: Any) -> dict[str, Any]:
    found = docker.of_colour(paths.name, colour)
    release, running = colours.release_in(paths.name, colour)
    return {"release": release, "running": running, "containers": {c.name: c.status for c in found}}


def _add_live(report: dict[str, Any], paths: AppPaths, host: HostConfig) -> None:
    pointer = phases.live_pointer(paths)
    if pointer is None:
        return
    record = records.load(paths, pointer.release)
    health = {}
    for name, target in colours.targets(record, pointer.colour, ports.load(), host).items():
        rules = record.request.services[name.rpartition("-")[0]].health
        health[name] = judge_health(ask(target, rules.path, timeout=rules.timeout), rules.path) or "healthy"
    report["live"] = {
        "release": record.id,
        "version": record.version,
        "colour": pointer.colour,
        "created": record.created,
        "digests": record.digests,
        "health": health,
    }
    report["secrets_in_environment"] = [
        f"{service}.{variable}" for service, spec in record.request.services.items() for variable in spec.secret_env
    ]


def disagreements(paths: AppPaths, ledger: Ledger) -> list[str]:
    """Where pointer, Docker and ledger tell different stories; empty when all is well."""
    found = []
    pointer, live = phases.live_pointer(paths), ledger.last_live()
    if pointer and live and (pointer.release, pointer.colour) != live:
        found.append(f"the pointer names {pointer.release} on {pointer.colour}, the ledger {live[0]} on {live[1]}")
    if live and pointer is None:
        found.append(f"the pointer names nothing, the ledger {live[0]} on {live[1]}: run 'switchyard recover'")
    if ports.is_lost():
        return [*found, "the port plan is missing: run 'switchyard recover'"]
    if pointer:
        release, running = colours.release_in(paths.name, pointer.colour)
        if release != pointer.release or not running:
            found.append(
                f"{pointer.colour} should run {pointer.release}, Docker has {release or 'nothing'} running={running}: "
                "run 'switchyard recover'"
            )
    try:
        edge.master_pid()
    except SwitchyardError as error:
        found.append(error.message)
    holder = leases.holder(paths)
    for start in ledger.unfinished():
        if holder is None or holder.op != start["op"]:
            found.append(
                f"operation {start['op']} ({start['kind']} {start['version']}) has no end: run 'switchyard recover'"
            )
    return found


def text(report: dict[str, Any]) -> str:
    """The report for a person."""
    lines = [f"{report['app']} in {report['environment']} on {report['host']}"]
    live = report["live"]
    if live:
        lines.append(f"  live      {live['release']} on {live['colour']} (made {live['created']})")
        lines += [f"            {service} {digest}" for service, digest in live["digests"].items()]
        lines += [f"            {name}: {health}" for name, health in live["health"].items()]
    else:
        lines.append("  live      nothing yet")
    previous = report["previous"]
    if previous:
        warm = any(c["release"] == previous and c["running"] for c in report["colours"].values())
        lines.append(f"  previous  {previous} ({'warm' if warm else 'not running'})")
    if report["probation"]:
        lines.append("  probation the previous release stands by as backup")
    if report["schema"]:
        schema = report["schema"]
        lines.append(f"  schema    {schema['state']} since {schema['release']}, epoch {schema['schema_epoch']}")
    lines += [f"  bad       {release}: {reason}" for release, reason in report["bad"].items()]
    lines += [f"  env       {name} carries a secret in its environment" for name in report["secrets_in_environment"]]
    lines.append(f"  operation {report['operation'] or 'none'}")
    lines += [f"  DISAGREE  {item}" for item in report["disagreements"]]
    return "\n".join(lines)
