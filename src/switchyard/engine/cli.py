"""The engine's verbs, as the control side, the boot unit and people on the host call them."""

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from switchyard import PROTOCOL
from switchyard.data import verbs as data
from switchyard.engine.verb import (
    Handler,
    VerbAdder,
    app_name,
    by_hand,
    follow_options,
    launch,
    read_as,
    read_input,
    show,
)
from switchyard.errors import Exit, SwitchyardError
from switchyard.gate import verbs as gate
from switchyard.names import AppName, check_operation
from switchyard.notify import verbs as notify
from switchyard.report import verbs as report
from switchyard.secrets import verbs as secrets
from switchyard.tls import verbs as tls
from switchyard.watch import verbs as watch

if TYPE_CHECKING:
    from switchyard.engine.operation import Operation
    from switchyard.engine.records import Record

_ROOMS: list[Callable[[VerbAdder], None]] = [
    report.add_verbs,
    gate.add_verbs,
    notify.add_verbs,
    secrets.add_verbs,
    tls.add_verbs,
    watch.add_verbs,
    data.add_verbs,
]
"""What adds the verbs of the rooms beside the engine."""


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
    _add_member_verbs(verb)
    for name in ("deploy", "rollback", "member"):
        follow_options(verbs.choices[name])

    child = verb("phase", _phase, "run one phase of a deploy by hand, on a release that preflight made")
    child.add_argument("name", choices=["pull", "migrate", "start", "verify", "switch", "watch", "finish"])
    child.add_argument("release", help="release id, such as 0042-1.4.0")

    child = verb("preflight", _preflight, "check the request on standard input and write its release record", app=False)
    verb("plan", _plan, "tell what deploying the request on standard input would change", app=False)
    verb("status", _status, "show what is live, and where pointer, Docker and ledger disagree")
    child = verb("logs", _logs, "show the live containers' logs; --json: one document a line")
    child.add_argument("--tail", type=int, default=100, help="lines per container (default 100)")
    child.add_argument("--service", default="", help="only this service")
    child = verb("prune", _prune, "remove records and images that no rollback can need")
    child.add_argument(
        "--retain", type=int, help="good releases to keep beside live and previous (default: as the live one says)"
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
    verb("edge-keep", _edge_keep, "keep the edge role's container running, replaced when asked to", app=False)
    child = verb("plan-ports", _plan_ports, "plan ports for the services on standard input", app=False)
    child.add_argument("--check", action="store_true", help="only tell whether something would change")
    verb("version", _version, "print the engine's file and protocol", app=False)
    for add_verbs in _ROOMS:
        add_verbs(verb)
    return parser


def _add_member_verbs(verb: VerbAdder) -> None:
    """What a coordinator of several hosts asks of each."""
    child = verb("member", _start, "carry out one order of a coordinator of several hosts", app=False)
    child.set_defaults(kind="member")
    verb("facts", _facts, "tell a coordinator of several hosts what is so on this one")
    child = verb("record", _record, "show a release's record to a host that lacks it")
    child.add_argument("release")
    child = verb("beat", _beat, "prolong the lease of a coordinator of several hosts")
    child.add_argument("fence", type=int)
    child.add_argument("phase")


def _start(arguments: argparse.Namespace) -> int:
    from switchyard.engine.layout import AppPaths
    from switchyard.names import check_version

    if arguments.kind == "deploy":
        from switchyard.request import parse

        data = read_input()
        paths = AppPaths(parse(data).name)
        _require_engine(data)
    elif arguments.kind == "member":
        from switchyard.engine import order

        data = read_input()
        paths = AppPaths(order.parse(data).name)
    else:
        paths = AppPaths(app_name(arguments.app))
        data = {"version": check_version(arguments.version) if arguments.version else "", "who": arguments.who}
    return launch(arguments, paths, arguments.kind, data)


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
    op.commit, op.run_url = request.get("revision", ""), request.get("run_url", "")
    try:
        if data["kind"] == "deploy":
            from switchyard.engine.deploy import deploy
            from switchyard.request import parse

            deploy(op, parse(request))
        elif data["kind"] == "member":
            from switchyard.engine import member, order

            # Lease and ledger name the whole operation; the result is this part's own.
            op.id, op.kind, op.result.kind = request["op"], request["kind"], request["kind"]
            member.perform(op, order.parse(request))
        elif data["kind"] == "rollback":
            from switchyard.engine.rollback import rollback

            rollback(op, request["version"])
        else:
            from switchyard.data.operations import perform

            perform(op, request)
    except SwitchyardError as error:
        # The end could not be written either (a full disk, say); recovery, which runs next, writes it.
        op.give_up(error)
        raise
    op.write_result()
    return op.result.code


def _phase(arguments: argparse.Namespace) -> int:
    from switchyard.engine import phases, records, recover

    op = by_hand(f"phase {arguments.name}", app_name(arguments.app))
    record = records.load(op.paths, arguments.release)
    begun = False
    try:
        with op.exclusively():
            recover.alone(op)
            op.begin(record.version)
            begun = True
            op.result.release = record.id
            if arguments.name != "watch":
                with op.phase(arguments.name):
                    _carry_out(op, record, arguments.name)
        if arguments.name == "watch":
            # Without the lock, as in a deploy: the watch needs it to carry out its verdict.
            with op.phase("watch"):
                phases.watch(op, record)
        with op.exclusively():
            op.end("done")
    except SwitchyardError as error:
        if begun:
            op.fail(error)
            op.end("failed")
        raise
    show(arguments, {"release": record.id, "phase": arguments.name}, f"{arguments.name} of {record.id}: done")
    return 0


def _carry_out(op: "Operation", record: "Record", name: str) -> None:
    """One phase under the application's lock."""
    from switchyard.engine import colour, migrate, phases, prune

    target = phases.idle_colour(op.paths)
    if name == "pull":
        phases.pull(op, record)
    elif name == "migrate":
        migrate.migrate(op, record, "")
    elif name == "start":
        phases.start(op, record)
    elif name == "verify":
        phases.verify(op, record, target)
    elif name == "switch":
        _require_running(op.paths.name, colour.release_in(op.paths.name, target), record.id)
        phases.switch(op, record, target, probation=record.request.on_probation)
    else:
        phases.conclude(op)
        prune.prune(op.paths, op.ledger, record.request.retain, op.say)


def _require_running(name: AppName, found: tuple[str, bool], wanted: str) -> None:
    if found != (wanted, True):
        raise SwitchyardError(
            f"{wanted} does not run in the idle colour of {name}: run its start phase.", Exit.PREFLIGHT
        )


def _preflight(arguments: argparse.Namespace) -> int:
    from switchyard.engine import phases, recover
    from switchyard.request import parse

    request = parse(read_input())
    op = by_hand("phase preflight", request.name)
    with op.exclusively():
        recover.alone(op)
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
    show(arguments, {"release": made}, f"release {made} is ready" if made else "no change: this is live already")
    return 0


def _facts(arguments: argparse.Namespace) -> int:
    from switchyard.engine import member
    from switchyard.engine.layout import AppPaths, load_host

    print(json.dumps(member.facts(AppPaths(app_name(arguments.app)), load_host())))
    return 0


def _record(arguments: argparse.Namespace) -> int:
    from switchyard.engine import records
    from switchyard.engine.layout import AppPaths

    print(json.dumps({"files": records.export(AppPaths(app_name(arguments.app)), arguments.release)}))
    return 0


def _beat(arguments: argparse.Namespace) -> int:
    from switchyard.engine import lease
    from switchyard.engine.layout import AppPaths

    held = lease.beat(AppPaths(app_name(arguments.app)), arguments.fence, arguments.phase)
    show(arguments, {"held": held}, "held" if held else "lost")
    return 0


def _plan(arguments: argparse.Namespace) -> int:
    from switchyard.engine import plan
    from switchyard.engine.layout import AppPaths
    from switchyard.request import parse

    data = read_input()
    request = parse(data)
    _require_engine(data)
    report = plan.plan(AppPaths(request.name), request)
    show(arguments, report | {"text": plan.text(report)}, plan.text(report))
    return 0


def _status(arguments: argparse.Namespace) -> int:
    from switchyard.engine import status
    from switchyard.engine.layout import AppPaths, load_host

    report = status.status(AppPaths(app_name(arguments.app)), load_host())
    show(arguments, report, status.text(report))
    return 0


def _logs(arguments: argparse.Namespace) -> int:
    from switchyard.engine import docker, phases
    from switchyard.engine.effects import query
    from switchyard.engine.layout import AppPaths, load_host

    name = app_name(arguments.app)
    pointer = phases.live_pointer(AppPaths(name))
    if pointer is None:
        raise SwitchyardError(f"Nothing of {name} is live.", Exit.UNKNOWN_RELEASE)
    host = load_host().name
    for container in docker.of_colour(name, pointer.colour):
        service = container.labels.get("switchyard.service", "")
        if arguments.service in ("", service):
            instance = f"{service}-{container.labels.get('switchyard.instance')}"
            answer = query(["docker", "logs", "--timestamps", "--tail", str(arguments.tail), container.id])
            for line in (answer.out + answer.err).splitlines():
                moment, _, text = line.partition(" ")
                data = {"host": host, "service": service, "instance": instance, "time": moment, "line": text}
                show(arguments, data, f"{instance} | {line}")
    return 0


def _prune(arguments: argparse.Namespace) -> int:
    from switchyard.engine import prune

    op = by_hand("prune", app_name(arguments.app))
    with op.exclusively():
        op.begin("")
        retain = prune.retained(op.paths) if arguments.retain is None else arguments.retain
        removed = prune.prune(op.paths, op.ledger, retain, lambda _: None)
        op.end("done")
    show(arguments, {"removed": removed}, f"removed {', '.join(removed)}" if removed else "nothing to remove")
    return 0


def _recover(arguments: argparse.Namespace) -> int:
    from switchyard.engine import recover
    from switchyard.engine.layout import AppPaths, known_apps, load_host

    def say(text: str) -> None:
        # Whoever asked may have left, and a repair that has begun goes on to its end.
        with contextlib.suppress(OSError):
            print(text, file=sys.stderr if arguments.json else sys.stdout, flush=True)

    host = load_host()
    names = [AppName.parse(arguments.app)] if arguments.app else known_apps()
    if arguments.after:
        recover.forget_request(arguments.after)
    if arguments.boot and not names and not recover.has_docker():
        # Not provisioned to the end: waiting for Docker would hold up the boot.
        show(arguments, {"recovered": {}}, "no Docker and no application here: nothing to bring back")
        return 0
    done: dict[str, bool] = {}
    failed: dict[str, SwitchyardError] = {}
    databases = recover.start_databases(say) if arguments.boot else None
    for name in names:
        # One application that cannot be repaired is no reason to leave the others as they are.
        try:
            if arguments.boot:
                recover.boot(AppPaths(name), host, say)
                done[str(name)] = True
            else:
                done[str(name)] = recover.recover(AppPaths(name), host, say, after=arguments.after)
        except SwitchyardError as error:
            failed[str(name)] = error
    if arguments.boot and not done:
        recover.start_edge(say)
    if databases:
        failed = {"databases": databases, **failed}
    if failed:
        raise _all_of(failed)
    if arguments.after:
        return 0
    left = [name for name, repaired in done.items() if not repaired]
    summary = (
        f"recovered {', '.join(done) or 'nothing'}" if not left else f"{', '.join(left)}: a living operation is at work"
    )
    show(arguments, {"recovered": done}, summary)
    return 0


def _all_of(failed: dict[str, SwitchyardError]) -> SwitchyardError:
    """One error for what failed of several applications."""
    errors = [*failed.values()]
    if len(errors) == 1:
        return errors[0]
    message = " ".join(f"{name}: {error.message}" for name, error in failed.items())
    return SwitchyardError(message, errors[0].code, "\n".join(error.details for error in errors if error.details))


def _follow(arguments: argparse.Namespace) -> int:
    from switchyard.engine import follow
    from switchyard.engine.layout import AppPaths

    operation = check_operation(arguments.operation)
    print(json.dumps(follow.follow(AppPaths(app_name(arguments.app)), operation, arguments.offset, arguments.wait)))
    return 0


def _edge_apply(arguments: argparse.Namespace) -> int:
    from switchyard.engine import edge
    from switchyard.engine.layout import AppPaths, known_apps, load_host
    from switchyard.engine.ledger import Ledger

    arguments.json = True
    given, host = read_as(edge.Files, "edge-apply"), load_host()
    applied = edge.apply_files(given.files, host, check=given.check)
    # Every edge of several has the same files; the line about them is the first one's.
    if applied.changed and not given.check and host.keeps_ledger:
        who, files = os.environ.get("SUDO_USER", "root"), [change["path"] for change in applied.diff]
        for paths in map(AppPaths, known_apps()):
            # Without a ledger this host is new, and is given the one that other hosts have.
            if paths.ledger.is_file():
                Ledger.load(paths).append("config", who=who, subject="edge", files=files)
    print(edge.as_json(applied))
    return 0


def _edge_keep(arguments: argparse.Namespace) -> int:
    from switchyard.engine import handover

    arguments.json = True
    given = read_as(handover.Wanted, "edge-keep")
    kept = handover.keep(given.compose, given.image, given.drain_seconds, restart=given.restart, check=given.check)
    print(handover.as_json(kept))
    return 0


def _plan_ports(arguments: argparse.Namespace) -> int:
    from switchyard.engine import ports
    from switchyard.engine.layout import load_host

    given = read_as(ports.Wanted, "plan-ports")
    name = AppName(given.app, given.environment)
    changed = ports.ensure(name, given.services, load_host(), check=arguments.check)
    show(arguments, {"changed": changed}, "the plan changes" if changed else "the plan stands")
    return 0


def _version(arguments: argparse.Namespace) -> int:
    engine = Path(sys.argv[0]).resolve().name
    show(arguments, {"engine": engine, "protocol": PROTOCOL}, f"{engine}, protocol {PROTOCOL}")
    return 0
