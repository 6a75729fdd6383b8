"""A release that moves host after host, for hosts that have no room for both colours: drain, replace, try, put back."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from switchyard.control.edges import PROOF_SECONDS, Edges
from switchyard.control.rounds import Hosts, Targets, failures, merged
from switchyard.engine.site import Pointer
from switchyard.errors import Exit, SwitchyardError
from switchyard.names import Colour, other


class Rolling:
    """Moves the application hosts of an environment one by one, or back."""

    def __init__(self, hosts: Hosts, edges: Edges) -> None:
        self._hosts, self._edges = hosts, edges

    def roll(self, release: str, new: Colour, batch: int, drain: float, *, smoke: bool = False) -> None:
        """Move all hosts, `batch` of them at a time; `drain` is in seconds. With `smoke`, the edges try it at the end.

        Raises `SwitchyardError`: refused, or every host is back on the old release.
        """
        hosts, old = self._hosts, self._edges.live
        if old is None or batch >= len(hosts.apps):
            raise SwitchyardError(
                f"app_rolling is {batch} of {len(hosts.apps)} application hosts: some have to serve meanwhile.",
                Exit.PREFLIGHT,
            )
        before = {host: self._serving(host, old.release, old.colour) for host in hosts.apps}
        # A host that serves nothing yet is no loss while it is prepared.
        queue = sorted(hosts.apps, key=lambda host: bool(before[host]))
        after: dict[str, Targets] = {}
        try:
            for first in range(0, len(queue), batch):
                moving = queue[first : first + batch]
                rest = {host: before[host] for host in queue[first + batch :]}
                hosts.say(f"rolling: {', '.join(moving)}: drained, replaced, tried, put back")
                self._point(release, new, after, rest)
                leaving = [target for host in moving for targets in before[host].values() for target in targets]
                hosts.give_all("start", hosts.edges, "drain", targets=leaving, within=drain)
                here = Pointer(release, new).mark()
                started = hosts.give_all(
                    "start", moving, "start", release=release, colour=new, stop=old.colour, pointer=here
                )
                after |= {host: started[host]["data"]["targets"] for host in moving}
                self._point(release, new, after, rest, final=not rest)
            if smoke:
                self._edges.smoke()
        except SwitchyardError as error:
            hosts.say(f"FAILED: {error.message}")
            live = self._edges.live
            everywhere = live is not None and live.release == release and not live.rolling
            if everywhere:
                # Some have to leave before any can go back: those that were moved last.
                self._use({host: after[host] for host in after if host not in moving}, release, new)
            bad = everywhere and error.code is Exit.REVERTED
            back = self.unroll(old.release, old.colour, drain, error.message if bad else "")
            if everywhere and back:
                hosts.result.release, hosts.result.colour = old.release, old.colour
            raise _gave_up(error, back, hosts.count("app"), old.release, release) from error
        hosts.result.changed, hosts.result.colour = True, new

    def unroll(self, release: str, colour: Colour, drain: float, reason: str = "") -> list[str]:
        """Every host back to the release that was live before hosts were moved one by one; returns those that are.

        Hosts that the edges use come last and are drained first: until another one serves, they are all there is. When
        no other one can, they stay as they are. `reason` is why a release that had gone live on all of them is bad.
        """
        hosts, edges = self._hosts, self._edges
        hosts.look()
        if not hosts.edges:
            # Nobody can be told to leave what serves.
            return []
        if edges.live and edges.disagree():
            # One edge may be a step further, and use what shall go back first.
            edges.put_back(edges.live, hosts.edges)
        used = [host for host in hosts.apps if self._is_used(host)]
        # What its host's own recovery has just started is not healthy yet: it gets an order as the others do.
        still = {host: serving for host in used if (serving := self._serving(host, release, colour))}
        self._use(still, release, colour)
        for moved in ([host for host in hosts.apps if host not in used], [host for host in used if host not in still]):
            if moved and (still or moved[0] not in used):
                still |= self._return(moved, release, colour, drain)
                self._use(still, release, colour, reason)
        live = edges.live
        if not still and live and live.rolling:
            forward = replace(live, previous="", members={live.colour: live.members[live.colour]}, rolling=False)
            edges.put_back(forward, hosts.edges)
        return [host for host in hosts.apps if host in still]

    def _return(self, moved: Sequence[str], release: str, colour: Colour, drain: float) -> dict[str, Targets]:
        """Have hosts run the old release again; returns where those listen that do, and names the others."""
        hosts, new = self._hosts, other(colour)
        leaving = [target for host in moved for target in _flat(hosts.facts[host]["colours"][new]["targets"])]
        hosts.give("start", {edge: {"verb": "drain", "targets": leaving, "within": drain} for edge in hosts.edges})
        order = {"verb": "start", "release": release, "colour": colour, "stop": new, "records": self._edges.records}
        order["pointer"] = Pointer(release, colour).mark()
        started = hosts.give("start", dict.fromkeys(moved, order))
        for host, error in failures(started).items():
            hosts.say(
                f"WARNING: {host} is not back on {release} ({error.message}); the next deploy brings it up to date"
            )
        return {host: done["data"]["targets"] for host, done in started.items() if isinstance(done, dict)}

    def _use(self, serving: Mapping[str, Targets], release: str, colour: Colour, reason: str = "") -> None:
        """Point the edges at these hosts alone."""
        if served := merged([serving[host] for host in self._hosts.apps if host in serving]):
            self._edges.put_back(Pointer(release, colour, members={colour: served}), self._hosts.edges, reason)

    def _is_used(self, host: str) -> bool:
        """Tell whether the edges send users to what runs on a host."""
        members = self._edges.live.members if self._edges.live else {}
        served = {target for targets in members.values() for target in _flat(targets)}
        colours = self._hosts.facts[host]["colours"].values()
        return any(found["running"] and served.intersection(_flat(found["targets"])) for found in colours)

    def _serving(self, host: str, release: str, colour: Colour) -> Targets:
        if not self._hosts.has(host, release, colour):
            return {}
        targets: Targets = self._hosts.facts[host]["colours"][colour]["targets"]
        return targets

    def _point(
        self,
        release: str,
        new: Colour,
        after: Mapping[str, Targets],
        rest: Mapping[str, Targets],
        *,
        final: bool = False,
    ) -> None:
        """Let the edges use the hosts that were moved and those that still wait, and no other."""
        hosts, edges, old = self._hosts, self._edges, self._edges.live
        if old is None:
            return
        was = old.release if not old.rolling else old.previous
        members: dict[str, Targets] = {
            colour: merged([some[host] for host in hosts.apps if host in some])
            for colour, some in ((new, after), (other(new), rest))
        }
        if final:
            pointer = Pointer(release, new, members={new: members[new]})
        elif after:
            pointer = Pointer(release, new, was, members=members, rolling=True)
        else:
            pointer = Pointer(was, other(new), members=members)
        done = hosts.give_all(
            "switch", hosts.edges, "switch", pointer=pointer.mark(), within=PROOF_SECONDS, quiet=not final,
            events=edges.events, records=edges.records,
        )  # fmt: skip
        edges.live = pointer
        if final:
            hosts.result.digests = done[hosts.owner]["digests"]
            hosts.result.switched_at = max(outcome["switched_at"] for outcome in done.values())


def _flat(targets: Targets) -> list[str]:
    return [target for some in targets.values() for target in some]


def _gave_up(error: SwitchyardError, back: Sequence[str], count: int, old: str, new: str) -> SwitchyardError:
    """What a release that failed on one host ends with; `back` are those of the `count` hosts that went back."""
    if not back:
        return SwitchyardError(
            f"{error.message} No host could go back to {old}, so {new} goes on serving where it does.",
            Exit.FAILED,
            error.details,
        )
    who = "Every host is" if len(back) == count else f"Without the others, {', '.join(back)} went"
    return SwitchyardError(f"{error.message} {who} back on {old}.", Exit.REVERTED, error.details)
