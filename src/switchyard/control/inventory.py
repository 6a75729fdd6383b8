"""Judges the inventory's variables by the roles' argument specs, before any host is touched. Pure.

Ansible's own validation converts what it can, stops at the first level of free-form dictionaries and knows nothing of
names that no role has. Here every name is known or refused with the nearest one, and a number is not a text.
"""

import difflib
import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from switchyard.control import access, backup, standby
from switchyard.control.application import build_request
from switchyard.errors import SwitchyardError
from switchyard.names import nearest
from switchyard.notify.config import check_heartbeat
from switchyard.request import parse
from switchyard.watch import limits

ROLES = (
    "host",
    "ssh",
    "firewall",
    "updates",
    "docker",
    "engine",
    "notify",
    "backup",
    "postgres",
    "edge",
    "app",
    "deploy_access",
    "monitoring",
)
ROLES_OF_GROUP = {
    "app": ("app", "deploy_access"),
    "edge": ("edge",),
    "db": ("backup", "postgres"),
    "replica": ("backup", "postgres"),
}
ROLES_OF_ALL = ("host", "ssh", "firewall", "updates", "docker", "engine", "notify", "monitoring")

SELECTORS = {
    "env": "",
    "version": "",
    "restart": "edge, postgres, pooler, docker",
    "migration": "resume, resolve",
    "allow_unreachable": "",
    "image_override": "",
    "who": "",
    "run_url": "",
    "type": "incr, full",
    "to": "",
    "from": "",
    "into": "scratch, live",
    "repository": "",
    "confirm": "",
    "watch": "detached",
}
"""What is given with -e, with the words that are allowed."""

# Dictionaries whose keys are names of the user's choice; each value is described by an entry point of its role's specs.
_ENTRIES = {"app_services": ("app", "service")}

# What needs no quoting in the file that PgBouncer reads its password from.
_PLAIN = re.compile(r"[A-Za-z0-9._~+/=-]+")

Options = Mapping[str, Any]
Where = Callable[[object], str]
"""Tells where in the inventory a value was written, as `FILE:LINE: `, or nothing."""


@dataclass(frozen=True)
class Specs:
    """The options of every role, and of the entry points that describe parts of them."""

    options: dict[str, Options]
    entries: dict[str, Options]
    required: dict[str, tuple[str, ...]]
    """Role to the names that must be given."""

    @property
    def prefixes(self) -> tuple[str, ...]:
        """What the names of role variables begin with."""
        return tuple(f"{role}_" for role in ROLES)


def load(folder: Path) -> Specs:
    """Read the argument specs of all roles below `folder`."""
    documents = {
        role: yaml.safe_load((folder / role / "meta" / "argument_specs.yml").read_text())["argument_specs"]
        for role in ROLES
    }
    options = {name: option for role in ROLES for name, option in documents[role]["main"]["options"].items()}
    required = {
        role: tuple(n for n, option in documents[role]["main"]["options"].items() if option.get("required"))
        for role in ROLES
    }
    entries = {name: documents[role][entry]["options"] for name, (role, entry) in _ENTRIES.items()}
    return Specs(options, entries, required)


def check_names(specs: Specs, names: Iterable[str], where: Callable[[str], str]) -> list[str]:
    """Refuse names that look like a role's variable and are none."""
    return [
        f"{where(name)}unknown variable '{name}'{_suggest(name, specs.options)}"
        for name in sorted(names)
        if name.startswith(specs.prefixes) and name not in specs.options
    ]


def check_extra(specs: Specs, extra: Mapping[str, Any]) -> list[str]:
    """Refuse what was given with -e under a name that is nearly one of ours, or with a word that means nothing."""
    problems = []
    for name, value in extra.items():
        if name in SELECTORS:
            problems += _check_selector(name, value)
        elif name not in specs.options and not name.startswith((*specs.prefixes, "vault_")):
            close = difflib.get_close_matches(name.lower(), [*SELECTORS, *specs.options], n=1, cutoff=0.72)
            if close:
                problems.append(f"-e {name}=...: unknown variable '{name}', did you mean '{close[0]}'?")
    return problems


