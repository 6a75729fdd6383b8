"""The restore drill: the only proof that there is a backup. It restores a copy, examines it, and measures.

Nothing of it touches the live database, and the copy can neither archive nor reach anything.
"""

import json
import time
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta

from switchyard.data import applied, database, pgbackrest, restore, state, targets
from switchyard.data import backup as backups
from switchyard.data.copy import Copy, drill_copy
from switchyard.data.settings import OPS_DATABASE, Backup
from switchyard.engine.effects import replace_file
from switchyard.engine.layout import AppPaths, load_host
from switchyard.engine.ledger import Ledger
from switchyard.errors import SwitchyardError
from switchyard.names import new_operation

_HOURS_BACK = 6
_AMCHECK_SECONDS = _READ_SECONDS = 3 * pgbackrest.HOURS


@dataclass
class Check:
    """One thing that was proven, or not."""

    name: str
    ok: bool
    detail: str = ""


@dataclass
class Report:
    """What a drill found; times in seconds."""

    id: str
    app: str
    began: str
    plan: str
    target: str = ""
    backup: str = ""
    repository: str = ""
    restore_seconds: float = 0.0
    """From nothing to a database that takes writes."""
    application_seconds: float = 0.0
    rto_seconds: float = 0.0
    """Noticing and deciding as configured, the restore, the start of the application."""
    rpo_seconds: float | None = None
    """What a loss of the host at the drill's begin would have lost; None when a moment of the past was restored."""
    application: str = ""
    """The release that was started against the copy; empty when none was."""
    not_started: str = "here"
    """Where, or on what, none was."""
    checks: list[Check] = field(default_factory=list)
    problem: str = ""

    @property
    def ok(self) -> bool:
        """Tell whether everything was proven."""
        return not self.problem and bool(self.checks) and all(check.ok for check in self.checks)

    @property
    def sentence(self) -> str:
        """The verdict for people."""
        failed = [f"{check.name}: {check.detail}" for check in self.checks if not check.ok]
        if self.ok:
            loss = f", RPO {self.rpo_seconds:.0f} s" if self.rpo_seconds is not None else ""
            started = "" if self.application else f"; the application was not started {self.not_started}"
            return (
                f"Restore drill passed ({self.plan}, {self.backup} from {self.repository}): ready after "
                f"{self.restore_seconds:.0f} s, RTO {self.rto_seconds:.0f} s{loss}{started}."
            )
        return f"Restore drill failed ({self.plan}): {self.problem or '; '.join(failed)}"


PLANS = ("latest", "time", "oldest", "off-site")


def plan_for(number: int, off_site: list[str]) -> str:
    """What the drill of this number restores; they take turns."""
    plans = PLANS if off_site else PLANS[:-1]
    return plans[number % len(plans)]


def drill(backup: Backup, say: backups.Say, plan: str = "") -> Report:
    """Run one drill and note its verdict in the ledger; never raises for what it finds."""
    history = state.read(backup, "drill")
    number = int((history.details if history else {}).get("number", -1)) + 1
    plan = plan or plan_for(number, [one.name for one in backup.repositories if one.off_site])
    began = state.now()
    report = Report(new_operation(), str(backup.name), began.isoformat(timespec="seconds"), plan)
    copy = drill_copy(backup)
    try:
        with backups.alone(backup):
            try:
                moment = _restore(backup, copy, report, began, say)
                _examine(backup, copy, report, say)
                _application(backup, copy, report, moment, say)
            finally:
                copy.remove()
    except SwitchyardError as error:
        report.problem = error.message
    _judge(backup, report)
    _publish(backup, report, number)
    say(report.sentence)
    return report


def _restore(backup: Backup, copy: Copy, report: Report, began: datetime, say: backups.Say) -> datetime | None:
    """Make the copy; returns the moment of the past that it shows, None for the newest."""
    choice = _choose(backup, report.plan, began)
    report.target, report.backup = str(choice.target), choice.chosen.label
    report.repository = backup.repositories[choice.chosen.repository - 1].name
    report.restore_seconds = round(restore.make(copy, choice, say), 1)
    if report.plan in ("latest", "off-site"):
        if newest := _newest(copy):
            report.rpo_seconds = round((began - newest) / timedelta(seconds=1), 1)
        else:
            report.checks.append(Check("loss of data", ok=False, detail="the copy has no heartbeat, so it is unknown"))
    elif choice.moment and (newest := _newest(copy)):
        # A moment of the past is reached exactly; how exactly is what the last transaction before it shows.
        report.checks.append(Check("target", newest <= choice.moment, f"last transaction {newest.isoformat()}"))
    return choice.moment


