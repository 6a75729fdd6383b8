"""`switchyard secrets`: what it writes into a vault, and what it says of one. Vaults are real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from switchyard.control import cli, secrets
from switchyard.control.secrets import LOGIN, OLD, PASSWORD, Vault, rotated, with_values
from switchyard.errors import Exit, SwitchyardError
from tests.unit.engine_world import QUICK

TEXT = """---
# What the registry gave us.
vault_registry_password: from-the-registry-0123456789
vault_postgres_app_password: "old-one-0123456789abcdef"
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "inventories" / "group_vars" / "env_staging"
    folder.mkdir(parents=True)
    (tmp_path / "inventories" / "group_vars" / "all").mkdir()
    (folder / "postgres.yml").write_text('postgres_app_password: "{{ vault_postgres_app_password }}"\n')
    (folder / "docker.yml").write_text('x: "{{ vault_registry_password }}"  # not vault_commented_out\n')
    empty = "".join(f'{name}: ""\n' for name in (PASSWORD, "vault_backup_passphrase", "vault_registry_password"))
    (folder / "vault.yml.example").write_text(f"---\n# Fill in.\n{empty}")
    (tmp_path / "password").write_text("vault-password\n")
    return tmp_path


def open_vault(project: Path, label: str = "staging") -> Vault:
    return Vault("staging", [f"{label}@{project / 'password'}"], project)


def said(project: Path) -> str:
    return "\n".join(open_vault(project).problems())


# Values


def test_a_value_is_replaced_on_its_line_and_nothing_else_is() -> None:
    changed = with_values(TEXT, {PASSWORD: "new", OLD: "old"})
    assert changed == TEXT.replace('"old-one-0123456789abcdef"', '"new"') + f'{OLD}: "old"\n'


@QUICK
@given(value=st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=60))
def test_any_value_comes_back_as_it_was(value: str) -> None:
    assert yaml.safe_load(with_values(TEXT, {PASSWORD: value})) == {**yaml.safe_load(TEXT), PASSWORD: value}


def test_a_value_of_several_lines_is_left_alone() -> None:
    text = f"{PASSWORD}: |\n  two\n  lines\n"
    with pytest.raises(SwitchyardError, match="write each on one line of the vault"):
        with_values(text, {PASSWORD: "new"})


def test_the_database_password_goes_to_the_other_login_and_the_old_one_stays_valid() -> None:
    before = yaml.safe_load(TEXT)
    after = rotated(before, [])
    assert (after[OLD], after[LOGIN]) == (before[PASSWORD], "b")
    assert len(after[PASSWORD]) == secrets.LENGTH and after[PASSWORD].isalnum()
    assert rotated({**before, LOGIN: "b"}, [PASSWORD])[LOGIN] == "a"


def test_a_rotation_waits_for_the_end_of_the_last_one() -> None:
    with pytest.raises(SwitchyardError, match="switchyard secrets retire") as error:
        rotated({PASSWORD: "a", OLD: "b"}, [])
    assert error.value.code is Exit.BUSY


def test_other_values_are_rotated_by_name() -> None:
    assert list(rotated(yaml.safe_load(TEXT), ["vault_registry_password"])) == ["vault_registry_password"]
    with pytest.raises(SwitchyardError, match="did you mean 'vault_registry_password'"):
        rotated(yaml.safe_load(TEXT), ["vault_registry_pasword"])
    with pytest.raises(SwitchyardError, match="opens every backup that there is"):
        rotated(yaml.safe_load(TEXT), ["vault_backup_passphrase"])
    with pytest.raises(SwitchyardError, match="rotate that one"):
        rotated(yaml.safe_load(TEXT), [LOGIN])


# Vaults


