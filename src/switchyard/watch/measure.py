"""Looks once at everything that the standing watch judges: services, users' answers, the host, and what grows old."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from switchyard.data import archive
from switchyard.data import settings as backups
from switchyard.engine import lease as leases
from switchyard.engine import maintenance, phases, records
from switchyard.engine.announce import Severity
from switchyard.engine.layout import AppPaths, HostConfig, known_apps
from switchyard.engine.probe import ask, judge_health
from switchyard.engine.site import Site
from switchyard.errors import SwitchyardError
from switchyard.names import AppName
from switchyard.report import host as hosts
from switchyard.report.dora import duration
from switchyard.report.traffic import Tally, log_of
from switchyard.tls import certificate, store
from switchyard.watch.accesslog import parse, tail
from switchyard.watch.limits import Limits
from switchyard.watch.standing import Finding, Standing

_ATTEMPTS = 3
"""Wrong answers in a row before a service counts as down: one lost packet wakes nobody."""
_PAUSE = 1.0
_GATEWAY = (502, 503, 504)
_WINDOW_SECONDS = 60.0
"""How far back the edge's log is judged; up to half of `traffic_seconds` where that has too few requests."""
_LONGEST_QUIET = 3600.0
"""An operation that takes longer, or a canary that waits for a person, is watched all the same."""
_SLOW_SECONDS = 300.0
"""How often what changes slowly is looked at: certificates start processes, backups read files."""
_SLOW_LOOKS = 10
_BLIND_SECONDS = 300.0
_ISSUE_SECONDS = 3600.0
"""How long a certificate may be a stand-in, or wait to be loaded."""


@dataclass
class Look:
    """What one look found. `seen` are prefixes of identities that were measured whole."""

    findings: list[Finding] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)


def look(standing: Standing, host: HostConfig, limits: Limits, now: float) -> Look:
    """Measure everything once. `standing` is what the last look left, and gets what the next one needs."""
    found = Look()
    known = {"", *map(str, known_apps()), *map(str, store.known()), *(path.stem for path in _backup_files())}
    # Nobody will look at what was removed from this host.
    found.seen += [f"{c.app}/" for c in standing.conditions.values() if c.app not in known]
    standing.quiet = {app: times for app, times in standing.quiet.items() if app in known}
    for name in known_apps():
        _application(found, standing, AppPaths(name), host, limits, now)
    _host(found, standing, limits)
    if not 0 <= now - standing.slow_at < min(_SLOW_SECONDS, _SLOW_LOOKS * limits.interval):
        standing.slow_at = now
        _slow(found, standing, limits)
    return found


def _blind(found: Look, app: str, kind: str, measure: Callable[[], list[Finding]]) -> bool:
    """Take in what `measure` finds; when it cannot, that is a finding of its own. Tells whether it could."""
    try:
        found.findings += measure()
        problem = ""
    except (SwitchyardError, OSError, ValueError) as error:
        problem = f"its {kind} cannot be looked at: {getattr(error, 'message', error)}"
    found.findings.append(Finding(f"blind:{kind}", app, problem.rstrip("."), _BLIND_SECONDS))
    return not problem


# An application


def _application(
    found: Look, standing: Standing, paths: AppPaths, host: HostConfig, limits: Limits, now: float
) -> None:
    """Services and traffic, unless an operation is changing the application, or it is closed to users."""
    app, work = str(paths.name), _work(paths)
    if _is_quiet(standing, paths, work, now):
        return
    fresh, since = Look(), standing.quiet.get(app, (0.0, 0.0))[1]
    ok = _blind(fresh, app, "services", lambda: services(paths, host, limits))
    ok = _blind(fresh, app, "traffic", lambda: traffic(paths, limits, now, since)) and ok
    if (later := _work(paths)) != work:
        # A release was at work while its services were asked: what they answered may be its doing.
        _is_quiet(standing, paths, later, time.time())
        return
    found.findings += fresh.findings
    if ok:
        found.seen += [f"{app}/service:", f"{app}/errors", f"{app}/response"]


def _work(paths: AppPaths) -> tuple[str, int]:
    """What is changing the application now ('' is nothing), and the number of the last operation that did.

    Maintenance is a change that a person announced.
    """
    lease, pointer = leases.read(paths), phases.live_pointer(paths)
    fence = lease.fence if lease else 0
    if lease and lease.alive:
        return lease.op, fence
    if pointer is not None and (pointer.probation or pointer.rolling):
        return f"probation of {pointer.release}", fence
    return ("maintenance" if maintenance.is_on(paths) else ""), fence