def _check_selector(name: str, value: object) -> list[str]:
    if not isinstance(value, str):
        return [f"-e {name}: {value!r} is no text; write it in quotes."]
    known = SELECTORS[name].split(", ") if SELECTORS[name] else []
    given = value.split(",") if name == "restart" else [value]
    return [f"-e {name}={value}: use one of {SELECTORS[name]}." for word in given if known and word not in known][:1]


def check_values(specs: Specs, values: Mapping[str, Any], where: Where) -> list[str]:
    """Check types, choices and nested keys of the variables that were given."""
    problems: list[str] = []
    for name, value in values.items():
        option = specs.options[name]
        given = _from_words(option, value)
        problems += _check(name, option, given, where, where(value))
        entry = specs.entries.get(name)
        if entry is not None and isinstance(value, Mapping):
            for key, item in value.items():
                problems += _check_dict(f"{name}.{key}", entry, item, where, where(item) or where(value))
    return problems


def from_words(specs: Specs, values: Mapping[str, Any]) -> dict[str, Any]:
    """The same values, with the numbers and truths that were given as words with -e."""
    return {name: _from_words(specs.options[name], value) for name, value in values.items()}


def check_required(specs: Specs, groups: Iterable[str], known: Iterable[str]) -> list[str]:
    """Name what the host's roles need and nobody gave."""
    roles = [*ROLES_OF_ALL, *(role for group in groups for role in ROLES_OF_GROUP.get(group, ()))]
    missing = [name for role in roles for name in specs.required[role] if name not in known]
    return [f"'{name}' is not set: {' '.join(specs.options[name]['description'].split())}" for name in missing]


@dataclass(frozen=True)
class Topology:
    """Which hosts of the environment are what, and which of them is being checked."""

    host: str
    groups: Mapping[str, Iterable[str]]

    def of(self, group: str) -> set[str]:
        """The hosts of a group."""
        return set(self.groups.get(group, ()))


def check_together(values: Mapping[str, Any], hosts: Topology, extra: Mapping[str, Any]) -> list[str]:
    """Check what no single variable shows. `values` has every variable."""
    problems = []
    if not values["host_deploy_authorized_keys"]:
        problems.append("host_deploy_authorized_keys is empty: name at least one public key, or nobody can deploy.")
    if values.get("ansible_user") == values["host_deploy_user"]:
        problems.append(
            f"host_deploy_user is '{values['host_deploy_user']}', who is ansible_user, too: it would lose its password "
            "and its keys. Releases need a user of their own."
        )
    if values["engine_port_first"] >= values["engine_port_last"]:
        problems.append("engine_port_last has to be above engine_port_first.")
    problems += _check_firewall(values)
    if hosts.host in hosts.of("edge"):
        problems += _check_edge(values)
    if hosts.host in hosts.of("app"):
        problems += _check_fleet(values, hosts)
    if hosts.host in hosts.of("db") | hosts.of("replica"):
        problems += _check_backup(values, replica=hosts.host in hosts.of("replica"))
    problems += _check_replica(values, hosts)
    problems += _check_database(values)
    problems += _check_monitoring(values, hosts)
    problems += _check_watch(values)
    try:
        access.check_shell_keys(values["host_deploy_authorized_keys"])
        access.lines(values["deploy_access_keys"], values["app_name"])
        access.check(values["deploy_access_keys"], values["host_deploy_authorized_keys"])
        version, decision, override = extra.get("version"), extra.get("migration", ""), extra.get("image_override", "")
        request = build_request(values, compose="services: {}", version=version, decision=decision, override=override)
        parse(request)
    except SwitchyardError as error:
        problems.append(error.message)
    else:
        users = [name for name, service in values["app_services"].items() if service.get("database")]
        if users and not hosts.of("db"):
            problems.append(
                f"app_services.{users[0]}.database is true, and no host of this environment is in the group db: put "
                "one there, or remove the key."
            )
    return problems


