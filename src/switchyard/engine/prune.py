"""Removes what no rollback can need any more; touches only what Switchyard created, of one application."""

from collections.abc import Callable

from switchyard.engine import docker, phases, records
from switchyard.engine.effects import run
from switchyard.engine.layout import OPERATION_LOGS, AppPaths, known_apps
from switchyard.engine.ledger import Ledger
from switchyard.errors import SwitchyardError
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
    """How many good releases the live one says to keep beside it and the previous one; all when nothing is live."""
    pointer = phases.live_pointer(paths)
    return records.load(paths, pointer.release).request.retain if pointer else len(records.ids(paths))


def prune(paths: AppPaths, ledger: Ledger, retain: int, say: Callable[[str], None]) -> list[str]:
    """Remove old records and the images that no record on this host names any more. Returns what was removed."""
    removed = []
    for identity in removable(paths, ledger, retain):
        record = records.load(paths, identity)
        images = {record.pinned(service) for service in record.request.services}
        records.remove(record)
        for reference in sorted(images - _still_named()):
            if docker.image(reference) is not None:
                # A stopped container may hold it; then the next prune takes it.
                run(["docker", "image", "rm", reference], step="prune.image", check=False)
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


def _still_named() -> set[str]:
    """Every image that a record of any application on this host pins."""
    named: set[str] = set()
    for name in known_apps():
        paths = AppPaths(name)
        for identity in records.ids(paths):
            try:
                record = records.load(paths, identity)
            except SwitchyardError:
                continue
            named.update(record.pinned(service) for service in record.request.services)
    return named
