"""The `switchyard` command and `scripts/rollback.sh`: what people type on the control side, without Ansible."""

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

from switchyard.control import fleet, ledger, secret_commands
from switchyard.control.coordinator import AS_RECORDED
from switchyard.control.hosts import PROJECT, Environment, load, resolve
from switchyard.control.transport import SILENCE_SECONDS, WORK_SECONDS, Answer, ConnectionLost, Transport, engine_argv
from switchyard.errors import Exit, SwitchyardError
from switchyard.names import check_version

Handler = Callable[[argparse.Namespace, Environment], int]

_WORKS = ("recover", "prune", "promote", "abort", "maintenance")
"""Verbs that change something while they are asked; other changes are operations, which are followed."""
_connected: dict[str, list[fleet.Member]] = {}

_CODES = """exit codes:
  0 done   1 failed   2 usage   3 another operation is at work   4 refused before anything changed
  5 the release is not healthy   6 reverted   7 migration   8 interrupted and recovered
  9 inconclusive: could not be judged, and both colours run
  10 unknown release   11 already live   12 never healthy   13 schema too far   14 unreachable   15 engine mismatch"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        if arguments.command == "secrets":
            # These are about files of the checkout, also of an environment that has no host yet.
            return int(arguments.handler(arguments))
        handler: Handler = arguments.handler
        environment = load(arguments.environment)
        code = handler(arguments, environment)
        if arguments.command != "verify":
            _keep_copy(environment)
        return code
    except ConnectionLost as error:
        return _complain(arguments, SwitchyardError(f"The host cannot be reached: {error}.", Exit.UNREACHABLE))
    except SwitchyardError as error:
        return _complain(arguments, error)
    except KeyboardInterrupt as interrupt:
        # Several hosts are led from here, and their coordinator says what it did.
        goes_on = "Stopped following. What was started goes on on the host: 'switchyard status' shows it."
        print(f"\n{str(interrupt) or goes_on}", file=sys.stderr)
        return 130


def _complain(arguments: argparse.Namespace, error: SwitchyardError) -> int:
    if arguments.json:
        print(json.dumps({"code": int(error.code), "message": error.message, "details": error.details}))
    else:
        print(f"{arguments.command}: {error.message}", file=sys.stderr)
        if error.details:
            print(error.details, file=sys.stderr)
    return int(error.code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="switchyard", epilog=_CODES, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")

    def add(name: str, handler: Handler, text: str) -> argparse.ArgumentParser:
        child = commands.add_parser(
            name, help=text, description=text, epilog=_CODES, formatter_class=argparse.RawTextHelpFormatter
        )
        child.add_argument("environment", help="such as staging; one that provision.yml has set up")
        child.add_argument("--json", action="store_true", help="print one JSON document")
        child.set_defaults(handler=handler)
        return child

    child = add("rollback", _rollback, "Go back to an earlier release; without a version, to the previous good one.")
    child.add_argument("version", nargs="?", default="", help="such as 1.3.2, or a release id such as 0041-1.3.2")
    _excuse(child)
    add("status", _status, "Show what is live, and where pointer, Docker and ledger disagree.")
    child = add("history", _pass_on("history"), "Show what was done, and how it ended.")
    child.add_argument("--limit", type=int, default=20, help="newest entries to show (default 20)")
    child = add("show", _pass_on("show"), "Show everything about one release or operation.")
    child.add_argument("what", help="a release (42, 0042-1.4.0) or an operation id")
    child = add("dora", _pass_on("dora"), "Show deployment frequency, lead time, change failure rate, recovery.")
    child.add_argument("--days", type=float, default=30.0, help="the period, up to now (default 30)")
    child = add(
        "report", _report, "Write a page about releases, users, backups and the host, to be opened in a browser."
    )
    child.add_argument("--days", type=float, default=7.0, help="the period, up to now (default 7)")
    child.add_argument("--output", default="", metavar="FILE", help="where to (default: .switchyard/report/ENV.html)")
    child = add("verify", _verify, "Check the ledger's chain, and the ledger against the copies of it.")
    child.add_argument("--against", default="", metavar="FILE", help="one more copy, such as one from a backup")
    child = add("logs", _logs, "Show the live release's logs; with --json, one document for each line.")
    child.add_argument("--tail", type=int, default=100, help="lines per container (default 100)")
    child.add_argument("--service", default="", help="only this service")
    add("promote", _pass_on("promote"), "Give the release on probation its next share of the clients.")
    add("abort", _pass_on("abort"), "Take the release on probation back, and mark it bad.")
    child = add("maintenance", _maintenance, "Answer users with the maintenance page, or let them in again.")
    child.add_argument("state", choices=["on", "off", "state"], help="'state' only tells")
    child.add_argument("--retry-after", type=int, default=300, metavar="SECONDS", help="when clients shall ask again")
    child.add_argument("--reason", default="", help="why, for the ledger")
    _excuse(add("recover", _pass_on("recover"), "Repair what a dead operation left; safe at any time."))
    child = add("prune", _pass_on("prune"), "Remove records and images that no rollback can need.")
    child.add_argument(
        "--retain",
        type=int,
        help="good releases to keep beside live and previous (default: app_retain of the live one)",
    )
    _excuse(child)
    secret_commands.add_commands(commands, _members)
    child = add("backup", _on_database("backup", "type"), "Back up database and files now, and verify.")
    child.add_argument("--type", choices=["incr", "full"], default="incr", help="incremental (default) or full")
    add("backups", _on_database("backups"), "List what can be restored.")
    child = add("drill", _on_database("drill", "plan"), "Restore a copy and prove that it is whole.")
    child.add_argument("--plan", default="", help="latest, time, oldest or off-site; default: they take turns")
    words = ("to", "into", "repository", "confirm")
    child = add("restore", _on_database("restore", *words), "Restore the database beside the live one or in its place.")
    child.add_argument("--to", required=True, help='latest, "2026-11-20 14:03:00+00", before-deploy=42 or backup=LABEL')
    child.add_argument(
        "--into", required=True, choices=["scratch", "live"], help="beside the live one, or in its place"
    )
    child.add_argument("--repository", default="", help="from this one only")
    child.add_argument("--confirm", default="", help="the host's name, to replace the live database")
    return parser


def _excuse(child: argparse.ArgumentParser) -> None:
    text = "of several hosts, those that may be missing; the next deploy brings them up to date"
    child.add_argument("--allow-unreachable", default="", metavar="HOST[,HOST]", help=text)


def _excused(arguments: argparse.Namespace) -> list[str]:
    return [name for name in arguments.allow_unreachable.split(",") if name]


def _members(environment: Environment) -> list[fleet.Member]:
    """The hosts, made once: what follows a command uses its connections again."""
    name = environment.environment
    if name not in _connected:
        _connected[name] = _connect(environment)
    return _connected[name]


def _connect(environment: Environment) -> list[fleet.Member]:
    # Imported here: --help and usage errors need no SSH.
    from switchyard.control.ssh import FabricTransport

    return [
        fleet.Member(
            frozenset(host.groups),
            FabricTransport(
                host.name, host.address, host.port, host.user, resolve(host.private_key), resolve(host.known_hosts)
            ),
        )
        for host in environment.hosts
    ]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _rollback(arguments: argparse.Namespace, environment: Environment) -> int:
    version = check_version(arguments.version) if arguments.version else ""

    members, name = _members(environment), str(environment.name)
    excused, copy = _excused(arguments), ledger.copy_file(environment.name)
    result = fleet.rollback(members, name, version, fleet.who(), _say, excused=excused, copy=copy)
    code = int(result["code"])
    if arguments.json:
        print(json.dumps(result))
    elif code == 0:
        moved = f" Traffic moved in {result['switch_ms']:.0f} ms." if result["switch_ms"] else ""
        print(f"rollback: {result['message']}{moved}")
    else:
        print(f"rollback: {result['message']}", file=sys.stderr)
        if result["details"]:
            print(result["details"], file=sys.stderr)
    return code


def _on_database(verb: str, *options: str) -> Handler:
    """Build a handler for a verb of the database's host. One with options is an operation, and is followed."""

    def handler(arguments: argparse.Namespace, environment: Environment) -> int:
        transport = fleet.database_host(_members(environment))
        name = str(environment.name)
        if not options:
            return _show(transport, [verb, name, *(["--json"] if arguments.json else [])])
        given = {option: str(vars(arguments)[option]) for option in options}
        if given.get("into") == "live" and not given["confirm"] and sys.stdin.isatty():
            given["confirm"] = input(f"This replaces the live database. Type the name of its host ({transport.host}): ")
        words = [word for option, value in given.items() if value for word in (f"--{option}", value)]
        result = fleet.operate(transport, [verb, name, *words, "--who", fleet.who()], "", name, _say)
        if result["details"]:
            print(result["details"], file=sys.stderr)
        if arguments.json:
            print(json.dumps(result))
        else:
            print(f"{verb}: {result['message']}", file=sys.stderr if result["code"] else sys.stdout)
        return int(result["code"])

    return handler


