"""Watches a release on probation, from the edge's log and by probes, and carries out the verdict. Runs as a unit.

It outlives the deploy that started it. Killed anywhere, systemd starts it again and it goes on; after a reboot,
recovery does.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from switchyard.engine import colour as colours
from switchyard.engine import edge, phases, records
from switchyard.engine import lease as leases
from switchyard.engine.announce import Severity, announce
from switchyard.engine.effects import exclusive, query, run
from switchyard.engine.layout import OPERATION_LOGS, RUNTIME, AppPaths, HostConfig
from switchyard.engine.ledger import Ledger
from switchyard.engine.operation import Operation
from switchyard.engine.order import write_note
from switchyard.engine.records import Record
from switchyard.engine.site import Pointer
from switchyard.errors import Exit, SwitchyardError
from switchyard.names import other
from switchyard.report.traffic import Tally, log_of
from switchyard.request import Slo
from switchyard.secrets import generations
from switchyard.watch import rule, state
from switchyard.watch.accesslog import Entry, Follower, Place, end_of, parse, tail
from switchyard.watch.probes import Found, Prober, questions
from switchyard.watch.rule import Judge, Side, Verdict
from switchyard.watch.state import Probation

_TICK = 0.25
_SLICE = 50
"""Lines of the log that are judged in one go; the edge writes a second's at once."""
_PAUSE = 0.001
"""Seconds between two slices: a request that waits for the processor waits for a slice, and not for all of them."""
_WAITING = 60.0
"""Seconds between two lines while a step has held and waits to be promoted."""
_OVERLAP_BYTES = 256 << 10
"""What is read again at the start, so that nothing is missed between switch and watch."""
_LOST_AFTER = 120.0
"""Seconds that a step which has held waits while nobody holds the lease: who led the edges is dead."""
_LOST = "nobody led the canary on"
_GRACE = 2.0
"""Seconds that the operation which follows has, where several hosts go back together, before this one does alone."""


def unit(op: str) -> str:
    """Name of the unit that watches for an operation."""
    return f"switchyard-watch-{op}"


def begin(paths: AppPaths, op: str, record: Record, switched_at: float) -> Probation:
    """Write down that this release is on probation since `switched_at`; `start` watches it."""
    end = end_of(log_of(paths))
    place = Place(end.inode, max(0, end.offset - _OVERLAP_BYTES))
    return state.save(paths, Probation(op, record.id, switched_at, record.request.probation_seconds, place), "begin")


def start(paths: AppPaths, op: str, engine: str) -> None:
    """Start the unit, unless it runs. Its output goes to a file of its own, which whoever follows reads."""
    if is_running(op):
        return
    log = OPERATION_LOGS / f"{op}.watch.log"
    properties = {
        "Restart": "on-failure",
        "RestartSec": "1",
        "StartLimitIntervalSec": "0",
        "StandardOutput": f"append:{log}",
        "StandardError": f"append:{log}",
        # Users come first: reading the log in bursts would be seen in their slowest answers.
        "Nice": "5",
    }
    if not OPERATION_LOGS.is_dir():
        run(["mkdir", "-p", "-m", "0750", str(OPERATION_LOGS)], step="watch.logs")
    started = run(
        [
            "systemd-run",
            "--quiet",
            "--collect",
            "--no-block",
            f"--unit={unit(op)}",
            f"--description=Switchyard watches {paths.name}",
            *(f"--property={key}={value}" for key, value in properties.items()),
            engine,
            "watch",
            str(paths.name),
            op,
        ],
        step="watch.unit",
        check=False,
    )
    if started.code != 0 and "already" not in started.err:
        raise SwitchyardError(f"systemd cannot start the watch: {started.reason}.")


def is_running(op: str) -> bool:
    """Tell whether that unit runs, or is about to run again."""
    out = query(["systemctl", "show", "--property=ActiveState", "--value", unit(op)]).out.strip()
    return out in ("active", "activating", "reloading")


def watch(paths: AppPaths, host: HostConfig, op: str, say: Callable[[str], None]) -> None:
    """Watch until there is a verdict, and carry it out. Returns at once when another process does."""
    with exclusive(RUNTIME / f"{paths.name}.watch.lock", wait=5, busy=f"{paths.name} is being watched already."):
        known = state.load(paths)
        if known is None or known.op != op or known.done:
            return
        if not known.verdict:
            known = _Watcher(paths, host, known, say).run()
        if known.verdict == "superseded":
            return
        if _together(paths, known):
            _wait_for_followers(paths, known)
        busy = f"An operation is changing {paths.name}; it decides."
        with exclusive(paths.lock, wait=60, busy=busy):
            carry_out(paths, host, known)


