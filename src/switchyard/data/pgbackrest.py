"""pgBackRest: which command does what, and what its answers mean. The traps that are known are closed here."""

import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from switchyard.data.settings import STANZA
from switchyard.engine.effects import CommandFailed, Completed, run
from switchyard.errors import Exit, SwitchyardError

HOURS = 3600.0
_LOCK_SECONDS = 180.0
LOCKED = 50
"""Exit code of pgBackRest when another one of its commands holds the stanza's lock."""

_LABEL = re.compile(r"\d{8}-\d{6}F(_\d{8}-\d{6}[DI])?")
_POINT = re.compile(r"before-deploy=(\d{1,9})")
_STORE = re.compile(r"<Code>(\w+)</Code>\s*<Message>([^<]*)</Message>")
"""How an S3 service says why it refuses."""
_STANDBY = re.compile(r"WARN: (unable to (?:check pg2|find a standby).*)")
_NOISE = re.compile(r"^[\d: .-]*P\d+\s+(ERROR|WARN): ")


@dataclass(frozen=True)
class Kept:
    """One backup in a repository."""

    label: str
    type: str
    began: datetime
    ended: datetime
    size: int
    """Bytes of the database that it restores."""
    repository: int
    first_wal: str = ""
    """The segment of WAL that it begins with."""


@dataclass(frozen=True)
class Target:
    """What to restore to."""

    kind: str
    """`latest`, `time`, `point` or `backup`."""
    time: datetime | None = None
    name: str = ""
    """Label of a backup, or number of a release."""

    def __str__(self) -> str:
        if self.kind == "time" and self.time:
            return f"{self.time:%Y-%m-%d %H:%M:%S%z}"
        return {"latest": "latest", "point": f"before-deploy={self.name}", "backup": f"backup={self.name}"}[self.kind]


def parse_target(text: str) -> Target:
    """Read what `-e to=` says; raises `SwitchyardError` with the four forms."""
    text = text.strip()
    if text in ("", "latest"):
        return Target("latest")
    if found := _POINT.fullmatch(text):
        return Target("point", name=found[1])
    if text.startswith("backup=") and _LABEL.fullmatch(text.removeprefix("backup=")):
        return Target("backup", name=text.removeprefix("backup="))
    # Postgres writes an offset as +00, ISO 8601 as +00:00 or Z.
    given = re.sub(r"([+-]\d\d)$", r"\1:00", text)
    try:
        time = datetime.fromisoformat(given)
    except ValueError:
        raise SwitchyardError(
            f"'{text[:64]}' is no restore target: use latest, a time such as \"2026-11-20 14:03:00+00\", "
            "before-deploy=42 or backup=LABEL.",
            Exit.USAGE,
        ) from None
    return Target("time", time=time if time.tzinfo else datetime.combine(time.date(), time.time(), UTC))


def argv(container: str, *words: str) -> list[str]:
    """The argv of a pgBackRest command in a running container."""
    return ["docker", "exec", container, "pgbackrest", f"--stanza={STANZA}", *words]


def command(container: str, *words: str, step: str, timeout: float = HOURS) -> Completed:
    """Run a pgBackRest command; raises `SwitchyardError` with its own first error.

    The stanza's lock is often held for moments, as by the archiver of a server that has just started; it is waited for.
    """
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        done = run(argv(container, *words), step=step, timeout=timeout, check=False)
        if done.code != LOCKED or time.monotonic() > deadline:
            break
        time.sleep(1)
    if done.code != 0:
        raise CommandFailed(step, ["pgbackrest"], Completed(done.code, "", explain(done)))
    return done


def explain(done: Completed) -> str:
    """The sentence in which pgBackRest says what is wrong, without its clock and codes."""
    text = done.err + "\n" + done.out
    if _STORE.search(text):
        return readable(text)
    lines = text.splitlines()
    said = [_NOISE.sub("", line).strip() for line in lines if " ERROR: " in line or line.startswith("ERROR: ")]
    return readable(said[0] if said else done.reason)


def standby_problem(text: str) -> str:
    """Why a backup that preferred the standby was read from the primary; empty when it was not."""
    found = _STANDBY.search(text)
    return readable(found[1]) if found else ""


def readable(text: str) -> str:
    """An error of pgBackRest in one printable line; a file that cannot be decrypted is quoted by it as bytes.

    Of a request that an S3 service refused, which it quotes whole, only the service's own reason is kept.
    """
    if refused := _STORE.search(text):
        return f"the store refuses ({refused[1]}): {refused[2].rstrip('.')}"
    first = text.split("\nFormatError", maxsplit=1)[0] if "\n" in text else text
    plain = " ".join("".join(c if c.isprintable() else " " for c in first).split())
    if "FormatError" in text or "CryptoError" in text or "unable to flush" in text:
        return f"{plain.partition(': FormatError')[0][:160]}: it is damaged, or the passphrase is another one"
    return plain[:300].rstrip(".:")


def kept(container: str) -> list[Kept]:
    """Every usable backup in every repository that answers, oldest first."""
    return parse_info(info(container))


