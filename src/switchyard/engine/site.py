"""The text of an application's pointer file: its upstreams, routes and proof server in Nginx's words.

Pure: from a release record, a port plan and the state of the other colour to the text of one file, which goes live
by one rename. The first line carries what the file says as JSON, so that the pointer can be read back.
"""

import json
import re
from dataclasses import asdict, dataclass, field

from switchyard.engine.layout import LOGS, HostConfig
from switchyard.engine.ports import Plan, addresses
from switchyard.engine.records import Record
from switchyard.names import AppName, Colour, other
from switchyard.request import Service

_MARK = "# switchyard "
_PREVIEW = "switchyard_preview"
"""The variable that the role edge sets to `idle` for a request that shows the secret of the preview."""


@dataclass(frozen=True)
class Pointer:
    """What a pointer file says: the live release and colour, and the other colour's role beside it.

    `previous` is the warm release of the other colour (asked for old assets); `probation` puts it into the upstream as
    `backup`, too. `members` has every `ip:port` by colour and service where several hosts serve; empty, they are those
    that this host's port plan has. `rolling` puts both colours into the upstream as equals, while host after host moves
    from the one to the other. `share` is the percentage of clients that a canary has; `previous` has the others.
    """

    release: str
    colour: Colour
    previous: str = ""
    probation: bool = False
    members: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    rolling: bool = False
    share: int = 100

    @property
    def is_canary(self) -> bool:
        """Whether both releases serve, each its share of the clients."""
        return self.share < 100 and bool(self.previous)

    def back(self) -> "Pointer":
        """The pointer that goes back from this one."""
        return Pointer(self.previous, other(self.colour), members=self.members)

    def mark(self) -> dict[str, object]:
        """What is said of it, as JSON has it; what is rarely so is left out."""
        data = asdict(self)
        usual = {"members": {}, "rolling": False, "share": 100}
        return {key: data[key] for key in data if key not in usual or data[key] != usual[key]}


def read(text: str) -> Pointer | None:
    """Read the pointer back from the file's first line; None when this is no pointer file of ours."""
    first, _, _ = text.partition("\n")
    if not first.startswith(_MARK):
        return None
    try:
        return Pointer(**json.loads(first.removeprefix(_MARK)))
    except (ValueError, TypeError):
        return None


