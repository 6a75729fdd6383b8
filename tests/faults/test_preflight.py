"""Releases that cannot go live, and registries that do not help: one clear sentence each, and the old release serves.

What the host can know beforehand is refused with exit code 4; what only shows when the new colour runs ends with 5;
what shows on probation is taken back with 6.
"""

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.bed import engine as outer
from tests.bed import images
from tests.faults.disturb import (
    STATE,
    Phase,
    after,
    begin,
    both_warm,
    chosen,
    compose,
    idle,
    live,
    other,
    ready,
    registry_gone,
    result_of,
    sh,
    slow_start,
    users,
)
from tests.faults.invariants import check
from tests.lab import APP, SECRET, VERSIONS, Lab

Changes = Callable[[Lab, str], dict[str, Any]]


@pytest.fixture(autouse=True)
def warm(lab: Lab) -> None:
    """Begin from one version live and the other one warm."""
    ready(lab)


def service(lab: Lab, version: str, **changes: Any) -> dict[str, Any]:
    """The request's services with keys of the one service changed."""
    return {"services": {"api": lab.request(version)["services"]["api"] | changes}}


def shell(script: str) -> Changes:
    """A release whose container runs a script instead of the service."""
    return lambda lab, version: {"compose": compose(lab, version, entrypoint=["sh", "-c", script])}


def nginx(health: str, *, http: str = "") -> Changes:
    """A release whose health path answers in a way of its own."""
    lines = (
        "pid /tmp/nginx.pid; events { worker_connections 64; } http { access_log off; client_body_temp_path /tmp/body; "
        "proxy_temp_path /tmp/proxy; fastcgi_temp_path /tmp/fastcgi; uwsgi_temp_path /tmp/uwsgi; "
        f"scgi_temp_path /tmp/scgi; {http} server {{ listen 8000; location = /health {{ {health} }} }} }}"
    )
    # Compose reads a single $ as the beginning of a variable of its own.
    text = lines.replace("$", "$$")
    return shell(f"echo '{text}' > /tmp/own.conf; exec nginx -c /tmp/own.conf -e /dev/stderr -g 'daemon off;'")


def impatient(changes: Changes, seconds: float = 3.0) -> Changes:
    """The same with a short time to start."""
    health = {"start_timeout": seconds}
    return lambda lab, version: service(lab, version, health=health) | changes(lab, version)


@dataclass(frozen=True)
class Case:
    """A release that must not go live, how the deploy ends, and what its sentence says."""

    name: str
    changes: Changes
    code: int
    says: list[str]
    details: str = ""
    prepare: Callable[[Lab, str], contextlib.AbstractContextManager[None]] = field(
        default=lambda _lab, _version: contextlib.nullcontext()
    )

    def __str__(self) -> str:
        return self.name


def free_idle_ports(lab: Lab) -> None:
    sh(lab, f"docker ps -aq --filter label=switchyard.colour={idle(lab)} | xargs -r docker rm -f")


@contextlib.contextmanager
def port_taken(lab: Lab, _version: str) -> Iterator[None]:
    """Somebody else listens where the next colour would."""
    free_idle_ports(lab)
    target = f"json.load(open('{STATE}/ports.json'))['{APP}/api/1/{idle(lab)}']"
    code = (
        f"import json, socket, time; s = socket.create_server(('127.0.0.1', {target})); open('/run/test-taken', 'w'); "
        "time.sleep(120)"
    )
    unit = "test-port-taken"
    lab.host.exec(["systemd-run", "--quiet", "--collect", f"--unit={unit}", "/usr/bin/python3", "-c", code])
    sh(lab, "for i in $(seq 600); do test -e /run/test-taken && exit 0; sleep 0.1; done; exit 1")
    try:
        yield
    finally:
        sh(lab, f"systemctl stop {unit}; rm -f /run/test-taken")


@contextlib.contextmanager
def foreign_image(lab: Lab, version: str) -> Iterator[None]:
    """The registry has the tag for another architecture alone."""
    folder = Path(__file__).parent
    local = f"{lab.registry.local}/trivial:foreign"
    build = ["build", "--quiet", "--platform", "linux/arm64", "--tag", local, "--file", "-", str(folder)]
    outer.cli(*build, stdin=f"FROM scratch\nCOPY disturb.py /\nLABEL version={version}\n")
    try:
        lab.registry.push(local, "trivial", "foreign")
        yield
    finally:
        outer.cli("image", "rm", local, check=False)