def _together(paths: AppPaths, known: Probation) -> bool:
    """Whether several hosts go back together, and the process that leads this one is alive."""
    pointer, lease = phases.live_pointer(paths), leases.read(paths)
    return (
        bool(getattr(pointer, "members", None)) and bool(lease and lease.op and lease.process_alive) and not known.done
    )


def _wait_for_followers(paths: AppPaths, known: Probation) -> None:
    deadline = time.monotonic() + _GRACE
    while time.monotonic() < deadline:
        pointer = phases.live_pointer(paths)
        if pointer is None or not pointer.probation or pointer.release != known.release:
            return
        time.sleep(0.1)


def carry_out(paths: AppPaths, host: HostConfig, known: Probation) -> None:
    """Do what the verdict asks for; the caller holds the application's lock. May be run again."""
    op = Operation.open(known.op, "watch", "watch", paths, host)
    op.ledger = Ledger.load(paths)
    pointer = phases.live_pointer(paths)
    if known.done or pointer is None:
        return
    if pointer.members:
        _carry_out_here(op, pointer, known)
        return
    if known.goes_back:
        _go_back(op, pointer, known)
    elif pointer.release == known.release:
        # Also when the file says so already: whoever wrote it may have died before Nginx took it up.
        settled = replace(pointer, probation=False, share=100)
        edge.point(paths, phases.site_for(paths, host, settled), host)
    already = any(event.get("op") == known.op for event in op.ledger.of("verdict"))
    if not already:
        # Told twice rather than never, when it dies in between.
        _tell(paths, known)
        op.ledger.append("verdict", **known.event)
    state.save(paths, known, "done", done=True)


def _carry_out_here(op: Operation, pointer: Pointer, known: Probation) -> None:
    """On one edge of several: what nobody who leads them has done. The ledger is theirs."""
    if pointer.release == known.release and pointer.probation:
        after = pointer.back() if known.goes_back else replace(pointer, probation=False, share=100)
        edge.point(op.paths, phases.site_for(op.paths, op.host, after), op.host)
        write_note(op.paths, after, op.host)
    state.save(op.paths, known, "done", done=True)


def _go_back(op: Operation, pointer: Pointer, known: Probation) -> None:
    bad = known.verdict == "revert"
    if pointer.release == known.release:
        if pointer.probation:
            phases.take_back(op, known.reason, bad=bad)
    elif (live := op.ledger.last_live()) and live[0] == known.release:
        # It died after the pointer had moved and before the ledger knew; Nginx may not have taken it up either.
        old = records.load(op.paths, pointer.release)
        edge.point(op.paths, phases.site_for(op.paths, op.host, pointer), op.host)
        phases.note_live(op, old, pointer.colour)
        if bad:
            op.ledger.append("bad", op=op.id, release=known.release, reason=known.reason)
            colours.stop(op.paths.name, other(pointer.colour))


def _tell(paths: AppPaths, known: Probation) -> None:
    titles: dict[str, tuple[Severity, str]] = {
        "pass": ("info", f"{known.release} passed its probation"),
        "revert": ("critical", f"{known.release} was taken back: {known.reason}"),
        "sick": ("critical", f"{known.release} stays although it does badly: {known.reason}"),
        "inconclusive": ("warning", f"{known.release} could not be judged: {known.reason}"),
    }
    severity, title = titles[known.verdict]
    if known.canary and known.verdict == "sick":
        title = f"{known.release} and the release before it do badly: {known.reason}"
    announce(f"watch.{known.verdict}", title, severity=severity, app=str(paths.name), release=known.release)


def logins(paths: AppPaths, record: Record) -> dict[str, str]:
    """The secrets that the record's smoke tests log in with, as the release is started with them."""
    names, own = {test.login for test in record.request.smoke_tests if test.login}, generations.of(paths, record.id)
    return {name: generations.read(own, name) for name in names if (own / name).is_file()}