@dataclass(frozen=True)
class Site:
    """Everything the pointer file is made from."""

    pointer: Pointer
    live: Record
    previous: Record | None
    plan: Plan
    host: HostConfig

    @property
    def name(self) -> AppName:
        """Application and environment."""
        return self.live.name

    def targets(self, record: Record, service: str, colour: Colour) -> list[str]:
        """The `ip:port` of every instance of a service on every app host."""
        if colour in self.pointer.members:
            return self.pointer.members[colour].get(service, [])
        count = record.instances[service]
        return addresses(self.plan, self.name, service, count, colour, self.host.publish_address)

    def live_targets(self, service: str) -> list[str]:
        """The addresses that may answer: the live colour's, and while hosts move one by one the other's, too."""
        old = self._previous_targets(service) if self.pointer.rolling else []
        return self.targets(self.live, service, self.pointer.colour) + old

    def upstream(self, service: str) -> str:
        """Name of a service's upstream: dots, which no name has, keep two applications' upstreams apart."""
        return f"{self.name}.{service}"

    def render(self) -> str:
        """The pointer file's text."""
        mark = json.dumps(self.pointer.mark())
        parts = [f"{_MARK}{mark}", "# Replaced whole by the engine at every switch; edits do not last.", ""]
        parts += self._log_format()
        for service, spec in self.live.request.services.items():
            parts += self._upstream(service, spec)
        parts += self._sides()
        parts += self._server()
        parts += self._proof_server()
        return "\n".join(parts) + "\n"

    def _log_format(self) -> list[str]:
        lines = []
        known = [(self.live, self.pointer.colour)]
        if self.previous:
            known.append((self.previous, other(self.pointer.colour)))
        # From the address that answered, not from the configuration: workers of before a reload log truthfully.
        for what in ("release", "colour"):
            lines.append(f'map $upstream_addr ${self.name.variable}_{what} {{\n    default "";')
            for record, colour in known:
                value = record.id if what == "release" else colour
                for service in record.request.services:
                    for target in self.targets(record, service, colour):
                        # One address is a hash lookup; a list of tries, ending in the one that answered, is rare.
                        lines.append(f'    "{target}" {value};')
                        lines.append(f'    "~[ ,]{re.escape(target)}$" {value};')
            lines.append("}")
        lines += self._asked()
        numbers = {"msec": "$msec", "status": "$status", "bytes": "$bytes_sent", "seconds": "$request_time"}
        texts = {
            "time": "$time_iso8601",
            "id": "$request_id",
            "client": "$remote_addr",
            "host": "$host",
            "method": f"${self.name.variable}_method",
            "path": f"${self.name.variable}_path",
            "protocol": "$server_protocol",
            "upstream": "$upstream_addr",
            "upstream_status": "$upstream_status",
            "upstream_seconds": "$upstream_response_time",
            "connect_seconds": "$upstream_connect_time",
            "header_seconds": "$upstream_header_time",
            "meant": self._meant(),
            "release": f"${self.name.variable}_release",
            "colour": f"${self.name.variable}_colour",
        }
        # Nginx always has the first four as numbers; the upstream's may be empty or a list, so they are text.
        fields = [f'"{key}":{value}' for key, value in numbers.items()]
        fields += [f'"{key}":"{value}"' for key, value in texts.items()]
        return [*lines, f"log_format {self.name} escape=json '{{{','.join(fields)}}}';", ""]

    def _meant(self) -> str:
        """The release that a request was for, whichever answered: with all of its instances ejected, `backup` does."""
        depends = self.pointer.is_canary or self._has_preview
        return f"${self.name.variable}_meant" if depends else self.pointer.release

    def _asked(self) -> list[str]:
        """What the client asked for, without the query.

        An error page of the edge is a request of its own and hides it; then it is read back from the request line.
        """
        lines = []
        for what, usual, pattern in (("method", "$request_method", "([A-Z]+) "), ("path", "$uri", "[A-Z]+ ([^? ]*)")):
            name = f"{self.name.variable}_{what}"
            lines.append(f'map $request ${name}_sent {{ default ""; "~^{pattern}" $1; }}')
            # Looked up only where an error page may have come in between.
            sent = " ".join(f"{status} ${name}_sent;" for status in (502, 503, 504))
            lines.append(f"map $status ${name} {{ default {usual}; {sent} }}")
        return lines

    def _upstream(self, service: str, spec: Service) -> list[str]:
        targets = self.live_targets(service)
        # One server in a group is never ejected by Nginx anyway, and ejecting it would give all traffic to `backup`.
        limit = "max_fails=0" if len(targets) == 1 else "max_fails=2 fail_timeout=5s"
        lines = [f"upstream {self.upstream(service)} {{", f"    zone {self.upstream(service)} 128k;"]
        lines += [f"    server {target} {limit};" for target in targets]
        if self.pointer.probation:
            lines += [f"    server {target} {limit} backup;" for target in self._previous_targets(service)]
        # Below the application's own keep-alive time, so that this side is the one that closes an idle connection.
        lines += ["    keepalive 64;", f"    keepalive_timeout {self.live.request.keepalive_seconds}s;", "}"]
        if (spec.asset_paths or self.pointer.is_canary) and (previous := self._previous_targets(service)):
            lines += [f"upstream {self.upstream(service)}.previous {{"]
            lines += [f"    server {target} max_fails=0;" for target in previous]
            lines += ["    keepalive 8;", f"    keepalive_timeout {self.live.request.keepalive_seconds}s;", "}"]
        if idle := self._idle_targets(service):
            lines += [f"upstream {self.upstream(service)}.idle {{"]
            lines += [f"    server {target} max_fails=0;" for target in idle]
            lines += ["    keepalive 2;", f"    keepalive_timeout {self.live.request.keepalive_seconds}s;", "}"]
        return [*lines, ""]

    def _sides(self) -> list[str]:
        """Which upstream a request goes to, where that depends on who asks."""
        if self.pointer.is_canary:
            return self._canary()
        if not self._has_preview:
            return []
        lines = []
        for service in self.live.request.services:
            upstream = self.upstream(service)
            idle = f"{upstream}.idle" if self._idle_targets(service) else upstream
            lines.append(f"map ${_PREVIEW} ${self._to(service)} {{ default {upstream}; idle {idle}; }}")
        lines.append(f'map ${_PREVIEW} ${self.name.variable}_meant {{ default "{self.pointer.release}"; idle ""; }}')
        return [*lines, ""]

    @property
    def _has_preview(self) -> bool:
        """Whether the other colour can be looked at. While hosts move one by one, both colours are the users'."""
        members, idle = self.pointer.members, other(self.pointer.colour)
        return self.host.preview and not self.pointer.rolling and (not members or idle in members)

    def _idle_targets(self, service: str) -> list[str]:
        """Where the other colour is, whatever runs there; a canary's other colour is the users' as well."""
        if not self._has_preview or self.pointer.is_canary:
            return []
        return self.targets(self.live, service, other(self.pointer.colour))

    def _canary(self) -> list[str]:
        """Which clients the new release has: the same ones at every step, and more of them."""
        canary, name = self.live.request.canary, self.name.variable
        kind, _, key = canary.key.partition(":")
        by_key = {"cookie": f"$cookie_{key}", "header": f"$http_{key.lower().replace('-', '_')}"}.get(kind, "")
        lines = []
        if by_key:
            # Who does not say who it is, is told apart by its address.
            lines.append(f'map {by_key} ${name}_client {{ default {by_key}; "" $remote_addr; }}')
        client = f"${name}_client" if by_key else "$remote_addr"
        # `*` and no 100 %: before Nginx 1.31.2 an explicit 100 % could leave a client without a side. It knows no 0 %.
        new = f"{self.pointer.share}% new; " if self.pointer.share else ""
        lines.append(f"split_clients {client} ${name}_draw {{ {new}* old; }}")
        tester = canary.tester.lower().replace("-", "_")
        chosen = f'"$http_{tester}$cookie_{tester}"' if tester else '""'
        lines.append(f"map {chosen} ${name}_choice {{ default ${name}_draw; always new; never old; }}")
        preview = f"${_PREVIEW}" if self.host.preview else '""'
        lines.append(f"map {preview} ${name}_side {{ default ${name}_choice; idle new; }}")
        for service in self.live.request.services:
            upstream = self.upstream(service)
            old = f"{upstream}.previous" if self._previous_targets(service) else upstream
            lines.append(f"map ${name}_side ${self._to(service)} {{ default {upstream}; old {old}; }}")
        new, previous = self.pointer.release, self.pointer.previous
        lines.append(f'map ${name}_side ${name}_meant {{ default "{new}"; old "{previous}"; }}')
        return [*lines, ""]

    def _to(self, service: str) -> str:
        return f"{self.name.variable}_to_{service.replace('-', '_')}"

    def _previous_targets(self, service: str) -> list[str]:
        if self.previous is None or service not in self.previous.request.services:
            return []
        return self.targets(self.previous, service, other(self.pointer.colour))

    def _server(self) -> list[str]:
        lines = ["server {", f"    include sites/{self.name}.conf;"]
        # Written once a second: a system call for each line costs a third of the throughput.
        lines.append(f"    access_log {LOGS}/edge/{self.name}.jsonl {self.name} buffer=64k flush=1s;")
        routes = [(path, name, False) for name, s in self.live.request.services.items() for path in s.routes]
        assets = [(path, name, True) for name, s in self.live.request.services.items() for path in s.asset_paths]
        asset_paths = {path for path, _, _ in assets}
        for path, service, is_asset in sorted([r for r in routes if r[0] not in asset_paths] + assets):
            lines += self._location(path, service, is_asset)
        for service in sorted({service for _, service, _ in assets if self._previous_targets(service)}):
            lines += self._previous_location(service)
        if assets:
            lines += [f"    location @{self.name}-gone {{", "        return 404;", "    }"]
        return [*lines, "}", ""]

    def _location(self, path: str, service: str, is_asset: bool) -> list[str]:
        spec = self.live.request.services[service]
        match = path if path.endswith("/") else f"= {path}"
        proxy = ["        include proxy.conf;", f"        proxy_read_timeout {spec.response_timeout}s;"]
        fallback = is_asset and self._previous_targets(service)
        lines = [f"    location {match} {{", *proxy]
        if fallback:
            # A page loaded before the switch still asks for its hashed assets; only the other colour has them.
            lines += ["        proxy_intercept_errors on;", "        recursive_error_pages on;"]
            lines.append(f"        error_page 404 = @{self.name}-{service}-previous;")
        depends = self.pointer.is_canary or self._has_preview
        upstream = f"${self._to(service)}" if depends else self.upstream(service)
        return [*lines, f"        proxy_pass http://{upstream};", "    }"]

    def _previous_location(self, service: str) -> list[str]:
        timeout = self.live.request.services[service].response_timeout
        return [
            f"    location @{self.name}-{service}-previous {{",
            "        include proxy.conf;",
            f"        proxy_read_timeout {timeout}s;",
            "        proxy_intercept_errors on;",
            "        recursive_error_pages on;",
            f"        error_page 502 503 504 = @{self.name}-gone;",
            f"        proxy_pass http://{self.upstream(service)}.previous;",
            "    }",
        ]

    def _proof_server(self) -> list[str]:
        lines = ["server {", f"    listen 127.0.0.1:{self.host.status_port};"]
        lines += [f"    server_name {self.name}.proof;", "    access_log off;"]
        for service, spec in self.live.request.services.items():
            # The health page proves a switch; below `/via/`, smoke tests ask for whatever users would.
            timeout = f"        proxy_read_timeout {spec.response_timeout}s;"
            for match, target in ((f"= /{service}", spec.health.path), (f"/via/{service}/", "/")):
                lines += [f"    location {match} {{", "        include proxy.conf;", timeout]
                lines.append(f"        add_header X-Switchyard-Release {self.pointer.release} always;")
                lines.append("        add_header X-Switchyard-Upstream $upstream_addr always;")
                lines += [f"        proxy_pass http://{self.upstream(service)}{target};", "    }"]
        return [*lines, "}"]
