"""Releases to several hosts as one operation, in rounds: within a round all hosts work side by side.

Only the edges' pointers move traffic. Until they do, nothing that serves is touched; when one edge cannot follow, all
go back. The first edge keeps lease and ledger. A coordinator that dies leaves a lease that ends by itself, and whoever
comes next finds out from the hosts what is so, and makes the edges agree before anything else.
"""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import Any

from switchyard import chain
from switchyard.control.operations import Say, ask, operate
from switchyard.control.transport import ConnectionLost, Member
from switchyard.engine.operation import Result
from switchyard.engine.site import Pointer
from switchyard.errors import Exit, SwitchyardError
from switchyard.names import COLOURS, Colour, new_operation, other
from switchyard.strict import build

PATIENCE_SECONDS = 30.0
"""How long a host may be away in the middle of a release before the release goes on without waiting for it."""
BEAT_SECONDS = 15.0
"""How often the lease, which ends after 60 s, is prolonged while other hosts work."""
PROOF_SECONDS = 5.0
MIXED_SECONDS = 2.0
"""How long two edges may differ: the time that each is given for its proof."""

CANARY_SECONDS = 60.0
"""How long a step of a canary is watched when the request does not say."""

_OF_DATA = ("restore", "restore-point")
"""Events of a database's host that the other hosts have to know of."""
AS_RECORDED = -2
"""Instead of a number of releases to keep: as many as the live one's record says."""

Facts = dict[str, Any]
Outcomes = dict[str, dict[str, Any] | SwitchyardError]
Targets = dict[str, list[str]]