def _is_quiet(standing: Standing, paths: AppPaths, work: tuple[str, int], now: float) -> bool:
    """Whether nothing is judged because of work on the application; maintenance lasts as long as it is on."""
    app = str(paths.name)
    since, last = standing.quiet.get(app, (0.0, 0.0))
    if not work[0]:
        standing.quiet[app] = (0.0, last)
        return False
    since = since or now
    overlong = now - since > _LONGEST_QUIET and not maintenance.is_on(paths)
    standing.quiet[app] = (since, last if overlong else now)
    return not overlong


@dataclass
class _Question:
    """One way to a service, and what was wrong with its answers."""

    service: str
    instance: str
    """Such as `api-1 at 127.0.0.1:18000`; empty for the way through the edge."""
    ask: Callable[[], str]
    problem: str = "no whole answer in time"

    def run(self) -> None:
        """Ask until an answer is right, or `_ATTEMPTS` were wrong."""
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(_PAUSE)
            self.problem = self.ask()
            if not self.problem:
                return


def services(paths: AppPaths, host: HostConfig, limits: Limits) -> list[Finding]:
    """Health of every service of the live release: through this host's edge, and directly at each instance."""
    pointer = phases.live_pointer(paths)
    if pointer is None or pointer.release not in records.ids(paths):
        return []
    site = phases.site_for(paths, host, pointer)
    asked = _questions(paths, site, host, limits)
    threads = [threading.Thread(target=question.run, daemon=True) for question in asked]
    for thread in threads:
        thread.start()
    # An answer that comes drop by drop keeps every single wait short, and is none all the same.
    deadline = time.monotonic() + _ATTEMPTS * (limits.timeout + _PAUSE)
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return [judge_service(str(paths.name), service, asked) for service in site.live.request.services]


def _questions(paths: AppPaths, site: Site, host: HostConfig, limits: Limits) -> list[_Question]:
    asked = []
    for service, spec in site.live.request.services.items():
        targets, path = site.live_targets(service), spec.health.path
        if paths.pointer.is_file():
            through = partial(_through, f"127.0.0.1:{host.status_port}", service, f"{paths.name}.proof", path)
            asked.append(_Question(service, "", partial(_within, limits.timeout, through)))
        else:
            # An edge asks the instances of every host; a host without one asks its own.
            targets = [one for one in targets if one.rpartition(":")[0].strip("[]") == host.publish_address]
        for number, target in enumerate(targets, start=1):
            direct = partial(_within, limits.timeout, partial(_directly, target, path))
            asked.append(_Question(service, f"{service}-{number} at {target}", direct))
    return asked


def _through(address: str, service: str, name: str, path: str, timeout: float) -> str:
    answer = ask(address, f"/{service}", host=name, timeout=timeout)
    if answer.problem:
        return f"the edge does not answer ({answer.problem})"
    # The edge's own page about it would say no more.
    return f"{path} answers {answer.status}" if answer.status in _GATEWAY else judge_health(answer, path)


def _directly(target: str, path: str, timeout: float) -> str:
    return judge_health(ask(target, path, timeout=timeout), path)


def _within(seconds: float, question: Callable[[float], str]) -> str:
    began = time.monotonic()
    problem = question(seconds)
    taken = time.monotonic() - began
    return problem or ("" if taken <= seconds else f"answered after {taken:.1f} s, more than {seconds:g} s")


def judge_service(app: str, service: str, asked: Sequence[_Question]) -> Finding:
    """One finding of all that was asked of a service: people want to hear of one dead service once."""
    own = [question for question in asked if question.service == service]
    wrong = [question for question in own if question.problem]
    instances = sum(bool(question.instance) for question in own)
    down = sum(bool(question.instance) for question in wrong)
    dead = len(wrong) > down or (instances > 0 and down == instances)
    says = "is down" if dead else f"has lost {down} of {instances} instances"
    words = "; ".join(f"{question.instance or 'through the edge'}: {question.problem}" for question in wrong)
    problem = f"{service} {says} ({words})" if wrong else ""
    return Finding(f"service:{service}", app, problem, 0.0, "critical" if dead else "warning")


def traffic(paths: AppPaths, limits: Limits, now: float, since: float) -> list[Finding]:
    """What users got of late, by the edge's own log; nothing that ended before `since` counts."""
    app = str(paths.name)
    short, long = _WINDOW_SECONDS, max(_WINDOW_SECONDS, limits.traffic_seconds / 2)
    tallies = recent(log_of(paths), [short, long], now, since)
    tally, span = next(((t, s) for t, s in tallies if t.requests >= limits.requests), tallies[-1])
    words = f"{tally.requests} requests of the last {duration(span)}"
    errors = slow = ""
    if tally.errors >= limits.errors and tally.error_share > limits.error_share:
        errors = f"{tally.error_share:.1%} of {words} failed (limit {limits.error_share:.1%})"
    p95 = tally.percentile(0.95)
    if tally.requests >= limits.requests and p95 > limits.p95_seconds:
        slow = f"p95 of {words} is {p95:.2f} s (limit {limits.p95_seconds:g} s)"
    return [
        Finding("errors", app, errors, limits.traffic_seconds, "critical"),
        Finding("response", app, slow, limits.traffic_seconds, "warning"),
    ]