def _check_watch(values: Mapping[str, Any]) -> list[str]:
    try:
        limits.parse(dict(values["engine_watch"] or {}))
        check_heartbeat(str(values["notify_heartbeat_url"]), float(values["notify_heartbeat_seconds"]))
    except SwitchyardError as error:
        return [error.message]
    return []


def _check_fleet(values: Mapping[str, Any], hosts: Topology) -> list[str]:
    """What an application host needs when it is not alone."""
    problems = []
    address = str(values["app_publish_address"])
    if hosts.of("edge") - {hosts.host} and not _is_of_one_host(address):
        problems.append(
            f"app_publish_address is '{address}' and an edge is on another host: give {hosts.host} its private "
            "address, at which the edges reach it."
        )
    services = values["app_services"].items()
    users = [name for name, service in services if service.get("database")]
    elsewhere = hosts.of("db") and hosts.host not in hosts.of("db")
    if users and elsewhere and not values["app_database_address"]:
        problems.append(
            f"app_services.{users[0]}.database is true and the database is on another host: set app_database_address "
            "to the private address in its postgres_publish_address."
        )
    if len(hosts.of("app")) > 1:
        local = [
            f"app_services.{name}.volumes.{volume}"
            for name, service in services
            for volume in service.get("volumes", {})
            if volume not in values["app_shared_volumes"]
        ]
        problems += [
            f"{where} is a directory of each host, and there are {len(hosts.of('app'))} application hosts: mount a "
            "shared storage on all of them and name it in app_shared_volumes."
            for where in local
        ]
        if values["app_rolling"] >= len(hosts.of("app")):
            problems.append(
                f"app_rolling is {values['app_rolling']} of {len(hosts.of('app'))} application hosts: some have to "
                "serve meanwhile."
            )
    return problems


