"""Labels on everything that a bed makes, and the removal of exactly that."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import docker.errors

from tests.bed import engine, owner
from tests.bed.errors import BedError
from tests.bed.paths import checkout_id

BED = "switchyard.bed"
CHECKOUT = "switchyard.checkout"
OWNER = "switchyard.owner"
ROLE = "switchyard.role"
HOST = "switchyard.host"
ADDRESS = "switchyard.address"

ATTEMPTS = 60


def for_bed(bed: str, owned_by: str | None) -> dict[str, str]:
    """Return the labels of one bed's things."""
    labels = {BED: bed, CHECKOUT: checkout_id()}
    return {**labels, OWNER: owned_by} if owned_by else labels


def remove(bed: str) -> None:
    """Remove every container, volume and network of one bed, and nothing else."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _remove_once(bed)
            return
        except docker.errors.APIError as error:
            # A watchdog may be removing the same bed; what it holds is gone a moment later.
            if attempt == ATTEMPTS:
                raise BedError(f"The bed {bed} could not be removed: {error.explanation}") from error
            time.sleep(1)


def _remove_once(bed: str) -> None:
    api = engine.api()
    chosen = {"label": f"{BED}={bed}"}
    containers = api.containers.list(all=True, filters=chosen, ignore_removed=True)
    if containers:
        # The engine waits for each end in turn; asked side by side it saves most of the time.
        with ThreadPoolExecutor(max_workers=4) as pool:
            list(pool.map(_remove_container, containers))
    for things in (api.volumes, api.networks):
        for thing in things.list(filters=chosen):
            with contextlib.suppress(docker.errors.NotFound):
                thing.remove()


def orphans() -> set[str]:
    """Return the beds of this checkout whose owner is dead."""
    dead: set[str] = set()
    for labels in _all_labels():
        identity = labels.get(OWNER)
        if identity and not owner.alive(identity):
            dead.add(labels[BED])
    return dead


def _all_labels() -> Iterator[dict[str, str]]:
    api = engine.api()
    chosen = {"label": f"{CHECKOUT}={checkout_id()}"}
    for container in api.containers.list(all=True, filters=chosen, ignore_removed=True):
        yield container.labels
    for volume in api.volumes.list(filters=chosen):
        yield volume.attrs.get("Labels") or {}
    for network in api.networks.list(filters=chosen):
        yield network.attrs.get("Labels") or {}


def _remove_container(container: Any) -> None:
    with contextlib.suppress(docker.errors.NotFound):
        # A frozen container cannot be killed by every engine.
        if container.status == "paused":
            container.unpause()
        container.remove(force=True, v=True)
