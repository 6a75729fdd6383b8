"""Rotates the database password of a released environment under load, as a person would, and looks for its traces."""

import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from switchyard.control.secrets import LOGIN, OLD, PASSWORD, Vault, with_values
from tests.bed import Host
from tests.bed import engine as outer
from tests.project import Project

_SUPERUSER, _MIGRATE = "vault_postgres_superuser_password", "vault_postgres_migrate_password"
# On the disk: what is put onto a host does not reach its tmpfs.
_WATCH = "/root/test-canaries"

# Runs on the host: looks at every process's arguments for the canaries, often, and bounded.
_LOOK = f"""
import pathlib, sys, time
words = [word.encode() for word in pathlib.Path("{_WATCH}").read_text().split()]
deadline, looked = time.monotonic() + 600, 0
while time.monotonic() < deadline and pathlib.Path("{_WATCH}").exists():
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes()
        except OSError:
            continue
        if any(word in text for word in words):
            print("seen:", text[:200], flush=True)
    looked += 1
    time.sleep(0.02)
print("looked", looked, flush=True)
"""

# Where a secret may be: its own files, and Postgres's superuser password.
_ALLOWED = ("/var/lib/switchyard/sample-local/secrets/", "/var/lib/switchyard/postgres/sample-local/superuser-password")


@dataclass
class Rotation:
    """The environment `local` with a vault of its own, and everything that was said while it was used."""

    project: Project
    host: Host
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Move the environment's passwords into a vault, unchanged."""
        folder = self.project.folder / "inventories" / "group_vars" / "env_local"
        (self.project.folder / "vault-password").write_text("the password of the vault\n")
        kept = self.project.folder / ".switchyard" / "secrets" / "local"
        values = {
            _SUPERUSER: (kept / "postgres_superuser").read_text().strip(),
            PASSWORD: (kept / "postgres_app").read_text().strip(),
            _MIGRATE: (kept / "postgres_migrate").read_text().strip(),
        }
        self.vault.write(with_values("---\n", values))
        names = {"superuser": _SUPERUSER, "app": PASSWORD, "migrate": _MIGRATE}
        variables = {f"postgres_{role}_password": f"{{{{ {name} }}}}" for role, name in names.items()}
        variables["postgres_app_login"] = f"{{{{ {LOGIN} | default('a') }}}}"
        variables["postgres_app_password_old"] = f"{{{{ {OLD} | default('') }}}}"
        (folder / "zz_vault.yml").write_text(yaml.safe_dump(variables))

    def leave(self) -> None:
        """Put the passwords of now where the environment had them, for tests that know of no vault."""
        values, folder = self.values(), self.vault.folder
        kept = self.project.folder / ".switchyard" / "secrets" / "local"
        for file, name in (("superuser", _SUPERUSER), ("app", PASSWORD), ("migrate", _MIGRATE)):
            (kept / f"postgres_{file}").write_text(f"{values[name]}\n")
        (folder / "zz_vault.yml").write_text(yaml.safe_dump({"postgres_app_login": values.get(LOGIN, "a")}))
        self.vault.path.unlink()

    @property
    def vault_id(self) -> str:
        """How commands get the vault's password."""
        return f"local@{self.project.folder / 'vault-password'}"

    @property
    def vault(self) -> Vault:
        """The environment's vault."""
        return Vault("local", [self.vault_id], self.project.folder)

    def values(self) -> dict[str, str]:
        """What the vault says now."""
        data: dict[str, str] = yaml.safe_load(self.vault.read())
        return data

    def _do(self, done: subprocess.CompletedProcess[str]) -> str:
        self.said.append(done.stdout + done.stderr)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def play(self, name: str, *words: str) -> str:
        """Run an entry point with the vault's password."""
        return self._do(self.project.play(name, *words, "--vault-id", self.vault_id))

    def secrets(self, action: str) -> str:
        """Run `switchyard secrets`."""
        return self._do(self.project.run("scripts/switchyard", "secrets", action, "local", "--vault-id", self.vault_id))

    def rollback(self, *words: str) -> str:
        """Run the rollback script."""
        return self._do(self.project.run("scripts/rollback.sh", "local", *words))

    def sql(self, query: str) -> str:
        """Ask Postgres as its superuser."""
        argv = ["docker", "exec", "sample-local-postgres", "psql", "-U", "postgres", "-d", "sample", "-Atc", query]
        return self.host.exec(argv).stdout.strip()

    def logins(self) -> set[str]:
        """Who of the application is connected now."""
        found = self.sql("SELECT DISTINCT usename FROM pg_stat_activity WHERE usename LIKE 'sample_app%'")
        return set(found.split())

    def can_log_in(self, login: str, password: str) -> bool:
        """Try a password over the network, as the application does; it is in no process's arguments."""
        connect = f'psql -h "$(hostname -i)" -U {login} -d sample -Atc "SELECT 1"'
        script = f"read -r PGPASSWORD && export PGPASSWORD && {connect}"
        argv = ["docker", "exec", "-i", "sample-local-postgres", "sh", "-c", script]
        return self.host.exec(argv, check=False, stdin=f"{password}\n").returncode == 0

    def watch_processes(self) -> subprocess.Popen[str]:
        """Look for the vault's values, now and next ones, in the arguments of every process of the host."""
        words = "\n".join(str(value) for value in self.values().values() if len(str(value)) > 8)
        self.host.put(_WATCH, words, 0o600)
        argv = [outer.client(), "exec", "-i", self.host.container, "python3", "-"]
        watcher = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert watcher.stdin
        watcher.stdin.write(_LOOK)
        watcher.stdin.close()
        return watcher

    def end_watch(self, watcher: subprocess.Popen[str]) -> list[str]:
        """What was seen in processes."""
        self.host.exec(["rm", "-f", _WATCH])
        assert watcher.stdout
        lines = watcher.stdout.read().splitlines()
        watcher.wait(timeout=60)
        assert lines and lines[-1].startswith("looked") and int(lines[-1].split()[1]) > 50, lines
        return lines[:-1]

    def traces(self, values: list[str]) -> list[str]:
        """Every place outside its own files that has one of these values: what was printed, files, journal, Docker."""
        found = [f"printed: {text[:80]}" for text in self.said if any(value in text for value in values)]
        script = (
            "cat > /run/words && cd / && "
            "{ grep -rlFf /run/words /var/lib/switchyard /var/log /etc /usr/local /root /home /tmp /run/switchyard "
            "2>/dev/null; journalctl -o export --no-pager | grep -cFf /run/words | sed 's/^/journal: /'; "
            "docker inspect $(docker ps -aq) | grep -cFf /run/words | sed 's/^/inspect: /'; }; rm -f /run/words"
        )
        lines = self.host.exec(["sh", "-c", script], stdin="\n".join(values) + "\n", check=False).stdout.splitlines()
        found += [line for line in lines if not line.startswith(_ALLOWED) and not line.endswith(": 0")]
        for path in self._own_files():
            text = path.read_bytes()
            found += [str(path) for value in values if value.encode() in text]
        return found

    def _own_files(self) -> list[Path]:
        """The project's files, but those of Git and the generated passwords that the test started from."""
        left_out = {".git", "secrets", "vault-password"}
        files = (path for path in self.project.folder.rglob("*") if path.is_file() and not path.is_symlink())
        return [path for path in files if not left_out.intersection(path.relative_to(self.project.folder).parts)]
