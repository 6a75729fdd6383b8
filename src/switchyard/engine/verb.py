"""What every verb needs: its arguments, the application it is about, and how it answers."""

import argparse
import json
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from switchyard.errors import Exit, SwitchyardError
from switchyard.names import AppName, new_operation

if TYPE_CHECKING:
    from switchyard.engine.layout import AppPaths
    from switchyard.engine.operation import Operation

T = TypeVar("T")
Handler = Callable[[argparse.Namespace], int]


class VerbAdder(Protocol):
    """Adds one verb to the command line; a room beside the engine is handed this to add its own."""

    def __call__(
        self, name: str, handler: Handler, text: str, *, app: bool = True, with_json: bool = True
    ) -> argparse.ArgumentParser:
        """Add the verb `name`; with `app` it takes an APP-ENV, with `with_json` the option --json."""
        ...


def read_input() -> Any:
    """Read one JSON document from standard input; raises `SwitchyardError` when it is none."""
    try:
        return json.load(sys.stdin)
    except ValueError as error:
        raise SwitchyardError(f"Standard input is not JSON: {error}.", Exit.USAGE) from error


def read_as(cls: type[T], verb: str) -> T:
    """Read a `cls` (a dataclass) from standard input; raises `SwitchyardError` naming the key that is wrong."""
    from switchyard.strict import build

    return build(cls, read_input(), verb)


def app_name(text: str) -> AppName:
    """Parse an APP-ENV; an empty one means the only application of this host, if there is just one."""
    from switchyard.engine.layout import known_apps

    if text:
        return AppName.parse(text)
    known = known_apps()
    if len(known) == 1:
        return known[0]
    names = ", ".join(map(str, known)) or "none yet"
    raise SwitchyardError(f"Name the application and environment (APP-ENV); this host has: {names}.", Exit.USAGE)


def show(arguments: argparse.Namespace, data: Any, text: str) -> None:
    """Answer as one JSON document when asked to, else as text."""
    print(json.dumps(data) if arguments.json else text)


def by_hand(kind: str, name: AppName) -> "Operation":
    """Prepare an operation that a person started on this host."""
    from switchyard.engine.layout import AppPaths, load_host
    from switchyard.engine.operation import Operation

    return Operation.open(new_operation(), kind, os.environ.get("SUDO_USER", "root"), AppPaths(name), load_host())


def follow_options(child: argparse.ArgumentParser) -> None:
    """Add the options of a verb that starts an operation."""
    child.add_argument("--wait", type=float, default=0.0, help=argparse.SUPPRESS)
    child.add_argument("--operation", default="", help="id of the operation, chosen by the caller")
    child.add_argument("--follow", action="store_true", help="wait for the end and print progress")


def launch(arguments: argparse.Namespace, paths: "AppPaths", kind: str, data: dict[str, Any]) -> int:
    """Start an operation in its unit and, with --follow, stay until its end; returns its exit code."""
    from switchyard.engine import follow

    operation = follow.start(paths, kind, data, arguments.operation)
    if not arguments.follow:
        print(json.dumps(follow.follow(paths, operation, 0, arguments.wait)))
        return 0
    result = follow.to_end(paths, operation, lambda line: None if arguments.json else print(line, flush=True))
    show(arguments, result, result["message"])
    return int(result["code"])