class Coordinator:
    """One operation on all hosts of an environment."""

    def __init__(self, members: Sequence[Member], app: str, say: Say, excused: Collection[str] = ()) -> None:
        named = {member.name: member for member in sorted(members, key=lambda member: member.name)}
        self._members = {name: member for name, member in named.items() if member.groups & {"app", "edge"}}
        self._databases = {name: named[name] for name in named.keys() - self._members if "db" in named[name].groups}
        """Hosts of the database alone: a deploy asks them, and going back does not need them."""
        self._app, self._excused = app, set(excused)
        self._speaking = threading.Lock()
        self._leaving = threading.Lock()
        self._say = say
        self._op, self._kind, self._who = new_operation(), "", ""
        self._fence = 0
        self._facts: dict[str, Facts] = {}
        self._away: dict[str, str] = {}
        """Hosts that cannot be reached, with the reason."""
        self._live: Pointer | None = None
        self._began = time.monotonic()
        self._result = Result(self._op, "")
        self._heart: _Heart | None = None
        self._records: dict[str, dict[str, str]] = {}
        self._events: list[dict[str, Any]] = []
        self._evidence: dict[str, str] = {}
        self._touched = False
        """Whether the idle colour was changed anywhere."""

    # Who takes part

    def _named(self, group: str) -> list[str]:
        return [n for n, m in self._members.items() if group in m.groups and n not in self._away]

    @property
    def _apps(self) -> list[str]:
        return self._named("app")

    @property
    def _edges(self) -> list[str]:
        return self._named("edge")

    @property
    def _owner(self) -> str:
        """The first edge that can be reached keeps lease and ledger."""
        return self._edges[0]

    def say(self, line: str) -> None:
        """Tell the operator; hosts speak side by side."""
        with self._speaking:
            self._say(line)

    # Rounds

    def _round(
        self,
        phase: str,
        orders: Mapping[str, dict[str, Any]],
        patience: float = PATIENCE_SECONDS,
        told: Callable[[str, dict[str, Any] | SwitchyardError], None] | None = None,
    ) -> Outcomes:
        """Give each host its order at the same time, and wait for all of them; `told` hears of each as it ends."""
        if self._heart:
            self._heart.phase(phase)
        started = time.monotonic()

        def one(host: str) -> dict[str, Any] | SwitchyardError:
            order = {"app": self._app, "op": self._op, "kind": self._kind, "who": self._who, "fence": self._fence}
            order |= {"owner": bool(self._edges) and host == self._owner} | orders[host]
            transport = self._members[host].transport
            try:
                result = operate(
                    transport,
                    ["member"],
                    json.dumps(order),
                    self._app,
                    lambda line: self.say(f"{host}: {line}"),
                    patience=patience,
                )
            except SwitchyardError as error:
                return error
            except ConnectionLost as error:
                return SwitchyardError(f"{host} cannot be reached: {error}.", Exit.UNREACHABLE)
            return result if result["code"] == 0 else _as_error(host, result)

        def one_told(host: str) -> dict[str, Any] | SwitchyardError:
            outcome = one(host)
            if told:
                told(host, outcome)
            return outcome

        with ThreadPoolExecutor(max_workers=max(1, len(orders))) as pool:
            outcomes = dict(zip(orders, pool.map(one_told, orders), strict=True))
        seconds = self._result.phases.get(phase, 0.0) + time.monotonic() - started
        self._result.phases[phase] = round(seconds, 3)
        self._result.data["rounds"] = self._result.data.get("rounds", 0) + 1
        return outcomes

    def _all(self, phase: str, hosts: Sequence[str], verb: str, **fields: Any) -> dict[str, dict[str, Any]]:
        """A round in which every host gets the same order and must succeed."""
        return _require(self._round(phase, {host: {"verb": verb} | fields for host in hosts}))

    # Looking

    def look(self) -> dict[str, Facts]:
        """Ask every host what is so; those that cannot be reached are noted."""

        def one(name: str) -> Facts | SwitchyardError | ConnectionLost:
            try:
                return ask(self._members[name].transport, ["facts", self._app])
            except (SwitchyardError, ConnectionLost) as error:
                return error

        with ThreadPoolExecutor(max_workers=max(1, len(self._members))) as pool:
            answers = dict(zip(self._members, pool.map(one, self._members), strict=True))
        for name, answer in answers.items():
            if isinstance(answer, ConnectionLost):
                self._away[name] = str(answer)
            elif isinstance(answer, SwitchyardError):
                raise answer
            else:
                self._facts[name] = answer
        return self._facts

    @property
    def away(self) -> dict[str, str]:
        """Hosts that could not be reached, with the reason."""
        return self._away

    def _open(self, kind: str, who: str, engine: str = "") -> None:
        self._kind, self._who, self._result.kind = kind, who, kind
        self.look()
        missing = [name for name in self._away if name not in self._excused]
        if missing:
            named = ", ".join(f"{name} ({self._away[name]})" for name in missing)
            raise SwitchyardError(
                f"{named} cannot be reached; nothing was changed. '-e allow_unreachable={','.join(sorted(self._away))}'"
                " goes on without; the next deploy brings such a host up to date.",
                Exit.UNREACHABLE,
            )
        for group in ("app", "edge"):
            if not self._named(group):
                raise SwitchyardError(f"No host of the group {group} can be reached.", Exit.UNREACHABLE)
        for name, facts in self._facts.items():
            if engine and facts["engine"] != engine:
                raise SwitchyardError(
                    f"{name} has {facts['engine']}, the checkout you deploy from has {engine}: run provision.yml "
                    "first.",
                    Exit.ENGINE_MISMATCH,
                )
            missing_groups = self._members[name].groups & {"app", "edge"} - set(facts["groups"])
            if missing_groups:
                raise SwitchyardError(
                    f"{name} does not know yet that it is in the group {min(missing_groups)}: run provision.yml first.",
                    Exit.PREFLIGHT,
                )

    # Beginning

    def _begin(self, **fields: Any) -> dict[str, Any]:
        facts = self._facts.values()
        fields |= {
            "verb": "begin",
            "fence": max(f["lease"]["fence"] for f in facts),
            "number": max(f["number"] for f in facts),
            "records": self._foreign_records(),
        }
        fields |= self._foreign_ledgers()
        began: dict[str, Any] = _require(self._round("preflight", {self._owner: fields}))[self._owner]["data"]
        self._fence, self._records = began["fence"], began["records"]
        self._live = build(Pointer, began["pointer"], "pointer") if began["pointer"] else None
        self._result.release, self._result.version = began["release"], began["version"]
        self._result.previous = self._live.release if self._live else ""
        return began

    def _foreign_ledgers(self) -> dict[str, Any]:
        """What other hosts have in their ledgers and the owner has not, after a host was lost or rebuilt."""
        mine = self._facts[self._owner]["ledger"]
        others = {f["ledger"]["hash"]: name for name, f in self._facts.items() if f["ledger"]["lines"]}
        texts = {
            name: str(ask(self._members[name].transport, ["ledger", self._app, "--json"])["text"])
            for digest, name in others.items()
            if digest != mine["hash"]
        }
        events: dict[str, dict[str, Any]] = {}
        for name, text in texts.items():
            for line in text.splitlines():
                event = chain.parse(line.encode(errors="surrogateescape"))
                # A database's own host has a ledger of its own, of which the others need what became of the data.
                if event and (name not in self._databases or event["event"] in _OF_DATA):
                    events[line] = event
        told = sorted(events.values(), key=lambda event: str(event.get("time", "")))
        copies = [text for name, text in texts.items() if name not in self._databases]
        return {"events": told, "ledger": max(copies, key=len, default="") if not mine["lines"] else ""}

    def _foreign_records(self) -> dict[str, dict[str, str]]:
        """Records that the owner lacks because it was rebuilt."""
        have = set(self._facts[self._owner]["records"])
        lacking = {r: name for name, facts in self._facts.items() for r in facts["records"] if r not in have}
        return {
            release: ask(self._members[name].transport, ["record", self._app, release])["files"]
            for release, name in sorted(lacking.items())
        }

    # A deploy

    def deploy(self, request: dict[str, Any]) -> dict[str, Any]:
        """Make `request` live on every host, or leave the old release serving on every host."""
        _require_possible(request, sum("app" in member.groups for member in self._members.values()))
        self._members |= self._databases
        self._open("deploy", request["who"], request.get("engine", ""))
        public = request | {"secrets": {k: v | {"value": ""} for k, v in request.get("secrets", {}).items()}}
        began = self._begin(request=public)
        with self._alive():
            return self._guarded(lambda: self._deploy(request, public, began), request.get("retain", 3))

    def _deploy(self, request: dict[str, Any], public: dict[str, Any], began: dict[str, Any]) -> str:
        self._align()
        release, new = began["release"], other(self._live.colour) if self._live else COLOURS[0]
        if not self._prepare(request, public, began, new):
            self._result.release = self._live.release if self._live else ""
            self._result.colour = self._live.colour if self._live else ""
            self._result.message = (
                f"No change: {self._result.release} already is what was asked for ({request['version']})."
            )
            return "unchanged"
        self.say(f"preflight: passed; this is release {release}")
        if request.get("migration"):
            self._migrate(release, request.get("migration_decision", ""), began)
        if request.get("rolling") and self._live and len(self._apps) > 1:
            return self._roll(release, new, int(request["rolling"]), float(request.get("drain_seconds", 60.0)))
        self._replace_idle(new, float(request.get("drain_seconds", 60.0)))
        targets = self._start(release, new)
        seconds, canary = float(request.get("probation_seconds", 0)), request.get("canary", {})
        shares = [*canary.get("steps", []), 100]
        self._switch(release, new, targets, probation=seconds > 0 or len(shares) > 1, share=shares[0])
        if self._live and self._live.probation:
            for share in shares[1:]:
                self._watch(float(canary.get("seconds", CANARY_SECONDS)))
                self._promote(share)
            self._watch(seconds)
        return "live"

    def _migrate(self, release: str, decision: str, began: dict[str, Any]) -> None:
        """Migrate once, for all; a database on another host gets its restore point first."""
        first = self._apps[0]
        apart = [host for host in self._named("db") if host != first]
        orders = [{first: {"verb": "migrate", "release": release, "wanted": decision, "events": began["schema"]}}]
        if began["migrates"]:
            for host in self._away.keys() & self._databases.keys():
                self.say(f"WARNING: {host} cannot be reached, so no restore point is made before the migration")
            if apart:
                point = {"verb": "point", "release": release, "contracts": began["contracts"]}
                orders.insert(0, dict.fromkeys(apart, point))
        for order in orders:
            outcome = self._round("migrate", order)
            self._note_events(outcome)
            _require(outcome)

    def _prepare(self, request: dict[str, Any], public: dict[str, Any], began: dict[str, Any], new: Colour) -> bool:
        """Records and images on all hosts; tells whether anything has to change."""
        whole = self._is_whole()
        fields = {
            "verb": "prepare",
            "release": began["release"],
            "created": began["created"],
            "digests": began["digests"],
            "architectures": began["architectures"],
            "colour": new,
            "pointer": self._live.mark() if self._live else None,
            "hosts": len(self._apps),
            "again": not whole,
            "records": self._records,
        }
        hosts = [*dict.fromkeys(self._apps + self._edges)]
        orders = {h: fields | {"request": request if h in self._apps else public} for h in hosts}
        orders |= {host: {"verb": "database"} for host in self._named("db") if host not in hosts}
        orders[self._apps[0]]["gate"] = True
        outcomes = self._round("preflight", orders)
        self._note_events(outcomes)
        done = _require(outcomes)
        self._evidence = done[self._apps[0]]["data"].get("evidence", {})
        unchanged = [host for host in self._apps if done[host]["data"].get("unchanged")]
        if len(unchanged) == len(self._apps):
            return False
        if unchanged:
            # They differ among themselves, in a secret that somebody changed on one of them, say.
            _require(self._round("preflight", {host: orders[host] | {"again": True} for host in unchanged}))
        return True

    def _is_whole(self) -> bool:
        """Tell whether the live release runs on exactly the hosts that take part."""
        if self._live is None:
            return False
        live: dict[str, list[str]] = {}
        for host in self._apps:
            found = self._facts[host]["colours"][self._live.colour]
            if found["release"] != self._live.release or not found["running"]:
                return False
            for service, targets in found["targets"].items():
                live.setdefault(service, []).extend(targets)
        said = self._live.members.get(self._live.colour)
        return said == live

    def _note_events(self, outcomes: Outcomes) -> None:
        """What a migration wrote into its host's copy of the ledger goes into the owner's at once."""
        for outcome in outcomes.values():
            data = outcome.get("data", {}) if isinstance(outcome, dict) else getattr(outcome, "data", {})
            self._events += data.get("events", [])

    def _replace_idle(self, colour: Colour, seconds: float) -> None:
        """Before the idle colour is replaced, no edge may still have connections to it."""
        self._touched = True
        if self._live and (targets := [t for ts in self._targets_of(colour).values() for t in ts]):
            self._all("start", self._edges, "drain", targets=targets, within=seconds)

    def _start(self, release: str, colour: Colour) -> Targets:
        """Bring the release up on every application host and let every edge try it."""
        live = self._live.mark() if self._live else None
        fields = {"release": release, "colour": colour, "pointer": live, "records": self._records}
        started = self._all("start", self._apps, "start", **fields)
        targets = _merged([started[host]["data"]["targets"] for host in self._apps])
        pointer = self._pointer(release, colour, targets, probation=False)
        self._all("verify", self._edges, "check", pointer=pointer.mark(), events=self._events, records=self._records)
        return targets

    def _pointer(self, release: str, colour: Colour, targets: Targets, *, probation: bool, share: int = 100) -> Pointer:
        previous = self._live.release if self._live and self._live.release != release else ""
        members = {str(colour): targets}
        if previous:
            members[other(colour)] = self._targets_of(other(colour))
        probation = probation and bool(previous)
        return Pointer(release, colour, previous, probation, members, share=share if probation else 100)

    def _targets_of(self, colour: Colour) -> Targets:
        """Where a colour's instances listen: as the pointer says, or as the hosts do when it says nothing of them."""
        if self._live and colour in self._live.members:
            return self._live.members[colour]
        return _merged([self._facts[host]["colours"][colour]["targets"] for host in self._apps])

    # The switch

    def _within(self) -> float:
        return PROOF_SECONDS if len(self._edges) == 1 else MIXED_SECONDS

    def _switch(self, release: str, colour: Colour, targets: Targets, *, probation: bool, share: int = 100) -> None:
        """Move every edge at once; when one cannot follow, all go back."""
        pointer = self._pointer(release, colour, targets, probation=probation, share=share)
        began, old = time.time(), self._live
        fields: dict[str, Any] = {"verb": "switch", "pointer": pointer.mark(), "within": self._within()}
        fields |= {"events": self._events, "release": release, "evidence": self._evidence}
        outcomes = self._round("switch", dict.fromkeys(self._edges, fields))
        failed = {host: outcome for host, outcome in outcomes.items() if isinstance(outcome, SwitchyardError)}
        if failed:
            self._put_back(old, [host for host in outcomes if not _went_back(outcomes[host])])
            raise SwitchyardError(
                f"{_sentences(failed)} Every edge that can be reached is back on the old release.", Exit.REVERTED
            )
        self._live, self._events = pointer, []
        done = [outcome for outcome in outcomes.values() if isinstance(outcome, dict)]
        self._result.switch_ms = max(outcome["switch_ms"] for outcome in done)
        self._result.switched_at = min(outcome["switched_at"] for outcome in done) or round(began, 3)
        self._result.live_ms = round((time.monotonic() - self._began) * 1000, 1)
        self._result.release, self._result.colour, self._result.changed = release, colour, True
        owner = outcomes[self._owner]
        self._result.digests = owner["digests"] if isinstance(owner, dict) else {}
        some = f" for {pointer.share} % of the clients" if pointer.is_canary else ""
        self.say(f"switch: {release} is live on {colour}{some}, proven on {', '.join(self._edges)}")

    def _promote(self, share: int) -> None:
        """Give the canary its next share on every edge at once; when one cannot follow, all go back."""
        if self._live is None:
            return
        pointer = replace(self._live, share=share)
        fields = {"verb": "promote", "pointer": pointer.mark(), "within": self._within()}
        outcomes = self._round("switch", dict.fromkeys(self._edges, fields))
        failed = {host: outcome for host, outcome in outcomes.items() if isinstance(outcome, SwitchyardError)}
        if failed:
            raise self._taken_back(pointer, _sentences(failed), next(iter(failed.values())).details)
        self._live = pointer
        self.say(f"canary: {pointer.release} has {share} % of the clients, on {', '.join(self._edges)}")

    def _taken_back(self, pointer: Pointer, reason: str, details: str) -> SwitchyardError:
        """Have every edge leave a release on probation; returns the error to raise."""
        old = pointer.back()
        self._put_back(old, self._edges, reason)
        self._result.release, self._result.colour = old.release, old.colour
        return SwitchyardError(f"{reason} {old.release} is live again.", Exit.REVERTED, details)

    def _put_back(self, pointer: Pointer | None, edges: Sequence[str], reason: str = "") -> None:
        """Point edges back without waiting for a proof; those that cannot be told are named."""
        mark = pointer.mark() if pointer else None
        fields = {"verb": "switch", "pointer": mark, "within": 0.0, "reason": reason, "records": self._records}
        for host, outcome in self._round("switch", dict.fromkeys(edges, fields)).items():
            if isinstance(outcome, SwitchyardError):
                self.say(f"WARNING: {host} could not be put back ({outcome.message}); 'switchyard status' shows it")
        self._live = pointer

    def _watch(self, seconds: float) -> None:
        """Every edge watches for itself, with its own log; the worst verdict of them is that of all."""
        pointer = self._live
        share = f" at {pointer.share} %" if pointer and pointer.is_canary else ""
        self.say(f"watch: {seconds:.0f} s{share} on {', '.join(self._edges)}")
        fields = {"verb": "watch", "pointer": pointer.mark() if pointer else None}
        outcomes = self._round("watch", dict.fromkeys(self._edges, fields), told=self._leave_at_once)
        failed = {host: outcome for host, outcome in outcomes.items() if isinstance(outcome, SwitchyardError)}
        if failed and not self._still_ours():
            raise SwitchyardError(f"{_sentences(failed)}", Exit.INTERRUPTED)
        blind = {host: error for host, error in failed.items() if error.code is Exit.INCONCLUSIVE}
        back = [host for host in failed if host not in blind and (_went_back(failed[host]) or self._left(host))]
        if back and pointer:
            back.sort(key=lambda host: failed[host].code is not Exit.REVERTED)
            raise self._taken_back(pointer, failed[back[0]].message, failed[back[0]].details)
        if blind and pointer:
            # A canary that nobody can judge is not for more clients.
            after = pointer.back() if pointer.is_canary else replace(pointer, probation=False)
            self._put_back(after, self._edges)
            self._result.release, self._result.colour = after.release, after.colour
            # Both colours stay as they are, for whoever looks.
            self._touched = False
            raise SwitchyardError(_sentences(failed), Exit.INCONCLUSIVE, next(iter(blind.values())).details)
        for host, error in failed.items():
            self.say(f"WARNING: the watch on {host} ended early ({error.message}); it serves {self._result.release}")
        if pointer and not pointer.is_canary:
            self._live = replace(pointer, probation=False)

    def _leave_at_once(self, host: str, outcome: dict[str, Any] | SwitchyardError) -> None:
        """Have the other edges leave the release that one of them has just taken back, while they still watch."""
        pointer = self._live
        with self._leaving:
            if pointer is None or not pointer.previous or isinstance(outcome, dict) or not _went_back(outcome):
                return
            if others := [edge for edge in self._edges if edge != host]:
                self._put_back(pointer.back(), others, _sentences({host: outcome}))

    def _left(self, edge: str) -> bool:
        """Tell whether an edge whose watch died has left the new release; one that cannot be asked has not."""
        with contextlib.suppress(SwitchyardError, ConnectionLost):
            found = ask(self._members[edge].transport, ["facts", self._app])["pointer"]
            return not found or found["release"] != self._result.release
        return False

    def _still_ours(self) -> bool:
        with contextlib.suppress(SwitchyardError, ConnectionLost):
            words = ["beat", self._app, str(self._fence), "watch", "--json"]
            return bool(ask(self._members[self._owner].transport, words)["held"])
        return True

    # What an earlier coordinator left

    def _align(self) -> None:
        """Make the edges agree on what the first one serves, after a coordinator died between them."""
        live = self._live
        if live is None:
            stray = [edge for edge in self._edges if self._facts[edge]["pointer"]]
            if stray:
                self._all("switch", stray, "switch", pointer=None)
            return
        if live.is_canary:
            self.say(
                f"recover: nobody leads the canary {live.release} any more; {live.previous} has every client again"
            )
            self._put_back(live.back(), self._edges)
            return
        if live.rolling:
            self.say(
                f"recover: {live.release} was rolled out to some hosts only; they go back to {live.previous} first"
            )
            self._unroll(live.previous, other(live.colour))
            return
        settled = replace(live, probation=False)
        apart = [edge for edge in self._edges if self._facts[edge]["pointer"] != settled.mark()]
        if not apart or not (live.probation or self._disagree()):
            return
        names = ", ".join(apart)
        self.say(f"recover: the edges are made to agree on {live.release} ({names})")
        fields = {"verb": "switch", "pointer": settled.mark(), "within": PROOF_SECONDS, "records": self._records}
        outcomes = self._round("switch", dict.fromkeys(apart, fields))
        failed = {host: outcome for host, outcome in outcomes.items() if isinstance(outcome, SwitchyardError)}
        if failed and live.previous:
            self.say(f"recover: {live.release} does not pass ({_sentences(failed)}); {live.previous} goes live again")
            settled = live.back()
            self._put_back(settled, self._edges, "its probation was interrupted, and it does not pass now")
        elif failed:
            _require(outcomes)
        self._live = settled

    def _disagree(self) -> bool:
        named = [self._facts[edge]["pointer"] for edge in self._edges]
        return len({(p["release"], p["colour"]) if p else ("", "") for p in named}) > 1

    # Going back

    def rollback(self, wanted: str, who: str) -> dict[str, Any]:
        """Make an earlier release live on every host."""
        self._open("rollback", who)
        self._begin(wanted=wanted, release="" if wanted else self._half_left())
        with self._alive():
            return self._guarded(self._rollback, -1)

    def _half_left(self) -> str:
        """The first edge's release when another edge has left it already: going back means to stay there."""
        mine = self._facts[self._owner]["pointer"]
        others = [self._facts[edge]["pointer"] for edge in self._edges[1:]]
        left = any(p and mine and p["release"] != mine["release"] == p["previous"] for p in others)
        return str(mine["release"]) if left else ""

    def _rollback(self) -> str:
        live = self._live
        if live is None:
            raise SwitchyardError(f"Nothing of {self._app} is live.", Exit.UNKNOWN_RELEASE)
        target = self._result.release
        if live.rolling or target == live.release:
            self._align()
            live = self._live or live
        if target == live.release:
            self._result.colour, self._result.changed = live.colour, True
            return "rolled back"
        colour = other(live.colour)
        bare = [host for host in self._apps if not self._facts[host]["records"]]
        for host in bare:
            self.say(f"WARNING: {host} never had a release and is left out; the next deploy brings it up")
            self._away[host] = "it never had a release"
        warm = [host for host in self._apps if self._has(host, target, colour)]
        if len(warm) < len(self._apps):
            self._replace_idle(colour, 60.0)
        targets = self._start(target, colour)
        self._switch(target, colour, targets, probation=False)
        return "rolled back"

    def tidy(self, kind: str, who: str, retain: int) -> dict[str, Any]:
        """Settle what dead operations left on every host, and remove what no rollback needs when `retain` is not -1."""
        self._open(kind, who)
        self._begin()
        with self._alive():
            return self._guarded(self._tidy, retain)

    def _tidy(self) -> str:
        self._align()
        self._result.release = self._live.release if self._live else ""
        self._result.message = f"{self._result.release or 'Nothing'} is live, on every host the same."
        return "done"

    def _has(self, host: str, release: str, colour: Colour) -> bool:
        found = self._facts[host]["colours"][colour]
        return bool(found["release"] == release and found["running"])

    # Host after host

    def _roll(self, release: str, new: Colour, batch: int, drain: float) -> str:
        """Move host after host, for hosts that have no room for both colours: drain, replace, try, put back."""
        old = self._live
        if old is None or batch >= len(self._apps):
            raise SwitchyardError(
                f"app_rolling is {batch} of {len(self._apps)} application hosts: some have to serve meanwhile.",
                Exit.PREFLIGHT,
            )
        before = {
            host: self._facts[host]["colours"][old.colour]["targets"]
            if self._has(host, old.release, old.colour)
            else {}
            for host in self._apps
        }
        # A host that serves nothing yet is no loss while it is prepared.
        queue = sorted(self._apps, key=lambda host: bool(before[host]))
        after: dict[str, Targets] = {}
        try:
            for first in range(0, len(self._apps), batch):
                hosts = queue[first : first + batch]
                rest = {host: before[host] for host in queue[first + batch :]}
                self.say(f"rolling: {', '.join(hosts)}: drained, replaced, tried, put back")
                self._point_rolling(release, new, after, rest)
                leaving = [t for host in hosts for ts in before[host].values() for t in ts]
                self._all("start", self._edges, "drain", targets=leaving, within=drain)
                here = Pointer(release, new).mark()
                started = self._all("start", hosts, "start", release=release, colour=new, stop=old.colour, pointer=here)
                after |= {host: started[host]["data"]["targets"] for host in hosts}
                self._point_rolling(release, new, after, rest, final=not rest)
        except SwitchyardError as error:
            self.say(f"FAILED: {error.message}")
            self._live = replace(old, members={old.colour: _merged([*before.values()])})
            self._unroll(old.release, old.colour)
            raise SwitchyardError(
                f"{error.message} Every host is back on {old.release}.", Exit.REVERTED, error.details
            ) from error
        self._result.changed, self._result.colour = True, new
        return "live"

    def _point_rolling(
        self,
        release: str,
        new: Colour,
        after: Mapping[str, Targets],
        rest: Mapping[str, Targets],
        *,
        final: bool = False,
    ) -> None:
        """Let the edges use the hosts that were moved and those that still wait, and no other."""
        old = self._live
        if old is None:
            return
        was = old.release if not old.rolling else old.previous
        members: dict[str, Targets] = {
            colour: _merged([some[host] for host in self._apps if host in some])
            for colour, some in ((new, after), (other(new), rest))
        }
        if final:
            pointer = Pointer(release, new, members={new: members[new]})
        elif after:
            pointer = Pointer(release, new, was, members=members, rolling=True)
        else:
            pointer = Pointer(was, other(new), members=members)
        done = self._all(
            "switch", self._edges, "switch", pointer=pointer.mark(), within=PROOF_SECONDS, quiet=not final,
            events=self._events, records=self._records,
        )  # fmt: skip
        self._live = pointer
        if final:
            self._result.digests = done[self._owner]["digests"]
            self._result.switched_at = max(outcome["switched_at"] for outcome in done.values())

    def _unroll(self, release: str, colour: Colour) -> None:
        """Every host back to the release that was live before hosts were moved one by one."""
        self.look()
        still = {h: self._facts[h]["colours"][colour]["targets"] for h in self._apps if self._has(h, release, colour)}
        for hosts in ([], [host for host in self._apps if host not in still]):
            if hosts:
                started = self._all(
                    "start", hosts, "start", release=release, colour=colour, stop=other(colour), records=self._records
                )
                still |= {host: started[host]["data"]["targets"] for host in hosts}
            if still:
                served = _merged([still[host] for host in self._apps if host in still])
                self._put_back(Pointer(release, colour, members={colour: served}), self._edges)

    # Ending

    @contextlib.contextmanager
    def _alive(self) -> Iterator[None]:
        """Prolong the lease while other hosts work."""
        self._heart = _Heart(self._beat)
        try:
            yield
        finally:
            self._heart.stop()

    def _beat(self, phase: str) -> None:
        with contextlib.suppress(SwitchyardError, ConnectionLost):
            ask(self._members[self._owner].transport, ["beat", self._app, str(self._fence), phase, "--json"])

    def _guarded(self, work: Any, retain: int) -> dict[str, Any]:
        """Do the work; whatever comes of it, write how it ended and leave every host settled."""
        try:
            outcome = work()
        except SwitchyardError as error:
            outcome = self._failed(error)
        if outcome:
            self._finish(outcome, retain)
        return asdict(self._result)

    def _failed(self, error: SwitchyardError) -> str:
        self._result.code, self._result.message, self._result.details = int(error.code), error.message, error.details
        self.say(f"FAILED: {error.message}")
        if error.code is Exit.INTERRUPTED and not self._still_ours():
            # Somebody else took over, and writes the end. One host's part that died is an ordinary failure.
            return ""
        if self._touched:
            self._abandon()
        serving = self._live.release if self._live else "nothing"
        self._result.message += f" {serving} serves, on every edge that can be reached."
        return {Exit.REVERTED: "reverted", Exit.INCONCLUSIVE: "inconclusive"}.get(error.code, "failed")

    def _abandon(self) -> None:
        """Stop what shall not serve on every application host, and have the warm release back."""
        idle = other(self._live.colour) if self._live else COLOURS[0]
        fields = {
            "verb": "abandon",
            "colour": idle,
            "pointer": self._live.mark() if self._live else None,
            "records": self._records,
        }
        for host, outcome in self._round("tidy", dict.fromkeys(self._apps, fields), patience=1.0).items():
            if isinstance(outcome, SwitchyardError):
                self.say(f"WARNING: {host} could not be tidied ({outcome.message}); the next deploy does it")

    def _finish(self, outcome: str, retain: int) -> None:
        mark = self._live.mark() if self._live else None
        if not self._result.code and not self._result.message:
            self._result.message = self._summary()
        said = asdict(self._result)
        kept = {"code", "message", "version", "release", "phases", "switch_ms", "live_ms"}
        fields = {"pointer": mark, "retain": retain}
        end = {"verb": "end", "outcome": outcome, "result": {key: said[key] for key in kept}, "events": self._events}
        ended = self._round("finish", {self._owner: fields | end})[self._owner]
        if isinstance(ended, SwitchyardError):
            self._warn({self._owner: ended})
            return
        others = [host for host in dict.fromkeys(self._edges + self._apps) if host != self._owner]
        settle = {"verb": "settle", "ledger": ended["data"]["ledger"]}
        done = self._round("finish", dict.fromkeys(others, fields | settle), patience=1.0)
        self._warn({host: outcome for host, outcome in done.items() if isinstance(outcome, SwitchyardError)})

    def _warn(self, failed: dict[str, SwitchyardError]) -> None:
        for host, error in failed.items():
            self.say(f"WARNING: {host} could not be settled: {error.message}")
        if failed:
            names = ", ".join(failed)
            self._result.message += f" {names} could not be settled: the next command or 'switchyard recover' does it."

    def _summary(self) -> str:
        release, apps = self._result.release, ", ".join(self._apps)
        text = f"{release} is live{' again' if self._kind == 'rollback' else ''} on {self._result.colour} ({apps})."
        left = [name for name in self._away if name in self._members]
        if left:
            text += f" Without {', '.join(left)}: the next deploy brings it up to date."
        return text


