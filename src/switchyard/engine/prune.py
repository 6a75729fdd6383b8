"""Removes what no rollback can need any more; touches only what Switchyard created, of one application."""

from collections.abc import Callable

from switchyard.engine import docker, phases, records
from switchyard.engine.effects import run
from switchyard.engine.layout import OPERATION_LOGS, AppPaths, known_apps
from switchyard.engine.ledger import Ledger
from switchyard.engine.records import Record
from switchyard.secrets import generations

_RESULTS_KEPT = 50
_LOGS_KEPT = 500  # of all applications on this host


def removable(paths: AppPaths, ledger: Ledger, retain: int) -> list[str]:
    """The records to remove: all but the live one, the previous one and `retain` more good ones, newest first kept."""
    pointer = phases.live_pointer(paths)
    keep = {pointer.release, pointer.previous} if pointer else set()
    lineage = ledger.lineage()
    keep.update(lineage[-2:])
    bad = ledger.bad()
    others = [r for r in records.ids(paths) if r not in keep]
    good = [r for r in others if r in ledger.ever_live() and r not in bad]
    # The newest failed release stays as well: it is what somebody is looking into.
    failed = [r for r in others if r not in good]
    keep.update(good[-retain:] if retain else [])
    keep.update(failed[-1:])
    return [r for r in others if r not in keep]


def retained(paths: AppPaths) -> int:
    """How many good releases the live one says to keep beside it and the previous one; all when that is not known."""
    pointer = phases.live_pointer(paths)
    live = records.find(paths, pointer.release) if pointer else None
    return live.request.retain if live else len(records.ids(paths))


def prune(paths: AppPaths, ledger: Ledger, retain: int, say: Callable[[str], None]) -> list[str]:
    """Remove old records and the images that no record on this host names any more. Returns what was removed."""
    removed = []
    for identity in removable(paths, ledger, retain):
        record = records.find(paths, identity)
        if record is None:
            say(f"WARNING: the record of {identity} cannot be read, so it stays: remove {paths.releases / identity}")
            continue
        # The record goes last: an image that nothing names any more would stay for ever.
        if _remove_images(record):
            records.remove(record)
            removed.append(identity)
    if removed:
        say(f"finish: pruned {', '.join(removed)}")
    generations.prune(paths)
    old = sorted(paths.results.glob("*.json"))[:-_RESULTS_KEPT]
    if old:
        run(["rm", "-f", "--", *map(str, old)], step="prune.results")
    logs = sorted(OPERATION_LOGS.glob("*.log"))[:-_LOGS_KEPT]
    if logs:
        run(["rm", "-f", "--", *map(str, logs)], step="prune.logs")
    return removed


def _remove_images(record: Record) -> bool:
    """Remove what only this record names. A stopped container may hold an image; then the next prune takes it."""
    images = {record.pinned(service) for service in record.request.services}
    left = [image for image in sorted(images - _still_named(but=record)) if docker.image(image) is not None]
    return all(run(["docker", "image", "rm", image], step="prune.image", check=False).code == 0 for image in left)


def remove_unfinished(paths: AppPaths) -> None:
    """Remove records whose writing was cut short: nothing was ever made from them.

    One of what is live, or was before, is damaged instead; what it still has stays.
    """
    pointer, live = phases.live_pointer(paths), Ledger.load(paths).last_live()
    kept = {*((pointer.release, pointer.previous) if pointer else ()), live[0] if live else ""}
    cut = [path for path in records.unfinished(paths) if path.name not in kept]
    if cut:
        run(["rm", "-rf", "--", *map(str, cut)], step="recover.records")


def _still_named(but: Record) -> set[str]:
    """Every image that another record of any application on this host pins."""
    named: set[str] = set()
    for name in known_apps():
        paths = AppPaths(name)
        for identity in records.ids(paths):
            record = records.find(paths, identity)
            if record and record.directory != but.directory:
                named.update(record.pinned(service) for service in record.request.services)
    return named
