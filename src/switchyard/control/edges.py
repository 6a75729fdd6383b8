"""What the edges of an environment serve, the same on all of them: switch, canary, watch, and the way back.

Only their pointers move traffic. When one edge cannot follow, all go back.
"""

import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from switchyard.control.rounds import (
    BEAT_SECONDS,
    Facts,
    Hosts,
    Outcome,
    Outcomes,
    Targets,
    failures,
    merged,
    sentences,
    went_back,
)
from switchyard.control.transport import ConnectionLost
from switchyard.engine.site import Pointer
from switchyard.errors import Exit, SwitchyardError
from switchyard.names import AppName, Colour, other

_ASK_SECONDS = 2.0
"""How often edges are asked while a canary waits to be promoted."""
_REMIND_SECONDS = 60.0
PROOF_SECONDS = 5.0
MIXED_SECONDS = 2.0
"""How long two edges may differ that both answer, and so what each is given for its proof."""
ANSWER_SECONDS = 4.0
"""How long an edge may say nothing once another has moved. A busy one is heard of by then, a lost one is not."""

_FROM_THE_WORST = ("revert", "sick", "inconclusive", "pass")


class Edges:
    """The pointer that all edges have, and what their hosts have to be told with it."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts
        self.live: Pointer | None = None
        self.records: dict[str, dict[str, str]] = {}
        """Records that a rebuilt host lacks."""
        self.events: list[dict[str, Any]] = []
        """What other hosts wrote into their ledgers, and the owner does not know yet."""
        self.evidence: dict[str, str] = {}
        """What became of the images' checks, for the owner's record."""
        self.unsettled: dict[str, Any] | None = None
        """The worst verdict of the edges' watches that no coordinator lived to hear."""
        self._leaving = threading.Lock()

    @property
    def mark(self) -> dict[str, object] | None:
        """What is live, as an order says it."""
        return self.live.mark() if self.live else None

    def note_events(self, outcomes: Outcomes) -> None:
        """What a host wrote into its copy of the ledger goes into the owner's with the next order."""
        for outcome in outcomes.values():
            self.events += _data(outcome).get("events", [])

    def note_verdict(self, verdict: dict[str, Any] | None) -> None:
        """One verdict for all goes into the owner's ledger."""
        self.events += [verdict["event"]] if verdict else []

    # Pointers

    def targets_of(self, colour: Colour) -> Targets:
        """Where a colour's instances listen: as the pointer says, or as the hosts do when it says nothing of them."""
        if self.live and colour in self.live.members:
            return self.live.members[colour]
        return merged([self._hosts.facts[host]["colours"][colour]["targets"] for host in self._hosts.apps])

    def pointer(
        self, release: str, colour: Colour, targets: Targets, *, probation: bool = False, share: int = 100
    ) -> Pointer:
        """The pointer that makes a release live, with the one that is live now beside it."""
        previous = self.live.release if self.live and self.live.release != release else ""
        members = {str(colour): targets}
        if previous:
            members[other(colour)] = self.targets_of(other(colour))
        probation = probation and bool(previous)
        return Pointer(release, colour, previous, probation, members, share=share if probation else 100)

    def disagree(self) -> bool:
        """Tell whether edges were found to serve different things."""
        named = [self._hosts.facts[edge]["pointer"] for edge in self._hosts.edges]
        return len({(p["release"], p["colour"]) if p else ("", "") for p in named}) > 1

    def settle(self, pointer: Pointer, edges: Sequence[str]) -> Outcomes:
        """Have edges serve what the others do, with a proof; what becomes of a failure is for whoever asks."""
        fields = {"verb": "switch", "pointer": pointer.mark(), "within": PROOF_SECONDS, "records": self.records}
        return self._hosts.give("switch", dict.fromkeys(edges, fields))

    @property
    def _within(self) -> float:
        return PROOF_SECONDS if len(self._hosts.edges) == 1 else MIXED_SECONDS

    # Forward

    def switch(self, pointer: Pointer) -> None:
        """Move every edge at once; when one cannot follow, or does not answer in time, all go back."""
        self._hosts.heed()
        hosts, began, old = self._hosts, time.time(), self.live
        fields: dict[str, Any] = {"verb": "switch", "pointer": pointer.mark(), "within": self._within}
        fields |= {"events": self.events, "release": pointer.release, "evidence": self.evidence}
        # Where nothing was live before, there is nothing to differ from.
        together = _Together(hosts.edges if old else (), lambda edges: self.put_back(old, edges))
        outcomes = hosts.give("switch", dict.fromkeys(hosts.edges, fields), told=together.told)
        if failed := together.end() | failures(outcomes):
            self.put_back(old, [host for host in outcomes if not went_back(outcomes[host])])
            raise SwitchyardError(
                f"{sentences(failed)} Every edge that can be reached is back on the old release.", Exit.REVERTED
            )
        self.live, self.events = pointer, []
        done = [outcome for outcome in outcomes.values() if isinstance(outcome, dict)]
        result, owner = hosts.result, outcomes[hosts.owner]
        result.switch_ms = max(outcome["switch_ms"] for outcome in done)
        result.switched_at = min(outcome["switched_at"] for outcome in done) or round(began, 3)
        result.live_ms = round((time.monotonic() - hosts.began) * 1000, 1)
        result.release, result.colour, result.changed = pointer.release, pointer.colour, True
        result.digests = owner["digests"] if isinstance(owner, dict) else {}
        some = f" for {pointer.share} % of the clients" if pointer.is_canary else ""
        hosts.say(f"switch: {pointer.release} is live on {pointer.colour}{some}, proven on {', '.join(hosts.edges)}")

    def verify(self) -> None:
        """Smoke tests through every edge, as users come; when one of them fails, all go back."""
        try:
            self.smoke()
        except SwitchyardError as error:
            if self.live is None or (error.code is Exit.INTERRUPTED and not self._hosts.still_ours()):
                raise
            bad = error.code is Exit.REVERTED
            raise self._taken_back(self.live, error.message, error.details, bad=bad) from error

    def smoke(self) -> None:
        """Have every edge run them; what becomes of a failure is for whoever asks.

        In a round of its own: a switch has to be answered sooner, and after it old workers get no connections.
        """
        self._hosts.give_all("switch", self._hosts.edges, "smoke", pointer=self.mark)

    def promote(self, share: int, who: str = "") -> None:
        """Give the canary its next share on every edge at once; when one cannot follow, all go back.

        `who` asked for it, where it was a person.
        """
        if self.live is None:
            return
        self._heed(self.live)
        hosts, pointer = self._hosts, replace(self.live, share=share)
        fields = {"verb": "promote", "pointer": pointer.mark(), "within": self._within, "asked_by": who}
        if failed := failures(hosts.give("switch", dict.fromkeys(hosts.edges, fields))):
            raise self._taken_back(pointer, sentences(failed), next(iter(failed.values())).details)
        self.live = pointer
        hosts.say(f"canary: {pointer.release} has {share} % of the clients, on {', '.join(hosts.edges)}")

    # Back

    def put_back(self, pointer: Pointer | None, edges: Sequence[str], reason: str = "") -> None:
        """Point edges back without waiting for a proof; those that cannot be told are named."""
        mark = pointer.mark() if pointer else None
        fields = {"verb": "switch", "pointer": mark, "within": 0.0, "reason": reason, "records": self.records}
        for host, error in failures(self._hosts.give("switch", dict.fromkeys(edges, fields))).items():
            self._hosts.say(f"WARNING: {host} could not be put back ({error.message}); 'switchyard status' shows it")
        self.live = pointer

    def _taken_back(self, pointer: Pointer, reason: str, details: str, *, bad: bool = True) -> SwitchyardError:
        """Have every edge leave a release that went live, and is `bad` for that reason; returns the error to raise."""
        old = pointer.back() if pointer.previous else None
        self.put_back(old, self._hosts.edges, reason if bad else "")
        if old is None:
            return SwitchyardError(reason, Exit.REVERTED, details)
        self._hosts.result.release, self._hosts.result.colour = old.release, old.colour
        return SwitchyardError(f"{reason} {old.release} is live again.", Exit.REVERTED, details)

    def _heed(self, pointer: Pointer) -> None:
        """Have every edge leave a release on probation when the operator wants to stop."""
        try:
            self._hosts.heed()
        except SwitchyardError as error:
            raise self._taken_back(pointer, error.message, "", bad=False) from error

    def follow_verdict(self) -> bool:
        """Have every edge leave what one edge's watch took back while nobody led; tells whether that was so."""
        verdict, live, self.unsettled = self.unsettled, self.live, None
        if not verdict or not live or not live.previous:
            return False
        event = verdict["event"]
        if not verdict["goes_back"] or event["release"] != live.release:
            return False
        reason, back = event["reason"], live.back()
        self._hosts.say(f"recover: {event['host']} took {live.release} back ({reason}); {back.release} goes live again")
        self.put_back(back, self._hosts.edges, reason if event["verdict"] == "revert" else "")
        return True

    # Probation

    def watch(self, seconds: float) -> None:
        """Every edge watches for itself, with its own log; the worst verdict of them is that of all."""
        hosts, pointer = self._hosts, self.live
        share = f" at {pointer.share} %" if pointer and pointer.is_canary else ""
        hosts.say(f"watch: {seconds:.0f} s{share} on {', '.join(hosts.edges)}")
        orders = {edge: {"verb": "watch", "pointer": self.mark} for edge in hosts.edges}
        outcomes = hosts.give("watch", orders, told=self._leave_at_once)
        verdicts = [verdict for outcome in outcomes.values() if (verdict := _data(outcome).get("verdict"))]
        self.note_verdict(worst(verdicts))
        hosts.result.seen = seen(verdicts)
        failed = failures(outcomes)
        if failed and not hosts.still_ours():
            raise SwitchyardError(sentences(failed), Exit.INTERRUPTED)
        if pointer:
            self._heed(pointer)
        blind = {host: error for host, error in failed.items() if error.code is Exit.INCONCLUSIVE}
        back = [host for host in failed if host not in blind and (went_back(failed[host]) or self._left(host))]
        if back and pointer:
            back.sort(key=lambda host: not went_back(failed[host]))
            raise self._taken_back(pointer, failed[back[0]].message, failed[back[0]].details)
        if blind and pointer:
            # A canary that nobody can judge is not for more clients.
            after = pointer.back() if pointer.is_canary else replace(pointer, probation=False)
            self.put_back(after, hosts.edges)
            hosts.result.release, hosts.result.colour = after.release, after.colour
            raise SwitchyardError(sentences(failed), Exit.INCONCLUSIVE, next(iter(blind.values())).details)
        for host, error in failed.items():
            hosts.say(f"WARNING: the watch on {host} ended early ({error.message}); it serves {hosts.result.release}")
        if pointer and not pointer.is_canary:
            self.live = replace(pointer, probation=False)

    def await_promotion(self, share: int) -> str:
        """Wait until somebody gives the canary its next share, on whichever edge; returns who did.

        Every edge watches on. One that leaves the release takes all others with it.
        """
        hosts, pointer = self._hosts, self.live
        if pointer is None:
            return ""
        said = beaten = -math.inf
        while True:
            self._heed(pointer)
            if time.monotonic() - beaten >= BEAT_SECONDS:
                beaten = time.monotonic()
                hosts.beat_edges()
            found = hosts.look_at(hosts.edges)
            if any(facts["lease"]["fence"] > hosts.fence for facts in found.values()):
                raise SwitchyardError(f"Another operation took over while {pointer.release} waited.", Exit.INTERRUPTED)
            self._follow_while_waiting(pointer, found)
            for facts in found.values():
                given = facts["promotion"] or {}
                if (given.get("release"), given.get("share")) == (pointer.release, share):
                    return str(given["who"])
            if time.monotonic() - said >= _REMIND_SECONDS:
                said = time.monotonic()
                hosts.say(
                    f"canary: {pointer.release} has held at {pointer.share} %; "
                    f"'scripts/switchyard promote {AppName.parse(hosts.app).environment}' gives it {share} %"
                )
            time.sleep(_ASK_SECONDS)

    def _follow_while_waiting(self, pointer: Pointer, found: dict[str, Facts]) -> None:
        """Raise when an edge has left the canary, or could not judge it; then every edge leaves it."""
        told = [facts["verdict"] for facts in found.values()]
        verdict = worst(one for one in told if one and one["event"]["op"] == self._hosts.op)
        left = [edge for edge, facts in found.items() if facts["pointer"] != pointer.mark()]
        if verdict:
            self.note_verdict(verdict)
            event = verdict["event"]
            reason = f"{event['host']}: {pointer.release} failed as a canary: {event['reason']}."
            if event["verdict"] == "revert":
                raise self._taken_back(pointer, reason, "")
            self.put_back(pointer.back(), self._hosts.edges)
            self._hosts.result.release, self._hosts.result.colour = pointer.previous, other(pointer.colour)
            raise SwitchyardError(reason, Exit.INCONCLUSIVE)
        if left:
            raise self._taken_back(pointer, f"{', '.join(left)} left {pointer.release} without a verdict.", "")

    def _leave_at_once(self, host: str, outcome: Outcome) -> None:
        """Have the other edges leave the release that one of them has just taken back, while they still watch."""
        pointer = self.live
        with self._leaving:
            if pointer is None or not pointer.previous or isinstance(outcome, dict) or not went_back(outcome):
                return
            if others := [edge for edge in self._hosts.edges if edge != host]:
                self.put_back(pointer.back(), others, sentences({host: outcome}))

    def _left(self, edge: str) -> bool:
        """Tell whether an edge whose watch died has left the new release; one that cannot be asked has not."""
        with suppress(SwitchyardError, ConnectionLost):
            found = self._hosts.ask(edge, "facts", self._hosts.app, "--json")["pointer"]
            return not found or found["release"] != self._hosts.result.release
        return False