class _Watcher:
    def __init__(self, paths: AppPaths, host: HostConfig, known: Probation, say: Callable[[str], None]) -> None:
        self.paths, self.host, self.known, self.say = paths, host, known, say
        self.record = records.load(paths, known.release)
        self.slo: Slo = self.record.request.slo
        self.follower = Follower(log_of(paths), known.place)
        self.routes = sorted((route.path for route in self.slo.routes), key=len, reverse=True)
        self.blind = False
        self.waiting: list[Found] = []
        """What was found out since the last health probe."""
        self.held_since = 0.0

    def run(self) -> Probation:
        """Watch to the end; returns the probation with its verdict."""
        pointer = phases.live_pointer(self.paths)
        if pointer is None or pointer.release != self.known.release or not pointer.probation:
            return self._end(Verdict("continue"), "superseded")
        self.pointer = pointer
        if self.known.held not in (-1, pointer.share):
            # The next step began while nobody watched.
            self.known = state.save(self.paths, self.known, "progress", observed=0.0, held=-1)
        site = phases.site_for(self.paths, self.host, pointer)
        services = self.record.request.services
        self.new = {target for service in services for target in site.live_targets(service)}
        self.old: set[str] = set()
        if site.previous:
            colour = other(pointer.colour)
            self.old = {t for s in site.previous.request.services for t in site.targets(site.previous, s, colour)}
        self.judge = Judge(self.slo, self._baseline())
        prober = Prober(questions(site, logins(self.paths, self.record)))
        return self._observe(prober)

    def _observe(self, prober: Prober) -> Probation:
        observed, last = self.known.observed, time.monotonic()
        evaluated = said = last
        interval = min(rule.INTERVAL, max(_TICK, self._seconds / 2))
        while True:
            self._take_in(prober)
            verdict = self.judge.at_once()
            now = time.monotonic()
            if verdict.kind == "continue" and now - evaluated >= interval:
                verdict = self.judge.evaluate(time.time(), measured=self.follower.readable and not self.blind)
                evaluated = now
                if observed - self.known.observed >= rule.INTERVAL:
                    self.known = state.save(self.paths, self.known, "progress", observed=round(observed, 2))
                if verdict.reason:
                    self.say(f"watch: {verdict.reason}")
            if verdict.kind != "continue":
                return self._end(verdict, verdict.kind)
            pointer = phases.live_pointer(self.paths)
            if pointer is None or pointer.release != self.known.release or not pointer.probation:
                return self._end(Verdict("continue"), "superseded")
            if pointer.share != self.pointer.share:
                # Somebody promoted it: a new step.
                self.pointer, observed = pointer, 0.0
                self.known = state.save(self.paths, self.known, "progress", observed=0.0, held=-1)
                self.judge.restart()
            if now - said >= (1 if observed < self._seconds else _WAITING):
                self.say(self._line(observed))
                said = now
            if observed >= self._seconds and self.judge.settled and (ended := self._end_of_step(pointer)):
                return self._end(ended, ended.kind)
            time.sleep(_TICK)
            observed += time.monotonic() - last
            last = time.monotonic()

    @property
    def _seconds(self) -> float:
        """How long this step has to hold."""
        return self.known.seconds if self.pointer.share == 100 else self.record.request.canary.seconds

    def _end_of_step(self, pointer: Pointer) -> Verdict | None:
        """What follows when a step has held; None goes on watching."""
        if pointer.share == 100:
            return Verdict("pass")
        if pointer.members:
            return self._hold(pointer)
        if not self.record.request.canary.manual:
            self._promote(pointer)
        return None

    def _hold(self, pointer: Pointer) -> Verdict | None:
        """Wait for the other edges, watching on: whoever leads gives all of them the next step."""
        if self.known.held != pointer.share:
            self.known = state.save(self.paths, self.known, "held", held=pointer.share)
            self.held_since = 0.0
        if not self.held_since or leases.holder(self.paths) is not None:
            # Somebody leads, and may wait for a person to promote it.
            self.held_since = time.monotonic()
        return Verdict("revert", _LOST) if time.monotonic() - self.held_since > _LOST_AFTER else None

    def _promote(self, pointer: Pointer) -> None:
        with exclusive(self.paths.lock, wait=60, busy=f"An operation is changing {self.paths.name}."):
            if phases.live_pointer(self.paths) == pointer:
                promote(self.paths, self.host, pointer, self.say)

    def _take_in(self, prober: Prober) -> None:
        for count, entry in enumerate(self.follower.read(), 1):
            if count % _SLICE == 0:
                time.sleep(_PAUSE)
            if entry.at >= self.known.switched_at:
                feed(self.judge, entry, self.new, self.old, self.routes, self.slo.p95_seconds, self.known.release)
        for found in prober.tick():
            self.waiting.append(found)
            if not found.health:
                # An edge that is down fails a smoke test as well; the next health probe tells whether it is.
                continue
            self.blind = found.blind
            for one in () if self.blind else self.waiting:
                self.judge.probe(time.time(), one.name, one.new, one.old, one.old_seconds)
            self.waiting.clear()

    def _baseline(self) -> dict[str, Tally]:
        """What the old release did before the switch, out of the end of the log."""
        kept = Judge(replace(self.slo, window_seconds=1e9))
        lines: list[bytes] = []
        with suppress(OSError):
            lines, _ = tail(log_of(self.paths))
        for line in lines:
            entry = parse(line)
            if entry and self.known.switched_at - 300 < entry.at < self.known.switched_at:
                feed(kept, entry, self.new, self.old, self.routes, self.slo.p95_seconds)
        return {route: kept.tally("old", route) for route in ("", *self.routes)}

    def _line(self, observed: float) -> str:
        share = f" at {self.pointer.share} %" if self.pointer.share < 100 else ""
        sides = []
        for side, release in (("new", self.pointer.release), ("old", self.pointer.previous)):
            tally = self.judge.tally(side)  # type: ignore[arg-type]
            if side == "old" and not tally.requests:
                tally = self.judge.baseline.get("", tally)
            sides.append(
                f"{release} {tally.requests} requests, {tally.errors} errors, p95 {tally.percentile(0.95):.3f} s"
            )
        return f"watch: {observed:.0f} of {self._seconds:.0f} s{share}: {'; '.join(sides)}"

    def _end(self, verdict: Verdict, kind: str) -> Probation:
        figures = {}
        if hasattr(self, "judge"):
            new, old = self.judge.tally("new"), self.judge.tally("old")
            figures = {
                "requests": new.requests,
                "errors": new.errors,
                "p95": round(new.percentile(0.95), 4),
                "old_requests": old.requests,
                "old_errors": old.errors,
            }
        self.say(f"watch: verdict {kind}{f': {verdict.reason}' if verdict.reason else ''}")
        pointer = getattr(self, "pointer", None)
        ended = replace(
            self.known, verdict=kind, reason=verdict.reason, ended=records.now(), done=kind == "superseded",
            canary=bool(pointer and pointer.is_canary), figures=figures,
        )  # fmt: skip
        if pointer and pointer.members and kind not in ("pass", "superseded"):
            # Whoever leads several edges may be gone; that all is well is for them alone to say.
            _tell(self.paths, ended)
        return state.save(self.paths, ended, "verdict")


