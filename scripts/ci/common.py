"""What every job script shares: inputs from the environment, outputs and a summary where the CI system takes them.

Standard library only, so that a runner needs nothing but Python 3.11. Inputs come as environment variables, never as
words of a command line: what a branch or a tag is called is somebody else's choice.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[2]
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", re.ASCII)
_ENVIRONMENT = re.compile(r"[a-z][a-z0-9]*", re.ASCII)


class JobError(Exception):
    """Why the job ends here: one sentence, and the exit code."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


def get(name: str, default: str = "") -> str:
    """An input; an empty one is taken for absent."""
    return os.environ.get(name, "").strip() or default


def need(name: str) -> str:
    """An input that has to be there; raises `JobError` naming it."""
    value = get(name)
    if not value:
        raise JobError(f"{name} is empty: set it among the job's inputs or secrets.", 2)
    return value


def seconds(name: str, default: float) -> float:
    """An input in seconds; raises `JobError` when it is no number."""
    text = get(name, str(default))
    try:
        return float(text)
    except ValueError:
        raise JobError(f"{name} is '{text}', and has to be a number of seconds.", 2) from None


def version_of(text: str) -> str:
    """A version that can be an image's tag; raises `JobError` otherwise."""
    if not _VERSION.fullmatch(text):
        raise JobError(f"'{text[:64]}' is no version: use letters, digits, dot, dash and underscore, such as 1.4.0.", 2)
    return text


def environment() -> str:
    """The environment; raises `JobError` when its name cannot be one."""
    text = need("SWITCHYARD_ENVIRONMENT")
    if not _ENVIRONMENT.fullmatch(text):
        raise JobError(f"'{text[:64]}' is no name of an environment.", 2)
    return text


def run_url() -> str:
    """The page of this job, where the CI system says so."""
    if get("RUN_URL"):
        return get("RUN_URL")
    if get("GITHUB_RUN_ID"):
        return f"{get('GITHUB_SERVER_URL')}/{get('GITHUB_REPOSITORY')}/actions/runs/{get('GITHUB_RUN_ID')}"
    return get("CI_JOB_URL")  # GitLab


def commit() -> str:
    """The commit that is built and released, where it is known."""
    text = get("COMMIT") or get("GITHUB_SHA") or get("CI_COMMIT_SHA")
    return text if re.fullmatch(r"[0-9a-f]{7,64}", text) else ""


def output(values: Mapping[str, object]) -> None:
    """Hand values to later steps and jobs, and show them where nobody takes them."""
    path = get("GITHUB_OUTPUT")
    if not path:
        for name, value in values.items():
            print(f"{name}={value}")
        return
    with Path(path).open("a") as file:
        for name, value in values.items():
            # A delimiter that nobody can guess: a value must not be able to end itself and begin another one.
            mark = secrets.token_hex(16)
            file.write(f"{name}<<{mark}\n{value}\n{mark}\n")


def summary(text: str) -> None:
    """Add Markdown to the job's summary."""
    path = get("GITHUB_STEP_SUMMARY")
    if path:
        with Path(path).open("a") as file:
            file.write(f"{text}\n\n")
    else:
        print(text)


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; nothing in a cell can end it."""

    def line(cells: Sequence[object]) -> str:
        return "| " + " | ".join(re.sub(r"\s+", " ", str(cell)).replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(head), line(["---"] * len(head)), *map(line, rows)])


def say(text: str) -> None:
    """Tell whoever reads the job's log."""
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def private_folder() -> Iterator[Path]:
    """A folder for keys that nobody else can read, gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="switchyard-", dir=get("RUNNER_TEMP") or None))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def private_file(folder: Path, name: str, text: str) -> Path:
    """A file for this user alone; a key without its last line break is no key."""
    path = folder / name
    path.touch(mode=0o600)
    path.write_text(text.rstrip("\n").replace("\r\n", "\n") + "\n")
    return path


def fail(error: JobError) -> NoReturn:
    """End the job with one sentence."""
    say(f"{Path(sys.argv[0]).name}: {error}")
    if get("GITHUB_ACTIONS"):
        # An annotation; its text is data, and a line break would end it.
        print(f"::error::{str(error).replace('%', '%25').replace(chr(10), '%0A')}")
    raise SystemExit(error.code)
