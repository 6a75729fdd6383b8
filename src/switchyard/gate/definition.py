"""The application's definition as this host has it: the last release that served, with another version in it."""

from dataclasses import asdict
from typing import Any

from switchyard.engine import records
from switchyard.engine.layout import AppPaths
from switchyard.engine.ledger import Ledger
from switchyard.engine.records import Record
from switchyard.errors import Exit, SwitchyardError
from switchyard.gate.grammar import Order
from switchyard.secrets import generations


def newest(paths: AppPaths) -> Record:
    """The newest release that was live and is not marked bad: configuration that is known to work."""
    ledger = Ledger.load(paths)
    good = ledger.ever_live() - set(ledger.bad())
    served = [release for release in records.ids(paths) if release in good]
    if not served:
        raise SwitchyardError(
            f"{paths.name} was never released here, so its configuration is not known: release once with "
            f"'ansible-playbook deploy.yml -e env={paths.name.environment}'.",
            Exit.UNKNOWN_RELEASE,
        )
    return records.load(paths, served[-1])


def request(paths: AppPaths, order: Order, who: str) -> dict[str, Any]:
    """A deploy request for another version: everything else as in the newest good release, secrets as they are now."""
    known = newest(paths)
    data: dict[str, Any] = asdict(known.request)
    moved = [name for name, service in known.request.services.items() if service.tag == known.version]
    if not moved:
        raise SwitchyardError(
            f"No image of {paths.name} has the version as its tag (release {known.id}), so a version alone changes "
            "nothing: release with deploy.yml.",
            Exit.PREFLIGHT,
        )
    for name in moved:
        data["services"][name]["tag"] = order.version
    for name, secret in data["secrets"].items():
        secret["value"] = generations.read(generations.today(paths), name)
    # What an override let through once is not let through again, and no tag may have moved.
    data["image_policy"]["immutable_tags"] = True
    return data | {
        "version": order.version,
        "explicit_version": True,
        "image_override": "",
        "engine": "",
        "migration_decision": "",
        "who": who,
        "revision": order.commit,
        "committed": "",
        "run_url": order.run_url,
    }