def feed(
    judge: Judge, entry: Entry, new: set[str], old: set[str], routes: list[str], slow: float, release: str = ""
) -> None:
    """Give one line of the log to the judge.

    `routes` are the declared ones, longest first; `release` is the new one.
    """
    side: Side | None = "new" if entry.first in new else "old" if entry.first in old else None
    if side is None or not entry.judged or (entry.aborted and entry.seconds <= slow):
        # A client that gave up after longer than a request may take has seen a slow one; others say nothing.
        return
    stepped_in = side == "new" and any(address in old for address in entry.addresses[1:])
    if side == "old" and release and entry.meant == release:
        # Every instance of the new one was ejected: it was not even tried.
        side, stepped_in = "new", True
    error = stepped_in or (entry.status >= 500 and not entry.aborted)
    route = next((path for path in routes if covers(path, entry.path)), "")
    judge.request(entry.at, side, error=error, seconds=entry.seconds, route=route)


def covers(route: str, path: str) -> bool:
    """Whether a declared route holds for a path: one that ends in a slash for all below it."""
    return path.startswith(route) if route.endswith("/") else path == route


def next_share(paths: AppPaths, pointer: Pointer) -> int:
    """The share of the clients that follows the one that a release has."""
    steps = [*records.load(paths, pointer.release).request.canary.steps, 100]
    return next((step for step in steps if step > pointer.share), 100)


def promote(paths: AppPaths, host: HostConfig, pointer: Pointer, say: Callable[[str], None], *, who: str = "") -> int:
    """Give the release on probation its next share of the clients; the caller holds the application's lock.

    `who` asked for it, where it was a person.
    """
    share = next_share(paths, pointer)
    edge.point(paths, phases.site_for(paths, host, replace(pointer, share=share)), host, unseen=True)
    known = state.load(paths)
    op = known.op if known and known.release == pointer.release else "watch"
    Ledger.load(paths).append("canary", op=op, release=pointer.release, share=share, **{"who": who} if who else {})
    say(f"watch: {pointer.release} has {share} % of the clients now")
    return share


def have_promoted(paths: AppPaths, pointer: Pointer, who: str) -> int:
    """Leave the next share for the operation that leads several edges, and gives it to all of them."""
    if not records.load(paths, pointer.release).request.canary.manual:
        raise SwitchyardError(
            f"Every step of {pointer.release} follows by itself, on all edges, once the last one has held.", Exit.USAGE
        )
    if leases.holder(paths) is None:
        raise SwitchyardError(
            f"The deploy that led {pointer.release} is gone, and every client gets the old release again: deploy it "
            "again.",
            Exit.UNKNOWN_RELEASE,
        )
    share = next_share(paths, pointer)
    state.give(paths, state.Promotion(pointer.release, share, who))
    return share