class _Together:
    """Has edges go back that have moved, when another one has not answered soon after: it may never do."""

    def __init__(self, edges: Sequence[str], put_back: Callable[[list[str]], None]) -> None:
        self._silent, self._put_back = set(edges), put_back
        self._moved: list[str] = []
        self._late: dict[str, SwitchyardError] = {}
        self._lock = threading.Lock()
        self._timer = threading.Timer(ANSWER_SECONDS, self._give_up)

    def told(self, edge: str, outcome: Outcome) -> None:
        """Hear of an edge; one that has moved when it is too late goes back as well."""
        with self._lock:
            self._silent.discard(edge)
            if not isinstance(outcome, dict):
                return
            self._moved.append(edge)
            if self._late:
                self._put_back([edge])
            elif len(self._moved) == 1 and self._silent:
                self._timer.start()

    def end(self) -> dict[str, SwitchyardError]:
        """All have been heard of, or given up; returns those that answered too late."""
        self._timer.cancel()
        with self._lock:
            return self._late

    def _give_up(self) -> None:
        with self._lock:
            for edge in sorted(self._silent):
                self._late[edge] = SwitchyardError(
                    f"{edge} did not answer within {ANSWER_SECONDS:g} s of {self._moved[0]}, and edges may not differ.",
                    Exit.REVERTED,
                )
            if self._late:
                self._put_back(list(self._moved))


def _data(outcome: Outcome) -> dict[str, Any]:
    """What a host told, also when it failed."""
    return dict(outcome.get("data", {}) if isinstance(outcome, dict) else getattr(outcome, "data", {}))


def seen(verdicts: Iterable[dict[str, Any]]) -> dict[str, int]:
    """Requests of the new release and errors among them, of all edges together; empty when none was measured."""
    measured = [verdict["event"] for verdict in verdicts if "requests" in verdict["event"]]
    return {key: sum(int(event[key]) for event in measured) for key in ("requests", "errors") if measured}


def worst(verdicts: Iterable[dict[str, Any] | None]) -> dict[str, Any] | None:
    """The verdict of several edges: a release is as good as the worst of them says."""
    found = [verdict for verdict in verdicts if verdict]
    return min(found, key=lambda one: _FROM_THE_WORST.index(one["event"]["verdict"]), default=None)
