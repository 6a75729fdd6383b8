"""Judges the inventory's variables by the roles' argument specs, before any host is touched. Pure.

Ansible's own validation converts what it can, stops at the first level of free-form dictionaries and knows nothing of
names that no role has. Here every name is known or refused with the nearest one, and a number is not a text.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from switchyard.control.application import build_request
from switchyard.errors import SwitchyardError
from switchyard.names import nearest
from switchyard.request import parse

ROLES = ("host", "docker", "engine", "postgres", "edge", "app")
ROLES_OF_GROUP = {"app": ("app",), "edge": ("edge",), "db": ("postgres",)}
ROLES_OF_ALL = ("host", "docker", "engine")

SELECTORS = {"env": "", "version": "", "restart": "edge, postgres, docker", "migration": "resume, resolve"}
"""What is given with -e, with the words that are allowed."""

# Dictionaries whose keys are names of the user's choice; each value is described by an entry point of its role's specs.
_ENTRIES = {"app_services": ("app", "service")}

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
        elif name not in specs.options and not name.startswith(specs.prefixes):
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


def check_required(specs: Specs, groups: Iterable[str], known: Iterable[str]) -> list[str]:
    """Name what the host's roles need and nobody gave."""
    roles = [*ROLES_OF_ALL, *(role for group in groups for role in ROLES_OF_GROUP.get(group, ()))]
    missing = [name for role in roles for name in specs.required[role] if name not in known]
    return [f"'{name}' is not set: {' '.join(specs.options[name]['description'].split())}" for name in missing]


def check_together(
    values: Mapping[str, Any], groups: Iterable[str], databases: int, extra: Mapping[str, Any]
) -> list[str]:
    """Check what no single variable shows. `values` has every variable, `databases` counts the hosts in `db`."""
    problems = []
    if not values["host_deploy_authorized_keys"]:
        problems.append("host_deploy_authorized_keys is empty: name at least one public key, or nobody can deploy.")
    if values["engine_port_first"] >= values["engine_port_last"]:
        problems.append("engine_port_last has to be above engine_port_first.")
    if "edge" in groups:
        problems += _check_edge(values)
    try:
        version, decision = extra.get("version"), extra.get("migration", "")
        request = build_request(values, compose="services: {}", version=version, decision=decision)
        parse(request)
    except SwitchyardError as error:
        problems.append(error.message)
    else:
        users = [name for name, service in values["app_services"].items() if service.get("database")]
        if users and not databases:
            problems.append(
                f"app_services.{users[0]}.database is true, and no host of this environment is in the group db: put "
                "one there, or remove the key."
            )
    return problems


def _check_edge(values: Mapping[str, Any]) -> list[str]:
    problems = []
    if not values["edge_server_names"]:
        problems.append("edge_server_names is empty: name at least one host name.")
    if values["edge_tls"] == "files" and not (values["edge_tls_certificate"] and values["edge_tls_key"]):
        problems.append("edge_tls is 'files', which needs edge_tls_certificate and edge_tls_key.")
    if values["edge_redirect_http"] and values["edge_tls"] == "off":
        problems.append("edge_redirect_http needs edge_tls: it would send users to a port that nobody serves.")
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
        hint = "; write it in quotes" if kinds == (str,) and isinstance(value, int | float) else ""
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
    return "empty" if value is None else "a dictionary" if isinstance(value, Mapping) else "a list"


def _suggest(name: str, known: Iterable[str]) -> str:
    return nearest(name, known) or "."