def _require_possible(request: Mapping[str, Any], hosts: int) -> None:
    """Refuse, before anything is asked of a host, what several hosts cannot do. `hosts` have the application."""
    canary = request.get("canary", {})
    watched = float(request.get("probation_seconds", 0)) > 0 or canary.get("steps")
    refused = ""
    if canary.get("steps") and canary.get("manual"):
        refused = "app_canary.manual is for one host: with several, each step follows the one before that held."
    elif request.get("watch") == "detached":
        refused = "'-e watch=detached' is for one host: with several, this command makes the edges agree on a verdict."
    elif request.get("rolling") and hosts > 1 and watched:
        refused = (
            "app_rolling leaves no old release to stand by, so nothing can be watched: set app_probation_seconds to 0 "
            "and app_canary to {}, or app_rolling to 0 where hosts have room for both colours."
        )
    if refused:
        raise SwitchyardError(refused, Exit.USAGE)


class _Heart:
    """Prolongs a lease at once when the phase changes, and every so often in between."""

    def __init__(self, beat: Any) -> None:
        self._beat, self._phase = beat, ""
        self._woken, self._stopped = threading.Event(), False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def phase(self, name: str) -> None:
        """Name the phase that the lease shows."""
        if name != self._phase:
            self._phase = name
            self._woken.set()

    def stop(self) -> None:
        """Let the lease be."""
        self._stopped = True
        self._woken.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stopped:
            self._woken.wait(BEAT_SECONDS)
            self._woken.clear()
            if not self._stopped and self._phase:
                self._beat(self._phase)


