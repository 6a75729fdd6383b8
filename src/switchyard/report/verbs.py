"""The verbs that answer questions about the past, and the ones their timer runs."""

import argparse
from pathlib import Path
from typing import Any

from switchyard.engine.verb import VerbAdder, app_name, show
from switchyard.errors import Exit, SwitchyardError


def add_verbs(verb: VerbAdder) -> None:
    """Add this room's verbs."""
    child = verb("history", _history, "show what was done, and how it ended")
    child.add_argument("--limit", type=int, default=20, help="newest entries to show (default 20)")
    child = verb("show", _show, "show everything about one release or operation")
    child.add_argument("what", help="a release (42, 0042-1.4.0) or an operation id")
    child = verb("verify", _verify, "check the ledger's chain, and the ledger against a copy of it")
    child.add_argument("--against", default="", metavar="FILE", help="an earlier copy of the ledger on this host")
    child = verb("ledger", _ledger, "print the ledger's lines, for a copy of it elsewhere")
    child.add_argument("--after", type=int, default=0, metavar="N", help="only the lines after the first N")
    child = verb("dora", _dora, "deployment frequency, lead time, change failure rate, time to recovery")
    child.add_argument("--days", type=float, default=30.0, help="the period, up to now (default 30)")
    child = verb("report", _report, "print a page about releases, users, backups and this host, as HTML")
    child.add_argument("--days", type=float, default=7.0, help="the period, up to now (default 7)")
    child = verb("collect", _collect, "count what the edge logged, note disks, renew page and metrics", app=False)
    child.add_argument("--days", type=float, default=7.0, help="the period of the page (default 7)")


def _paths(arguments: argparse.Namespace) -> Any:
    from switchyard.engine.layout import AppPaths

    return AppPaths(app_name(arguments.app))


def _history(arguments: argparse.Namespace) -> int:
    from switchyard.engine.ledger import Ledger
    from switchyard.report import story

    ledger = Ledger.load(_paths(arguments))
    done = story.operations(ledger.events)[-arguments.limit :] if arguments.limit > 0 else []
    rows = [
        {
            "time": operation.began.isoformat(timespec="milliseconds"),
            "op": operation.op,
            "kind": operation.kind,
            "who": operation.who,
            "version": operation.version,
            "end": operation.end or None,
        }
        for operation in done
    ]
    lines = [
        f"{operation.began:%Y-%m-%d %H:%M:%S} {operation.kind:<11} {operation.version:<14} {operation.outcome:<13} "
        f"{operation.release:<18} {operation.who or '-':<20} {operation.end.get('message', '')}".rstrip()
        for operation in done
    ]
    show(arguments, rows, "\n".join(lines) or "nothing yet")
    return 0


def _show(arguments: argparse.Namespace) -> int:
    from switchyard.engine.ledger import Ledger
    from switchyard.report import show as shown

    report = shown.gather(_paths(arguments), Ledger.load(_paths(arguments)).events, arguments.what)
    show(arguments, report, shown.text(report))
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from switchyard import chain
    from switchyard.engine.ledger import content

    paths = _paths(arguments)
    name, text = str(paths.name), content(paths)
    found = chain.check(name, text)
    copies = {}
    if arguments.against:
        copy = Path(arguments.against)
        try:
            copies[str(copy)] = copy.read_bytes()
        except OSError as error:
            raise SwitchyardError(f"{copy} cannot be read: {error.strerror}.", Exit.USAGE) from error
    for source, copied in copies.items():
        found += chain.compare(text, copied, source)
    report = chain.report(name, text, found, copies)
    show(arguments, report, chain.words(report))
    return int(Exit.FAILED) if found else 0


def _ledger(arguments: argparse.Namespace) -> int:
    from switchyard import chain
    from switchyard.engine.ledger import content

    text = content(_paths(arguments))
    report = chain.portion(text, arguments.after)
    show(arguments, report, str(report["text"]).rstrip("\n"))
    return 0


def _dora(arguments: argparse.Namespace) -> int:
    from datetime import timedelta

    from switchyard.engine.ledger import Ledger
    from switchyard.report import dora, story

    until = story.now()
    try:
        since = until - timedelta(days=arguments.days)
    except OverflowError as error:
        raise SwitchyardError(f"--days {arguments.days:g} reaches back too far.", Exit.USAGE) from error
    figures = dora.compute(Ledger.load(_paths(arguments)).events, since, until)
    show(arguments, dora.as_json(figures), dora.text(figures))
    return 0


def _report(arguments: argparse.Namespace) -> int:
    from switchyard.engine.layout import load_host
    from switchyard.report import data, page, traffic

    paths = _paths(arguments)
    if not 0.05 <= arguments.days <= traffic.KEEP_DAYS:
        raise SwitchyardError(f"--days {arguments.days:g}: use up to {traffic.KEEP_DAYS}.", Exit.USAGE)
    traffic.collect(paths)
    text = page.render(data.gather(paths, load_host().name, arguments.days))
    show(arguments, {"page": text}, text)
    return 0


def _collect(arguments: argparse.Namespace) -> int:
    from switchyard.engine.layout import known_apps, load_host
    from switchyard.report import collector

    done = collector.collect(known_apps(), load_host(), arguments.days)
    counted = ", ".join(f"{name} {count}" for name, count in done.items())
    show(arguments, {"lines": done}, f"new lines: {counted}" if counted else "no application yet")
    return 0
