"""Checks every variable of a host against the roles' argument specs; nothing is sent anywhere."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible.utils.vars import load_extra_vars
from ansible_collections.switchyard.stack.plugins.plugin_utils.origin import where
from ansible_collections.switchyard.stack.plugins.plugin_utils.source import COLLECTION, make_importable

make_importable()

from switchyard.control import inventory

_NAME = re.compile(r"\b[a-z_][a-z0-9_]*\b")


class ActionModule(ActionBase):
    """`switchyard.stack.check_inventory`: see the module of the same name for its documentation."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _VALID_ARGS = frozenset[str]()

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Check names, then values, then what only shows together; one sentence for each problem."""
        super().run(tmp, task_vars)
        variables = task_vars or {}
        specs = inventory.load(COLLECTION / "roles")
        extra = load_extra_vars(self._loader)
        groups = variables["group_names"]
        problems = inventory.check_extra(specs, extra)
        problems += inventory.check_names(specs, variables, lambda name: self._where(name, variables, extra))
        problems += inventory.check_required(specs, groups, variables)
        values, broken = self._values(specs, variables, self._templar)
        problems += broken
        problems += inventory.check_values(specs, values, self._place)
        if not problems:
            problems = self._check_together(specs, variables, extra)
        return {"failed": True, "msg": "\n".join(problems)} if problems else {"changed": False}

    def _check_together(self, specs: inventory.Specs, variables: dict[str, Any], extra: dict[str, Any]) -> list[str]:
        groups: dict[str, list[str]] = variables["groups"]
        ours = set(groups["target"])
        hosts = {group: ours & set(groups.get(group, [])) for group in ("app", "edge", "db", "replica")}
        topology = inventory.Topology(variables["inventory_hostname"], hosts)
        # Defaults refer to each other and to what was given, as they do in the roles.
        everything = {**dict.fromkeys(specs.options), **self._defaults(), **variables}
        templar = self._templar.copy_with_new_env(available_variables=everything)
        complete, broken = self._values(specs, everything, templar)
        chosen = {name: value for name, value in extra.items() if name in inventory.SELECTORS}
        return broken or inventory.check_together(inventory.from_words(specs, complete), topology, chosen)

    def _defaults(self) -> dict[str, Any]:
        files = [COLLECTION / "roles" / role / "defaults" / "main.yml" for role in inventory.ROLES]
        load = self._loader.load_from_file
        return {name: value for file in files for name, value in load(str(file), trusted_as_template=True).items()}

    def _values(
        self, specs: inventory.Specs, variables: Mapping[str, Any], templar: Any
    ) -> tuple[dict[str, Any], list[str]]:
        """The given variables of roles with their templates filled in, and a sentence for each that cannot be."""
        values: dict[str, Any] = {}
        problems: dict[str, str] = {}
        # What hosts are reached with comes first: when that is broken, nothing else matters.
        for name in ("ansible_host", "ansible_user", "ansible_port", *specs.options):
            if name not in variables:
                continue
            try:
                value = _resolve(templar.template(variables[name]))
            except AnsibleError as error:
                cause, sentence = self._explain(name, variables, error)
                # One cause may break many variables, and is said once.
                problems.setdefault(cause, sentence)
                continue
            if name in specs.options:
                values[name] = value
        return values, list(problems.values())

    def _explain(self, name: str, variables: Mapping[str, Any], error: AnsibleError) -> tuple[str, str]:
        """The cause, and one sentence for a variable that cannot be filled in; mostly a secret is missing."""
        place = self._place(variables[name])
        missing = sorted(_missing_secrets(variables[name], variables))
        if missing:
            environment = variables.get("switchyard_environment", "NAME")
            vault = f"{Path(variables['inventory_dir']).name}/group_vars/env_{environment}/vault.yml"
            return missing[0], f"{place}{name} needs '{missing[0]}', which is not set: put it into {vault}."
        cause = _innermost(error)
        return cause, f"{place}{name} cannot be filled in: {cause}"

    def _where(self, name: str, variables: Mapping[str, Any], extra: Mapping[str, Any]) -> str:
        if name in extra:
            return "-e: "
        key = next((key for key in variables if key == name), name)
        return self._place(key) or self._place(variables[name])

    def _place(self, value: object) -> str:
        return where(value, Path.cwd())


def _resolve(value: Any) -> Any:
    """Fill in what lies below the first level, too, and keep what says where it came from."""
    if isinstance(value, Mapping):
        return {key: _resolve(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_resolve(item) for item in value]
    return value


def _missing_secrets(value: object, variables: Mapping[str, Any], depth: int = 3) -> set[str]:
    """Names of vault variables that a raw value refers to, directly or by another variable, and that are not set."""
    if isinstance(value, Mapping):
        return {name for item in value.values() for name in _missing_secrets(item, variables, depth)}
    if isinstance(value, list | tuple):
        return {name for item in value for name in _missing_secrets(item, variables, depth)}
    if not isinstance(value, str) or "{{" not in value:
        return set()
    found = set()
    for name in _NAME.findall(value):
        if name.startswith("vault_") and name not in variables:
            found.add(name)
        elif depth and name in variables:
            found |= _missing_secrets(variables[name], variables, depth - 1)
    return found


def _innermost(error: BaseException) -> str:
    """The message at the root of a chain of errors, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    message = getattr(error, "message", None) or str(error)
    return " ".join(str(message).split())