def test_a_new_vault_has_strong_passwords_and_the_environments_own_id(project: Path) -> None:
    vault = open_vault(project)
    assert vault.create()
    assert vault.path.read_text().startswith("$ANSIBLE_VAULT;1.2;AES256;staging\n")
    made = yaml.safe_load(vault.read())
    assert len(made[PASSWORD]) == len(made["vault_backup_passphrase"]) == secrets.LENGTH
    assert made[PASSWORD] != made["vault_backup_passphrase"] and made["vault_registry_password"] == ""
    assert not open_vault(project).create()
    assert [path.name for path in vault.folder.iterdir() if path.name.startswith(".")] == []


def test_a_vault_without_faults(project: Path) -> None:
    open_vault(project).write(TEXT)
    assert said(project) == ""


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            'vault_postgres_app_password: "old-one-0123456789abcdef"\n',
            "vault_registry_password is used in the inventory",
        ),
        (TEXT + "vault_nobody: x\n", "vault_nobody is in the vault and nothing uses it"),
        (TEXT + "token: x\n", "token: names in the vault begin with 'vault_'"),
        (TEXT.replace('"old-one-0123456789abcdef"', '""'), f"{PASSWORD} is empty"),
        (TEXT.replace('"old-one-0123456789abcdef"', '"short"'), f"{PASSWORD} is shorter than 16"),
        (TEXT.replace("from-the-registry-0123456789", "old-one-0123456789abcdef"), "have the same value"),
        (TEXT + f"{OLD}: older-one-0123456789abcdef\n", "A rotation is not finished"),
    ],
)
def test_what_is_wrong_is_said(project: Path, text: str, says: str) -> None:
    open_vault(project).write(text)
    assert says in said(project)


def test_clear_text_is_found(project: Path) -> None:
    vault = open_vault(project)
    vault.path.write_text(TEXT)
    (vault.folder / "vault.yml.bak").write_text(TEXT)
    (vault.folder / "vault.yml.example").write_text(TEXT)
    found = said(project)
    assert "env_staging/vault.yml is not encrypted" in found
    assert "env_staging/vault.yml.bak is not encrypted" in found
    assert "vault.yml.example has a value for vault_registry_password" in found


def test_the_vault_id_of_another_environment_is_refused(project: Path) -> None:
    with pytest.raises(SwitchyardError, match="No password for the vault id 'staging'"):
        open_vault(project, "production").write(TEXT)
    other = Vault("staging", [f"staging@{project / 'password'}"], project)
    other.environment = "production"
    other.vault_ids = [f"production@{project / 'password'}"]
    other.write(TEXT)
    assert "has the vault id 'production' instead of 'staging'" in said(project)


def test_a_wrong_password_is_said_in_one_sentence(project: Path) -> None:
    open_vault(project).write(TEXT)
    (project / "password").write_text("another\n")
    with pytest.raises(SwitchyardError, match="cannot be decrypted with this password"):
        open_vault(project).read()


def test_an_environment_that_is_none(project: Path) -> None:
    with pytest.raises(SwitchyardError, match="did you mean 'staging'"):
        Vault("stagng", [], project)


# The command


@pytest.fixture
def command(project: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(Vault.__init__, "__defaults__", (project,))

    def run(*words: str) -> int:
        return cli.main(["secrets", *words, "--vault-id", f"staging@{project / 'password'}"])

    return run


def test_rotate_says_what_to_do_next_and_shows_no_value(
    project: Path, command: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    open_vault(project).write(TEXT)
    assert command("rotate", "staging") == 0
    values = yaml.safe_load(open_vault(project).read())
    assert (values[OLD], values[LOGIN]) == ("old-one-0123456789abcdef", "b")
    out = capsys.readouterr().out
    assert "provision.yml -e env=staging" in out and "secrets retire staging" in out
    assert values[PASSWORD] not in out and values[OLD] not in out
    assert command("rotate", "staging") == Exit.BUSY
    assert "is not finished" in capsys.readouterr().err


def test_check_ends_with_one_when_something_is_wrong(project: Path, command: Any) -> None:
    open_vault(project).write(TEXT)
    assert command("check", "staging") == 0
    open_vault(project).write(TEXT + "token: x\n")
    assert command("check", "staging") == 1