def _choose(backup: Backup, plan: str, began: datetime) -> targets.Choice:
    paths, repository = AppPaths(backup.name), backup.repositories[0].name
    if plan == "off-site":
        repository = next((one.name for one in backup.repositories if one.off_site), repository)
    kept = [one for one in pgbackrest.kept(backups.helper(backup)) if one.repository == backup.number(repository)]
    target = pgbackrest.Target("latest")
    if kept and plan == "oldest":
        target = pgbackrest.Target("backup", name=kept[0].label)
    elif kept and plan == "time":
        target = pgbackrest.Target("time", time=_some_time(kept[0].ended, began))
    return restore.choose(backup, target, repository, paths)


def _some_time(oldest: datetime, began: datetime) -> datetime:
    """Some hours ago, or, on a young backup, the middle of what there is."""
    wanted = began - timedelta(hours=_HOURS_BACK)
    return wanted if wanted > oldest else oldest + (began - oldest) / 2


def _newest(copy: Copy) -> datetime | None:
    """The newest thing that the copy knows of: a heartbeat, or the last transaction that it replayed."""
    beat = "SELECT to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS+00:00') FROM heartbeat"
    found = [database.one(copy.name, beat, step="drill.heartbeat", database=OPS_DATABASE), copy.last_commit()]
    return max((datetime.fromisoformat(text) for text in found if text), default=None)


def _examine(backup: Backup, copy: Copy, report: Report, say: backups.Say) -> None:
    say("drill: reading every index and row")
    one = database.one(copy.name, "SHOW archive_mode", step="drill.archive_mode")
    report.checks.append(Check("archives nothing", one == "off", f"archive_mode is {one}"))
    argv = ("pg_amcheck", "--username=postgres", "--all", "--install-missing", "--heapallindexed", "--jobs=2")
    done = database.inside(copy.name, *argv, step="drill.amcheck", timeout=_AMCHECK_SECONDS, check=False)
    report.checks.append(
        Check("indexes and tables are consistent", done.code == 0, "" if done.code == 0 else done.reason)
    )
    reading = ("pg_dump", "--username=postgres", f"--dbname={backup.database}", "--file=/dev/null")
    done = database.inside(copy.name, *reading, step="drill.read", timeout=_READ_SECONDS, check=False)
    report.checks.append(Check("every row can be read", done.code == 0, "" if done.code == 0 else done.reason))
    report.checks.append(compare_rows(backup, copy))
    for assertion in backup.drill.assertions:
        report.checks.append(_assertion(backup, copy, assertion.name, assertion.sql))


def compare_rows(backup: Backup, copy: Copy) -> Check:
    """The rows of each table against those that were counted at the last backup before the moment of the copy."""
    counted_then = database.sql(
        copy.name, "SELECT relation, rows FROM inventory", step="drill.inventory", database=OPS_DATABASE
    )
    wanted = {name: int(rows) for name, rows in counted_then}
    counted = database.sql(
        copy.name, f"{database.COUNT};", step="drill.count", database=backup.database, timeout=_READ_SECONDS
    )
    have = {name: int(rows) for name, _, rows in counted}
    if wanted.keys() - have.keys():
        # What the live database does not have either was dropped in between, and is not lost.
        tables = database.sql(backup.container, database.TABLES, step="drill.tables", database=backup.database)
        live = {name for (name,) in tables}
        wanted = {name: rows for name, rows in wanted.items() if name in have or name in live}
    problems = missing_rows(wanted, have, backup.drill.row_tolerance_percent)
    total = sum(have.values())
    return Check(
        "rows as counted at backup time", not problems, "; ".join(problems) or f"{total} in {len(have)} tables"
    )


