"""A provisioned host with the trivial service, and every way to disturb a release on it."""

import json
import subprocess
import time
from dataclasses import dataclass, field
from typing import Any

import yaml

from switchyard import PROTOCOL
from tests.bed import Bed, Host, Registry, images
from tests.project import Project

VERSIONS = ("1.0.0", "1.1.0")
APP = "trivial-local"
PLAN = "/run/switchyard/fault.json"
TRACE = "/run/switchyard/trace"
RELOAD_EDGE = "kill -HUP $(docker inspect -f '{{.State.Pid}}' switchyard-edge)"
SECRET = "canary-7f3a-not-to-be-seen"
_SECONDS = 180.0
"""How long a verb may take, or a test wait for its end: what hangs is found, a busy machine is not."""

_INVENTORY = {
    "app_name": "trivial",
    "backup_enabled": False,
    "app_version": VERSIONS[0],
    "app_services": {
        "api": {
            "image": "{{ docker_local_registry }}/trivial",
            "port": 8000,
            "routes": ["/"],
            "memory_mb": 64,
            "uid": 10001,
            "secrets": ["TOKEN"],
        }
    },
    "app_secrets": {"TOKEN": SECRET},
    "app_migration": None,
    "app_smoke_tests": [{"path": "/", "contains": "release"}],
    "app_probation_seconds": 1,
}


@dataclass(frozen=True)
class Fault:
    """One effect of the engine, and what happens there."""

    step: str
    nth: int
    when: str
    how: str

    def __str__(self) -> str:
        return f"{self.how} {self.when} {self.step} #{self.nth}"


@dataclass
class Lab:
    """The host, its registry, and the project that provisioned it."""

    project: Project
    bed: Bed
    host: Host
    registry: Registry
    digests: dict[str, str] = field(default_factory=dict)
    ledger_was_cut: bool = False
    """A test has damaged a line of the ledger, and `status` says so ever after."""

    @classmethod
    def build(
        cls,
        project: Project,
        bed: Bed,
        *,
        name: str = "local-1",
        inventory: dict[str, Any] | None = None,
        **options: Any,
    ) -> "Lab":
        """Push the trivial service's releases and provision a host for it, with more in the `inventory` if need be."""
        registry = bed.registry()
        registry.push(images.ensure("edge"), "nginx", "1.30")
        registry.push(images.ensure("postgres"), "postgres", "17-trixie")
        lab = cls(project, bed, bed.host(name, image="docker-host", **options), registry)
        for version in VERSIONS:
            lab.digests[version] = registry.push(images.trivial(version), "trivial", version).digest
        project.adopt(bed, lab.host)
        variables = project.folder / "inventories" / "group_vars" / "env_local" / "zz_trivial.yml"
        text = yaml.safe_dump(_INVENTORY | (inventory or {})).replace("{{ docker_local_registry }}", registry.address)
        variables.write_text(text)
        done = project.play("provision")
        assert done.returncode == 0, done.stdout + done.stderr
        # They pass effects of their own, which would be mistaken for those of the release under test.
        timers = ["switchyard-collect.timer", "switchyard-standing.timer"]
        lab.host.exec(["systemctl", "disable", "--now", "--quiet", *timers])
        return lab

    @property
    def url(self) -> str:
        """Where users come in."""
        return f"http://{self.host.address}/"

    def request(self, version: str, **changes: Any) -> dict[str, Any]:
        """A deploy request as the control side would render it, with a migration and a secret."""
        service = {
            "image": f"{self.registry.address}/trivial",
            "tag": version,
            "port": 8000,
            "routes": ["/"],
            "memory_mb": 64,
            "secrets": ["TOKEN"],
            "health": {"start_timeout": 30.0},
        }
        return {
            "protocol": PROTOCOL,
            "app": "trivial",
            "environment": "local",
            "version": version,
            "explicit_version": True,
            "who": "lab",
            "compose": _compose(version),
            "services": {"api": service},
            "secrets": {"TOKEN": {"value": SECRET, "uid": 10001}},
            "migration": {"service": "api", "command": ["true"], "current": ["echo", "7"], "timeout": 30.0},
            "smoke_tests": [{"path": "/", "contains": "release"}],
            "probation_seconds": 0.5,
            "drain_seconds": 5.0,
            "retain": 1,
        } | changes

    def engine(self, *words: str, stdin: str = "", check: bool = False) -> subprocess.CompletedProcess[str]:
        """Run a verb on the host as root."""
        return self.host.exec(["switchyard", *words], stdin=stdin or None, check=check, timeout=_SECONDS)

    def deploy(self, version: str, **changes: Any) -> dict[str, Any]:
        """Deploy through the engine and return its result (or its refusal)."""
        request = json.dumps(self.request(version, **changes))
        return _document(self.engine("deploy", "--follow", "--json", stdin=request))

    def rollback(self, version: str = "") -> dict[str, Any]:
        """Roll back through the engine and return its result (or its refusal)."""
        return _document(self.engine("rollback", APP, *([version] if version else []), "--follow", "--json"))

    def status(self) -> dict[str, Any]:
        """The engine's own report."""
        return _document(self.engine("status", APP, "--json"))

    def history(self) -> list[dict[str, Any]]:
        """Every start with its end."""
        rows: list[dict[str, Any]] = json.loads(self.engine("history", APP, "--limit", "100000", "--json").stdout)
        return rows

    def arm(self, fault: Fault | None, *, trace: bool = False) -> None:
        """Plant one fault; with `trace`, have the steps that are passed written down."""
        if trace or (fault and fault.step.startswith("notify.")):
            # One that still lingers over earlier news has read its plan already.
            self.await_notifier()
        plan: dict[str, Any] = {"trace": TRACE} if trace else {}
        if fault:
            plan |= {"step": fault.step, "nth": fault.nth, "when": fault.when, "how": fault.how, "hang_seconds": 1.0}
        script = f"umask 077; mkdir -p /run/switchyard; rm -f {TRACE}; cat > {PLAN}.new; mv {PLAN}.new {PLAN}"
        self.host.exec(["sh", "-c", script], stdin=json.dumps(plan))

    def disarm(self) -> bool:
        """Remove the plan; tells whether the fault had not fired."""
        return self.host.exec(["sh", "-c", f"test -e {PLAN} && rm -f {PLAN}"], check=False).returncode == 0

    def steps(self) -> list[tuple[str, int]]:
        """The effects that were passed since `arm(trace=True)`, in order."""
        lines = self.host.exec(["cat", TRACE]).stdout.split("\n")
        return [(step, int(nth)) for step, nth in (line.split() for line in lines if line)]

    def settle(self) -> None:
        """Wait until recovery has run: no operation's unit is left."""
        script = "systemctl list-units --all --no-legend 'switchyard-2*' 'switchyard-watch-*' | grep -q ."
        self._await_end(script, "an operation's unit")

    def await_notifier(self) -> None:
        """Wait until all news are delivered and the notifier has ended."""
        state = "systemctl show --property ActiveState --value switchyard-notify.service"
        busy = f"{state} | grep -qxE 'active|activating|deactivating'"
        self._await_end(f'test -n "$(ls /var/spool/switchyard/news)" || {busy}', "the notifier")

    def _await_end(self, script: str, what: str) -> None:
        deadline = time.monotonic() + _SECONDS
        while self.host.exec(["sh", "-c", script], check=False).returncode == 0:
            assert time.monotonic() < deadline, f"{what} did not end within {_SECONDS:.0f} s"
            time.sleep(0.05)


