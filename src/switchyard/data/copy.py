"""A restored copy of the database in a container of its own: for a look, for a drill, or to become the live one.

Until somebody makes it the live one, nothing of the live database is touched.
"""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from switchyard.data import database, pgbackrest
from switchyard.data.repositories import INSIDE, LOCAL_INSIDE, SPOOL_INSIDE
from switchyard.data.settings import STANZA, Backup
from switchyard.data.trial import Traces
from switchyard.engine import docker
from switchyard.engine.effects import Completed, query, run
from switchyard.errors import Exit, SwitchyardError

Say = Callable[[str], None]
SPACE = 1.2
"""A copy needs this many times the size of the database: itself, and the WAL that it replays."""
_RESERVE = 256 << 20
_PROGRESS_SECONDS = 10.0
_READY_SECONDS = 4 * pgbackrest.HOURS


def require_space(place: Path, size: int, what: str) -> None:
    """Refuse to fill the disk that the live database needs with `size` bytes, and say what they would be."""
    place = next(path for path in (place, *place.parents) if path.exists())
    status = os.statvfs(place)
    free, needed = status.f_bavail * status.f_frsize, size + _RESERVE
    if free < needed:
        raise SwitchyardError(
            f"{place} has {free >> 20} MiB free, {what} needs {needed >> 20} MiB: free space there, or enlarge the "
            "disk.",
            Exit.PREFLIGHT,
        )