def missing_rows(wanted: dict[str, int], have: dict[str, int], tolerance_percent: int) -> list[str]:
    """Tables that are gone or have lost more than they may. The backup is older or younger than the count, a little."""
    problems = []
    for name, rows in wanted.items():
        if name not in have:
            problems.append(f"table {name} is missing")
        elif have[name] < rows * (100 - tolerance_percent) / 100:
            problems.append(f"{name} has {have[name]} of {rows} rows")
    return problems


def _assertion(backup: Backup, copy: Copy, name: str, statement: str) -> Check:
    try:
        answer = database.one(
            copy.name,
            f"{statement.rstrip().rstrip(';')};",
            step="drill.assertion",
            database=backup.database,
            timeout=600,
        )
    except SwitchyardError as error:
        return Check(name, ok=False, detail=error.message)
    return Check(name, answer == "t", f"answered '{answer}'")


def _application(backup: Backup, copy: Copy, report: Report, moment: datetime | None, say: backups.Say) -> None:
    if not backup.drill.start_application:
        return
    if moment and _migrated_since(AppPaths(backup.name), moment):
        # No release is asked to run on a schema older than its own, and the older ones are proven by newer backups.
        report.not_started = "on data from before its last migration"
        say(f"drill: the live release has migrated since {moment:%Y-%m-%d %H:%M}, so it is not started")
        return
    trial = applied.live_trial(AppPaths(backup.name), load_host(), copy, backup.drill.application_services)
    if trial is None:
        say("drill: nothing that uses the database is live here, so no application is started")
        return
    report.application = trial.record.id
    say(f"drill: starting {trial.record.id} against the copy")
    began = time.monotonic()
    problems = trial.run(say)
    report.application_seconds = round(time.monotonic() - began, 1)
    detail = "; ".join(problems) or f"{len(trial.record.request.smoke_tests)} smoke tests"
    report.checks.append(Check(f"{trial.record.id} runs on the copy", not problems, detail))


def _migrated_since(paths: AppPaths, moment: datetime) -> bool:
    last = Ledger.load(paths).schema()
    return bool(last and last["state"] != "unchanged" and datetime.fromisoformat(str(last["time"])) > moment)


def _judge(backup: Backup, report: Report) -> None:
    limits = backup.drill
    allowances = limits.noticing_seconds + limits.deciding_seconds
    report.rto_seconds = round(allowances + report.restore_seconds + report.application_seconds, 1)
    if report.problem:
        return
    if report.rto_seconds > limits.rto_limit_seconds:
        report.checks.append(Check("recovery time", ok=False, detail=f"{report.rto_seconds:.0f} s"))
    if report.rpo_seconds is not None and report.rpo_seconds > limits.rpo_limit_seconds:
        report.checks.append(Check("loss of data", ok=False, detail=f"{report.rpo_seconds:.0f} s"))


def _publish(backup: Backup, report: Report, number: int) -> None:
    """The report as a file, its verdict in ledger and state, and news when it failed."""
    document = asdict(report) | {"ok": report.ok, "sentence": report.sentence}
    folder = backup.folder / "drills"
    replace_file(folder / f"{report.id}.json", json.dumps(document, indent=1) + "\n", step="drill.report")
    figures = {key: document[key] for key in ("restore_seconds", "rto_seconds", "rpo_seconds")}
    state.write(backup, "drill", ok=report.ok, message=report.sentence, number=number, report=report.id, **figures)
    paths = AppPaths(backup.name)
    if paths.ledger.is_file():
        why = [f"{check.name}: {check.detail}" for check in report.checks if not check.ok]
        Ledger.load(paths).append(
            "drill",
            op=report.id,
            subject=report.plan,
            outcome="passed" if report.ok else "failed",
            backup=report.backup,
            repository=report.repository,
            application=report.application,
            why=[report.problem] if report.problem else why,
            **figures,
        )
    state.alert(backup, "drill", "" if report.ok else report.sentence, report=report.id)


def job(backup: Backup, say: backups.Say) -> None:
    """The scheduled drill. Raises `SwitchyardError` when it fails, so that its unit fails, too."""
    report = drill(backup, say)
    if not report.ok:
        raise SwitchyardError(report.sentence)
