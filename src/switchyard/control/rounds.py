"""The hosts of one operation, and orders to them in rounds: within a round all hosts work side by side."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from switchyard.control.interrupt import Interrupt
from switchyard.control.operations import Say, ask, operate
from switchyard.control.transport import ConnectionLost, Member
from switchyard.engine.operation import Result
from switchyard.errors import Exit, SwitchyardError
from switchyard.names import Colour, new_operation

PATIENCE_SECONDS = 30.0
"""How long a host may be away in the middle of a release before the release goes on without waiting for it."""
BEAT_SECONDS = 15.0
"""How often the lease, which ends after 60 s, is prolonged while other hosts work."""

Facts = dict[str, Any]
Outcome = dict[str, Any] | SwitchyardError
Outcomes = dict[str, Outcome]
Targets = dict[str, list[str]]
"""Every `ip:port` of a service."""


class Hosts:
    """Who takes part in an operation, what each was found to have, and the lease that the first edge keeps."""

    def __init__(self, members: Sequence[Member], app: str, say: Say, excused: Collection[str] = ()) -> None:
        named = {member.name: member for member in sorted(members, key=lambda member: member.name)}
        self._members = {name: member for name, member in named.items() if member.groups & {"app", "edge"}}
        self.databases = {name: named[name] for name in named.keys() - self._members if "db" in named[name].groups}
        """Hosts of the database alone: a deploy asks them, and going back does not need them."""
        self.app, self._excused = app, set(excused)
        self._speaking = threading.Lock()
        self._say = say
        self.op, self.kind, self.who, self.fence = new_operation(), "", "", 0
        self.facts: dict[str, Facts] = {}
        self.away: dict[str, str] = {}
        """Hosts that take no part, with the reason."""
        self.began = time.monotonic()
        self.result = Result(self.op, "")
        self._heart: _Heart | None = None
        self.interrupted = False
        """Whether the operator's wish to stop was followed."""
        self._interrupt = Interrupt(
            lambda: self.say("interrupted: hosts end what they are at, then all is taken back; Ctrl-C again leaves it")
        )

    def say(self, line: str) -> None:
        """Tell the operator; hosts speak side by side."""
        with self._speaking:
            self._say(line)

    # Who takes part

    def named(self, group: str) -> list[str]:
        """The hosts of a group that take part, by name."""
        return [name for name, member in self._members.items() if group in member.groups and name not in self.away]

    @property
    def apps(self) -> list[str]:
        """The application hosts."""
        return self.named("app")

    @property
    def edges(self) -> list[str]:
        """The edges."""
        return self.named("edge")

    @property
    def owner(self) -> str:
        """The first edge that takes part keeps lease and ledger; when none does any more, the first one is told."""
        return (self.edges or [name for name, member in self._members.items() if "edge" in member.groups])[0]

    @property
    def left_out(self) -> list[str]:
        """Hosts of application and edge that take no part."""
        return [name for name in self.away if name in self._members]

    def count(self, group: str) -> int:
        """How many hosts a group has, reachable or not."""
        return sum(group in member.groups for member in self._members.values())

    # Looking

    def open(self, kind: str, who: str, *, engine: str = "", databases: bool = False) -> None:
        """Ask every host what is so; raises `SwitchyardError` when one that has to take part cannot.

        `engine` is the one that the checkout has; with `databases`, hosts of the database alone take part, too.
        """
        if databases:
            self._members |= self.databases
        self.kind, self.who, self.result.kind = kind, who, kind
        try:
            self.look()
        except KeyboardInterrupt:
            raise KeyboardInterrupt("Interrupted before anything was begun.") from None
        missing = [name for name in self.away if name not in self._excused]
        if missing:
            named = ", ".join(f"{name} ({self.away[name]})" for name in missing)
            raise SwitchyardError(
                f"{named} cannot take part; nothing was changed. '-e allow_unreachable={','.join(sorted(self.away))}'"
                " goes on without; the next deploy brings such a host up to date.",
                Exit.UNREACHABLE,
            )
        for group in ("app", "edge"):
            if not self.named(group):
                raise SwitchyardError(f"No host of the group {group} can take part.", Exit.UNREACHABLE)
        for name, facts in self.facts.items():
            self._require_provisioned(name, facts, engine)

    def look(self) -> None:
        """Ask every host what is so; those that cannot be reached, or cannot tell, are noted as away.

        A host without its Docker holds the others up no longer than one without SSH.
        """
        for name, answer in self._ask_all([*self._members], "facts", self.app, "--json").items():
            if isinstance(answer, dict):
                self.facts[name] = answer
            else:
                self.away[name] = str(answer).rstrip(".")

    def look_at(self, names: Sequence[str]) -> dict[str, Facts]:
        """What is so on those of these hosts that answer."""
        answers = self._ask_all(names, "facts", self.app, "--json")
        return {name: answer for name, answer in answers.items() if isinstance(answer, dict)}

    def _ask_all(self, names: Sequence[str], *words: str) -> dict[str, Facts | SwitchyardError | ConnectionLost]:
        def one(name: str) -> Facts | SwitchyardError | ConnectionLost:
            try:
                return self.ask(name, *words)
            except (SwitchyardError, ConnectionLost) as error:
                return error

        with ThreadPoolExecutor(max_workers=max(1, len(names))) as pool:
            return dict(zip(names, pool.map(one, names), strict=True))

    def _require_provisioned(self, name: str, facts: Facts, engine: str) -> None:
        if engine and facts["engine"] != engine:
            raise SwitchyardError(
                f"{name} has {facts['engine']}, the checkout you deploy from has {engine}: run provision.yml first.",
                Exit.ENGINE_MISMATCH,
            )
        missing = self._members[name].groups & {"app", "edge"} - set(facts["groups"])
        if missing:
            raise SwitchyardError(
                f"{name} does not know yet that it is in the group {min(missing)}: run provision.yml first.",
                Exit.PREFLIGHT,
            )

    def ask(self, host: str, *words: str) -> dict[str, Any]:
        """Run a verb that only answers; raises `SwitchyardError` or `ConnectionLost`."""
        return ask(self._members[host].transport, words)

    def has(self, host: str, release: str, colour: Colour) -> bool:
        """Tell whether a host was found to run this release in this colour."""
        found = self.facts[host]["colours"][colour]
        return bool(found["release"] == release and found["running"])

    # Rounds

    def give(
        self,
        phase: str,
        orders: Mapping[str, dict[str, Any]],
        patience: float = PATIENCE_SECONDS,
        told: Callable[[str, Outcome], None] | None = None,
    ) -> Outcomes:
        """Give each host its order at the same time, and wait for all of them; `told` hears of each as it ends."""
        if self._heart:
            self._heart.phase(phase)
        started = time.monotonic()

        def one(host: str) -> Outcome:
            outcome = self._order(host, orders[host], patience)
            if told:
                told(host, outcome)
            return outcome

        with ThreadPoolExecutor(max_workers=max(1, len(orders))) as pool:
            outcomes = dict(zip(orders, pool.map(one, orders), strict=True))
        seconds = self.result.phases.get(phase, 0.0) + time.monotonic() - started
        self.result.phases[phase] = round(seconds, 3)
        self.result.data["rounds"] = self.result.data.get("rounds", 0) + 1
        return outcomes

    def give_all(self, phase: str, hosts: Sequence[str], verb: str, **fields: Any) -> dict[str, dict[str, Any]]:
        """A round in which every host gets the same order and must succeed; none begins after an interrupt."""
        self.heed()
        return require(self.give(phase, {host: {"verb": verb} | fields for host in hosts}))

    def _order(self, host: str, order: dict[str, Any], patience: float) -> Outcome:
        common = {"app": self.app, "op": self.op, "kind": self.kind, "who": self.who, "fence": self.fence}
        common |= {"owner": bool(self.edges) and host == self.owner}
        transport, text = self._members[host].transport, json.dumps(common | order)
        try:
            result = operate(
                transport, ["member"], text, self.app, lambda line: self.say(f"{host}: {line}"), patience=patience,
                # A watch may last for hours, and an edge that watches can be told to leave. Other orders end soon.
                left=lambda: order["verb"] == "watch" and self._interrupt.wanted,
            )  # fmt: skip
        except SwitchyardError as error:
            return error
        except ConnectionLost as error:
            return SwitchyardError(f"{host} cannot be reached: {error}.", Exit.UNREACHABLE)
        if result["code"] == 0:
            return result
        return HostFailed(f"{host}: {result['message']}", Exit(result["code"]), result["details"], result["data"])

    # Ctrl-C

    def interruptible(self) -> contextlib.AbstractContextManager[None]:
        """Let Ctrl-C be a wish that `heed` follows."""
        return self._interrupt.awaited()

    def heed(self) -> None:
        """Raise `SwitchyardError`, once, when the operator wants to stop: what comes of that is not stopped again."""
        if self._interrupt.wanted and not self.interrupted:
            self.interrupted = True
            raise SwitchyardError("Interrupted by the operator.", Exit.INTERRUPTED)

    # The lease

    @contextlib.contextmanager
    def alive(self) -> Iterator[None]:
        """Prolong the lease while hosts work."""
        self._heart = _Heart(self._beat)
        try:
            yield
        finally:
            self._heart.stop()

    def still_ours(self) -> bool:
        """Tell whether nobody has taken the lease over, as far as can be known."""
        with contextlib.suppress(SwitchyardError, ConnectionLost):
            return bool(self.ask(self.owner, "beat", self.app, str(self.fence), "watch", "--json")["held"])
        return True

    def beat_edges(self) -> None:
        """Tell every edge that it is led, while none of them has an order."""
        self._ask_all(self.edges, "beat", self.app, str(self.fence), "watch", "--json")

    def _beat(self, phase: str) -> None:
        with contextlib.suppress(SwitchyardError, ConnectionLost):
            self.ask(self.owner, "beat", self.app, str(self.fence), phase, "--json")


