"""Bad input through the real entry points: one sentence, exit code 2, and no host is asked for anything."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLAYBOOK = Path(sys.executable).with_name("ansible-playbook")
VAULT = """---
vault_postgres_superuser_password: a
vault_postgres_app_password: b
vault_postgres_migrate_password: c
vault_backup_passphrase: d
vault_registry_password: d
"""


@dataclass
class Project:
    """A copy of the inventories, and an `ssh` that only notes that it was called."""

    folder: Path

    @property
    def inventories(self) -> Path:
        return self.folder / "inventories"

    @property
    def staging(self) -> Path:
        return self.inventories / "group_vars" / "env_staging"

    @property
    def contacted(self) -> bool:
        return (self.folder / "contacted").exists()

    def play(self, *words: str, playbook: str = "deploy.yml", **environment: str) -> tuple[int, str]:
        ssh = self.folder / "ssh"
        refusal = "ssh: connect to host 203.0.113.10 port 22: Connection refused"
        ssh.write_text(f"#!/bin/sh\ntouch {self.folder}/contacted\necho '{refusal}' >&2\nexit 255\n")
        ssh.chmod(0o755)
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "SWITCHYARD_"))}
        done = subprocess.run(
            [str(PLAYBOOK), "-i", str(self.inventories), playbook, *words],
            cwd=ROOT,
            env=inherited
            | {"ANSIBLE_SSH_EXECUTABLE": str(ssh), "ANSIBLE_NOCOLOR": "1", "COLUMNS": "500"}
            | environment,
            check=False,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=120,
        )
        return done.returncode, done.stdout + done.stderr


def copy_inventories(folder: Path) -> Project:
    project = Project(folder)
    shutil.copytree(ROOT / "inventories", project.inventories)
    name_people(project)
    return project


def name_people(project: Project) -> None:
    """Put a key where the examples say that one belongs."""
    for file in project.inventories.glob("group_vars/env_*/host.yml"):
        file.write_text(re.sub(r"AAAAC3\w*REPLACEME\w*", "AAAAC3NzaC1lZDI1NTE5AAAAIPublic0", file.read_text()))


@pytest.fixture(name="project")
def copied(tmp_path: Path) -> Project:
    project = copy_inventories(tmp_path)
    (project.staging / "vault.yml").write_text(VAULT)
    return project


def refused(project: Project, *words: str, playbook: str = "deploy.yml") -> str:
    code, out = project.play(*words, playbook=playbook)
    assert code == 2, out
    assert not project.contacted, out
    assert "Traceback" not in out
    return out


def test_the_examples_key_is_nobodys(project: Project) -> None:
    shutil.copy(ROOT / "inventories/group_vars/env_staging/host.yml", project.staging / "host.yml")
    out = refused(project, "-e", "env=staging", playbook="provision.yml")
    assert "host_deploy_authorized_keys[0]: give one public key as ssh-keygen wrote it" in out


@pytest.mark.parametrize("playbook", ["deploy.yml", "provision.yml"])
def test_the_shipped_staging_only_lacks_what_is_secret(project: Project, playbook: str) -> None:
    code, out = project.play("-e", "env=staging", playbook=playbook)
    # Everything was in order, so the host was asked; this one is not there.
    assert project.contacted, out
    assert code != 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "Unknown environment '(none given)'. Choose one of: local, production, staging"),
        (("-e", "env=stagng"), "Unknown environment 'stagng'."),
        (("-e", "env=all"), "Unknown environment 'all'."),
        (("-e", "env=app"), "Unknown environment 'app'."),
        (("-e", "env=stagng", "--limit", "staging-1"), "Unknown environment 'stagng'."),
        (
            ("-e", "env=production", "--limit", "staging-1"),
            "--limit leaves no host of 'production' (its hosts: production-1).",
        ),
        (("-e", "env=staging", "-e", "verison=1.0.0"), "unknown variable 'verison', did you mean 'version'?"),
        (("-e", "env=staging", "-e", "app_retian=3"), "-e: unknown variable 'app_retian', did you mean 'app_retain'?"),
        (("-e", "env=staging", "-e", "restart=nginx"), "-e restart=nginx: use one of edge, postgres, pooler, docker."),
        (("-e", "env=staging", "-e", "version="), "'' is not a valid version"),
        (("-e", "env=staging", "-e", '{"version": 1.10}'), "-e version: 1.1 is no text; write it in quotes."),
        (("-e", "env=staging", "-e", "version=../../etc"), "'../../etc' is not a valid version"),
        (("-e", "env=staging", "-e", "migration=maybe"), "-e migration=maybe: use one of resume, resolve."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_the_command_line_is_judged_first(project: Project, words: tuple[str, ...], sentence: str) -> None:
    assert sentence in refused(project, *words)


def test_without_the_guard_no_host_is_selected(project: Project) -> None:
    code, out = project.play("-e", "env=all", "--skip-tags", "always")
    assert code == 0
    assert not project.contacted, out


def test_a_missing_secret_names_its_file(project: Project) -> None:
    (project.staging / "vault.yml").unlink()
    out = refused(project, "-e", "env=staging")
    assert "needs 'vault_postgres_app_password', which is not set" in out
    assert "inventories/group_vars/env_staging/vault.yml" in out


def test_a_local_host_that_is_not_there_is_said_once(project: Project) -> None:
    out = refused(project, "-e", "env=local")
    assert "There is no local host yet" in out
    assert "'make demo' makes one" in out
    assert out.count("[ERROR]") == 1


def _append(name: str, text: str) -> Callable[[Project], None]:
    def change(project: Project) -> None:
        with (project.staging / name).open("a") as file:
            file.write(text)

    return change


def _replace(name: str, old: str, new: str) -> Callable[[Project], None]:
    def change(project: Project) -> None:
        path = project.inventories / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return change


APP = "group_vars/all/app.yml"
HOSTS = "staging.yml"


@pytest.mark.parametrize(
    ("change", "place", "sentence"),
    [
        (
            _append("app.yml", "app_servics: {}\n"),
            "env_staging/app.yml:7",
            "unknown variable 'app_servics', did you mean",
        ),
        (
            _replace(APP, "    memory_mb: 256", "    memory_md: 256"),
            APP,
            "app_services.api.memory_md: unknown key, did you mean 'memory_mb'?",
        ),
        (_replace(APP, "    port: 8000", "    port: http"), APP, "app_services.api.port has to be a whole number"),
        (
            _replace(APP, "    health:\n      path: /health", "    health:\n      pth: /health"),
            APP,
            "app_services.api.health.pth: unknown key, did you mean 'path'?",
        ),
        (
            _replace(APP, "    routes: [/]", "    routes: [/, /api/]"),
            "",
            "app_services.web.routes: '/api/' is also api's",
        ),
        (
            _replace(APP, "secrets: [DATABASE_URL]", "secrets: [DATABASE_URI]"),
            "",
            "wants the secret 'DATABASE_URI', which app_secrets does not have",
        ),
        (_append("app.yml", "app_retain: some\n"), "env_staging/app.yml:7", "app_retain has to be a whole number"),
        (
            _replace("group_vars/env_staging/app.yml", '"1.0.0"', "1.10"),
            "env_staging/app.yml",
            "app_version has to be a text, and is the number 1.1; write it in quotes.",
        ),
        (_append("edge.yml", "edge_tls: files\n"), "", "needs edge_tls_certificate and edge_tls_key"),
        (
            _replace(HOSTS, "db:\n  children:\n    staging_db:\n", ""),
            "",
            "no host of this environment is in the group db",
        ),
        (
            _replace("group_vars/env_staging/edge.yml", "edge_server_names: [staging.example.com]", ""),
            "",
            "'edge_server_names' is not set",
        ),
    ],
    ids=["name", "key", "type", "nested key", "route", "secret", "number", "version", "tls", "no database", "required"],
)
def test_mistakes_in_the_inventory_name_file_and_key(
    project: Project, change: Callable[[Project], None], place: str, sentence: str
) -> None:
    change(project)
    out = refused(project, "-e", "env=staging")
    assert sentence in out
    assert place in out


def test_an_environments_values_win_over_those_of_function_groups(project: Project) -> None:
    (project.inventories / "group_vars" / "app").mkdir()
    (project.inventories / "group_vars" / "app" / "app.yml").write_text("---\napp_retain: many\n")
    assert "app_retain has to be a whole number" in refused(project, "-e", "env=staging")
    (project.staging / "app.yml").open("a").write("app_retain: 4\n")
    project.play("-e", "env=staging")
    assert project.contacted


def test_one_environment_never_needs_anothers_secrets(project: Project) -> None:
    (project.inventories / "group_vars" / "env_production" / "vault.yml").write_text(
        "$ANSIBLE_VAULT;1.2;AES256;production\n36353433\n"
    )
    _, out = project.play("-e", "env=staging")
    assert project.contacted, out


def test_a_refresh_that_the_inventory_does_not_allow_asks_no_host(project: Project) -> None:
    words = ("-e", "env=staging", "-e", "from=production")
    out = refused(project, *words, playbook="refresh.yml")
    assert "staging does not let its data be replaced by production's" in out
    (project.staging / "zz_refresh.yml").write_text("---\nbackup_refresh_from: [production]\n")
    (project.inventories / "group_vars" / "env_production" / "vault.yml").write_text(VAULT)
    out = refused(project, *words, playbook="refresh.yml")
    assert "production has no place away from its host" in out


@pytest.mark.parametrize("playbook", ["deploy.yml", "provision.yml", "refresh.yml"])
def test_entry_points_parse_without_an_environment(project: Project, playbook: str) -> None:
    code, out = project.play("--syntax-check", playbook=playbook)
    assert code == 0, out
