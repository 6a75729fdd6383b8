"""The host's verbs about secrets."""

import argparse

from switchyard.engine.verb import VerbAdder, app_name, by_hand, read_input, show
from switchyard.errors import Exit, SwitchyardError


def add_verbs(verb: VerbAdder) -> None:
    """Add `secret-holders` and `refresh`."""
    verb("secret-holders", _holders, "tell what still holds one of the values on standard input (a JSON list)")
    verb("refresh", _refresh, "start the warm release again, so that it has today's secrets")


def _holders(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    from switchyard.engine import phases
    from switchyard.engine.layout import AppPaths
    from switchyard.secrets.holders import holders

    values = read_input()
    if not isinstance(values, list) or not values or not all(isinstance(v, str) and len(v) >= 8 for v in values):
        raise SwitchyardError("Name the values as a JSON list of texts of 8 characters or more.", Exit.USAGE)
    paths = AppPaths(app_name(arguments.app))
    found, pointer = holders(paths, values), phases.live_pointer(paths)
    live = pointer.colour if pointer else ""
    lines = [f"current generation: {name}" for name in found.files]
    for colour, names in found.containers.items():
        lines += [f"{'live' if colour == live else 'idle'} {colour}: {name}" for name in names]
    show(arguments, asdict(found) | {"live": live}, "\n".join(lines) or "nothing holds it")
    return 0


def _refresh(arguments: argparse.Namespace) -> int:
    from switchyard.secrets.refresh import refresh_by_hand

    release = refresh_by_hand(by_hand("refresh", app_name(arguments.app)))
    text = f"{release} is warm again, with today's secrets" if release else "nothing is warm"
    show(arguments, {"release": release}, text)
    return 0
