"""The database of a provisioned host and its backups, for tests: asked, disturbed, restored."""

import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.bed import Host
from tests.project import Project

PASSPHRASE = "canary-5d1c-passphrase-not-to-be-seen"


@dataclass(frozen=True)
class Database:
    """One application's database on a host."""

    project: Project
    host: Host
    app: str

    @property
    def container(self) -> str:
        """Its container."""
        return f"{self.app}-postgres"

    @property
    def name(self) -> str:
        """Its name in the server."""
        return self.app.rpartition("-")[0].replace("-", "_")

    @property
    def repository(self) -> Path:
        """The repository on the host."""
        return Path(f"/var/backups/switchyard/{self.app}/pgbackrest")

    @property
    def folder(self) -> Path:
        """Switchyard's own files about the backups."""
        return Path(f"/var/lib/switchyard/backup/{self.app}")

    def configure(self, **variables: Any) -> None:
        """Set variables of the role `backup` in the project."""
        path = self.project.folder / "inventories" / "group_vars" / "env_local" / "zz_backup.yml"
        given = {"backup_enabled": True, "backup_passphrase": PASSPHRASE, "backup_jitter_seconds": 0} | variables
        path.write_text(yaml.safe_dump(given))

    def provision(self, *extra: str) -> str:
        """Run the part of provision.yml that is about backups; returns what it said."""
        done = self.project.play("provision", "--tags", "engine,backup", *extra)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def sql(self, statement: str, *, container: str = "", database: str = "") -> str:
        """Run SQL and return what it answered, one row a line."""
        argv = ["docker", "exec", "-i", container or self.container, "psql", "-XqAt", "-v", "ON_ERROR_STOP=1"]
        done = self.host.exec([*argv, "-U", "postgres", "-d", database or self.name], stdin=statement, timeout=120)
        return done.stdout.strip()

    def shell(self, script: str, *, check: bool = True, timeout: float = 300) -> str:
        """Run a script on the host as root; returns output and errors."""
        done = self.host.exec(["sh", "-c", script], check=check, timeout=timeout)
        return done.stdout + done.stderr

    def engine(self, *words: str, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        """Run a verb on the host."""
        return self.host.exec(["switchyard", *words], check=False, timeout=timeout)

    def operation(self, verb: str, *words: str) -> dict[str, Any]:
        """Run an operation to its end and return its result."""
        done = self.engine(verb, self.app, *words, "--follow", "--json")
        try:
            result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        except (ValueError, IndexError) as error:
            raise AssertionError(f"no result of {verb}: {done.stdout}{done.stderr}") from error
        return result

    def job(self, name: str) -> tuple[bool, str]:
        """Have systemd run what a timer runs; tells whether it succeeded, and what it said."""
        unit = f"switchyard-backup-{self.app}-{name}.service"
        began = self.shell("date +%s.%N").strip()
        done = self.host.exec(["systemctl", "start", unit], check=False, timeout=600)
        said = self.shell(f"journalctl --sync; journalctl -u {unit} -o cat --no-pager --since @{began}")
        return done.returncode == 0, said

    def count_secrets(self, *secrets: str) -> int:
        """How often a secret is in a process list, a log, what Docker knows, a compose file or our own files."""
        self.host.exec(["sh", "-c", "umask 077; cat > /root/secrets"], stdin="\n".join(secrets))
        script = (
            "(ps axeww -o args; journalctl -o cat --no-pager; cat /var/log/switchyard/ops/*; "
            "docker ps -aq | xargs -r docker inspect; docker ps -q | xargs -r -n 1 docker logs; "
            "find /var/lib/switchyard /etc/switchyard -name '*.yml' -o -name '*.json' | xargs cat) 2>&1 "
            "| grep -cFf /root/secrets; rm /root/secrets"
        )
        return int(self.shell(script))

    def spoil(self, what: str) -> str:
        """Spoil the newest backup (`byte`) or the archive (`segment`); returns the script that mends it again."""
        place = self.repository
        if what == "byte":
            file = self.shell(f"ls -t {place}/backup/main/*F/bundle/1 | head -n 1").strip()
            self.shell(f"cp -a {file} /root/kept")
            self.shell(f"printf X | dd of={file} bs=1 seek=$(($(stat -c %s {file}) / 2)) conv=notrunc status=none")
        else:
            for _ in range(4):
                self.sql("UPDATE parcels SET note = 'more WAL'; SELECT pg_switch_wal()")
            self.archived()
            file = self.shell(f"ls {place}/archive/main/*/*/0*.zst | tail -n 3 | head -n 1").strip()
            self.shell(f"cp -a {file} /root/kept; rm {file}")
        return f"cp -a /root/kept {file}; rm /root/kept"

    def change_passphrase(self) -> str:
        """Have another passphrase than the backups'; returns the script that mends it again."""
        secrets = self.folder / "pgbackrest" / "conf.d" / "secrets.conf"
        self.shell(f"cp -a {secrets} /root/kept; sed -i s/canary/another/ {secrets}")
        return f"cat /root/kept > {secrets}; rm /root/kept"

    def news(self) -> list[dict[str, Any]]:
        """What was announced and not fetched yet, oldest first."""
        text = self.shell("cat /var/spool/switchyard/news/* 2>/dev/null", check=False)
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    def started(self) -> str:
        """When the server started, by its own word; another one after a crash recovery as well."""
        crashes = self.shell(
            f"docker logs {self.container} 2>&1 | grep -cE 'terminating any other active|automatic recovery'",
            check=False,
        ).strip()
        return f"{self.sql('SELECT pg_postmaster_start_time()')} {crashes}"

    def archived(self, seconds: float = 180) -> None:
        """Wait until everything that was written is archived."""
        wal = self.sql("SELECT pg_walfile_name(pg_switch_wal())")
        deadline = time.monotonic() + seconds
        while self.sql("SELECT coalesce(max(last_archived_wal), '') FROM pg_stat_archiver") < wal:
            assert time.monotonic() < deadline, f"{wal} was not archived within {seconds:.0f} s"
            time.sleep(0.5)