def _document(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    if done.returncode == 137:
        return {"code": 137, "message": "the starter was killed"}
    try:
        answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError) as error:
        raise AssertionError(f"the engine gave no document: {done.stdout}{done.stderr}") from error
    return {"code": done.returncode} | answer


def _compose(version: str) -> str:
    labels = {
        "switchyard.app": "trivial",
        "switchyard.environment": "local",
        "switchyard.service": "api",
        "switchyard.instance": "1",
        "switchyard.release": "${SWITCHYARD_RELEASE}",
        "switchyard.colour": "${SWITCHYARD_COLOUR}",
    }
    service = {
        "image": "${SWITCHYARD_IMAGE_API}",
        "restart": "unless-stopped",
        "read_only": True,
        "tmpfs": ["/tmp"],
        "cap_drop": ["ALL"],
        "init": True,
        "secrets": ["TOKEN"],
        "environment": {"VERSION_WANTED": version},
    }
    return yaml.safe_dump(
        {
            "services": {
                "api-1": service | {"ports": ["${SWITCHYARD_PUBLISH_API_1}:8000"], "labels": labels},
                "migrate": {
                    "image": "${SWITCHYARD_IMAGE_API}",
                    "profiles": ["migrate"],
                    "container_name": "${SWITCHYARD_MIGRATE_NAME}",
                    "command": ["true"],
                    "restart": "no",
                    "labels": {k: v for k, v in labels.items() if "colour" not in k} | {"switchyard.role": "migrate"},
                },
            },
            "secrets": {"TOKEN": {"file": "${SWITCHYARD_SECRETS}/TOKEN"}},
        }
    )