@contextlib.contextmanager
def demanding_image(lab: Lab, version: str) -> Iterator[None]:
    """The image says what it cannot start without."""
    local = f"{lab.registry.local}/trivial:demanding"
    text = f'FROM {images.trivial(version)}\nLABEL switchyard.required-env="LICENCE,TOKEN"\n'
    outer.cli("build", "--quiet", "--tag", local, "-", stdin=text)
    try:
        lab.registry.push(local, "trivial", "demanding")
        yield
    finally:
        outer.cli("image", "rm", local, check=False)


def lacking_secret(lab: Lab, version: str) -> dict[str, Any]:
    secrets = {**lab.request(version)["secrets"], "NEW_KEY": {"value": "", "uid": 10001}}
    return service(lab, version, secrets=["TOKEN", "NEW_KEY"]) | {"secrets": secrets}


def too_many_connections(lab: Lab, version: str) -> dict[str, Any]:
    return service(lab, version, database_connections=50) | {"database": {"max_connections": 100}}


EXITS = Case("exits at once", shell("exit 7"), 5, ["not healthy", "restarting|exited", "serves on"])
REDIRECT = Case(
    "health path redirects",
    nginx("return 302 /login;"),
    5,
    ["/health answers 302, a redirect to .*/login", "name a health path that answers 200 itself"],
)
PORT_TAKEN = Case(
    "port taken", lambda _lab, _version: {}, 4, ["127.0.0.1:18...", "taken", "ss -ltnp"], prepare=port_taken
)
NO_SUCH_TAG = Case(
    "missing tag", lambda lab, v: service(lab, v, tag="9.9.9"), 4, ["trivial:9.9.9", "no such tag: push it first"]
)
CASES = [
    Case("crash loop", shell("sleep 0.5; exit 3"), 5, ["not healthy", "restarting|exited", "serves on"]),
    Case(
        "never ready",
        impatient(lambda lab, v: {"compose": compose(lab, v, environment={"HEALTHY": "false"})}),
        5,
        ["not healthy after 3 s", "/health answers 503", "serves on"],
    ),
    Case("never listens", impatient(shell("echo waiting for nothing; sleep 60")), 5, ["after 3 s", "no answer"]),
    Case(
        "flapping",
        # A probe is a connection of its own, and Nginx counts them: every second one is answered well.
        impatient(
            nginx(
                "if ($ill) { return 503; } return 200 ok;",
                http='map $connection $ill { default 1; "~[02468]$" ""; }',
            ),
        ),
        5,
        ["not healthy after 3 s", "answers 503"],
    ),
    Case(
        "out of memory",
        lambda lab, v: {
            "compose": compose(
                lab, v, mem_limit="16m", entrypoint=["sh", "-c", "x=aaaaaaaa; while :; do x=$$x$$x; done"]
            )
        },
        5,
        ["not healthy", "memory"],
    ),
    Case(
        "smoke test fails",
        lambda _lab, _v: {"smoke_tests": [{"path": "/", "contains": "something else"}]},
        5,
        ["smoke test failed", "does not contain 'something else'", "serves on"],
    ),
    Case(
        "other architecture",
        lambda lab, v: service(lab, v, tag="foreign"),
        4,
        ["is built for arm64", "push an image for"],
        prepare=foreign_image,
    ),
    Case(
        "image demands a variable",
        lambda lab, v: service(lab, v, tag="demanding"),
        4,
        ["needs LICENCE: add it to app_services.api.env or secrets"],
        prepare=demanding_image,
    ),
    Case("missing secret", lacking_secret, 4, ["app_secrets.NEW_KEY is empty", "vault"]),
    Case("secret of nobody", lambda lab, v: service(lab, v, secrets=["TOKEN", "OTHER"]), 2, ["OTHER", "app_secrets"]),
    Case("too much memory", lambda lab, v: service(lab, v, memory_mb=4_000_000), 4, ["4000000 MiB", "lower memory_mb"]),
    Case("too many connections", too_many_connections, 4, ["need 100 database connections", "has 87"]),
    Case(
        "dangling image variable",
        lambda lab, v: {"compose": compose(lab, v, image="${SWITCHYARD_IMAGE_WEB}")},
        2,
        ["app_services lacks"],
    ),
    Case("broken compose file", lambda _lab, _v: {"compose": "services: ["}, 1, ["start"]),
    Case(
        "wrong digest",
        lambda lab, v: service(lab, v, digest=f"sha256:{'0' * 64}"),
        4,
        ["no such tag|not found"],
    ),
]


