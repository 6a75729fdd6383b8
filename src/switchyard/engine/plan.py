"""What a deploy would do, told without doing any of it."""

import difflib
from typing import Any

from switchyard.engine import colour as colours
from switchyard.engine import docker, phases, preflight, records
from switchyard.engine.layout import SALT, AppPaths
from switchyard.engine.ledger import Ledger
from switchyard.engine.migrate import is_pending
from switchyard.engine.records import Record
from switchyard.names import release_id
from switchyard.request import Request, Service
from switchyard.secrets import generations


def plan(paths: AppPaths, request: Request) -> dict[str, Any]:
    """Compare what is asked for with what is live; reads the registry, writes nothing."""
    pointer = phases.live_pointer(paths)
    phases.refuse_older(request, pointer)
    live = records.find(paths, pointer.release) if pointer else None
    digests = preflight.resolve(request)
    key = SALT.read_bytes() if SALT.is_file() else b""
    hashed = records.config_hash(request, digests, key)
    unchanged = pointer is not None and phases.is_live(paths, pointer, hashed)
    idle = phases.idle_colour(paths)
    resident, running = colours.release_in(paths.name, idle)
    ledger = Ledger.load(paths)
    return {
        "changed": not unchanged,
        "version": {"from": live.version if live else "", "to": request.version},
        "digests": {
            name: {"from": live.digests.get(name, "") if live else "", "to": digest} for name, digest in digests.items()
        },
        "environment": {name: _environment(live, name, spec) for name, spec in request.services.items()},
        "secrets_changed": _secrets(paths, request),
        "compose_diff": _compose_diff(live, request, digests),
        "migration": _migration(request, digests, ledger),
        "migrates": not unchanged and is_pending(ledger, request, digests),
        "contracts": request.schema_epoch > ledger.schema_epoch()[0],
        "release": release_id(phases.next_number(paths, ledger), request.version),
        "switch": {"from": pointer.colour if pointer else "", "to": "" if unchanged else idle},
        "replaces_warm": resident if running and not unchanged else "",
    }


def _environment(live: Record | None, name: str, spec: Service) -> dict[str, list[str]]:
    """Names of the variables that differ; values stay hidden."""
    old = live.request.services[name].env if live and name in live.request.services else {}
    return {
        "added": sorted(set(spec.env) - set(old)),
        "removed": sorted(set(old) - set(spec.env)),
        "changed": sorted(key for key in set(old) & set(spec.env) if old[key] != spec.env[key]),
    }


def _secrets(paths: AppPaths, request: Request) -> list[str]:
    changed, now = [], generations.today(paths)
    for name, secret in request.secrets.items():
        path = now / name
        if not path.is_file() or path.read_bytes() != secret.value.encode():
            changed.append(name)
    return sorted(changed)


def _compose_diff(live: Record | None, request: Request, digests: dict[str, str]) -> str:
    """Unified diff of the compose file with the values of variables masked."""
    old = live.compose_file.read_text() if live else ""
    new = request.compose
    for name, service in request.services.items():
        new = new.replace(f"${{SWITCHYARD_IMAGE_{records.variable(name)}}}", f"{service.image}@{digests[name]}")
    if live:
        old = old.replace(live.id, "${SWITCHYARD_RELEASE}")
    names = {
        name
        for known in ([live.request] if live else []) + [request]
        for s in known.services.values()
        for name in s.env
    }
    lines = list(difflib.unified_diff(old.splitlines(), new.splitlines(), "live", "planned", lineterm="", n=1))
    return "\n".join(_mask(line, names) for line in lines)


def _mask(line: str, names: set[str]) -> str:
    """Hide the value of a line that sets one of these variables; compose files have each on a line of its own."""
    head, colon, _ = line.partition(": ")
    return f"{head}: ********" if colon and head.lstrip("+- ") in names else line


def _migration(request: Request, digests: dict[str, str], ledger: Ledger) -> str:
    if request.migration is None:
        return "none"
    service, state = request.migration.service, ledger.schema()
    if state and state["state"] == "dirty":
        return f"blocked: the schema is dirty since {state['release']}"
    if digests[service] in ledger.migrated():
        return "none (this image already migrated this database)"
    if docker.image(f"{request.services[service].image}@{digests[service]}") is None:
        return "unknown until the image is on the host"
    return f"would run: {' '.join(request.migration.command)}"


def text(report: dict[str, Any]) -> str:
    """The plan for a person."""
    if not report["changed"]:
        return f"No change: {report['version']['to']} is live as described."
    version, switch = report["version"], report["switch"]
    lines = [f"version    {version['from'] or '(none)'} -> {version['to']}"]
    for name, digest in report["digests"].items():
        old, new = digest["from"] or "(none)", digest["to"]
        lines.append(f"digest     {name}: {f'unchanged {new}' if old == new else f'{old} -> {new}'}")
    for name, keys in report["environment"].items():
        for what, variables in keys.items():
            lines += [f"env        {name}: {what} {variable}" for variable in variables]
    lines += [f"secret     {name} changes" for name in report["secrets_changed"]]
    lines.append(f"migration  {report['migration']}")
    lines.append(f"switch     {switch['from'] or '(none)'} -> {switch['to']}")
    if report["replaces_warm"]:
        lines.append(f"stops      {report['replaces_warm']}, warm on {switch['to']}")
    if report["compose_diff"]:
        lines += ["compose file:", report["compose_diff"]]
    return "\n".join(lines)