def _is_of_one_host(address: str) -> bool:
    """Tell whether this is an address by which other hosts reach this one and no other."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    return not (found.is_loopback or found.is_unspecified or found.is_multicast)


def _check_firewall(values: Mapping[str, Any]) -> list[str]:
    problems = []
    rules = [(f"firewall_allow[{number}]", rule) for number, rule in enumerate(values["firewall_allow"])]
    for where, rule in rules:
        wrong = [port for port in rule["ports"] if not re.fullmatch(r"[1-9]\d{0,4}(-[1-9]\d{0,4})?", str(port))]
        problems += [f"{where}.ports: '{port}' is no port and no range such as 5000-5010." for port in wrong]
        problems += [problem for source in rule.get("from", []) for problem in _check_network(f"{where}.from", source)]
    for kind in ("edge_addresses", "app_addresses", "database_addresses", "replica_addresses", "container_networks"):
        name = f"firewall_{kind}"
        problems += [problem for source in values[name] for problem in _check_network(name, source)]
    return problems


def _check_network(where: str, source: str) -> list[str]:
    """A name would have to be resolved at boot, before there is a network; so only addresses are taken."""
    try:
        ipaddress.ip_interface(source)
    except ValueError:
        return [f"{where}: '{source}' is no address and no network."]
    return []


def _check_database(values: Mapping[str, Any]) -> list[str]:
    """Who may reach Postgres, and whether the pooler has what it needs and those who use it have a pooler."""
    problems = []
    for name in ("postgres_app_addresses", "postgres_client_networks", "postgres_replica_addresses"):
        problems += [problem for source in values[name] for problem in _check_network(name, source)]
    if not values["postgres_pooler_enabled"]:
        pooled = [name for name, service in values["app_services"].items() if service.get("database_pooled")]
        if pooled:
            problems.append(
                f"app_services.{pooled[0]}.database_pooled is true and there is no PgBouncer: set "
                "postgres_pooler_enabled, or remove the key."
            )
    elif not values["postgres_pooler_password"]:
        problems.append(
            "postgres_pooler_enabled needs postgres_pooler_password: put a long random text into the vault."
        )
    elif not _PLAIN.fullmatch(str(values["postgres_pooler_password"])):
        problems.append("postgres_pooler_password: use letters, digits and . _ ~ + / = - only.")
    if values["postgres_pooler_enabled"]:
        wrong = [key for key in values["postgres_pooler_settings"] if not re.fullmatch(r"[a-z][a-z0-9_]*", str(key))]
        problems += [f"postgres_pooler_settings: '{key}' is no setting of PgBouncer." for key in wrong]
        problems += [
            f"postgres_pooler_settings.{key}: use one line."
            for key, value in values["postgres_pooler_settings"].items()
            if any(character in str(value) for character in "\r\n")
        ]
    return problems


def _check_replica(values: Mapping[str, Any], hosts: Topology) -> list[str]:
    """What a replica and its primary need of each other."""
    replicas, primaries = hosts.of("replica"), hosts.of("db")
    if not replicas or hosts.host not in replicas | primaries:
        return []
    problems = []
    if len(primaries) != 1:
        names = ", ".join(sorted(primaries)) or "none"
        problems.append(f"A replica follows the one host in the group db; this environment has: {names}.")
    if hosts.host in replicas & primaries:
        problems.append(
            f"{hosts.host} is in the groups db and replica: its database follows another one, or it does not."
        )
    if hosts.host in replicas and not values["backup_enabled"]:
        problems.append("A replica is built from a backup, and backup_enabled is false.")
    if not _PLAIN.fullmatch(str(values["postgres_replica_password"])):
        problems.append(
            "A replica needs postgres_replica_password, of letters, digits and . _ ~ + / = -: put a long random text "
            "into the vault."
        )
    address = str(values["postgres_publish_address"])
    if hosts.host in primaries and not _is_of_one_host(address):
        problems.append(
            f"postgres_publish_address is '{address}' and a replica is on another host: give {hosts.host} its private "
            "address, at which the replica reaches it."
        )
    return problems + _check_backup_source(values, hosts)


def _check_backup_source(values: Mapping[str, Any], hosts: Topology) -> list[str]:
    """Whether the one replica is the one that backups are to be read from."""
    identity, address = str(values["backup_replica_identity"]), str(values["postgres_publish_address"])
    if not identity or hosts.of("replica") != {hosts.host}:
        return []
    try:
        named = standby.parse(identity).address
    except SwitchyardError:
        # Said by the role's own check.
        return []
    if named == address:
        return []
    return [
        f"backup_replica_identity is for {named} and postgres_publish_address of {hosts.host} is '{address}': make "
        "another one for that address, or have it published there."
    ]


def _check_backup(values: Mapping[str, Any], *, replica: bool = False) -> list[str]:
    """What the role would refuse, said before any host is touched."""
    if not values["backup_enabled"]:
        return []
    try:
        backup.placing(backup.from_inventory(values, replica=replica), "/")
    except SwitchyardError as error:
        return [error.message]
    return []


def _check_monitoring(values: Mapping[str, Any], hosts: Topology) -> list[str]:
    address = str(values["monitoring_address"])
    try:
        private = ipaddress.ip_address(address)
    except ValueError:
        return [f"monitoring_address: '{address}' is no IP address."]
    # 0.0.0.0 counts as private for the library, and is every address.
    if private.is_unspecified or not private.is_private:
        return [f"monitoring_address: {address} is not a private address; metrics are for nobody outside."]
    others = {host for group in ("app", "edge", "db", "replica") for host in hosts.of(group)} - {hosts.host}
    if values["monitoring_enabled"] and private.is_loopback and others:
        return [
            f"monitoring_address is {address}, where only {hosts.host} itself can ask: give it its private address."
        ]
    return []


def _check_edge(values: Mapping[str, Any]) -> list[str]:
    problems = []
    if not values["edge_server_names"]:
        problems.append("edge_server_names is empty: name at least one host name.")
    if values["edge_tls"] == "files" and not (values["edge_tls_certificate"] and values["edge_tls_key"]):
        problems.append("edge_tls is 'files', which needs edge_tls_certificate and edge_tls_key.")
    if values["edge_tls"] == "acme":
        named = [name for name in values["edge_server_names"] if "." in name and not re.fullmatch(r"[0-9.]+", name)]
        if not named or any(re.search(r"[^A-Za-z0-9.-]", name) for name in named):
            problems.append(
                "edge_tls is 'acme', which needs plain host names in edge_server_names: for an address or a pattern no "
                "certificate is issued this way."
            )
    if values["edge_hsts_seconds"] and values["edge_tls"] not in ("acme", "files"):
        problems.append("edge_hsts_seconds needs edge_tls acme or files: browsers would be bound to what fails them.")
    if values["edge_redirect_http"] and values["edge_tls"] == "off":
        problems.append("edge_redirect_http needs edge_tls: it would send users to a port that nobody serves.")
    if values["edge_report_users"] and values["edge_tls"] == "off":
        problems.append("edge_report_users needs edge_tls: its passwords would travel in the clear.")
    if (secret := str(values["edge_preview_secret"])) and not re.fullmatch(r"[A-Za-z0-9_-]{32,128}", secret):
        problems.append("edge_preview_secret is not 32 to 128 letters, digits, '-' and '_': 'openssl rand -hex 32'.")
    if secret and values["edge_tls"] == "off":
        problems.append("edge_preview_secret needs edge_tls: it would travel in the clear.")
    if int(values["edge_open_files"]) < 2 * int(values["edge_worker_connections"]):
        problems.append("edge_open_files has to be at least twice edge_worker_connections.")
    return problems


def _from_words(option: Options, value: object) -> object:
    """A value given as `-e name=value` always is a text; take it for the number or truth that it spells."""
    if not isinstance(value, str):
        return value
    kind = option.get("type", "str")
    if kind == "bool" and value.lower() in ("true", "false", "yes", "no"):
        return value.lower() in ("true", "yes")
    if kind in ("int", "float"):
        try:
            return int(value) if kind == "int" else float(value)
        except ValueError:
            return value
    return value


_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "str": ((str,), "a text"),
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "bool": ((bool,), "true or false"),
    "list": ((list, tuple), "a list"),
    "dict": ((Mapping,), "a dictionary"),
}


def _check(path: str, option: Options, value: object, where: Where, place: str) -> list[str]:
    place = where(value) or place
    if value is None and not option.get("required"):
        return []
    kinds, words = _KINDS[option.get("type", "str")]
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        hint = "; write it in quotes" if kinds == (str,) and isinstance(value, int | float | date) else ""
        return [f"{place}{path} has to be {words}, and is {_name(value)}{hint}."]
    if "choices" in option:
        items = value if isinstance(value, list) else [value]
        wrong = [item for item in items if item not in option["choices"]]
        if wrong:
            return [f"{place}{path} is '{wrong[0]}'; use one of {', '.join(map(str, option['choices']))}."]
    if isinstance(value, Mapping):
        return _check_dict(path, option["options"], value, where, place) if "options" in option else []
    if isinstance(value, list | tuple):
        element = {"type": option.get("elements", "str"), "options": option.get("options")}
        element = {key: item for key, item in element.items() if item}
        return [p for i, item in enumerate(value) for p in _check(f"{path}[{i}]", element, item, where, place)]
    return []


def _check_dict(path: str, options: Options, value: object, where: Where, place: str) -> list[str]:
    if not isinstance(value, Mapping):
        return [f"{place}{path} has to be a dictionary, and is {_name(value)}."]
    problems = []
    for key in value:
        if key not in options:
            spot = where(key) or where(value[key]) or place
            problems.append(f"{spot}{path}.{key}: unknown key{_suggest(str(key), options)}")
    for name, option in options.items():
        if name in value:
            problems += _check(f"{path}.{name}", option, value[name], where, place)
        elif option.get("required"):
            problems.append(f"{place}{path}.{name} is missing: {' '.join(option['description'].split())}")
    return problems


def _name(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, str):
        return f"the text '{value[:40]}'"
    if isinstance(value, date):
        return f"the date {value.isoformat()}"
    return "empty" if value is None else "a dictionary" if isinstance(value, Mapping) else "a list"


def _suggest(name: str, known: Iterable[str]) -> str:
    return nearest(name, known) or "."
