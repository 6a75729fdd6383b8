"""The notifier's verb: what its unit runs, and what a person tries a webhook with."""

import argparse
from typing import TYPE_CHECKING

from switchyard.engine.verb import VerbAdder

if TYPE_CHECKING:
    from switchyard.notify.config import Target


def add_verbs(verb: VerbAdder) -> None:
    """Add `notify`."""
    child = verb("notify", _notify, "deliver news from the spool to the webhooks", app=False, with_json=False)
    child.add_argument("--test", action="store_true", help="send one test message to every target now")


def _notify(arguments: argparse.Namespace) -> int:
    from switchyard.notify import config

    settings = config.load()
    if arguments.test:
        return _test(settings.targets, settings.host)
    from switchyard.notify.courier import deliver

    deliver(settings, lambda text: print(text, flush=True))
    return 0


def _test(targets: "list[Target]", host: str) -> int:
    from datetime import UTC, datetime

    from switchyard.errors import Exit, SwitchyardError
    from switchyard.notify.send import Undelivered, send

    if not targets:
        raise SwitchyardError("There is nobody to tell: set notify_targets and provision.", Exit.USAGE)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    news = {"time": now, "kind": "notify.test", "severity": "info", "app": "", "title": f"A test from {host}."}
    failed = 0
    for target in targets:
        try:
            send(target, news, host, f"test-{now}")
            print(f"{target.name}: delivered")
        except Undelivered as error:
            failed += 1
            print(f"{target.name}: {error.reason}")
    return int(Exit.FAILED) if failed else 0
