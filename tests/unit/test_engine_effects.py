"""The two functions that change a host: whole files or none, sentences for failures, faults on demand."""

from __future__ import annotations

import errno
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchyard.engine import effects
from switchyard.engine.effects import CommandFailed, Completed, exclusive, query, replace_file, run
from switchyard.errors import Exit, SwitchyardError
from tests.unit.engine_world import QUICK

SOURCES = Path(effects.__file__).parents[2]


@pytest.fixture(autouse=True)
def no_faults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A fault file of this test's own, not there yet."""
    path = tmp_path / "run" / "fault.json"
    path.parent.mkdir()
    monkeypatch.setattr(effects, "FAULT_FILE", path)
    monkeypatch.setattr(effects, "_faults", effects._Faults())
    return path


@pytest.fixture
def owned_by_root(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let the fault file seem to belong to a user, root at first; nobody has to be root for it."""
    original = Path.stat
    owner = {"uid": 0}

    def stat_as(path: Path, **named: Any) -> os.stat_result:
        result = original(path, **named)
        if path != effects.FAULT_FILE:
            return result
        return os.stat_result([*result[:4], owner["uid"], *result[5:10]])

    monkeypatch.setattr(Path, "stat", stat_as)
    return lambda uid: owner.update(uid=uid)


def plant(path: Path, mode: int = 0o600, **plan: object) -> None:
    path.write_text(json.dumps(plan))
    path.chmod(mode)


# replace_file


@QUICK
@given(st.binary(max_size=300), st.binary(max_size=300))
def test_the_new_content_replaces_the_old_whole(tmp_path: Path, old: bytes, new: bytes) -> None:
    path = tmp_path / "a" / "b" / "file"
    replace_file(path, old, step="s")
    replace_file(path, new, step="s")
    assert path.read_bytes() == new
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_a_large_file_is_written_whole_also_in_small_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: original(descriptor, bytes(data[:7])))
    replace_file(tmp_path / "file", "x" * 1000, step="s")
    assert (tmp_path / "file").read_text() == "x" * 1000


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o640, 0o644])
def test_the_mode_is_the_one_that_was_asked_for_whatever_the_umask(tmp_path: Path, mode: int) -> None:
    before = os.umask(0o077)
    try:
        replace_file(tmp_path / "file", "", step="s", mode=mode)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


def test_content_is_never_readable_by_more_than_its_owner_before_it_has_its_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    monkeypatch.setattr(os, "fchown", lambda _, uid, gid: order.append(f"owner {uid} {gid}"))
    chmod, write = os.fchmod, os.write

    def fchmod(descriptor: int, mode: int) -> None:
        assert stat.S_IMODE(os.fstat(descriptor).st_mode) == 0o600
        order.append(f"mode {mode:o}")
        chmod(descriptor, mode)

    def writing(descriptor: int, data: bytes) -> int:
        order.append("write")
        return write(descriptor, data)

    monkeypatch.setattr(os, "fchmod", fchmod)
    monkeypatch.setattr(os, "write", writing)
    replace_file(tmp_path / "file", "secret", step="s", mode=0o400, owner=(10001, 10002))
    assert order == ["owner 10001 10002", "mode 400", "write"]


def test_without_an_owner_the_owner_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "fchown")
    replace_file(tmp_path / "file", "x", step="s")


def test_the_content_is_on_disk_before_the_name_and_the_name_before_the_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    fsync, rename = os.fsync, Path.replace

    def syncing(descriptor: int) -> None:
        order.append("sync directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "sync file")
        fsync(descriptor)

    def renaming(path: Path, target: Path) -> Path:
        order.append("rename")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", syncing)
    monkeypatch.setattr(Path, "replace", renaming)
    replace_file(tmp_path / "file", "x", step="s")
    assert order == ["sync file", "rename", "sync directory"]


def failing(number: int) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> Any:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO, errno.EDQUOT])
@pytest.mark.parametrize("step", ["os.open", "os.fchown", "os.fchmod", "os.write", "os.fsync", "Path.replace"])
def test_the_old_content_stands_wherever_a_write_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, number: int
) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with monkeypatch.context() as patch:
        place, _, name = step.partition(".")
        patch.setattr({"os": os, "Path": Path}[place], name, failing(number))
        with pytest.raises(SwitchyardError, match=f"^a step: cannot write {path}: "):
            replace_file(path, "new", step="a step", owner=(os.getuid(), os.getgid()))
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["file"]


def test_a_write_that_stops_half_way_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, original, calls = tmp_path / "file", os.write, iter(range(100))
    path.write_text("old")

    def half(descriptor: int, data: bytes) -> int:
        if next(calls) == 0:
            return original(descriptor, bytes(data[:2]))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(SwitchyardError):
        replace_file(path, "new content", step="s")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["file"]


@pytest.mark.parametrize(
    ("number", "fix"),
    [(errno.ENOSPC, "free space or inodes"), (errno.EROFS, "remount that file system read-write"),
     (errno.EIO, "check that file system")],
)  # fmt: skip
def test_a_full_or_read_only_disk_is_named_with_the_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, fix: str
) -> None:
    monkeypatch.setattr(os, "write", failing(number))
    with pytest.raises(SwitchyardError) as error:
        replace_file(tmp_path / "file", "x", step="ledger.end")
    text = error.value.message
    assert text.startswith(f"ledger.end: cannot write {tmp_path}/file: {os.strerror(number)}; {fix}")
    assert error.value.code is Exit.FAILED


def test_a_parent_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(SwitchyardError, match="cannot write"):
        replace_file(tmp_path / "taken" / "file", "x", step="s")


def test_a_link_in_the_temporary_files_place_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / f".file.{os.getpid()}.tmp").symlink_to(victim)
    with pytest.raises(SwitchyardError):
        replace_file(tmp_path / "file", "x", step="s")
    assert victim.read_text() == "mine"


# run and query


def test_a_command_answers_with_its_code_and_what_it_said() -> None:
    code = "import sys; print(input()); sys.stderr.write('err'); sys.exit(3)"
    assert run([sys.executable, "-c", code], step="s", stdin="hello", check=False) == Completed(3, "hello\n", "err")


def test_what_is_added_to_the_environment_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEPT", "1")
    code = "import os; print(os.environ['KEPT'], os.environ['ADDED'])"
    assert run([sys.executable, "-c", code], step="s", environment={"ADDED": "2"}).out == "1 2\n"


def test_a_command_that_had_to_succeed_is_named_with_its_most_telling_line() -> None:
    code = "import sys; sys.stderr.write('warning\\nno space left\\n\\n'); sys.exit(1)"
    with pytest.raises(CommandFailed) as error:
        run([sys.executable, "-c", code], step="pull.image")
    assert error.value.message == f"pull.image: {sys.executable} failed: no space left"
    assert error.value.completed.code == 1


def test_a_failed_command_that_said_nothing_is_named_by_its_code() -> None:
    with pytest.raises(CommandFailed, match="exit code 7"):
        run([sys.executable, "-c", "raise SystemExit(7)"], step="s")


def test_a_command_that_hangs_is_ended_and_named() -> None:
    with pytest.raises(SwitchyardError, match=r"colour\.start: .* did not finish within 0 s"):
        run([sys.executable, "-c", "import time; time.sleep(60)"], step="colour.start", timeout=0.05)


def test_a_command_that_is_not_there_is_named() -> None:
    with pytest.raises(SwitchyardError, match="s: cannot run no-such-command: No such file"):
        run(["no-such-command"], step="s")


def test_a_query_never_raises() -> None:
    assert query(["no-such-command"]).code == 127
    assert query([sys.executable, "-c", "import time; time.sleep(60)"], timeout=0.05).code == 127
    assert query([sys.executable, "-c", r"import sys; sys.stdout.buffer.write(b'\xff')"]).out == "\ufffd"


# Faults


def test_without_a_fault_file_nothing_is_counted(tmp_path: Path) -> None:
    replace_file(tmp_path / "file", "x", step="s")
    assert effects._faults.passed == {}


@pytest.mark.usefixtures("owned_by_root")
@pytest.mark.parametrize(("when", "content"), [("before", "old"), ("after", "new")])
def test_an_error_strikes_just_before_or_just_after_the_rename(
    tmp_path: Path, no_faults: Path, when: str, content: str
) -> None:
    (tmp_path / "file").write_text("old")
    plant(no_faults, step="s", nth=1, when=when, how="error")
    with pytest.raises(SwitchyardError, match=f"injected fault {when} 's'|Input/output"):
        replace_file(tmp_path / "file", "new", step="s")
    assert (tmp_path / "file").read_text() == content


@pytest.mark.usefixtures("owned_by_root")
def test_a_fault_fires_once_and_takes_its_file_with_it(tmp_path: Path, no_faults: Path) -> None:
    plant(no_faults, step="s", when="before", how="error")
    with pytest.raises(SwitchyardError):
        replace_file(tmp_path / "file", "x", step="s")
    assert not no_faults.exists()
    replace_file(tmp_path / "file", "x", step="s")
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.usefixtures("owned_by_root")
def test_only_the_named_step_and_the_named_time_are_struck(tmp_path: Path, no_faults: Path) -> None:
    plant(no_faults, step="b", nth=3, when="before", how="error")
    for step in ("a", "b", "a", "b", "a"):
        replace_file(tmp_path / "file", step, step=step)
    with pytest.raises(SwitchyardError):
        replace_file(tmp_path / "file", "third", step="b")
    assert (tmp_path / "file").read_text() == "a"


@pytest.mark.usefixtures("owned_by_root")
@pytest.mark.parametrize(("when", "runs"), [("before", False), ("after", True)])
def test_a_command_is_struck_before_or_after_it_ran(tmp_path: Path, no_faults: Path, when: str, runs: bool) -> None:
    plant(no_faults, step="s", when=when, how="error")
    with pytest.raises(SwitchyardError):
        run(["touch", str(tmp_path / "ran")], step="s")
    assert (tmp_path / "ran").exists() is runs


@pytest.mark.usefixtures("owned_by_root")
def test_a_hang_ends_at_the_effects_own_timeout(
    tmp_path: Path, no_faults: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    plant(no_faults, step="s", when="before", how="hang", hang_seconds=3600)
    with pytest.raises(SwitchyardError, match="s: touch did not finish within 5 s"):
        run(["touch", str(tmp_path / "ran")], step="s", timeout=5)
    assert slept == [5]
    assert not (tmp_path / "ran").exists()


@pytest.mark.usefixtures("owned_by_root")
def test_a_trace_names_every_step_in_order(tmp_path: Path, no_faults: Path) -> None:
    plant(no_faults, step="none", when="before", how="kill", trace=str(tmp_path / "trace"))
    for step in ("a", "b", "a"):
        replace_file(tmp_path / "file", "x", step=step)
    assert (tmp_path / "trace").read_text() == "a 1\nb 1\na 2\n"


def test_a_fault_file_of_somebody_else_is_ignored(
    tmp_path: Path, no_faults: Path, owned_by_root: Callable[[int], None]
) -> None:
    owned_by_root(1000)
    plant(no_faults, step="s", when="before", how="error")
    replace_file(tmp_path / "file", "x", step="s")
    assert no_faults.exists()


@pytest.mark.usefixtures("owned_by_root")
@pytest.mark.parametrize("mode", [0o602, 0o620, 0o666])
def test_a_fault_file_that_others_may_write_is_ignored(tmp_path: Path, no_faults: Path, mode: int) -> None:
    plant(no_faults, mode, step="s", when="before", how="error")
    replace_file(tmp_path / "file", "x", step="s")
    assert no_faults.exists()


@pytest.mark.usefixtures("owned_by_root")
def test_a_damaged_fault_file_is_ignored(tmp_path: Path, no_faults: Path) -> None:
    no_faults.write_text("{")
    no_faults.chmod(0o600)
    replace_file(tmp_path / "file", "x", step="s")


KILLED = """
import json, os, sys
from pathlib import Path
from switchyard.engine import effects
effects.FAULT_FILE = Path(sys.argv[1])
effects._faults._load = lambda: None
effects._faults.plan = {"step": "s", "nth": 1, "when": sys.argv[2], "how": "kill"}
effects.replace_file(Path(sys.argv[3]), "new", step="s")
print("survived")
"""


@pytest.mark.parametrize(("when", "content"), [("before", "old"), ("after", "new")])
def test_a_kill_leaves_the_old_file_or_the_new_one(tmp_path: Path, when: str, content: str) -> None:
    file, fault = tmp_path / "file", tmp_path / "fault"
    file.write_text("old")
    fault.write_text("")
    argv = [sys.executable, "-c", KILLED, str(fault), when, str(file)]
    done = subprocess.run(argv, env={"PYTHONPATH": str(SOURCES)}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGKILL, "", "")
    assert file.read_text() == content
    assert not fault.exists()


# exclusive


def test_a_held_lock_is_refused_with_its_sentence_and_free_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "run" / "app.lock"
    with exclusive(path, wait=0, busy="somebody is at it"):
        with (
            pytest.raises(SwitchyardError, match="somebody is at it") as error,
            exclusive(path, wait=0, busy="somebody is at it"),
        ):
            pytest.fail("two held it")
        assert error.value.code is Exit.BUSY
    with exclusive(path, wait=0, busy="not free"):
        pass


def test_a_lock_is_freed_when_the_block_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), exclusive(tmp_path / "lock", wait=0, busy=""):
        raise ZeroDivisionError
    with exclusive(tmp_path / "lock", wait=0, busy="not free"):
        pass


def test_two_locks_do_not_hinder_each_other(tmp_path: Path) -> None:
    with exclusive(tmp_path / "a", wait=0, busy=""), exclusive(tmp_path / "b", wait=0, busy=""):
        pass


HOLDER = """
import sys
from pathlib import Path
from switchyard.engine.effects import exclusive
with exclusive(Path(sys.argv[1]), wait=0, busy="busy"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        env={"PYTHONPATH": str(SOURCES)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as holder:  # fmt: skip
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(SwitchyardError, match="busy"), exclusive(path, wait=0, busy="busy"):
            pytest.fail("two held it")
        holder.kill()
        holder.wait()
    with exclusive(path, wait=0, busy="not free"):
        pass


def test_a_command_that_is_started_under_the_lock_does_not_inherit_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with exclusive(path, wait=0, busy=""):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        with exclusive(path, wait=0, busy="a child holds it"):
            pass
    finally:
        child.communicate(b"\n")
