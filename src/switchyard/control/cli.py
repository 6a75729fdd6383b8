"""The `switchyard` command and `scripts/rollback.sh`: what people type on the control side, without Ansible."""

import argparse
import getpass
import json
import socket
import sys
from collections.abc import Callable, Sequence

from switchyard.control import fleet
from switchyard.control.hosts import Environment, load, resolve
from switchyard.control.transport import Answer, ConnectionLost, Transport, engine_argv
from switchyard.errors import Exit, SwitchyardError
from switchyard.names import check_version

Handler = Callable[[argparse.Namespace, Environment], int]

_CODES = """exit codes:
  0 done   1 failed   2 usage   3 another operation is at work   4 refused before anything changed
  5 the release is not healthy   6 reverted   7 migration   8 interrupted and recovered
  10 unknown release   11 already live   12 never healthy   13 schema too far   14 unreachable   15 engine mismatch"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        handler: Handler = arguments.handler
        return handler(arguments, load(arguments.environment))
    except ConnectionLost as error:
        return _complain(arguments, SwitchyardError(f"The host cannot be reached: {error}.", Exit.UNREACHABLE))
    except SwitchyardError as error:
        return _complain(arguments, error)
    except KeyboardInterrupt:
        print(
            "\nStopped following. What was started goes on on the host: 'switchyard status' shows it.", file=sys.stderr
        )
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
    add("status", _status, "Show what is live, and where pointer, Docker and ledger disagree.")
    child = add("history", _pass_on("history"), "Show what was tried, and how it ended.")
    child.add_argument("--limit", type=int, default=20, help="newest entries to show (default 20)")
    child = add("logs", _logs, "Show the live release's logs.")
    child.add_argument("--tail", type=int, default=100, help="lines per container (default 100)")
    child.add_argument("--service", default="", help="only this service")
    add("recover", _pass_on("recover"), "Repair what a dead operation left; safe at any time.")
    child = add("prune", _pass_on("prune"), "Remove records and images that no rollback can need.")
    child.add_argument("--retain", type=int, default=3, help="good releases to keep beside live and previous")
    return parser


def _members(environment: Environment) -> list[fleet.Member]:
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


def who() -> str:
    """Who asks, for the ledger."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def _rollback(arguments: argparse.Namespace, environment: Environment) -> int:
    version = check_version(arguments.version) if arguments.version else ""

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    result = fleet.rollback(_members(environment), str(environment.name), version, who(), say)
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


def _status(arguments: argparse.Namespace, environment: Environment) -> int:
    return _engine(arguments, environment, "status", str(environment.name))


def _logs(arguments: argparse.Namespace, environment: Environment) -> int:
    words = ["logs", str(environment.name), "--tail", str(arguments.tail)]
    transport = fleet.only_host(_members(environment))
    return _show(transport, [*words, *(["--service", arguments.service] if arguments.service else [])])


def _pass_on(verb: str) -> Handler:
    """Build a handler that hands its options to the engine's verb of the same name."""

    def handler(arguments: argparse.Namespace, environment: Environment) -> int:
        words = [verb, *(["--app"] if verb == "recover" else []), str(environment.name)]
        for option in ("limit", "retain"):
            if hasattr(arguments, option):
                words += [f"--{option}", str(getattr(arguments, option))]
        return _engine(arguments, environment, *words)

    return handler


def _engine(arguments: argparse.Namespace, environment: Environment, *words: str) -> int:
    return _show(fleet.only_host(_members(environment)), [*words, *(["--json"] if arguments.json else [])])


def _show(transport: Transport, words: Sequence[str]) -> int:
    answer: Answer = transport.run(engine_argv(*words))
    sys.stdout.write(answer.out)
    sys.stderr.write(answer.err)
    return answer.code
