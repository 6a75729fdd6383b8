"""Places directories, files and links on a host: whole or not at all, and only told about in check mode.

Runs on hosts, so it uses the standard library alone.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import shlex
import stat
import tempfile
from pathlib import Path
from typing import Any


class Placing:
    """Collects what was placed; `module` is the AnsibleModule that reports it."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.paths: list[str] = []
        self._diffs: list[dict[str, str]] = []

    @property
    def changed(self) -> bool:
        """Tell whether anything was, or in check mode would be, changed."""
        return bool(self.paths)

    def report(self) -> dict[str, Any]:
        """What the module returns."""
        result: dict[str, Any] = {"changed": self.changed, "paths": self.paths}
        # `_diff` is what AnsibleModule offers to modules for this purpose.
        if self.module._diff:
            result["diff"] = self._diffs
        return result

    def directory(self, path: str, mode: int = 0o755, owner: str = "root", group: str = "root") -> None:
        """Have a directory with this mode and owner; its parents are made with mode 0755."""
        place = Path(path)
        if not place.is_dir():
            self._note(path, "absent\n", "directory\n")
            if not self.module.check_mode:
                place.mkdir(parents=True)
        self._attributes(path, mode, owner, group)

    def file(
        self,
        path: str,
        content: str,
        mode: int = 0o644,
        owner: str = "root",
        group: str = "root",
        validate: str = "",
        secret: bool = False,
    ) -> None:
        """Have a file with this content; readers see the old one or the new one. `validate` names it by %s."""
        place = Path(path)
        before = place.read_text(errors="replace") if place.is_file() else None
        if before != content:
            shown = ("(hidden)\n", "(hidden)\n") if secret else (before or "", content)
            self._note(path, *shown)
            self._write(place, content, mode, validate)
        self._attributes(path, mode, owner, group)

    def link(self, path: str, target: str) -> None:
        """Have a symbolic link, replaced in one step."""
        place = Path(path)
        before = str(place.readlink()) if place.is_symlink() else ""
        if before == target:
            return
        self._note(path, f"{before}\n", f"{target}\n")
        if not self.module.check_mode:
            temporary = place.with_name(f".{place.name}.new")
            temporary.unlink(missing_ok=True)
            temporary.symlink_to(target)
            temporary.replace(place)

    def absent(self, path: str) -> None:
        """Have no file of this name."""
        if Path(path).is_file() or Path(path).is_symlink():
            self._note(path, "present\n", "absent\n")
            if not self.module.check_mode:
                Path(path).unlink()

    def prune(self, directory: str, prefix: str, keep: list[str]) -> None:
        """Remove the files of a directory whose names begin with `prefix`, except those named in `keep`."""
        folder = Path(directory)
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            if path.name.startswith(prefix) and path.name not in keep and path.is_file():
                self.absent(str(path))

    def _note(self, path: str, before: str, after: str) -> None:
        if path not in self.paths:
            self.paths.append(path)
        self._diffs.append({"before_header": path, "after_header": path, "before": before, "after": after})

    def _write(self, place: Path, content: str, mode: int, validate: str) -> None:
        # What is checked in check mode must not be written anywhere near the real place, and may have no checker yet.
        if self.module.check_mode:
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=place.parent, prefix=f".{place.name}.")
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(mode)
            if validate:
                self._validate(place, temporary, validate)
            temporary.replace(place)
        finally:
            temporary.unlink(missing_ok=True)

    def _validate(self, place: Path, temporary: Path, validate: str) -> None:
        argv = [word.replace("%s", str(temporary)) for word in shlex.split(validate)]
        code, out, err = self.module.run_command(argv)
        if code != 0:
            reason = (err.strip() or out.strip() or f"exit code {code}").replace(str(temporary), str(place))
            self.module.fail_json(msg=f"{argv[0]} refuses the new {place}, so the old one stands: {reason}")

    def _attributes(self, path: str, mode: int, owner: str, group: str) -> None:
        if not Path(path).exists():
            return
        have = Path(path).stat()
        wanted = (_user(owner), _group(group))
        if None in wanted and not self.module.check_mode:
            self.module.fail_json(msg=f"{path} cannot belong to {owner}:{group}: this host has no such user or group.")
        if stat.S_IMODE(have.st_mode) == mode and (have.st_uid, have.st_gid) == wanted:
            return
        before = f"{stat.S_IMODE(have.st_mode):04o} {have.st_uid}:{have.st_gid}\n"
        self._note(path, before, f"{mode:04o} {owner}:{group}\n")
        if not self.module.check_mode:
            os.chown(path, *(number if number is not None else -1 for number in wanted))
            Path(path).chmod(mode)


def _user(name: str) -> int | None:
    if name.isdigit():
        return int(name)
    with contextlib.suppress(KeyError):
        return pwd.getpwnam(name).pw_uid
    return None


def _group(name: str) -> int | None:
    if name.isdigit():
        return int(name)
    with contextlib.suppress(KeyError):
        return grp.getgrnam(name).gr_gid
    return None
