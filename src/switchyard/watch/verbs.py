"""The verbs of maintenance and of both watches."""

import argparse
import contextlib
import sys
from datetime import UTC, datetime

from switchyard.engine.verb import VerbAdder, app_name, by_hand, show
from switchyard.errors import Exit, SwitchyardError


def add_verbs(verb: VerbAdder) -> None:
    """Add this room's verbs."""
    child = verb("maintenance", _maintenance, "answer users with the maintenance page, or let them in again")
    child.add_argument("state", choices=["on", "off", "state"], help="'state' only tells")
    child.add_argument("--retry-after", type=int, default=300, metavar="SECONDS", help="when clients shall ask again")
    child.add_argument("--reason", default="", help="why, for the ledger")
    child.add_argument("--who", default="", help="who asks, for the ledger")
    child = verb("watch", _watch, "watch a release on probation (the unit's own command)", with_json=False)
    child.add_argument("operation")
    verb("look", _look, "look once at services, users' answers and this host, and alert what is wrong", app=False)
    child = verb("promote", _promote, "give the release on probation its next share of the clients")
    child.add_argument("--who", default="", help="who asks, for the ledger")
    child = verb("retire", _retire, "stop a release that was taken back, once idle (the unit's own command)")
    child.add_argument("release")
    child = verb("abort", _abort, "take the release on probation back, and mark it bad")
    child.add_argument("--who", default="", help="who asks, for the ledger")


def _watch(arguments: argparse.Namespace) -> int:
    from switchyard.engine import effects
    from switchyard.engine.layout import AppPaths, load_host
    from switchyard.names import check_operation
    from switchyard.watch import watcher

    def say(text: str) -> None:
        with contextlib.suppress(OSError):
            print(f"{datetime.now(UTC):%H:%M:%S} {text}", flush=True)

    effects.scope("watch")
    watcher.watch(AppPaths(app_name(arguments.app)), load_host(), check_operation(arguments.operation), say)
    return 0


def _look(arguments: argparse.Namespace) -> int:
    from switchyard.engine import effects
    from switchyard.engine.layout import load_host
    from switchyard.watch import rounds
    from switchyard.watch.alerts import title

    def say(text: str) -> None:
        with contextlib.suppress(OSError):
            print(text, file=sys.stderr if arguments.json else sys.stdout, flush=True)

    effects.scope("standing")
    host = load_host()
    alerts = [title(condition, host) for condition in rounds.run(host, say).alerts()]
    if arguments.json or sys.stdout.isatty():
        show(arguments, {"alerts": alerts}, "\n".join(alerts) or "no alert stands")
    return 0


def _promote(arguments: argparse.Namespace) -> int:
    from switchyard.engine import phases
    from switchyard.watch import watcher

    op = by_hand("promote", app_name(arguments.app))
    with op.exclusively():
        pointer = phases.live_pointer(op.paths)
        if pointer is None or not pointer.is_canary:
            raise SwitchyardError(f"Nothing of {op.paths.name} waits to be promoted.", Exit.UNKNOWN_RELEASE)
        who = arguments.who or op.who
        if pointer.members:
            share = watcher.have_promoted(op.paths, pointer, who)
            words = f"{pointer.release} gets {share} % of the clients of {op.paths.name} once every edge has held"
        else:
            share = watcher.promote(op.paths, op.host, pointer, lambda _: None, who=who)
            words = f"{pointer.release} has {share} % of the clients of {op.paths.name}"
    show(arguments, {"release": pointer.release, "share": share}, words)
    return 0


def _abort(arguments: argparse.Namespace) -> int:
    from switchyard.engine import phases
    from switchyard.watch import attend, retire

    op = by_hand("abort", app_name(arguments.app))
    with op.exclusively():
        pointer = phases.live_pointer(op.paths)
        if pointer is None or not pointer.probation or not pointer.previous:
            raise SwitchyardError(f"Nothing of {op.paths.name} is on probation.", Exit.UNKNOWN_RELEASE)
        if pointer.members:
            raise SwitchyardError(
                f"Other edges have {pointer.release}, too: 'scripts/rollback.sh {op.paths.name.environment}' on the "
                "control machine takes it back on all of them.",
                Exit.USAGE,
            )
        phases.take_back(op, f"aborted by {arguments.who or op.who}", stop=False)
        waits = retire.start(op.paths, pointer.release, attend.engine())
    words = f"{pointer.previous} has every client of {op.paths.name} again; {pointer.release} is marked bad, and "
    words += "stopped when what began there has ended" if waits else "runs on until the next deploy"
    show(arguments, {"release": pointer.previous, "aborted": pointer.release}, words)
    return 0


def _retire(arguments: argparse.Namespace) -> int:
    from switchyard.watch import retire

    stopped = retire.retire(by_hand("retire", app_name(arguments.app)), arguments.release)
    words = f"{arguments.release} {'is stopped' if stopped else 'is not running, serves, or was not taken back'}"
    show(arguments, {"release": arguments.release, "stopped": stopped}, words)
    return 0


def _maintenance(arguments: argparse.Namespace) -> int:
    from switchyard.engine import maintenance
    from switchyard.engine.announce import announce

    name = app_name(arguments.app)
    op = by_hand("maintenance", name)
    changed = False
    if arguments.state != "state":
        on = arguments.state == "on"
        with op.exclusively():
            if on:
                changed = maintenance.turn_on(op.paths, op.host, arguments.retry_after)
            else:
                changed = maintenance.turn_off(op.paths, op.host)
            if changed:
                who = arguments.who or op.who
                op.ledger.append("maintenance", op=op.id, state=arguments.state, who=who, reason=arguments.reason)
        if changed:
            title = f"{name} is {'closed for maintenance' if on else 'open again'}"
            announce(f"maintenance.{arguments.state}", title, app=str(name), who=who, reason=arguments.reason)
    state = "on" if maintenance.is_on(op.paths) else "off"
    words = f"maintenance of {name} is {state}{'' if changed or arguments.state == 'state' else ', as it was'}"
    show(arguments, {"maintenance": state, "changed": changed}, words)
    return 0
