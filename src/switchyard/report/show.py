"""Everything that is known of one release or one operation, on one screen."""

from collections.abc import Sequence
from typing import Any

from switchyard.engine import records
from switchyard.engine.layout import AppPaths
from switchyard.errors import Exit, SwitchyardError
from switchyard.report import story
from switchyard.report.dora import duration
from switchyard.report.story import Event


def gather(paths: AppPaths, events: Sequence[Event], wanted: str) -> dict[str, Any]:
    """What ledger and record say of `wanted`, ready for JSON; raises `SwitchyardError` when it is unknown."""
    name, found = story.about(events, wanted)
    kept = name in records.ids(paths)
    if not found and not kept:
        raise SwitchyardError(
            f"The ledger of {paths.name} knows no '{wanted[:64]}': 'switchyard history' lists what there is.",
            Exit.UNKNOWN_RELEASE,
        )
    stays = [stay for stay in story.stays(events) if stay.release == name]
    return {
        "what": name,
        "live": [
            {
                "since": stay.since.isoformat(timespec="seconds"),
                "until": stay.until.isoformat(timespec="seconds") if stay.until else None,
                "colour": stay.colour,
                "by": stay.kind,
                "verdict": stay.verdict,
                "reason": stay.reason,
                "lead_time_seconds": (stay.since - stay.committed).total_seconds() if stay.committed else None,
            }
            for stay in stays
        ],
        "record": _record(paths, name) if kept else None,
        "events": found,
    }


def _record(paths: AppPaths, name: str) -> dict[str, Any]:
    record = records.load(paths, name)
    return {
        "created": record.created,
        "version": record.version,
        "who": record.request.who,
        "revision": record.request.revision,
        "committed": record.request.committed,
        "config_hash": record.config_hash,
        "schema_epoch": record.request.schema_epoch,
        "digests": record.digests,
        "secrets": sorted(record.request.secrets),
    }


def text(report: dict[str, Any]) -> str:
    """The same for a person."""
    lines = [str(report["what"])]
    record = report["record"]
    if record:
        lines.append(f"  made       {record['created']} by {record['who'] or 'unknown'}")
        if record["revision"]:
            lines.append(f"  commit     {record['revision']} {record['committed']}".rstrip())
        lines += [f"  image      {service} {digest}" for service, digest in record["digests"].items()]
        lines.append(f"  config     {record['config_hash'][:16]}, schema epoch {record['schema_epoch']}")
    for stay in report["live"]:
        lead = f", {duration(stay['lead_time_seconds'])} after its commit" if stay["lead_time_seconds"] else ""
        span = f"{stay['since']} to {stay['until'] or 'now'}"
        lines.append(f"  live       {span} on {stay['colour']}, by {stay['by']}{lead}")
        if stay["verdict"] != "good":
            lines.append(f"             {stay['verdict']}: {stay['reason']}")
    lines.append("  events")
    for event in report["events"]:
        what = " ".join(str(event[key]) for key in ("kind", "state", "outcome") if event.get(key))
        lines.append(f"    {event['time'][:19]}Z {event['event']:<10} {what:<22} {_rest(event)}".rstrip())
        if event.get("phases"):
            split = ", ".join(f"{phase} {duration(seconds)}" for phase, seconds in event["phases"].items())
            lines.append(f"    {'':<20} {'':<10} {split}")
    return "\n".join(lines)


def _rest(event: Event) -> str:
    who = f"by {event['who']} " if event.get("who") else ""
    words = story.describe({k: v for k, v in event.items() if k not in ("kind", "state", "outcome", "who", "phases")})
    return f"{who}{words}"
