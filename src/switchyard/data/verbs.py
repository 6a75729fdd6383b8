"""The verbs of this room: backups, restores and what timers run."""

import argparse
import sys

from switchyard.engine.verb import VerbAdder, app_name, follow_options, launch, read_input, show

JOBS = ("heartbeat", "archive", "daily", "weekly", "dump", "drill")


def add_verbs(verb: VerbAdder) -> None:
    """Add them to the engine's command line."""
    child = verb(
        "backup-prepare", _prepare, "set repositories up and make the first full backup, where that is missing"
    )
    child.add_argument("--check", action="store_true", help="only tell whether something would be done")
    child = verb("replica-prepare", _replica_prepare, "build the data of a replica from a backup, where it is missing")
    child.add_argument("--check", action="store_true", help="only tell whether something would be done")
    verb("replica", _replica, "tell how far the replica on this host is behind")
    child = verb("backup-job", _job, "run what a timer runs", app=False, with_json=False)
    child.add_argument("job", choices=JOBS)
    child.add_argument("app", metavar="APP-ENV")
    verb("backups", _backups, "list what can be restored")
    child = verb("backup", _backup, "back up database and files now, and verify")
    child.add_argument("--type", choices=["incr", "full"], default="incr", help="incremental (default) or full")
    _operation(child)
    child = verb("drill", _drill, "restore a copy and prove that it is whole")
    child.add_argument("--plan", choices=["latest", "time", "oldest", "off-site"], default="", help="what to restore")
    _operation(child)
    child = verb("restore", _restore, "restore the database beside the live one (scratch) or in its place (live)")
    child.add_argument("--to", default="", help='latest, "2026-11-20 14:03:00+00", before-deploy=42 or backup=LABEL')
    child.add_argument("--into", default="", help="scratch or live")
    child.add_argument("--repository", default="", help="from this one only")
    child.add_argument("--confirm", default="", help="the host's name, to replace the live database")
    _operation(child)
    text = "refresh the data with another environment's, sanitised; the order is JSON on standard input"
    child = verb("refresh-data", _refresh, text)
    child.add_argument("--check", action="store_true", help="only tell what would be done, or what would stop it")
    _operation(child)
    verb("restore-forget", _forget, "remove the data that restores in place and refreshes kept")
    verb("scratch-remove", _scratch_remove, "remove the restored copy")
    child = verb("restore-files", _files, "restore uploaded files and dumps into a directory beside the live ones")
    child.add_argument("--repository", default="", help="from this one; default: the one on this host")
    child.add_argument("--snapshot", default="latest", help="a snapshot's id; default: the newest")


def _operation(child: argparse.ArgumentParser) -> None:
    child.add_argument("--who", default="", help="who asks, for the ledger")
    follow_options(child)


def _say(text: str) -> None:
    print(text, flush=True)


def _complain(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _prepare(arguments: argparse.Namespace) -> int:
    from switchyard.data import backup, settings

    if arguments.check and not _is_set_up(arguments, replica=False):
        return _would_set_up(arguments)
    report = backup.prepare(settings.load(app_name(arguments.app)), _complain, check_only=arguments.check)
    show(arguments, report, str(report["message"]))
    return 0


def _replica_prepare(arguments: argparse.Namespace) -> int:
    from switchyard.data import replica, settings

    if arguments.check and not _is_set_up(arguments, replica=True):
        return _would_set_up(arguments)
    found = settings.load(app_name(arguments.app), replica=True)
    report = replica.prepare(found, _complain, check_only=arguments.check)
    show(arguments, report, str(report["message"]))
    return 0


def _is_set_up(arguments: argparse.Namespace, *, replica: bool) -> bool:
    from switchyard.data import settings

    found = settings.find(app_name(arguments.app))
    return found is not None and found.replica == replica


def _would_set_up(arguments: argparse.Namespace) -> int:
    """In check mode the role only says that it would place the settings that this stands on."""
    message = "the settings would be placed first"
    show(arguments, {"changed": True, "state": "", "message": message}, message)
    return 0


def _replica(arguments: argparse.Namespace) -> int:
    from switchyard.data import replica

    report = replica.state(app_name(arguments.app))
    show(arguments, report or {}, replica.words(report) if report else "there is no replica on this host")
    return 0


def _job(arguments: argparse.Namespace) -> int:
    from switchyard.data import jobs, settings
    from switchyard.names import AppName

    found = settings.find(AppName.parse(arguments.app))
    if found is None:
        _say(f"{arguments.app} has no backup any more.")
        return 0
    if found.replica:
        _say(f"{arguments.app} is a replica on this host: its backups are the primary's.")
        return 0
    jobs.run_job(found, arguments.job, _say)
    return 0


def _backups(arguments: argparse.Namespace) -> int:
    from switchyard.data import backup, settings

    rows = backup.listing(settings.load(app_name(arguments.app)))
    lines = [f"{row['ended']}  {row['type']:<5} {row['label']:<34} {row['repository']}" for row in rows]
    show(arguments, rows, "\n".join(lines) or "nothing yet")
    return 0


def _launch(arguments: argparse.Namespace, kind: str, **request: object) -> int:
    from switchyard.data import settings
    from switchyard.engine.layout import AppPaths

    paths = AppPaths(app_name(arguments.app))
    settings.load(paths.name)
    return launch(arguments, paths, kind, {"who": arguments.who, **request})


def _backup(arguments: argparse.Namespace) -> int:
    return _launch(arguments, "backup", type=arguments.type)


def _drill(arguments: argparse.Namespace) -> int:
    return _launch(arguments, "drill", plan=arguments.plan)


def _restore(arguments: argparse.Namespace) -> int:
    from switchyard.data import restore
    from switchyard.engine.layout import load_host

    wish = restore.Wish(arguments.to, arguments.into, arguments.repository, arguments.confirm)
    restore.check_wish(wish, load_host().name)
    return _launch(arguments, "scratch" if wish.into == "scratch" else "restore", wish=vars(wish))


def _refresh(arguments: argparse.Namespace) -> int:
    from switchyard.data import refresh, settings, source
    from switchyard.engine.layout import load_host

    data, backup = read_input(), settings.load(app_name(arguments.app))
    order = source.parse(data, backup.name)
    if arguments.check:
        message = refresh.check(backup, order, load_host().name)
        show(arguments, {"changed": True, "message": message}, message)
        return 0
    return _launch(arguments, "refresh-data", order=data)


def _forget(arguments: argparse.Namespace) -> int:
    from switchyard.data import backup, restore, settings, succession

    found = settings.load(app_name(arguments.app))
    with backup.alone(found, wait=backup.SHORT_SECONDS):
        removed = [*restore.forget(found), *succession.forget(found)]
    show(arguments, {"removed": removed}, f"removed {', '.join(removed)}" if removed else "nothing is kept")
    return 0


def _scratch_remove(arguments: argparse.Namespace) -> int:
    from switchyard.data import backup, copy, settings

    found = settings.load(app_name(arguments.app))
    scratch = copy.scratch(found)
    with backup.alone(found, wait=backup.SHORT_SECONDS):
        scratch.remove()
    show(arguments, {"removed": scratch.name}, f"removed {scratch.name}")
    return 0


def _files(arguments: argparse.Namespace) -> int:
    from switchyard.data import backup, settings

    found = settings.load(app_name(arguments.app))
    place = backup.restore_files(found, arguments.repository or found.repositories[0].name, arguments.snapshot)
    show(arguments, {"path": str(place)}, f"restored below {place}; remove it when you have what you need")
    return 0
