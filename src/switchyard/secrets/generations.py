"""The generations of an application's secrets: one directory for each release that brought values.

A container mounts these files by path, and looks the path up again whenever it starts. So what a container was started
with is never written again, and a release that was refused leaves nothing that another one would read.
"""

from collections.abc import Mapping
from pathlib import Path

from switchyard.engine import docker
from switchyard.engine.effects import replace_file, run
from switchyard.engine.layout import AppPaths
from switchyard.engine.ledger import Ledger
from switchyard.errors import Exit, SwitchyardError
from switchyard.names import COLOURS, parse_release_id
from switchyard.request import Request, Service


def today(paths: AppPaths) -> Path:
    """Today's generation: that of the newest release that went live and was not taken back."""
    ledger = Ledger.load(paths)
    good = ledger.ever_live() - set(ledger.bad())
    return max((path for path in _all(paths) if path.name in good), key=_number, default=paths.secrets)


def of(paths: AppPaths, release: str) -> Path:
    """What a release is started with: today's generation, or its own while that is newer.

    So a release that is started again never brings back a secret that was rotated since.
    """
    own, now = paths.secrets / release, today(paths)
    return own if own.is_dir() and _number(own) > _number(now) else now


def place(paths: AppPaths, release: str, request: Request) -> dict[str, str]:
    """Write a release's own generation: one file each, readable by its container's uid alone.

    Returns the secrets that are `added` or `changed` against today's.
    """
    own, now = paths.secrets / release, today(paths)
    # A request out of a record names secrets without their values: today's go on.
    values = {name: secret.value or read(now, name) for name, secret in request.secrets.items()}
    for name, secret in request.secrets.items():
        replace_file(own / name, values[name], step="secrets.file", mode=0o400, owner=(secret.uid, secret.uid))
    for name, service in request.services.items():
        if service.secret_env:
            text = environment_file(service, values)
            replace_file(own / f"{name}.env", text, step="secrets.environment", mode=0o400)
    _carry_over(now, own)
    there = {name for name in values if (now / name).is_file()}
    new = {name: "changed" if name in there else "added" for name in values}
    return {name: outcome for name, outcome in new.items() if name not in there or read(now, name) != values[name]}


def _carry_over(now: Path, own: Path) -> None:
    """What this release does not name any more goes on as it is: an older one may need it."""
    left = [path for path in now.iterdir() if path.is_file()] if now.is_dir() else []
    for path in left:
        if not (own / path.name).exists():
            told = path.stat()
            owner = (told.st_uid, told.st_gid)
            replace_file(own / path.name, read(now, path.name), step="secrets.kept", mode=0o400, owner=owner)


def read(generation: Path, secret: str) -> str:
    """One secret's value; it stays on this host, and travels as every request does."""
    try:
        return (generation / secret).read_bytes().decode()
    except OSError as error:
        raise SwitchyardError(
            f"The secret {secret} is not on this host ({error.strerror}): release once with deploy.yml.", Exit.PREFLIGHT
        ) from error


def prune(paths: AppPaths) -> None:
    """Remove generations from before today's, unless a container that is still there was started with one."""
    now = today(paths)
    mounted = {
        Path(source).parent
        for colour in COLOURS
        for container in docker.of_colour(paths.name, colour)
        for source in container.mounts
    }
    old = sorted(path for path in _all(paths) if _number(path) < _number(now) and path not in mounted)
    if old:
        run(["rm", "-rf", "--", *map(str, old)], step="prune.secrets")


def environment_file(service: Service, values: Mapping[str, str]) -> str:
    """The env file for a service that can only read variables.

    Double quotes with these escapes are what compose's env file reader takes back to the exact value (compose-go,
    dotenv/parser.go); in single quotes a backslash cannot be written before a quote.
    """
    escapes = {"\\": "\\\\", '"': '\\"', "$": "\\$", "\n": "\\n", "\r": "\\r"}
    lines = []
    for variable_name, secret_name in sorted(service.secret_env.items()):
        value = "".join(escapes.get(letter, letter) for letter in values[secret_name])
        lines.append(f'{variable_name}="{value}"\n')
    return "".join(lines)


def _all(paths: AppPaths) -> list[Path]:
    return [path for path in paths.secrets.glob("[0-9]*-*") if path.is_dir()]


def _number(generation: Path) -> int:
    parsed = parse_release_id(generation.name)
    return parsed[0] if parsed else 0
