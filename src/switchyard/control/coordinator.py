"""Releases to several hosts as one operation.

Until the edges' pointers move, nothing that serves is touched. The first edge keeps lease and ledger. A coordinator
that dies leaves a lease that ends by itself, and whoever comes next finds out from the hosts what is so, and makes the
edges agree before anything else.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from switchyard import chain
from switchyard.control.edges import Edges, worst
from switchyard.control.operations import Say
from switchyard.control.rolling import Rolling
from switchyard.control.rounds import Hosts, Targets, failures, merged, require, sentences
from switchyard.control.transport import Member
from switchyard.engine.site import Pointer
from switchyard.errors import Exit, SwitchyardError
from switchyard.names import COLOURS, Colour, names_release, other
from switchyard.request import Request, parse
from switchyard.strict import build

DRAIN_SECONDS = 60.0
"""How long connections to what is replaced may go on when hosts go back, which no request asks for."""

_OF_DATA = ("restore", "restore-point")
"""Events of a database's host that the other hosts have to know of."""
AS_RECORDED = -2
"""Instead of a number of releases to keep: as many as the live one's record says."""


class Coordinator:
    """One operation on all hosts of an environment."""

    def __init__(
        self, members: Sequence[Member], app: str, say: Say, excused: Collection[str] = (), copy: Path | None = None
    ) -> None:
        self._hosts = Hosts(members, app, say, excused)
        self._copy = copy
        """The control side's copy of the ledger."""
        self._edges = Edges(self._hosts)
        self._rolling = Rolling(self._hosts, self._edges)
        self._result = self._hosts.result
        self._touched = False
        """Whether the idle colour was changed anywhere."""

    # A deploy

    def deploy(self, request: dict[str, Any]) -> dict[str, Any]:
        """Make `request` live on every host, or leave the old release serving on every host."""
        wanted = parse(request)
        _require_possible(wanted, self._hosts.count("app"))
        self._hosts.open("deploy", wanted.who, engine=wanted.engine, databases=True)
        # Hosts are sent what was given, and read it as `parse` does here.
        public = request | {"secrets": {k: v | {"value": ""} for k, v in request.get("secrets", {}).items()}}
        began = self._begin(request=public)
        return self._guarded(lambda: self._deploy(wanted, request, public, began), wanted.retain)

    def _deploy(self, wanted: Request, request: dict[str, Any], public: dict[str, Any], began: dict[str, Any]) -> str:
        self._align()
        live = self._edges.live
        release, new = began["release"], other(live.colour) if live else COLOURS[0]
        if not self._prepare(request, public, began, new):
            self._result.release, self._result.colour = (live.release, live.colour) if live else ("", "")
            self._result.message = (
                f"No change: {self._result.release} already is what was asked for ({wanted.version})."
            )
            return "unchanged"
        self._hosts.say(f"preflight: passed; this is release {release}")
        if wanted.migration:
            self._migrate(release, wanted.migration_decision, began)
        if wanted.rolling and live and len(self._hosts.apps) > 1:
            self._rolling.roll(release, new, wanted.rolling, wanted.drain_seconds, smoke=_asks_after(wanted))
            return "live"
        self._replace_idle(new, wanted.drain_seconds)
        targets = self._start(release, new)
        canary = wanted.canary
        shares = [*canary.steps, 100]
        self._edges.switch(self._edges.pointer(release, new, targets, probation=wanted.on_probation, share=shares[0]))
        if _asks_after(wanted):
            self._edges.verify()
        if self._edges.live and self._edges.live.probation:
            for share in shares[1:]:
                self._edges.watch(canary.seconds)
                self._edges.promote(share, self._edges.await_promotion(share) if canary.manual else "")
            self._edges.watch(wanted.probation_seconds)
        return "live"

    def _prepare(self, request: dict[str, Any], public: dict[str, Any], began: dict[str, Any], new: Colour) -> bool:
        """Records and images on all hosts; tells whether anything has to change."""
        hosts = self._hosts
        fields = {
            "verb": "prepare",
            "release": began["release"],
            "created": began["created"],
            "digests": began["digests"],
            "architectures": began["architectures"],
            "colour": new,
            "pointer": self._edges.mark,
            "hosts": len(hosts.apps),
            "again": not self._is_whole(),
            "records": self._edges.records,
        }
        names = [*dict.fromkeys(hosts.apps + hosts.edges)]
        orders = {name: fields | {"request": request if name in hosts.apps else public} for name in names}
        orders |= {name: {"verb": "database"} for name in hosts.named("db") if name not in names}
        orders[hosts.apps[0]]["gate"] = True
        hosts.heed()
        outcomes = hosts.give("preflight", orders)
        self._edges.note_events(outcomes)
        done = require(outcomes)
        self._edges.evidence = done[hosts.apps[0]]["data"].get("evidence", {})
        unchanged = [name for name in hosts.apps if done[name]["data"].get("unchanged")]
        if len(unchanged) == len(hosts.apps):
            return False
        if unchanged:
            # They differ among themselves, in a secret that somebody changed on one of them, say.
            require(hosts.give("preflight", {name: orders[name] | {"again": True} for name in unchanged}))
        return True

    def _is_whole(self) -> bool:
        """Tell whether the live release runs on exactly the hosts that take part."""
        live, hosts = self._edges.live, self._hosts
        if live is None or not all(hosts.has(name, live.release, live.colour) for name in hosts.apps):
            return False
        found = merged([hosts.facts[name]["colours"][live.colour]["targets"] for name in hosts.apps])
        return live.members.get(live.colour) == found

    def _migrate(self, release: str, decision: str, began: dict[str, Any]) -> None:
        """Migrate once, for all; a database on another host gets its restore point first."""
        hosts, first = self._hosts, self._hosts.apps[0]
        apart = [name for name in hosts.named("db") if name != first]
        orders = [{first: {"verb": "migrate", "release": release, "wanted": decision, "events": began["schema"]}}]
        if began["migrates"]:
            for name in hosts.away.keys() & hosts.databases.keys():
                hosts.say(f"WARNING: {name} takes no part, so no restore point is made before the migration")
            if apart:
                point = {"verb": "point", "release": release, "contracts": began["contracts"]}
                orders.insert(0, dict.fromkeys(apart, point))
        for order in orders:
            hosts.heed()
            outcomes = hosts.give("migrate", order)
            self._edges.note_events(outcomes)
            require(outcomes)

    def _replace_idle(self, colour: Colour, seconds: float) -> None:
        """Before the idle colour is replaced, no edge may still have connections to it."""
        self._touched = True
        leaving = [target for targets in self._edges.targets_of(colour).values() for target in targets]
        if self._edges.live and leaving:
            self._hosts.give_all("start", self._hosts.edges, "drain", targets=leaving, within=seconds)

    def _start(self, release: str, colour: Colour) -> Targets:
        """Bring the release up on every application host and let every edge try it."""
        hosts, edges = self._hosts, self._edges
        fields = {"release": release, "colour": colour, "pointer": edges.mark, "records": edges.records}
        started = hosts.give_all("start", hosts.apps, "start", **fields)
        targets = merged([started[name]["data"]["targets"] for name in hosts.apps])
        pointer = edges.pointer(release, colour, targets).mark()
        hosts.give_all("verify", hosts.edges, "check", pointer=pointer, events=edges.events, records=edges.records)
        return targets

    # Going back

    def rollback(self, wanted: str, who: str) -> dict[str, Any]:
        """Make an earlier release live on every host."""
        self._hosts.open("rollback", who)
        self._begin(wanted=wanted, release=self._half_left(wanted))
        return self._guarded(self._rollback, -1)

    def _half_left(self, wanted: str) -> str:
        """The first edge's release when another edge has left it already, and it is what is wanted: to stay there."""
        mine, *others = [self._hosts.facts[edge]["pointer"] for edge in self._hosts.edges]
        if not any(p and mine and p["release"] != mine["release"] == p["previous"] for p in others):
            return ""
        if mine.get("share", 100) < 100:
            # A canary is nothing to stay with: most clients never had it.
            return ""
        release = str(mine["release"])
        return release if not wanted or names_release(wanted, release) else ""

    def _rollback(self) -> str:
        hosts, live = self._hosts, self._edges.live
        if live is None:
            raise SwitchyardError(f"Nothing of {hosts.app} is live.", Exit.UNKNOWN_RELEASE)
        target = self._result.release
        if not self._edges.follow_verdict() and (live.rolling or target == live.release):
            self._align()
        live = self._edges.live or live
        if live.is_canary and target != live.previous:
            live = self._leave_canary(live)
        if target == live.release:
            self._result.colour, self._result.changed = live.colour, True
            return "rolled back"
        colour = other(live.colour)
        for host in [host for host in hosts.apps if not hosts.facts[host]["records"]]:
            hosts.say(f"WARNING: {host} never had a release and is left out; the next deploy brings it up")
            hosts.away[host] = "it never had a release"
        if not all(hosts.has(host, target, colour) for host in hosts.apps):
            self._replace_idle(colour, DRAIN_SECONDS)
        targets = self._start(target, colour)
        self._edges.switch(self._edges.pointer(target, colour, targets))
        return "rolled back"

    def _leave_canary(self, canary: Pointer) -> Pointer:
        """Give every client the release that most of them have; only then does the canary's colour belong to nobody."""
        old, colour = canary.previous, other(canary.colour)
        self._hosts.say(f"rollback: {canary.release} is a canary; every client goes back to {old} first")
        back = self._edges.pointer(old, colour, self._edges.targets_of(colour))
        self._edges.switch(back)
        return back

    # Putting right

    def tidy(self, kind: str, who: str, retain: int) -> dict[str, Any]:
        """Settle what dead operations left on every host, and remove what no rollback needs when `retain` is not -1."""
        self._hosts.open(kind, who)
        self._begin()
        return self._guarded(self._tidy, retain)

    def _tidy(self) -> str:
        self._align()
        self._result.release = self._edges.live.release if self._edges.live else ""
        self._result.message = f"{self._result.release or 'Nothing'} is live, on every host the same."
        return "done"

    def _align(self) -> None:
        """Make the edges agree on what the first one serves, after a coordinator died between them."""
        hosts, live = self._hosts, self._edges.live
        found = {edge: hosts.facts[edge]["pointer"] for edge in hosts.edges}
        if live is None:
            if stray := [edge for edge in hosts.edges if found[edge]]:
                hosts.give_all("switch", stray, "switch", pointer=None)
            return
        if self._edges.follow_verdict():
            return
        if live.is_canary:
            hosts.say(
                f"recover: nobody leads the canary {live.release} any more; {live.previous} has every client again"
            )
            self._edges.put_back(live.back(), hosts.edges)
            return
        if live.rolling:
            hosts.say(
                f"recover: {live.release} was rolled out to some hosts only; they go back to {live.previous} first"
            )
            self._rolling.unroll(live.previous, other(live.colour), DRAIN_SECONDS)
            # What follows goes by what runs where, which is no longer what was found.
            hosts.look()
            return
        settled = replace(live, probation=False)
        apart = [edge for edge in hosts.edges if found[edge] != settled.mark()]
        if apart and (live.probation or self._edges.disagree()):
            hosts.say(f"recover: the edges are made to agree on {live.release} ({', '.join(apart)})")
            self._settle(live, settled, apart)

    def _settle(self, live: Pointer, settled: Pointer, apart: list[str]) -> None:
        outcomes = self._edges.settle(settled, apart)
        failed = failures(outcomes)
        if failed and live.previous:
            self._hosts.say(
                f"recover: {live.release} does not pass ({sentences(failed)}); {live.previous} goes live again"
            )
            reason = "its probation was interrupted, and it does not pass now"
            self._edges.put_back(live.back(), self._hosts.edges, reason)
            return
        require(outcomes)
        self._edges.live = settled

    # Beginning

    def _begin(self, **fields: Any) -> dict[str, Any]:
        """Take the lease and learn from its keeper what is live; what other hosts know is brought along."""
        hosts, facts = self._hosts, self._hosts.facts.values()
        fields |= {
            "verb": "begin",
            "fence": max(f["lease"]["fence"] for f in facts),
            "number": max(f["number"] for f in facts),
            "records": self._foreign_records(),
        }
        fields |= self._foreign_ledgers()
        fields["verdict"] = worst(hosts.facts[edge].get("verdict") for edge in hosts.edges)
        with hosts.interruptible():
            began: dict[str, Any] = require(hosts.give("preflight", {hosts.owner: fields}))[hosts.owner]["data"]
        hosts.fence, self._edges.records = began["fence"], began["records"]
        self._edges.unsettled = began["verdict"]
        self._edges.note_verdict(began["verdict"])
        live = build(Pointer, began["pointer"], "pointer") if began["pointer"] else None
        self._edges.live = live
        self._result.release, self._result.version = began["release"], began["version"]
        self._result.previous = live.release if live else ""
        return began

    def _foreign_ledgers(self) -> dict[str, Any]:
        """What other hosts have in their ledgers and the owner has not, after a host was lost or rebuilt."""
        hosts = self._hosts
        mine = hosts.facts[hosts.owner]["ledger"]
        others = {f["ledger"]["hash"]: name for name, f in hosts.facts.items() if f["ledger"]["lines"]}
        texts = {
            name: str(hosts.ask(name, "ledger", hosts.app, "--json")["text"])
            for digest, name in others.items()
            if digest != mine["hash"]
        }
        events: dict[str, dict[str, Any]] = {}
        for name, text in texts.items():
            for line in text.splitlines():
                event = chain.parse(line.encode(errors="surrogateescape"))
                # A database's own host has a ledger of its own, of which the others need what became of the data.
                if event and (name not in hosts.databases or event["event"] in _OF_DATA):
                    events[line] = event
        told = sorted(events.values(), key=lambda event: str(event.get("time", "")))
        copies = [text for name, text in texts.items() if name not in hosts.databases]
        return {"events": told, "ledger": "" if mine["lines"] else max(copies, key=len, default="") or self._kept()}

    def _kept(self) -> str:
        """The control side's copy, when no host has the ledger any more: without it numbers would begin again."""
        text = self._copy.read_bytes() if self._copy and self._copy.is_file() else b""
        if found := chain.check(self._hosts.app, text):
            raise SwitchyardError(
                f"No host has the ledger, and the copy of it in {self._copy} was changed ({found[0].text}): nothing "
                "was begun. Put a whole copy in its place, or move it away to begin with release number 1.",
                Exit.PREFLIGHT,
            )
        if text:
            self._hosts.say(f"preflight: no host has the ledger, so it goes on from {self._copy}")
        return text.decode()

    def _foreign_records(self) -> dict[str, dict[str, str]]:
        """Records that the owner lacks because it was rebuilt."""
        hosts = self._hosts
        have = set(hosts.facts[hosts.owner]["records"])
        lacking = {r: name for name, facts in hosts.facts.items() for r in facts["records"] if r not in have}
        return {
            release: hosts.ask(name, "record", hosts.app, release)["files"] for release, name in sorted(lacking.items())
        }

    # Ending

    def _guarded(self, work: Callable[[], str], retain: int) -> dict[str, Any]:
        """Do the work; whatever comes of it, write how it ended and leave every host settled.

        After Ctrl-C as well; then it raises `KeyboardInterrupt` with what was done. One that comes when nothing is left
        to stop changes nothing.
        """
        with self._hosts.interruptible(), self._hosts.alive():
            try:
                outcome = work()
            except SwitchyardError as error:
                outcome = self._failed(error)
            if outcome:
                self._finish(outcome, retain)
        if self._hosts.interrupted:
            raise KeyboardInterrupt(self._result.message)
        return asdict(self._result)

    def _failed(self, error: SwitchyardError) -> str:
        self._result.code, self._result.message, self._result.details = int(error.code), error.message, error.details
        self._hosts.say(f"FAILED: {error.message}")
        if error.code is Exit.INTERRUPTED and not self._hosts.still_ours():
            # Somebody else took over, and writes the end. One host's part that died is an ordinary failure.
            return ""
        if self._touched and error.code is not Exit.INCONCLUSIVE:
            # What could not be judged stays as it is, for whoever looks.
            self._abandon()
        serving = self._edges.live.release if self._edges.live else "nothing"
        self._result.message += f" {serving} serves, on every edge that can be reached."
        return {Exit.REVERTED: "reverted", Exit.INCONCLUSIVE: "inconclusive"}.get(error.code, "failed")

    def _abandon(self) -> None:
        """Stop what shall not serve on every application host, and have the warm release back."""
        live = self._edges.live
        fields = {
            "verb": "abandon",
            "colour": other(live.colour) if live else COLOURS[0],
            "pointer": self._edges.mark,
            "records": self._edges.records,
        }
        done = self._hosts.give("tidy", dict.fromkeys(self._hosts.apps, fields), patience=1.0)
        for host, error in failures(done).items():
            self._hosts.say(f"WARNING: {host} could not be tidied ({error.message}); the next deploy does it")

    def _finish(self, outcome: str, retain: int) -> None:
        hosts = self._hosts
        if not self._result.code and not self._result.message:
            self._result.message = self._summary()
        said = asdict(self._result)
        kept = {"code", "message", "version", "release", "phases", "switch_ms", "live_ms", "seen"}
        fields = {"pointer": self._edges.mark, "retain": retain}
        end = {"verb": "end", "outcome": outcome, "result": {key: said[key] for key in kept}}
        ended = hosts.give("finish", {hosts.owner: fields | end | {"events": self._edges.events}})[hosts.owner]
        if isinstance(ended, SwitchyardError):
            self._warn({hosts.owner: ended})
            return
        others = [host for host in dict.fromkeys(hosts.edges + hosts.apps) if host != hosts.owner]
        settle = {"verb": "settle", "ledger": ended["data"]["ledger"]}
        self._warn(failures(hosts.give("finish", dict.fromkeys(others, fields | settle), patience=1.0)))

    def _warn(self, failed: Mapping[str, SwitchyardError]) -> None:
        for host, error in failed.items():
            self._hosts.say(f"WARNING: {host} could not be settled: {error.message}")
        if failed:
            names = ", ".join(failed)
            self._result.message += f" {names} could not be settled: the next command or 'switchyard recover' does it."

    def _summary(self) -> str:
        again = " again" if self._hosts.kind == "rollback" else ""
        text = f"{self._result.release} is live{again} on {self._result.colour} ({', '.join(self._hosts.apps)})."
        if left := self._hosts.left_out:
            text += f" Without {', '.join(left)}: the next deploy brings it up to date."
        return text


def _asks_after(request: Request) -> bool:
    """Tell whether a smoke test of the request is for after the switch."""
    return any(test.when != "before" for test in request.smoke_tests)


def _require_possible(request: Request, hosts: int) -> None:
    """Refuse, before anything is asked of a host, what several hosts cannot do. `hosts` have the application."""
    refused = ""
    if request.watch == "detached":
        refused = "'-e watch=detached' is for one host: with several, this command makes the edges agree on a verdict."
    elif request.rolling and hosts > 1 and request.on_probation:
        refused = (
            "app_rolling leaves no old release to stand by, so nothing can be watched: set app_probation_seconds to 0 "
            "and app_canary to {}, or app_rolling to 0 where hosts have room for both colours."
        )
    if refused:
        raise SwitchyardError(refused, Exit.USAGE)
