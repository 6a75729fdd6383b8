"""The engine's verbs for certificates: what the edge role calls, and what the timer runs."""

import argparse
import json
import sys
from dataclasses import asdict

from switchyard.engine.verb import VerbAdder, read_input, show
from switchyard.errors import Exit, SwitchyardError
from switchyard.names import AppName


def add_verbs(verb: VerbAdder) -> None:
    """Add `tls-keep` and `tls-renew`."""
    verb("tls-keep", _keep, "have the edge role's certificate, or a stand-in for it", app=False)
    child = verb("tls-renew", _renew, "renew certificates that are due, and say how they stand", app=False)
    child.add_argument("app", nargs="?", default="", metavar="APP-ENV", help="default: every application with TLS")
    child.add_argument("--force", action="store_true", help="also what is not due yet")
    child.add_argument("--check", action="store_true", help="only tell whether something is due")
    child.add_argument("--for-role", action="store_true", help=argparse.SUPPRESS)


def _keep(arguments: argparse.Namespace) -> int:
    from switchyard.engine.layout import load_host
    from switchyard.tls import certificate, store
    from switchyard.tls.pairs import Pair

    arguments.json = True
    data = read_input()
    name, check = AppName(data["app"], data["environment"]), bool(data.get("check"))
    if data["settings"]["mode"] == "off":
        changed = store.settings_file(name).exists() if check else store.forget(name)
        return _answer_role(changed, "", "")
    given = Pair(data.get("certificate") or "", data.get("key") or "")
    changed, state = certificate.keep(name, data["settings"], given, load_host(), check=check)
    return _answer_role(changed, certificate.describe(state)[0], "")


def _answer_role(changed: bool, text: str, warning: str) -> int:
    print(json.dumps({"changed": changed, "text": text, "warning": warning}))
    return 0


def _renew_for_role(name: AppName, *, check: bool) -> int:
    """Renew what is due; a failure is a warning, for the edge goes on with the pair that it has."""
    from switchyard.engine.layout import load_host
    from switchyard.tls import certificate, store

    if check and store.load(name) is None:
        return _answer_role(changed=True, text="", warning="")
    try:
        changed, state = certificate.renew(name, load_host(), check=check)
    except SwitchyardError as error:
        return _answer_role(changed=False, text="", warning=error.message)
    return _answer_role(changed, certificate.describe(state)[0], state.message if state.mode == "files" else "")


def _renew(arguments: argparse.Namespace) -> int:
    from switchyard.engine.layout import load_host
    from switchyard.tls import certificate, store

    if arguments.for_role:
        arguments.json = True
        return _renew_for_role(AppName.parse(arguments.app), check=arguments.check)
    names = [AppName.parse(arguments.app)] if arguments.app else store.known()
    host, report, problem = load_host(), {}, None
    for name in names:
        try:
            changed, state = certificate.renew(name, host, force=arguments.force, check=arguments.check)
        except SwitchyardError as error:
            # The others are renewed all the same.
            problem = problem or error
            if not arguments.json:
                print(f"{name}: {error.message}", file=sys.stderr)
            found = certificate.state_of(name)
            if found is None:
                continue
            changed, state = False, found
        report[str(name)] = {"changed": changed} | asdict(state)
        if not arguments.json:
            print("\n  ".join([f"{name}", *certificate.describe(state)]))
    if arguments.json:
        if problem:
            raise SwitchyardError(problem.message, problem.code, problem.details)
        show(arguments, report, "")
    return int(problem.code) if problem else int(Exit.OK)
