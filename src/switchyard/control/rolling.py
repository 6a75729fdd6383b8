"""A release that moves host after host, for hosts that have no room for both colours: drain, replace, try, put back."""

from collections.abc import Mapping
from dataclasses import replace

from switchyard.control.edges import PROOF_SECONDS, Edges
from switchyard.control.rounds import Hosts, Targets, merged
from switchyard.engine.site import Pointer
from switchyard.errors import Exit, SwitchyardError
from switchyard.names import Colour, other


class Rolling:
    """Moves the application hosts of an environment one by one, or back."""

    def __init__(self, hosts: Hosts, edges: Edges) -> None:
        self._hosts, self._edges = hosts, edges

    def roll(self, release: str, new: Colour, batch: int, drain: float) -> None:
        """Move all hosts, `batch` of them at a time; `drain` is in seconds.

        Raises `SwitchyardError`: refused, or every host is back on the old release.
        """
        hosts, edges, old = self._hosts, self._edges, self._edges.live
        if old is None or batch >= len(hosts.apps):
            raise SwitchyardError(
                f"app_rolling is {batch} of {len(hosts.apps)} application hosts: some have to serve meanwhile.",
                Exit.PREFLIGHT,
            )
        before = {host: self._serving(host, old) for host in hosts.apps}
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
        except SwitchyardError as error:
            hosts.say(f"FAILED: {error.message}")
            edges.live = replace(old, members={old.colour: merged([*before.values()])})
            self.unroll(old.release, old.colour)
            raise SwitchyardError(
                f"{error.message} Every host is back on {old.release}.", Exit.REVERTED, error.details
            ) from error
        hosts.result.changed, hosts.result.colour = True, new

    def unroll(self, release: str, colour: Colour) -> None:
        """Every host back to the release that was live before hosts were moved one by one."""
        hosts = self._hosts
        hosts.look()
        still = {
            host: hosts.facts[host]["colours"][colour]["targets"]
            for host in hosts.apps
            if hosts.has(host, release, colour)
        }
        for moved in ([], [host for host in hosts.apps if host not in still]):
            if moved:
                fields = {"release": release, "colour": colour, "stop": other(colour), "records": self._edges.records}
                started = hosts.give_all("start", moved, "start", **fields)
                still |= {host: started[host]["data"]["targets"] for host in moved}
            if still:
                served = merged([still[host] for host in hosts.apps if host in still])
                self._edges.put_back(Pointer(release, colour, members={colour: served}), hosts.edges)

    def _serving(self, host: str, live: Pointer) -> Targets:
        if not self._hosts.has(host, live.release, live.colour):
            return {}
        targets: Targets = self._hosts.facts[host]["colours"][live.colour]["targets"]
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