def _status(arguments: argparse.Namespace, environment: Environment) -> int:
    from switchyard.control import survey

    members = _members(environment)
    if one := fleet.single(members):
        replicas = survey.replicas(members, str(environment.name))
        if arguments.json and replicas:
            print(json.dumps(fleet.ask(one, ["status", str(environment.name), "--json"]) | {"replicas": replicas}))
            return int(Exit.OK)
        code = _engine(arguments, environment, "status", str(environment.name))
        print("".join(f"{line}\n" for line in survey.replica_lines(replicas)), end="")
        return code
    report = survey.survey(members, str(environment.name))
    print(json.dumps(report) if arguments.json else survey.text(report))
    return int(Exit.UNREACHABLE if report["unreachable"] else Exit.OK)


def _logs(arguments: argparse.Namespace, environment: Environment) -> int:
    words = ["logs", str(environment.name), "--tail", str(arguments.tail)]
    words += ["--service", arguments.service] if arguments.service else []
    words += ["--json"] if arguments.json else []
    members = _members(environment)
    if one := fleet.single(members):
        return _show(one, words)
    codes = []
    for member in (member for member in members if "app" in member.groups):
        try:
            # A JSON line names its host itself.
            codes.append(_show(member.transport, words, "" if arguments.json else f"{member.name} | "))
        except ConnectionLost as error:
            print(f"{member.name} cannot be reached: {error}", file=sys.stderr)
            codes.append(int(Exit.UNREACHABLE))
    return max(codes, default=0)


