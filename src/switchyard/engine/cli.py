"""The engine's verbs, as the control side, the boot unit and people on the host call them."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from switchyard import PROTOCOL
from switchyard.errors import Exit, SwitchyardError
from switchyard.names import AppName, check_operation, new_operation

Handler = Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code. Errors are one sentence, as JSON where JSON was asked for."""
    arguments = _parser().parse_args(argv)
    handler: Handler = arguments.handler
    try:
        if os.geteuid() != 0:
            raise SwitchyardError("The engine needs root: use sudo.", Exit.USAGE)
        return handler(arguments)
    except SwitchyardError as error:
        if getattr(arguments, "json", False):
            print(json.dumps({"error": error.message, "code": int(error.code), "details": error.details}))
        else:
            print(f"switchyard: {error.message}", file=sys.stderr)
            if error.details:
                print(error.details, file=sys.stderr)
        return int(error.code)
    except BrokenPipeError:
        return int(Exit.FAILED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="switchyard", description="Releases on this host: what is live, and changes to it."
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def verb(
        name: str, handler: Handler, text: str, *, app: bool = True, with_json: bool = True
    ) -> argparse.ArgumentParser:
        child = verbs.add_parser(name, help=text, description=text)
        if app:
            child.add_argument("app", nargs="?", default="", metavar="APP-ENV", help="needed when the host has several")
        if with_json:
            child.add_argument("--json", action="store_true", help="print one JSON document")
        child.set_defaults(handler=handler)
        return child

    child = verb("deploy", _start, "make the release described on standard input live", app=False)
    child.set_defaults(kind="deploy")
    child = verb("rollback", _start, "go back to an earlier release")
    child.add_argument("version", nargs="?", default="", help="a version or release id; default: the previous good one")
    child.add_argument("--who", default="", help="who asks, for the ledger")
    child.set_defaults(kind="rollback")
    for name in ("deploy", "rollback"):
        verbs.choices[name].add_argument("--wait", type=float, default=0.0, help=argparse.SUPPRESS)
        verbs.choices[name].add_argument("--operation", default="", help="id of the operation, chosen by the caller")
        verbs.choices[name].add_argument("--follow", action="store_true", help="wait for the end and print progress")

    child = verb("phase", _phase, "run one phase of a deploy by hand, on a release that preflight made")
    child.add_argument("name", choices=["pull", "migrate", "start", "verify", "switch", "watch", "finish"])
    child.add_argument("release", help="release id, such as 0042-1.4.0")

    child = verb("preflight", _preflight, "check the request on standard input and write its release record", app=False)
    verb("plan", _plan, "tell what deploying the request on standard input would change", app=False)
    verb("status", _status, "show what is live, and where pointer, Docker and ledger disagree")
    child = verb("history", _history, "show what was tried, and how it ended")
    child.add_argument("--limit", type=int, default=20, help="newest entries to show (default 20)")
    child = verb("logs", _logs, "show the live containers' logs", with_json=False)
    child.add_argument("--tail", type=int, default=100, help="lines per container (default 100)")
    child.add_argument("--service", default="", help="only this service")
    child = verb("prune", _prune, "remove records and images that no rollback can need")
    child.add_argument(
        "--retain", type=int, default=3, help="good releases to keep beside live and previous (default 3)"
    )
    child = verb("recover", _recover, "repair what a dead operation left", app=False)
    child.add_argument("--app", default="", metavar="APP-ENV", help="only this application")
    child.add_argument("--after", default="", help=argparse.SUPPRESS)
    child.add_argument("--boot", action="store_true", help="after a reboot: live colours first, then the edge")
    child = verb("follow", _follow, "show what an operation says, and its result", with_json=False)
    child.add_argument("operation")
    child.add_argument("--offset", type=int, default=0)
    child.add_argument("--wait", type=float, default=0.0)
    child = verb("perform", _perform, "run a started operation (the unit's own command)", app=False, with_json=False)
    child.add_argument("operation")
    verb("edge-apply", _edge_apply, "place the edge role's files: tested, reloaded, proven", app=False)
    child = verb("plan-ports", _plan_ports, "plan ports for the services on standard input", app=False)
    child.add_argument("--check", action="store_true", help="only tell whether something would change")
    verb("version", _version, "print the engine's file and protocol", app=False)
    return parser


def _input() -> Any:
    try:
        return json.load(sys.stdin)
    except ValueError as error:
        raise SwitchyardError(f"Standard input is not JSON: {error}.", Exit.USAGE) from error


def _name(text: str) -> AppName:
    from switchyard.engine.layout import known_apps

    if text:
        return AppName.parse(text)
    known = known_apps()
    if len(known) == 1:
        return known[0]
    names = ", ".join(map(str, known)) or "none yet"
    raise SwitchyardError(f"Name the application and environment (APP-ENV); this host has: {names}.", Exit.USAGE)


def _print(arguments: argparse.Namespace, data: Any, text: str) -> None:
    print(json.dumps(data) if arguments.json else text)


def _start(arguments: argparse.Namespace) -> int:
    from switchyard.engine import follow
    from switchyard.engine.layout import AppPaths
    from switchyard.names import check_version

    if arguments.kind == "deploy":
        from switchyard.request import parse

        data = _input()
        paths = AppPaths(parse(data).name)
        _require_engine(data)
    else:
        paths = AppPaths(_name(arguments.app))
        data = {"version": check_version(arguments.version) if arguments.version else "", "who": arguments.who}
    operation = follow.start(paths, arguments.kind, data, arguments.operation)
    if not arguments.follow:
        print(json.dumps(follow.follow(paths, operation, 0, arguments.wait)))
        return 0
    offset = 0
    while True:
        seen = follow.follow(paths, operation, offset, 1.0)
        offset = seen["offset"]
        if not arguments.json:
            print("\n".join(seen["lines"]), flush=True, end="\n" if seen["lines"] else "")
        if seen["done"]:
            _print(arguments, seen["result"], seen["result"]["message"])
            return int(seen["result"]["code"])


def _require_engine(data: dict[str, Any]) -> None:
    wanted, have = data.get("engine", ""), Path(sys.argv[0]).resolve().name
    if wanted and wanted != have:
        raise SwitchyardError(
            f"This host has {have}, the checkout you deploy from has {wanted}: run provision.yml first.",
            Exit.ENGINE_MISMATCH,
        )


def _perform(arguments: argparse.Namespace) -> int:
    from switchyard.engine.layout import REQUESTS, AppPaths, load_host
    from switchyard.engine.operation import Operation
    from switchyard.engine.recover import forget_request

    path = REQUESTS / f"{check_operation(arguments.operation)}.json"
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise SwitchyardError(f"The request of {arguments.operation} cannot be read: {error}.") from error
    forget_request(arguments.operation)
    paths = AppPaths(AppName.parse(data["app"]))
    request = data["request"]
    op = Operation.open(data["op"], data["kind"], request.get("who", ""), paths, load_host())
    try:
        if data["kind"] == "deploy":
            from switchyard.engine.deploy import deploy
            from switchyard.request import parse

            deploy(op, parse(request))
        else:
            from switchyard.engine.rollback import rollback

            rollback(op, request["version"])
    except SwitchyardError as error:
        # The end could not be written either (a full disk, say); recovery, which runs next, writes it.
        op.fail(error)
        op.say(f"FAILED: {error.message}")
        raise
    op.write_result()
    return op.result.code


def _phase(arguments: argparse.Namespace) -> int:
    from switchyard.engine import colour, migrate, phases, prune, records

    op = _by_hand(f"phase {arguments.name}", _name(arguments.app))
    record = records.load(op.paths, arguments.release)
    with op.exclusively():
        op.begin(record.version)
        op.result.release = record.id
        try:
            with op.phase(arguments.name):
                target = phases.idle_colour(op.paths)
                if arguments.name == "pull":
                    phases.pull(op, record)
                elif arguments.name == "migrate":
                    migrate.migrate(op, record, "")
                elif arguments.name == "start":
                    phases.start(op, record)
                elif arguments.name == "verify":
                    phases.verify(op, record, target)
                elif arguments.name == "switch":
                    _require_running(op.paths.name, colour.release_in(op.paths.name, target), record.id)
                    phases.switch(op, record, target, probation=record.request.probation_seconds > 0)
                elif arguments.name == "watch":
                    _watch_by_hand(op, record)
                else:
                    phases.conclude(op)
                    prune.prune(op.paths, op.ledger, record.request.retain, op.say)
        except SwitchyardError as error:
            op.fail(error)
            op.end("failed")
            raise
        op.end("done")
    _print(arguments, {"release": record.id, "phase": arguments.name}, f"{arguments.name} of {record.id}: done")
    return 0


def _watch_by_hand(op: Any, record: Any) -> None:
    from switchyard.engine import phases

    try:
        phases.watch(op, record)
    except SwitchyardError as error:
        if error.code is Exit.REVERTED:
            phases.take_back(op, error.message)
        raise


def _require_running(name: AppName, found: tuple[str, bool], wanted: str) -> None:
    if found != (wanted, True):
        raise SwitchyardError(
            f"{wanted} does not run in the idle colour of {name}: run its start phase.", Exit.PREFLIGHT
        )


def _by_hand(kind: str, name: AppName) -> Any:
    from switchyard.engine.layout import AppPaths, load_host
    from switchyard.engine.operation import Operation

    return Operation.open(new_operation(), kind, os.environ.get("SUDO_USER", "root"), AppPaths(name), load_host())


def _preflight(arguments: argparse.Namespace) -> int:
    from switchyard.engine import phases
    from switchyard.request import parse

    request = parse(_input())
    op = _by_hand("phase preflight", request.name)
    with op.exclusively():
        op.begin(request.version)
        try:
            with op.phase("preflight"):
                record = phases.prepare(op, request)
        except SwitchyardError as error:
            op.fail(error)
            op.end("failed")
            raise
        op.result.release = record.id if record else ""
        op.end("done")
    made = record.id if record else ""
    _print(arguments, {"release": made}, f"release {made} is ready" if made else "no change: this is live already")
    return 0


def _plan(arguments: argparse.Namespace) -> int:
    from switchyard.engine import plan
    from switchyard.engine.layout import AppPaths
    from switchyard.request import parse

    data = _input()
    request = parse(data)
    _require_engine(data)
    report = plan.plan(AppPaths(request.name), request)
    _print(arguments, report | {"text": plan.text(report)}, plan.text(report))
    return 0


def _status(arguments: argparse.Namespace) -> int:
    from switchyard.engine import status
    from switchyard.engine.layout import AppPaths, load_host

    report = status.status(AppPaths(_name(arguments.app)), load_host())
    _print(arguments, report, status.text(report))
    return 0


def _history(arguments: argparse.Namespace) -> int:
    from switchyard.engine.layout import AppPaths
    from switchyard.engine.ledger import Ledger

    ledger = Ledger.load(AppPaths(_name(arguments.app)))
    ends = {event["op"]: event for event in ledger.of("end")}
    rows = [start | {"end": ends.get(start["op"])} for start in ledger.of("start")][-arguments.limit :]
    lines = []
    for row in rows:
        end = row["end"] or {"outcome": "running", "release": "", "message": ""}
        lines.append(
            f"{row['time'][:19]}Z {row['kind']:<9} {row['version']:<14} {end['outcome']:<22} {end['release']:<20} "
            f"{row['who'] or '-'}  {end['message']}"
        )
    _print(arguments, rows, "\n".join(lines) or "nothing yet")
    return 0


def _logs(arguments: argparse.Namespace) -> int:
    from switchyard.engine import docker, phases
    from switchyard.engine.effects import query
    from switchyard.engine.layout import AppPaths

    name = _name(arguments.app)
    pointer = phases.live_pointer(AppPaths(name))
    if pointer is None:
        raise SwitchyardError(f"Nothing of {name} is live.", Exit.UNKNOWN_RELEASE)
    for container in docker.of_colour(name, pointer.colour):
        if arguments.service in ("", container.labels.get("switchyard.service")):
            instance = f"{container.labels.get('switchyard.service')}-{container.labels.get('switchyard.instance')}"
            answer = query(["docker", "logs", "--timestamps", "--tail", str(arguments.tail), container.id])
            for line in (answer.out + answer.err).splitlines():
                print(f"{instance} | {line}")
    return 0


def _prune(arguments: argparse.Namespace) -> int:
    from switchyard.engine import prune

    op = _by_hand("prune", _name(arguments.app))
    with op.exclusively():
        op.begin("")
        removed = prune.prune(op.paths, op.ledger, arguments.retain, lambda _: None)
        op.end("done")
    _print(arguments, {"removed": removed}, f"removed {', '.join(removed)}" if removed else "nothing to remove")
    return 0


def _recover(arguments: argparse.Namespace) -> int:
    from switchyard.engine import recover
    from switchyard.engine.layout import AppPaths, known_apps, load_host

    def say(text: str) -> None:
        print(text, file=sys.stderr if arguments.json else sys.stdout, flush=True)

    host = load_host()
    names = [AppName.parse(arguments.app)] if arguments.app else known_apps()
    if arguments.after:
        recover.forget_request(arguments.after)
    done = {}
    for name in names:
        if arguments.boot:
            recover.boot(AppPaths(name), host, say)
            done[str(name)] = True
        else:
            done[str(name)] = recover.recover(AppPaths(name), host, say, after=arguments.after)
    if arguments.boot and not names:
        recover.start_edge(say)
    if arguments.after:
        return 0
    left = [name for name, repaired in done.items() if not repaired]
    summary = (
        f"recovered {', '.join(done) or 'nothing'}" if not left else f"{', '.join(left)}: a living operation is at work"
    )
    _print(arguments, {"recovered": done}, summary)
    return 0


def _follow(arguments: argparse.Namespace) -> int:
    from switchyard.engine import follow
    from switchyard.engine.layout import AppPaths

    operation = check_operation(arguments.operation)
    print(json.dumps(follow.follow(AppPaths(_name(arguments.app)), operation, arguments.offset, arguments.wait)))
    return 0


def _edge_apply(arguments: argparse.Namespace) -> int:
    from switchyard.engine import edge
    from switchyard.engine.layout import load_host

    arguments.json = True
    data = _input()
    print(edge.as_json(edge.apply_files(data["files"], load_host(), check=bool(data.get("check")))))
    return 0


def _plan_ports(arguments: argparse.Namespace) -> int:
    from switchyard.engine import ports
    from switchyard.engine.layout import load_host

    data = _input()
    name = AppName(data["app"], data["environment"])
    changed = ports.ensure(name, data["services"], load_host(), check=arguments.check)
    _print(arguments, {"changed": changed}, "the plan changes" if changed else "the plan stands")
    return 0


def _version(arguments: argparse.Namespace) -> int:
    engine = Path(sys.argv[0]).resolve().name
    _print(arguments, {"engine": engine, "protocol": PROTOCOL}, f"{engine}, protocol {PROTOCOL}")
    return 0