def recent(log: Path, spans: Sequence[float], now: float, since: float) -> list[tuple[Tally, float]]:
    """What the end of the log shows of the last seconds, for each of these spans."""
    tallies = [(Tally(), span) for span in spans]
    # In heavy traffic the last seconds are sample enough.
    for line in reversed(tail(log)[0]):
        entry = parse(line)
        if entry is None or not entry.judged:
            continue
        if entry.at <= max(since, now - max(spans)):
            break
        for tally, span in tallies:
            if entry.at > now - span:
                tally.add(entry.status, entry.seconds)
    return tallies


# The host


def _host(found: Look, standing: Standing, limits: Limits) -> None:
    _blind(found, "", "load", lambda: [_processors(standing, limits), _memory(limits)])
    if _blind(found, "", "disks", lambda: [_disk(disk, limits) for disk in hosts.disks()]):
        found.seen.append("/disk:")


def _processors(standing: Standing, limits: Limits) -> Finding:
    """How busy the processors have been since the last look. The first one after a boot knows nothing yet."""
    last, standing.processors = standing.processors, hosts.processors()
    busy, whole = (now - before for now, before in zip(standing.processors, last, strict=True))
    share = busy / whole if whole > 0 and busy >= 0 and last[1] else 0.0
    problem = f"the processors are {share:.0%} busy (limit {limits.cpu_share:.0%})" if share > limits.cpu_share else ""
    return Finding("cpu", "", problem, limits.load_seconds)


def _memory(limits: Limits) -> Finding:
    memory = hosts.memory()
    used = 1 - memory["available"] / memory["total"]
    problem = f"{used:.0%} of the memory are in use (limit {limits.memory_share:.0%})"
    return Finding("memory", "", problem if used > limits.memory_share else "", limits.load_seconds)


_LEAST_INODES = 0.1
_ALMOST_FULL = 0.95


def _disk(disk: hosts.Disk, limits: Limits) -> Finding:
    used = 1 - disk.free / disk.size if disk.size else 0.0
    problem = ""
    if used > limits.disk_share:
        problem = f"the file system of {disk.path} is {used:.0%} full (limit {limits.disk_share:.0%})"
    elif disk.inodes_free < _LEAST_INODES:
        problem = f"the file system of {disk.path} has {disk.inodes_free:.0%} of its inodes left"
    elif disk.days_to_full is not None and disk.days_to_full < limits.disk_days:
        problem = f"the file system of {disk.path} will be full in {disk.days_to_full * 24:.0f} h at its present rate"
    severity: Severity = "critical" if used > _ALMOST_FULL else "warning"
    return Finding(f"disk:{disk.path}", "", problem, limits.disk_seconds, severity)


# What changes slowly


def _backup_files() -> list[Path]:
    return sorted(backups.FOLDER.glob("*.json"))


def _slow(found: Look, standing: Standing, limits: Limits) -> None:
    """Certificates and backups: measured now and then, so nothing is `seen` of them at other times."""
    blind = set()
    for name in store.known():
        if not _blind(found, str(name), "certificate", partial(certificates, name, limits)):
            blind.add(str(name))
    for path in _backup_files():
        if not _blind(found, path.stem, "backups", partial(_backups, path.stem, limits)):
            blind.add(path.stem)
    apps = {condition.app for condition in standing.conditions.values()} - blind
    found.seen += [f"{app}/{what}" for app in apps for what in ("certificate", *archive.JOBS)]


_SERVES = ("valid", "expiring", "stand-in", "not loaded")


def certificates(name: AppName, limits: Limits) -> list[Finding]:
    """How an application's certificate stands."""
    state = certificate.state_of(name)
    if state is None:
        return []
    # Others than `files` renew themselves, so one that is valid is in time, however few days it has.
    ends = state.days_left < limits.certificate_days and (state.state == "expiring" or state.mode == "files")
    problem = ""
    if ends or state.state not in ("valid", "expiring"):
        problem = f"its certificate is {state.state}: {state.message or f'it ends on {state.not_after}'}"
    grave = state.state not in _SERVES or (ends and state.days_left < 7)
    after = _ISSUE_SECONDS if state.state in ("stand-in", "not loaded") else 0.0
    return [Finding("certificate", str(name), problem, after, "critical" if grave else "warning")]


def _backups(app: str, limits: Limits) -> list[Finding]:
    backup = backups.find(AppName.parse(app))
    if backup is None:
        return []
    late = archive.overdue(backup, limits.backup_hours)
    return [Finding(job, app, late[job].rstrip("."), 0.0, "critical") for job in archive.JOBS]