def _keep_copy(environment: Environment) -> None:
    """Bring this side's copy of the ledger up to date; what goes wrong here is said and stops nothing."""
    try:
        warning = ledger.keep_copy(fleet.keeper(_members(environment)), environment.name)
    except (SwitchyardError, ConnectionLost) as error:
        warning = f"The copy of the ledger was not brought up to date: {error}"
    if warning:
        print(f"WARNING: {warning}", file=sys.stderr)


def _verify(arguments: argparse.Namespace, environment: Environment) -> int:
    from switchyard import chain

    report = ledger.verify(_members(environment), environment.name, arguments.against)
    print(json.dumps(report) if arguments.json else chain.words(report))
    return int(Exit.FAILED) if report["findings"] else 0


def _report(arguments: argparse.Namespace, environment: Environment) -> int:
    words = ["report", str(environment.name), "--days", str(arguments.days), "--json"]
    text = str(fleet.ask(fleet.keeper(_members(environment)), words)["page"])
    path = Path(arguments.output or PROJECT / ".switchyard" / "report" / f"{environment.environment}.html")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except OSError as error:
        raise SwitchyardError(f"{path} cannot be written: {error.strerror}.", Exit.USAGE) from error
    print(json.dumps({"path": str(path)}) if arguments.json else path)
    return 0


