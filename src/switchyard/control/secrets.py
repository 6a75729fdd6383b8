"""`switchyard secrets`: the vault of an environment, for people. Needs ansible-core, which the other commands do not.

A vault is `inventories/group_vars/env_NAME/vault.yml`, encrypted whole, with the environment's name as its vault id.
"""

import contextlib
import os
import re
import secrets
import string
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from ansible import constants
from ansible.cli import CLI
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import VaultLib

from switchyard.control.hosts import PROJECT
from switchyard.errors import Exit, SwitchyardError
from switchyard.names import nearest

LENGTH = 40
"""Letters and digits of a new value: more than 200 bits, and nothing that a URL or a shell would change."""

PASSWORD, OLD, LOGIN = "vault_postgres_app_password", "vault_postgres_app_password_old", "vault_postgres_app_login"
PASSPHRASE = "vault_backup_passphrase"  # noqa: S105 - the name of a secret, not its value
_OURS = ("vault_postgres_", PASSPHRASE)
"""How names begin whose values nobody else gives out."""

_HEADER = re.compile(r"\$ANSIBLE_VAULT;1\.[12];AES256(?:;(?P<id>\S+))?\n")
_REFERENCE = re.compile(r"\bvault_[a-z0-9_]+\b")
_WEAK = 16


def new_value() -> str:
    """A value that nobody can guess."""
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(LENGTH))


def with_values(text: str, values: Mapping[str, str]) -> str:
    """The vault's text with other values, each on the line of its key; comments and all other lines stay.

    Raises `SwitchyardError` when a value is not written on one line, since it could not be replaced safely.
    """
    before = _load(text)
    for key, value in values.items():
        line = f"{key}: {yaml.safe_dump(value, default_style=chr(34), width=10_000).strip()}"
        if key in before:
            # In a replacement, only a backslash has a meaning of its own.
            text = re.sub(rf"(?m)^{re.escape(key)}:.*$", line.replace("\\", r"\\"), text)
        else:
            text = f"{text.rstrip()}\n{line}\n"
    with contextlib.suppress(SwitchyardError):
        if _load(text) == {**before, **values}:
            return text
    raise SwitchyardError(
        f"{', '.join(values)}: write each on one line of the vault ('switchyard secrets edit'), then try again."
    )


def _load(text: str) -> dict[str, Any]:
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SwitchyardError(f"The vault is no YAML: {str(error).splitlines()[0]}.") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise SwitchyardError("The vault has to be a list of 'vault_name: value' lines.")
    return data


def rotated(values: Mapping[str, Any], names: list[str]) -> dict[str, str]:
    """What the vault has to say after a rotation. Without names: the application's database password.

    The application has two logins, and the other one gets the new password: the old one stays valid for what still
    runs with it. Raises `SwitchyardError` while an earlier rotation of it is not finished.
    """
    names = names or [PASSWORD]
    changed = {}
    for name in names:
        if name in (OLD, LOGIN):
            raise SwitchyardError(f"{name} follows {PASSWORD}: rotate that one.", Exit.USAGE)
        if name == PASSPHRASE:
            raise SwitchyardError(
                f"{name} opens every backup that there is, and a new one would open none of them: keep it.", Exit.USAGE
            )
        if name not in values and name != PASSWORD:
            raise SwitchyardError(f"The vault has no '{name}'{nearest(name, map(str, values)) or '.'}", Exit.USAGE)
        changed[name] = new_value()
    if PASSWORD in names:
        if values.get(OLD):
            raise SwitchyardError(
                f"The last rotation of {PASSWORD} is not finished, and something may still log in with the old one: "
                "deploy, then 'switchyard secrets retire ENV'.",
                Exit.BUSY,
            )
        changed[OLD] = str(values.get(PASSWORD, ""))
        changed[LOGIN] = "b" if values.get(LOGIN, "a") == "a" else "a"
    return changed