@pytest.fixture(scope="class")
def served(lab: Lab) -> Iterator[None]:
    """Users at work during all the refusals; nobody notices one."""
    ready(lab)
    with users(lab):
        yield


@pytest.mark.usefixtures("served")
class TestReleasesThatCannotGoLive:
    @pytest.mark.parametrize("case", chosen([EXITS], [PORT_TAKEN, REDIRECT, NO_SUCH_TAG, *CASES]), ids=str)
    def test_it_is_refused(self, lab: Lab, case: Case) -> None:
        old, bad = live(lab), lab.status()["bad"]
        wanted = other(old)
        with case.prepare(lab, wanted):
            changes = {"migration": None} | case.changes(lab, wanted)
            # What would hang is found: no verb of the lab takes longer than its limit.
            result = lab.deploy(wanted, **changes)
        said = str(result.get("message") or result.get("error"))
        assert result["code"] == case.code, result
        for words in case.says:
            assert re.search(words, said), f"{words!r} is not in: {said}"
        assert said.endswith(".") and "\n" not in said and "Traceback" not in str(result), said
        assert len(said) < 400, said
        assert SECRET not in str(result)
        assert live(lab) == old
        check(lab, case.name)
        assert lab.status()["bad"] == bad
        after(lab, wanted, case.name)


@pytest.mark.parametrize("word", chosen([], ["the-reason-of-it-all"]))
def test_the_evidence_is_shown(lab: Lab, word: str) -> None:
    """The end of the container's log is with the error, so that nobody has to look for it."""
    wanted = other(live(lab))
    result = lab.deploy(wanted, migration=None, **shell(f"echo {word} >&2; sleep 0.3; exit 1")(lab, wanted))
    assert result["code"] == 5
    assert word in result["details"], result
    after(lab, wanted, "a crash with a reason")


@pytest.mark.parametrize("seconds", chosen([], [2, 8]))
def test_a_slow_start_is_waited_for(lab: Lab, seconds: int) -> None:
    wanted = other(live(lab))
    with users(lab):
        result = lab.deploy(wanted, migration=None, compose=slow_start(lab, wanted, seconds))
        assert result["code"] == 0, result
        after(lab, wanted, f"a start of {seconds} s")


@pytest.mark.parametrize("phase", chosen([], ["pull"]))
def test_the_port_is_taken_after_preflight(lab: Lab, phase: str) -> None:
    """Too late to be refused: it fails at the start, with the address in its sentence."""
    old = live(lab)
    free_idle_ports(lab)
    with users(lab):
        with Phase(lab, phase) as met:
            operation = begin(lab, "deploy", other(old))
            met.reached()
            with port_taken(lab, old):
                met.go()
                result = result_of(lab, operation)
        assert result["code"] in (1, 4, 5), result
        assert "127.0.0.1:18" in result["message"], result
        assert live(lab) == old
        after(lab, other(old), "a port taken after preflight")


# On probation


@pytest.mark.parametrize("how", chosen(["killed"], ["ill", "killed and stays away"]))
def test_a_release_dies_on_probation(lab: Lab, how: str) -> None:
    """The pointer goes back by itself, the release is marked bad, and is not what a rollback returns to."""
    old = live(lab)
    # What was on its way to the process that is killed is lost with it, and only that.
    with users(lab, may_lose=0 if how == "ill" else 2):
        with Phase(lab, "watch", stop=False) as met:
            # Longer than its result is waited for: what comes within that was no end of the probation.
            operation = begin(lab, "deploy", other(old), probation_seconds=600.0)
            met.reached()
            container = sh(
                lab, f"docker ps -q --filter label=switchyard.colour={lab.status()['live']['colour']}"
            ).strip()
            if how == "ill":
                sh(lab, f"docker exec {container} touch /tmp/unhealthy")
            else:
                sh(lab, f"docker kill {container}")
            if how == "killed and stays away":
                sh(lab, f"docker rm -f {container}")
            result = result_of(lab, operation)
        assert result["code"] == 6, result
        assert "failed on probation" in result["message"], result
        assert "is live again" in result["message"], result
        assert live(lab) == old
        report = lab.status()
        assert any(release.endswith(other(old)) for release in report["bad"]), report["bad"]
        deadline = time.monotonic() + 120
        refused = lab.rollback(next(reversed(report["bad"])))
        while refused["code"] == 3 and time.monotonic() < deadline:  # the failed colour is still being stopped
            refused = lab.rollback(next(reversed(report["bad"])))
        assert refused["code"] == 12, refused
        after(lab, other(old), f"a release {how} on probation")


