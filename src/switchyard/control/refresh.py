"""From what two environments say to the order that refreshes one with the other's data. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from switchyard.data import repositories, source
from switchyard.errors import Exit, SwitchyardError
from switchyard.names import AppName, nearest

_CREDENTIALS = {"s3": ("key", "key_secret"), "sftp": ("private_key",)}


def order(values: Mapping[str, Any]) -> dict[str, Any]:
    """The order as `source.parse` takes it, secrets included; raises `SwitchyardError` naming what is missing.

    `values`: `app`, `environment`, `host` and `hosts` (of the database) of the target, what it says of refreshes
    (`allowed`, `sanitise`, `personal`, `nothing_personal`), what was asked for (`source`, `repository`, `to`), every
    known environment (`known`), and of the source (`theirs`) its `hosts`, `repositories`, `passphrase`, `database`.
    """
    name, asked = AppName(values["app"], values["environment"]), str(values["source"])
    theirs: Mapping[str, Any] = values["theirs"]
    known = sorted(set(values["known"]) - {name.environment})
    if asked == name.environment:
        raise SwitchyardError(f"{name} cannot be refreshed from itself: name another environment.", Exit.USAGE)
    if asked not in known:
        given = f"'{asked}' is no environment{nearest(asked, known)}" if asked else "no environment was named"
        raise SwitchyardError(
            f"Say whose data it shall be, -e from=NAME with one of {', '.join(known)}: {given.rstrip('.')}.", Exit.USAGE
        )
    if asked not in values["allowed"]:
        raise SwitchyardError(
            f"{name.environment} does not let its data be replaced by {asked}'s: that takes backup_refresh_from: "
            f"[{asked}] in group_vars/env_{name.environment}, which production never has.",
            Exit.USAGE,
        )
    same = sorted(set(values["hosts"]) & set(theirs["hosts"]))
    if same:
        raise SwitchyardError(
            f"{same[0]} is the database host of {asked} itself: nothing is refreshed there.", Exit.USAGE
        )
    chosen = _readable(asked, theirs["repositories"], str(values["repository"]))
    found = {
        "source": asked,
        "host": values["host"],
        "database": theirs["database"],
        "repository": repositories.public(chosen),
        "secrets": {key: str(chosen[key]) for key in repositories.SECRET_KEYS if chosen.get(key)},
        "sanitise": list(values["sanitise"]),
        "personal": list(values["personal"]),
        "nothing_personal": bool(values["nothing_personal"]),
        "to": str(values["to"]) or "latest",
    }
    if not found["secrets"].get("passphrase"):
        found["secrets"]["passphrase"] = str(theirs["passphrase"])
    checked = source.parse(found, name)
    repositories.require(checked.repository, checked.secrets)
    return found


def _readable(asked: str, given: Sequence[Mapping[str, Any]], wanted: str) -> dict[str, Any]:
    """The source's repository with the credentials that can only read in place of its own."""
    names = [one["name"] for one in given]
    if not given:
        raise SwitchyardError(
            f"{asked} has no place away from its host in backup_repositories to read from.", Exit.USAGE
        )
    if wanted and wanted not in names:
        raise SwitchyardError(f"{asked} has no repository '{wanted}'; there are: {', '.join(names)}.", Exit.USAGE)
    candidates = (
        [one for one in given if one["name"] == wanted] if wanted else [one for one in given if one.get("reader")]
    )
    one = (candidates or given)[0]
    reader = {key: value for key, value in (one.get("reader") or {}).items() if value}
    missing = [key for key in _CREDENTIALS[one["type"]] if key not in reader]
    if missing:
        raise SwitchyardError(
            f"{asked}'s backup_repositories.{one['name']}.reader.{missing[0]} is not set: give it credentials that can "
            "only read; its own stay with its own host.",
            Exit.USAGE,
        )
    kept = {key: value for key, value in one.items() if key != "reader" and value is not None}
    return {"path": "/switchyard", **kept, **reader}