class HostFailed(SwitchyardError):
    """A host that ended its part with an error; `data` is what it told all the same."""

    def __init__(self, message: str, code: Exit, details: str, data: dict[str, Any]) -> None:
        super().__init__(message, code, details)
        self.data = data


def _as_error(host: str, result: dict[str, Any]) -> HostFailed:
    return HostFailed(f"{host}: {result['message']}", Exit(result["code"]), result["details"], result["data"])


def _require(outcomes: Outcomes) -> dict[str, dict[str, Any]]:
    """Every host's result; raises with the sentences of all that failed."""
    failed = {host: outcome for host, outcome in outcomes.items() if isinstance(outcome, SwitchyardError)}
    if failed:
        first = next(iter(failed.values()))
        raise SwitchyardError(_sentences(failed), first.code, first.details)
    return {host: outcome for host, outcome in outcomes.items() if isinstance(outcome, dict)}


def _sentences(failed: Mapping[str, SwitchyardError]) -> str:
    return " ".join(dict.fromkeys(error.message for error in failed.values()))


def _went_back(outcome: dict[str, Any] | SwitchyardError) -> bool:
    return isinstance(outcome, SwitchyardError) and outcome.code is Exit.REVERTED


def _merged(parts: Sequence[Mapping[str, Sequence[str]]]) -> Targets:
    """One list of `ip:port`s per service, host after host."""
    result: Targets = {}
    for part in parts:
        for service, targets in part.items():
            result.setdefault(service, []).extend(targets)
    return result