class _Heart:
    """Prolongs a lease at once when the phase changes, and every so often in between."""

    def __init__(self, beat: Callable[[str], None]) -> None:
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


# What came of a round


class HostFailed(SwitchyardError):
    """A host that ended its part with an error; `data` is what it told all the same."""

    def __init__(self, message: str, code: Exit, details: str, data: dict[str, Any]) -> None:
        super().__init__(message, code, details)
        self.data = data


def failures(outcomes: Outcomes) -> dict[str, SwitchyardError]:
    """The hosts that failed."""
    return {host: outcome for host, outcome in outcomes.items() if isinstance(outcome, SwitchyardError)}


def require(outcomes: Outcomes) -> dict[str, dict[str, Any]]:
    """Every host's result; raises with the sentences of all that failed."""
    if failed := failures(outcomes):
        first = next(iter(failed.values()))
        raise SwitchyardError(sentences(failed), first.code, first.details)
    return {host: outcome for host, outcome in outcomes.items() if isinstance(outcome, dict)}


def sentences(failed: Mapping[str, SwitchyardError]) -> str:
    """What all of them say, each thing once."""
    return " ".join(dict.fromkeys(error.message for error in failed.values()))


def went_back(outcome: Outcome) -> bool:
    """Tell whether a host says that it has taken the release back."""
    return isinstance(outcome, SwitchyardError) and outcome.code is Exit.REVERTED


def merged(parts: Sequence[Mapping[str, Sequence[str]]]) -> Targets:
    """One list of `ip:port`s per service, host after host."""
    result: Targets = {}
    for part in parts:
        for service, targets in part.items():
            result.setdefault(service, []).extend(targets)
    return result