def info(container: str) -> dict[str, Any]:
    """What pgBackRest knows of the stanza; empty when it was never created."""
    done = command(container, "--output=json", "--log-level-console=error", "info", step="backup.info", timeout=300)
    return first_stanza(done.out)


def first_stanza(text: str) -> dict[str, Any]:
    """The one stanza of an answer of `info --output=json`."""
    try:
        # What it quotes of a file that it cannot decrypt is no proper JSON.
        stanzas = json.loads(text, strict=False)
    except ValueError as error:
        raise SwitchyardError(f"pgBackRest's description of the backups is no JSON: {error}.") from error
    return dict(stanzas[0]) if stanzas else {}


def parse_info(stanza: dict[str, Any]) -> list[Kept]:
    """The backups of an `info` answer that belong to the cluster in use, oldest first; broken ones are left out."""
    current = {entry["repo-key"]: entry["id"] for entry in stanza.get("db", [])}
    found = []
    for entry in stanza.get("backup", []):
        repository = int(entry["database"]["repo-key"])
        if entry.get("error") or entry["database"]["id"] != current.get(repository):
            continue
        began, ended = (datetime.fromtimestamp(entry["timestamp"][key], UTC) for key in ("start", "stop"))
        size, wal = int(entry["info"]["size"]), str((entry.get("archive") or {}).get("start") or "")
        found.append(Kept(entry["label"], entry["type"], began, ended, size, repository, wal))
    return sorted(found, key=lambda one: (one.ended, one.repository))


NEW = (1, 2, 3, 4)
"""Codes of `info` for a repository that is empty, or holds no backup yet."""


def repository_problems(stanza: dict[str, Any], names: Sequence[str], *, ignore: Sequence[int] = ()) -> dict[str, str]:
    """What `info` finds wrong with each repository, by name; a healthy one is not in it."""
    problems = {}
    for entry in stanza.get("repo", []):
        status = entry.get("status", {})
        if status.get("code", 0) not in (0, *ignore) and 0 < int(entry["key"]) <= len(names):
            problems[names[int(entry["key"]) - 1]] = readable(str(status.get("message", "unknown")))
    return problems


def empty_repositories(stanza: dict[str, Any], names: Sequence[str]) -> list[str]:
    """The repositories of an `info` answer that hold no backup; all of them when the stanza was never created."""
    if not stanza:
        return list(names)
    empty = {int(entry["key"]) for entry in stanza.get("repo", []) if entry.get("status", {}).get("code", 0) in NEW}
    return [name for number, name in enumerate(names, start=1) if number in empty]


def wal_files(container: str, repository: int) -> list[str]:
    """Paths of everything in a repository's archive."""
    words = (f"--repo={repository}", "--output=json", "--recurse", "--log-level-console=error", "repo-ls")
    done = command(container, *words, f"archive/{STANZA}", step="backup.list_wal", timeout=1800)
    return list(json.loads(done.out))


def choose(backups: Sequence[Kept], target: Target, point: datetime | None = None) -> Kept:
    """The backup to restore from: the newest that ended before the target.

    `point` is when the restore point was made. Raises `SwitchyardError` naming what there is.
    """
    if not backups:
        raise SwitchyardError("The repository holds no backup of this database.", Exit.PREFLIGHT)
    if target.kind == "backup":
        matching = [one for one in backups if one.label == target.name]
        if not matching:
            labels = ", ".join(sorted({one.label for one in backups})[-8:])
            raise SwitchyardError(f"There is no backup {target.name}; the newest are: {labels}.", Exit.USAGE)
        return matching[0]
    moment = target.time if target.kind == "time" else point
    earlier = [one for one in backups if moment is None or one.ended <= moment]
    if not earlier:
        raise SwitchyardError(
            f"Nothing goes back to {target}: the oldest backup ended at {backups[0].ended:%Y-%m-%d %H:%M:%S+00}.",
            Exit.USAGE,
        )
    newest = earlier[-1].ended
    # The same backup in several places: the nearest one.
    return min((one for one in earlier if newest - one.ended < timedelta(seconds=1)), key=lambda one: one.repository)


def restore_words(chosen: Kept, target: Target, timeline: int = 0) -> list[str]:
    """The options of `restore` for a backup and a target; `timeline` 0 is the newest one."""
    words = [f"--repo={chosen.repository}", f"--set={chosen.label}"]
    if target.kind == "backup":
        return [*words, "--type=immediate", "--target-action=promote"]
    if target.kind == "time" and target.time:
        words += ["--type=time", f"--target={target.time.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f+00}"]
    elif target.kind == "point":
        words += ["--type=name", f"--target={point_name(target.name)}"]
    else:
        return words
    return [*words, "--target-action=promote", *_timeline_words(chosen, timeline)]


def _timeline_words(chosen: Kept, timeline: int) -> list[str]:
    """The timeline to follow; the backup's own one needs no history file, which a younger repository may lack."""
    if not timeline:
        return []
    own = int(chosen.first_wal[:8] or "0", 16)
    return ["--target-timeline=current" if timeline == own else f"--target-timeline={timeline}"]


def point_name(release: str) -> str:
    """Name of the restore point that is made before a release's migration: by the number alone."""
    return f"before-deploy-{int(release.partition('-')[0])}"