def _maintenance(arguments: argparse.Namespace, environment: Environment) -> int:
    """Every edge, even when one of them does not answer; the worst exit code is returned."""
    words = ["maintenance", str(environment.name), arguments.state, "--retry-after", str(arguments.retry_after)]
    words += ["--reason", arguments.reason, "--who", fleet.who(), *(["--json"] if arguments.json else [])]
    edges = [member.transport for member in _members(environment) if "edge" in member.groups]
    codes = []
    for transport in edges:
        try:
            codes.append(_show(transport, words))
        except ConnectionLost as error:
            print(f"maintenance: {transport.host} cannot be reached: {error}.", file=sys.stderr)
            codes.append(int(Exit.UNREACHABLE))
    return max(codes, default=int(Exit.USAGE))


def _pass_on(verb: str) -> Handler:
    """Build a handler that hands its options to the engine's verb of the same name."""

    def handler(arguments: argparse.Namespace, environment: Environment) -> int:
        members = _members(environment)
        several = fleet.single(members) is None
        if verb in ("recover", "prune") and several:
            return _tidy(arguments, environment, members, verb)
        if verb == "abort" and several:
            raise SwitchyardError(
                f"With several hosts, 'scripts/rollback.sh {environment.environment}' takes the release on probation "
                "back, on all edges.",
                Exit.USAGE,
            )
        words = [verb, *(["--app"] if verb == "recover" else []), str(environment.name)]
        words += [arguments.what] if hasattr(arguments, "what") else []
        words += ["--who", fleet.who()] if verb in ("promote", "abort") else []
        for option in ("limit", "retain", "days"):
            if getattr(arguments, option, None) is not None:
                words += [f"--{option}", str(getattr(arguments, option))]
        return _engine(arguments, environment, *words)

    return handler


def _engine(arguments: argparse.Namespace, environment: Environment, *words: str) -> int:
    members = _members(environment)
    # Of several hosts, the first edge that answers speaks for all.
    edges = [m.transport for m in members if "edge" in m.groups]
    one = fleet.single(members)
    words = (*words, *(["--json"] if arguments.json else []))
    for transport in [one] if one else edges[:-1]:
        with contextlib.suppress(ConnectionLost):
            return _show(transport, words)
    return _show(one or edges[-1], words)


def _tidy(arguments: argparse.Namespace, environment: Environment, members: Sequence[fleet.Member], verb: str) -> int:
    """Recover or prune several hosts: each by itself first, then all together."""
    if verb == "recover":
        for member in members:
            if member.groups & {"app", "edge"}:
                # One that is away is named by what follows.
                with contextlib.suppress(ConnectionLost):
                    words = ["recover", "--app", str(environment.name)]
                    _show(member.transport, words, f"{member.name} | ", sys.stderr)
    wanted = getattr(arguments, "retain", None)
    retain = -1 if verb == "recover" else AS_RECORDED if wanted is None else int(wanted)
    excused, copy = _excused(arguments), ledger.copy_file(environment.name)
    result = fleet.tidy(
        members, str(environment.name), verb, fleet.who(), _say, retain=retain, excused=excused, copy=copy
    )
    print(json.dumps(result) if arguments.json else f"{verb}: {result['message']}")
    return int(result["code"])


def _show(transport: Transport, words: Sequence[str], prefix: str = "", out: TextIO | None = None) -> int:
    silence = WORK_SECONDS if words[0] in _WORKS else SILENCE_SECONDS
    answer: Answer = transport.run(engine_argv(*words), silence=silence)
    (out or sys.stdout).write("".join(f"{prefix}{line}" for line in answer.out.splitlines(keepends=True)))
    sys.stderr.write(answer.err)
    return answer.code