# Registries


@pytest.mark.parametrize("how", chosen([], ["stopped", "silent"]))
def test_the_registry_is_away(lab: Lab, how: str) -> None:
    """A deploy says so and changes nothing; going back needs no registry, warm or cold."""
    old = live(lab)
    both_warm(lab)
    old = live(lab)
    with users(lab), registry_gone(lab.registry, how):
        began = time.monotonic()
        result = lab.deploy(other(old), migration=None)
        assert result["code"] == 4, result
        assert "registry" in result["message"], result
        assert "docker.sock" not in result["message"], f"the registry is away, not Docker: {result}"
        assert time.monotonic() - began < 70
        assert live(lab) == old
        lab.settle()
        assert lab.rollback()["code"] == 0
        assert live(lab) == other(old)
        lab.settle()
        free_idle_ports(lab)
        assert lab.rollback(old)["code"] == 0
        assert live(lab) == old
        check(lab, f"the registry {how}")
    after(lab, other(old), f"the registry {how}")


@pytest.mark.parametrize("when", chosen([], ["pull"]))
def test_the_registry_goes_away_in_the_pull(lab: Lab, when: str) -> None:
    """Three tries, then it is given up; the old release serves on."""
    old = live(lab)
    free_idle_ports(lab)
    sh(lab, "docker image prune -af")
    with users(lab):
        with Phase(lab, when) as met:
            operation = begin(lab, "deploy", other(old))
            met.reached()
            with registry_gone(lab.registry, "stopped"):
                met.go()
                result = result_of(lab, operation, 180)
        if result["code"]:
            assert result["code"] == 4, result
            assert "cannot be pulled" in result["message"], result
            assert live(lab) == old
        after(lab, other(old), f"the registry gone in the {when}")


@pytest.mark.parametrize("login", chosen([], ["none", "wrong", "right"]))
def test_a_registry_asks_for_a_login(lab: Lab, login: str) -> None:
    """Without one, or with a wrong one, the sentence names the registry and the setting; no password is shown."""
    private = lab.bed.registry(login=("releases", "right-7f3a"))
    for version in VERSIONS:
        private.push(images.trivial(version), "trivial", version)
    trusted = lab.host.exec(["docker", "info", "--format", "{{json .RegistryConfig.IndexConfigs}}"]).stdout
    daemon = lab.host.exec(["cat", "/etc/docker/daemon.json"]).stdout
    if private.address not in trusted:
        edit = (
            "import json; p='/etc/docker/daemon.json'; d=json.load(open(p)); "
            f"d.setdefault('insecure-registries', []).append('{private.address}'); json.dump(d, open(p, 'w'))"
        )
        lab.host.exec(["python3", "-c", edit])
        sh(lab, "systemctl reload docker")
    sh(lab, "mkdir -p /root/.docker; cp -a /root/.docker/config.json /root/.docker/kept.json 2>/dev/null || true")
    old = live(lab)
    try:
        if login != "none":
            sh(lab, f"echo right-7f3a | docker login -u releases --password-stdin {private.address}")
        if login == "wrong":
            # As after a password was changed in the registry.
            auth = "cmVsZWFzZXM6d3Jvbmc="
            sh(
                lab,
                f"""echo '{{"auths": {{"{private.address}": {{"auth": "{auth}"}}}}}}' > /root/.docker/config.json""",
            )
        changes = service(lab, other(old), image=f"{private.address}/trivial")
        with users(lab):
            result = lab.deploy(other(old), migration=None, **changes)
            if login == "right":
                assert result["code"] == 0, result
            else:
                assert result["code"] == 4, result
                assert "refuses this host's login: check docker_registry_logins" in result["message"], result
                assert private.address in result["message"], result
                assert live(lab) == old
            assert "right-7f3a" not in str(result) and "cmVsZW" not in str(result)
            check(lab, f"a registry with a login ({login})")
    finally:
        sh(
            lab,
            f"docker logout {private.address}; mv /root/.docker/kept.json /root/.docker/config.json || true",
            check=False,
        )
        lab.host.put("/etc/docker/daemon.json", daemon)
        sh(lab, "systemctl reload docker")
    after(lab, other(live(lab)), f"a registry with a login ({login})")