@dataclass(frozen=True)
class Copy:
    """A copy by the name of its container; its data lies in `folder` on the host."""

    backup: Backup
    name: str
    folder: Path
    memory_mb: int = 0
    """0: as much as it likes."""
    shared: tuple[tuple[Path, str], ...] = ()
    """Directories of the host that it may write to, and where it sees them."""

    # Before it is there

    def require_space(self, size: int) -> None:
        """Refuse to fill the disk that the live database needs; `size` is the database's in bytes."""
        require_space(self.folder, int(size * SPACE), "a restored copy")

    def restore(self, chosen: pgbackrest.Kept, words: list[str], say: Say) -> None:
        """Fetch the files of a backup. What an earlier attempt left is removed first."""
        self.remove()
        self.require_space(chosen.size)
        owner = str(self.backup.uid)
        inner = PurePosixPath(self.backup.pgdata).relative_to(self.backup.data_path)
        folders = [str(self.folder), *([str(self.folder / inner)] if str(inner) != "." else [])]
        run(["install", "-d", "-m", "0700", "-o", owner, "-g", owner, *folders], step="copy.folder")
        argv = [*self._container(f"{self.name}-restore", self._network(chosen)), "--rm", "--entrypoint=pgbackrest"]
        argv += [self.image, f"--stanza={STANZA}", "--log-level-console=warn", *words, "restore"]
        done = self._watched(lambda: run(argv, step="copy.restore", timeout=_READY_SECONDS, check=False), chosen, say)
        if done.code != 0:
            raise SwitchyardError(f"Backup {chosen.label} cannot be restored: {pgbackrest.explain(done)}.")

    def tool(self, *words: str) -> list[str]:
        """The argv of pgBackRest in a throw-away container, for when the live one does not run."""
        off_site = any(repository.off_site for repository in self.backup.repositories)
        argv = self._container(f"{self.name}-tool", "bridge" if off_site else "none")
        return [*argv, "--rm", "--entrypoint=pgbackrest", self.image, f"--stanza={STANZA}", *words]

    @property
    def image(self) -> str:
        """The very image that the live database runs from, else the one that it was set up with."""
        found = docker.inspect(self.backup.container)
        return str(found["Image"]) if found else self.backup.image

    def _network(self, chosen: pgbackrest.Kept) -> str:
        """None at all, unless the backup lies on another host."""
        return "bridge" if self.backup.repositories[chosen.repository - 1].off_site else "none"

    def _container(self, name: str, network: str) -> list[str]:
        uid = self.backup.uid
        mounts = [
            (self.folder, self.backup.data_path, ""),
            (self.backup.configuration, INSIDE, ",readonly"),
            (self.backup.local, LOCAL_INSIDE, ",readonly"),
            *((source, target, "") for source, target in self.shared),
        ]
        return [
            *("docker", "run", "--name", name, "--init", f"--network={network}", f"--user={uid}:{uid}"),
            *("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--tmpfs=/tmp:mode=1777"),
            *(f"--tmpfs={place}:uid={uid},gid={uid},mode=0700" for place in ("/run/postgresql", SPOOL_INSIDE)),
            *(f"--mount=type=bind,source={source},target={target}{more}" for source, target, more in mounts),
            *(
                "--pids-limit=1024",
                "--log-opt=max-size=10m",
                "--log-opt=max-file=3",
                f"--label=switchyard.copy-of={self.backup.name}",
                f"--env=PGDATA={self.backup.pgdata}",
            ),
            *((f"--memory={self.memory_mb}m",) if self.memory_mb else ()),
        ]

    def _watched(self, work: Callable[[], Completed], chosen: pgbackrest.Kept, say: Say) -> Completed:
        """Say how far it is, every ten seconds."""
        done = threading.Event()

        def report() -> None:
            while not done.wait(_PROGRESS_SECONDS):
                have = sum(f.lstat().st_size for f in self.folder.rglob("*") if not f.is_symlink() and f.is_file())
                say(f"restore: {have >> 20} of {chosen.size >> 20} MiB")

        thread = threading.Thread(target=report, daemon=True)
        thread.start()
        try:
            return work()
        finally:
            done.set()
            thread.join()

    # When it is there

    def start(self, chosen: pgbackrest.Kept, *, to_be_live: bool = False) -> None:
        """Start the server; it replays WAL up to the target and then takes writes."""
        # A copy must never archive. One that is to be live keeps its WAL until it is: it is archived then.
        archive = {"archive_mode": "on", "archive_command": "false"} if to_be_live else {"archive_mode": "off"}
        settings = {
            **self.backup.settings,
            # The live server's limits need not be known: nothing reads from it before the end of recovery.
            "hot_standby": "off",
            "listen_addresses": "*",
            "shared_buffers": "128MB",
            "max_wal_size": "1GB",
            "fsync": "on" if to_be_live else "off",
            **archive,
        }
        argv = [
            *self._container(self.name, self._network(chosen)),
            "--detach",
            "--shm-size=128m",
            self.image,
            "postgres",
        ]
        for key, value in sorted(settings.items()):
            argv += ["-c", f"{key}={value}"]
        run(argv, step="copy.start")

    def start_empty(self, mounts: list[tuple[Path, str]]) -> None:
        """Start an empty server of the same image, for a dump to be restored into; `mounts` can be read in it."""
        self.remove()
        owner = str(self.backup.uid)
        run(["install", "-d", "-m", "0700", "-o", owner, "-g", owner, str(self.folder)], step="copy.folder")
        # Nobody but its own socket reaches it, so it needs no password.
        argv = [*self._container(self.name, "none"), "--detach", "--env=POSTGRES_HOST_AUTH_METHOD=trust"]
        argv += [f"--mount=type=bind,source={source},target={target},readonly" for source, target in mounts]
        run([*argv, self.image, "postgres", "-c", "fsync=off", "-c", "max_wal_size=1GB"], step="copy.start")

    def wait_ready(self, say: Say) -> None:
        """Wait for the end of recovery. Raises `SwitchyardError` with the server's own words when it gives up."""
        deadline = time.monotonic() + _READY_SECONDS
        said = time.monotonic()
        while True:
            found = docker.inspect(self.name)
            if found is None or not found["State"]["Running"]:
                raise SwitchyardError(f"The copy cannot recover: {self._last_words()}.")
            if database.answers(self.name, step="copy.answers"):
                break
            if time.monotonic() > deadline:
                raise SwitchyardError(f"The copy was not ready after {_READY_SECONDS / 3600:.0f} h.")
            if time.monotonic() - said > _PROGRESS_SECONDS:
                said = time.monotonic()
                say(f"restore: replaying WAL: {self._log_line('restored log file')}")
            time.sleep(0.3)
        for network in found["NetworkSettings"]["Networks"]:
            if network == "bridge":
                # It needed a way to the backups; from here on it has none to anywhere.
                run(["docker", "network", "disconnect", "bridge", self.name], step="copy.disconnect")

    def _log(self) -> list[str]:
        answer = query(["docker", "logs", "--tail", "200", self.name])
        return (answer.out + answer.err).splitlines()

    def _log_line(self, words: str) -> str:
        lines = [line for line in self._log() if words in line]
        return lines[-1].rpartition("LOG:")[2].strip() if lines else "looking for the first segment"

    def _last_words(self) -> str:
        # Those who asked too early are told so as a FATAL, too.
        grave = [line for line in self._log() if "FATAL" in line or "PANIC" in line]
        lines = [line for line in grave if "the database system is" not in line]
        text = lines[0].partition(":  ")[2].strip() if lines else "its log has no reason"
        if "before configured recovery target" in text:
            return "the archive ends before the target, so nothing that late can be restored"
        return text

    def last_commit(self) -> str:
        """Time of the last transaction that was replayed, ISO 8601; '' when none was."""
        statement = (
            "SELECT to_char(pg_last_xact_replay_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS+00:00')"
        )
        return database.one(self.name, statement, step="copy.last_commit")

    def stop(self) -> None:
        """Stop the server cleanly; the data stays."""
        run(["docker", "stop", "--time", "300", self.name], step="copy.stop", timeout=400)

    def remove_container(self) -> None:
        """Remove its containers; the data stays."""
        run(
            ["docker", "rm", "--force", "--volumes", self.name, f"{self.name}-restore"], step="copy.remove", check=False
        )

    def remove(self) -> None:
        """Remove containers and data."""
        self.remove_container()
        if self.folder.exists():
            run(["rm", "-rf", "--one-file-system", "--", str(self.folder)], step="copy.delete", timeout=1800)


def drill_copy(backup: Backup) -> Copy:
    """The copy that a drill examines."""
    return Copy(backup, f"{backup.name}-drill-copy", backup.folder / "drill", backup.drill.memory_mb)


def dump_check(backup: Backup) -> Copy:
    """The empty server that a dump is restored into."""
    return Copy(backup, f"{backup.name}-dump-check", backup.folder / "dump-check", backup.drill.memory_mb)


def sweep(backup: Backup) -> None:
    """Remove what drills and dumps left that were killed; the caller holds the lock, so none is at work.

    The copy for a look stays, and that of a restore in place is for recovery to settle.
    """
    tried, drilled = Traces(backup.name), drill_copy(backup)
    # First, since the copy's folder tells of it; its file has secrets in it.
    if drilled.folder.exists() or tried.file.exists():
        tried.remove(drilled.name)
    for left in (drilled, dump_check(backup)):
        if left.folder.exists():
            left.remove()


def scratch(backup: Backup) -> Copy:
    """The copy for a look."""
    return Copy(backup, f"{backup.name}-scratch", backup.folder / "scratch", backup.drill.memory_mb)