class Vault:
    """One environment's vault file."""

    def __init__(self, environment: str, vault_ids: list[str], project: Path = PROJECT) -> None:
        self.environment, self.project = environment, project
        self.folder = project / "inventories" / "group_vars" / f"env_{environment}"
        self.path = self.folder / "vault.yml"
        if not self.folder.is_dir():
            known = sorted(p.name.removeprefix("env_") for p in self.folder.parent.glob("env_*"))
            raise SwitchyardError(
                f"Unknown environment '{environment}'{nearest(environment, known) or '.'} There are: "
                f"{', '.join(known) or 'none'}.",
                Exit.USAGE,
            )
        self.vault_ids = vault_ids or _configured(environment)
        self._vaultlib: Any = None

    @property
    def vaultlib(self) -> Any:
        """Ansible's vault with this environment's password, which is asked for once."""
        if self._vaultlib is None:
            try:
                found = CLI.setup_vault_secrets(
                    DataLoader(), self.vault_ids, auto_prompt=False, initialize_context=False
                )
            except AnsibleError as error:
                raise SwitchyardError(f"The vault's password cannot be read: {error}", Exit.USAGE) from error
            self._vaultlib = VaultLib(found)
        return self._vaultlib

    def read(self) -> str:
        """The vault in clear text, in memory alone."""
        if not self.path.is_file():
            raise SwitchyardError(
                f"There is no {self._shown(self.path)}: 'switchyard secrets edit {self.environment}' makes it.",
                Exit.USAGE,
            )
        try:
            return str(self.vaultlib.decrypt(self.path.read_bytes()).decode())
        except AnsibleError as error:
            raise SwitchyardError(
                f"{self._shown(self.path)} cannot be decrypted with this password (--vault-id).", Exit.USAGE
            ) from error

    def write(self, text: str) -> None:
        """Encrypt and replace the vault; clear text never reaches a disk."""
        label = self.environment
        encrypted = self.vaultlib.encrypt(text.encode(), secret=self._secret(), vault_id=label)
        descriptor, temporary = tempfile.mkstemp(dir=self.folder, prefix=".vault.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(encrypted)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(self.path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def _secret(self) -> Any:
        for label, secret in self.vaultlib.secrets:
            if label == self.environment:
                return secret
        raise SwitchyardError(
            f"No password for the vault id '{self.environment}' was given: --vault-id {self.environment}@prompt.",
            Exit.USAGE,
        )

    def create(self) -> bool:
        """Make the vault from its example, with new passwords for the database and its backups.

        Tells whether there was none.
        """
        if self.path.exists():
            return False
        example = self.folder / "vault.yml.example"
        text = example.read_text() if example.is_file() else "---\n"
        empty = [name for name, value in _load(text).items() if name.startswith(_OURS) and not value]
        # What the example says about itself is done now.
        body = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#"))
        self.write(with_values(body, {name: new_value() for name in empty}))
        return True

    def edit(self) -> int:
        """Open the vault in an editor, through ansible-vault, which shreds what it has to write down meanwhile."""
        options = [word for vault_id in self.vault_ids for word in ("--vault-id", vault_id)]
        # The one beside this Python, whether or not it is on the path.
        argv = [
            str(Path(sys.executable).with_name("ansible-vault")),
            "edit",
            *options,
            "--encrypt-vault-id",
            self.environment,
            str(self.path),
        ]
        return subprocess.run(argv, cwd=self.project, check=False).returncode

    def problems(self) -> list[str]:
        """Everything that is wrong with the environment's secrets, each as one sentence."""
        return list(self._problems())

    def _problems(self) -> Iterator[str]:
        shown = self._shown(self.path)
        for path in sorted(self.folder.glob("vault*")):
            if path.suffix != ".example" and not _HEADER.match(path.read_text(errors="replace")):
                yield f"{self._shown(path)} is not encrypted: remove it, and take what is in it for known to others."
        example = self.folder / "vault.yml.example"
        if example.is_file():
            filled = [name for name, value in _load(example.read_text()).items() if value]
            if filled:
                yield f"{self._shown(example)} has a value for {', '.join(filled)}: it is in the repository in clear."
        if not self.path.is_file():
            yield f"There is no {shown}: 'switchyard secrets edit {self.environment}' makes it."
            return
        header = _HEADER.match(self.path.read_text(errors="replace"))
        if not header:
            return
        if header["id"] != self.environment:
            yield (
                f"{shown} has the vault id '{header['id'] or 'none'}' instead of '{self.environment}': "
                f"'ansible-vault rekey --new-vault-id {self.environment}@prompt' gives it its own."
            )
        yield from self._wrong_values(_load(self.read()))

    def _wrong_values(self, values: dict[str, Any]) -> Iterator[str]:
        wanted = self._references()
        for name in sorted(wanted - set(values) - {OLD, LOGIN}):
            yield f"{name} is used in the inventory and is not in the vault."
        for name, value in sorted(values.items()):
            if not name.startswith("vault_"):
                yield f"{name}: names in the vault begin with 'vault_', so that one sees where they are used."
            elif name not in wanted:
                yield f"{name} is in the vault and nothing uses it: remove it."
            elif not value and name != OLD:
                yield f"{name} is empty."
            elif name.startswith("vault_postgres_") and name.endswith("password") and len(str(value)) < _WEAK:
                yield f"{name} is shorter than {_WEAK} characters: 'switchyard secrets rotate' makes a better one."
        by_value: dict[str, list[str]] = {}
        for name, value in values.items():
            if isinstance(value, str) and len(value) >= _WEAK:
                by_value.setdefault(value, []).append(name)
        for names in by_value.values():
            if len(names) > 1:
                yield f"{' and '.join(sorted(names))} have the same value: give each its own."
        if values.get(OLD):
            yield f"A rotation is not finished: deploy, then 'switchyard secrets retire {self.environment}'."

    def _references(self) -> set[str]:
        """Every `vault_*` name that the environment's own and the common variables use."""
        found: set[str] = {OLD, LOGIN}
        for folder in (self.folder, self.folder.parent / "all"):
            for path in [*folder.glob("*.yml"), *folder.glob("*.yaml")]:
                if not path.name.startswith("vault"):
                    lines = path.read_text().splitlines()
                    found |= {n for line in lines for n in _REFERENCE.findall(line.partition("#")[0])}
        return found

    def _shown(self, path: Path) -> str:
        return str(path.relative_to(self.project))


def _configured(environment: str) -> list[str]:
    """The vault ids out of ansible.cfg or the environment variable, or a prompt."""
    known = [str(item) for item in constants.DEFAULT_VAULT_IDENTITY_LIST or []]
    return known if any(item.startswith(f"{environment}@") for item in known) else [f"{environment}@prompt"]
