"""The bed's images: built when their content is new, found again by its hash."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import docker.errors

from tests.bed import engine, pipconf
from tests.bed.errors import BedError, say
from tests.bed.paths import RECIPES as FOLDER
from tests.bed.paths import locked
from tests.bed.recipes import BOOTSTRAP, OFFICIAL, PREFIX, RECIPES, SUITES, Recipe, content_hash, tag
from tests.bed.shell import apt_install, as_root, need, run

SWITCH = "SWITCHYARD_IMAGES"
PARALLEL = 2


def official() -> bool:
    """Tell whether base images are pulled from a registry, or made here from Debian's packages."""
    value = os.environ.get(SWITCH, "debian")
    if value not in ("debian", "official"):
        raise BedError(f"{SWITCH} is {value!r}, but it can only be 'debian' (the default) or 'official'.")
    return value == "official"


def reference(name: str) -> str:
    """Return the reference of a named image of the bed, whether or not it was built yet."""
    if official() and name in OFFICIAL:
        return OFFICIAL[name]
    if name in SUITES:
        return tag(name, hashlib.sha256(" ".join([*BOOTSTRAP, SUITES[name]]).encode()).hexdigest()[:16])
    if name not in RECIPES:
        raise BedError(f"There is no image {name!r}; known are {', '.join([*SUITES, *RECIPES])}.")
    recipe = RECIPES[name]
    return tag(name, content_hash(_folder(recipe), recipe.args, reference(recipe.parent)))


def exists(ref: str) -> bool:
    """Tell whether the engine has an image."""
    try:
        engine.api().images.get(ref)
    except docker.errors.ImageNotFound:
        return False
    return True


def ensure(name: str) -> str:
    """Return the reference of a named image, building it and what it rests on when missing."""
    return ensure_all([name])[name]


def ensure_all(names: Iterable[str] = (*SUITES, *RECIPES)) -> dict[str, str]:
    """Make several images, at most two at a time, each as soon as the image below it is there."""
    wanted = list(names)
    refs = {name: reference(name) for name in wanted}
    if all(exists(ref) for ref in refs.values()):
        return refs
    jobs: dict[str, Future[None]] = {}
    running = threading.Semaphore(PARALLEL)

    def make(name: str, below: Future[None] | None) -> None:
        if below is not None:
            below.result()
        with running, locked(f"image-{name}"):
            _make(name)

    order = _order(wanted)
    # One thread per image, so that those waiting for an image below do not keep others from starting.
    # None at all are left when another worker has made them since.
    with ThreadPoolExecutor(max_workers=max(1, len(order))) as pool:
        for name in order:
            jobs[name] = pool.submit(make, name, jobs.get(_parent(name) or ""))
    for job in jobs.values():
        job.result()
    return refs


def build(
    path: Path,
    name: str,
    args: Mapping[str, str] | None = None,
    *,
    base: str | None = "base",
    dockerfile: str = "Dockerfile",
) -> str:
    """Build any folder and return the image's reference, named by its content; the Dockerfile is inside it.

    The image below is handed in as the build argument BASE. The machine's pip settings are offered
    as the BuildKit secrets `pip_conf` and `ca`, for `RUN --mount=type=secret,id=pip_conf …`.
    """
    if not (path / dockerfile).is_file():
        raise BedError(f"There is no {dockerfile} in {path}.")
    below = ensure(base) if base in (*SUITES, *RECIPES) else (base or "")
    given = dict(args or {})
    ref = tag(name, content_hash(path, {**given, "Dockerfile": dockerfile}, below))
    with locked(f"image-{name}"):
        if not exists(ref):
            say(f"building {name}")
            _build(path, ref, {**({"BASE": below} if below else {}), **given}, dockerfile)
    return ref


def trivial(release: str) -> str:
    """Return a release of the tiny service; releases share all layers but the last few bytes."""
    return build(FOLDER / "trivial", "trivial", {"RELEASE": release}, base="edge")


def remove_all() -> list[str]:
    """Remove every image that the bed built and nothing uses, newest first; return what went."""
    found = engine.api().images.list(filters={"reference": f"{PREFIX}/*"})
    removed = []
    for ref in [ref for image in found for ref in image.tags if ref.startswith(f"{PREFIX}/")]:
        try:
            engine.api().images.remove(ref)
            removed.append(ref)
        except docker.errors.APIError as error:
            say(f"{ref} stays: {error.explanation}")
    return removed


def _parent(name: str) -> str | None:
    return None if name in SUITES or (official() and name in OFFICIAL) else RECIPES[name].parent


def _order(names: Iterable[str]) -> list[str]:
    """Return the names and all that they rest on, parents first, without what already exists."""
    order: list[str] = []

    def add(name: str) -> None:
        if name in order or exists(reference(name)):
            return
        if parent := _parent(name):
            add(parent)
        order.append(name)

    for name in names:
        add(name)
    return order


def _make(name: str) -> None:
    ref = reference(name)
    if exists(ref):
        return
    began = time.monotonic()
    if official() and name in OFFICIAL:
        say(f"pulling {ref}")
        engine.api().images.pull(ref)
    elif name in SUITES:
        say(f"building {name} image (about 15 s)")
        _bootstrap(ref, SUITES[name])
    else:
        recipe = RECIPES[name]
        say(f"building {name} image (about {recipe.seconds} s)")
        _build(_folder(recipe), ref, {"BASE": reference(recipe.parent), **recipe.args})
    say(f"{name} image is ready ({time.monotonic() - began:.0f} s)")


def _folder(recipe: Recipe) -> Path:
    return FOLDER / (recipe.folder or recipe.name)


def _bootstrap(ref: str, suite: str) -> None:
    need("mmdebstrap", "mmdebstrap", "the base image is made from Debian's packages")
    if not any(Path("/usr/share/keyrings").glob("debian-archive-keyring.*")):
        apt_install("debian-archive-keyring", why="Debian's packages are checked against its keys")
    with TemporaryDirectory(prefix="switchyard-base-") as folder:
        tar = Path(folder, "base.tar")
        run(as_root([*BOOTSTRAP, suite, str(tar), "--quiet"]))
        run(as_root(["chmod", "0644", str(tar)]))
        engine.cli("import", str(tar), ref)


def _build(path: Path, ref: str, args: Mapping[str, str], dockerfile: str = "Dockerfile") -> None:
    given = [part for key, value in args.items() for part in ("--build-arg", f"{key}={value}")]
    names = ["--file", str(path / dockerfile), "--tag", ref]
    wants_secrets = "type=secret" in (path / dockerfile).read_text()
    with pipconf.secrets(wanted=wants_secrets) as secrets:
        done = run(
            [engine.client(), "build", "--progress=plain", *given, *secrets, *names, str(path)],
            check=False,
            env={"DOCKER_BUILDKIT": "1"},
            timeout=1800,
        )
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if "ERROR" in line or line.startswith(("E:", "error"))]
        said = " | ".join(lines[:4]) or done.stderr.strip()[-500:]
        raise BedError(f"The image {ref} could not be built: {said}")
