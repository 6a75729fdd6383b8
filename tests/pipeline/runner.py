"""A clean host that stands for a CI runner: executes the steps of a workflow file in order, as they are written there.

What is real: the files themselves, their expressions, conditions and outputs, the scripts, SSH, the runner as a machine
of its own with an environment of its own. What is stood in for, because it lives at GitHub, is in `STAND_INS`.
"""

from __future__ import annotations

import io
import json
import shlex
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.bed import Host, engine
from tests.pipeline.expressions import evaluate, fill, text
from tests.project import ROOT

WORKFLOWS = ROOT / ".github" / "workflows"
CALLERS = ROOT / "examples" / "github"
SOURCES = "/opt/sources"
WORKSPACE = "/home/runner/work"
PYTHON = "/home/runner/python"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

STAND_INS = {
    "actions/checkout": "copies a repository that lies on the runner",
    "actions/setup-python": "the runner's own Python 3, whatever version is asked for, in an environment of its own",
    "docker/setup-buildx-action": "the engine's own builder, which keeps layers but exports no cache (CACHE=off)",
    "aquasecurity/setup-trivy": "a scanner that finds nothing; the real one needs its database from the network",
}
"""Actions by what does their work here."""

# Starts a step with exactly the environment that it is given, which comes by standard input: nothing of it is seen in a
# list of processes. The session's id is written down, so that the job can be killed.
_LAUNCHER = """
import json, os, sys
job = json.load(sys.stdin)
os.getsid(0) == os.getpid() or os.setsid()
open("/run/step.pid", "w").write(str(os.getpid()))
os.chdir(job["cwd"])
os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
os.execve("/bin/bash", ["bash", "--noprofile", "--norc", "-eo", "pipefail", job["script"]], job["env"])
"""


@dataclass
class Job:
    """What became of one job."""

    name: str
    status: str = "success"
    outputs: dict[str, str] = field(default_factory=dict)
    log: str = ""
    summary: str = ""
    steps: dict[str, dict[str, Any]] = field(default_factory=dict)
    ran: list[str] = field(default_factory=list)
    """Names of the steps that ran."""
    seconds: float = 0.0


@dataclass
class Run:
    """What became of a workflow."""

    jobs: dict[str, Job] = field(default_factory=dict)

    @property
    def status(self) -> str:
        """Red when one job is."""
        return next((job.status for job in self.jobs.values() if job.status not in ("success", "skipped")), "success")

    @property
    def log(self) -> str:
        """Everything that was printed or shown."""
        return "\n".join(job.log + job.summary for job in self.jobs.values())


class Runner:
    """The machine, and what GitHub would know of the run."""

    def __init__(self, host: Host, secrets: Mapping[str, str], environment: Mapping[str, str] | None = None) -> None:
        self.host, self.secrets = host, dict(secrets)
        self.environment = dict(environment or {})
        self.github: dict[str, Any] = {
            "sha": "0123456789" * 4, "ref": "refs/heads/develop", "ref_name": "develop",
            "ref_type": "branch", "actor": "octocat", "token": "", "repository": "acme/parcels",
            "server_url": "https://github.example.com", "run_id": "77", "event_name": "push", "event": {},
        }  # fmt: skip
        self.approve: Callable[[str], bool] = lambda _: True
        """Asked before the first step of a job with an environment."""
        self.inputs: dict[str, Any] = {}
        self.on_step: Callable[[str], None] = lambda _: None
        self._lock = threading.Lock()

    # Preparing it

    def offer(self, name: str, folder: Path) -> None:
        """Put a repository where the stand-in of actions/checkout finds it."""
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
            cwd=folder, check=False, capture_output=True, text=True,
        )  # fmt: skip
        names = listed.stdout.splitlines() if listed.returncode == 0 else []
        # Links, too: one of them makes the repository the collection that its own playbooks use.
        found = (path for path in folder.rglob("*") if path.is_file() or path.is_symlink())
        names = names or [str(path.relative_to(folder)) for path in found]
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for path in names:
                if (folder / path).exists():
                    tar.add(folder / path, f"{name}/{path}")
        # What an earlier offer of this name had and this one has not is gone, as in a fresh checkout.
        self.host.exec(["rm", "-rf", f"{SOURCES}/{name}"])
        self.host.exec(["mkdir", "-p", SOURCES, WORKSPACE])
        argv = [engine.client(), "exec", "-i", self.host.container, "tar", "-x", "-C", SOURCES]
        subprocess.run(argv, input=archive.getvalue(), check=True)

    # Running

    def run(self, path: Path, **inputs: Any) -> Run:
        """Run a workflow file; `inputs` are those of a dispatch."""
        self.inputs = inputs
        run = Run()
        self._jobs(_load(path), {"inputs": inputs, "secrets": self.secrets}, run, "")
        return run

    def call(self, name: str, **inputs: Any) -> Run:
        """Run one of our reusable workflows, as a caller does that hands on all of its secrets."""
        run = Run()
        called = _load(WORKFLOWS / name)
        given = {key.replace("_", "-"): value for key, value in inputs.items()}
        known = {"switchyard-repository": "your-org/switchyard", "switchyard-ref": "main", **given}
        scope = {"inputs": self._inputs(called, known), "secrets": self.secrets}
        self._jobs(called, scope, run, "")
        return run

    def kill(self) -> None:
        """Kill the step that runs now, as a runner does with a job whose time is over."""
        self.host.exec(["sh", "-c", "pkill -KILL -s $(cat /run/step.pid)"], check=False)

    def _jobs(self, workflow: dict[str, Any], scope: dict[str, Any], run: Run, prefix: str) -> dict[str, Any]:
        """Every job after those that it needs; returns what `needs` and `jobs` know of them."""
        known: dict[str, Any] = {}
        left = dict(workflow["jobs"])
        while left:
            name = next(n for n, j in left.items() if all(need in known for need in _needs(j)))
            definition = left.pop(name)
            context = {**scope, "github": self.github, "needs": {need: known[need] for need in _needs(definition)}}
            done = []
            for matrix in _combinations(fill(definition.get("strategy", {}).get("matrix", {}), context, {})):
                shown = f" ({', '.join(map(text, matrix.values()))})" if matrix else ""
                done.append(self._job(definition, {**context, "matrix": matrix}, run, f"{prefix}{name}{shown}"))
            # One red job of a matrix makes it red.
            known[name] = next((job for job in done if job["result"] == "failure"), done[-1])
        return known

    def _job(self, definition: dict[str, Any], context: dict[str, Any], run: Run, name: str) -> dict[str, Any]:
        results = [need["result"] for need in context["needs"].values()]
        status = {
            "success": lambda: all(result == "success" for result in results),
            "failure": lambda: any(result == "failure" for result in results),
            "always": lambda: True,
        }
        if not _applies(definition.get("if"), context, status):
            run.jobs[name] = Job(name, "skipped")
            return {"result": "skipped", "outputs": {}}
        if "uses" in definition:
            # OWNER/REPOSITORY/.github/workflows/FILE@COMMIT
            path = WORKFLOWS / definition["uses"].partition("@")[0].rpartition("/")[2]
            called = _load(path)
            scope = {
                "inputs": self._inputs(called, fill(definition.get("with", {}), context, {})),
                "secrets": fill(definition.get("secrets", {}), context, {}),
            }
            inner = self._jobs(called, scope, run, f"{name} / ")
            outputs = (_call(called).get("outputs") or {}).items()
            told = {key: text(fill(item["value"], {"jobs": inner}, {})) for key, item in outputs}
            red = any(job["result"] == "failure" for job in inner.values())
            return {"result": "failure" if red else "success", "outputs": told}
        job = run.jobs[name] = Job(name)
        environment = fill(definition.get("environment", ""), context, {})
        if environment and not self.approve(environment):
            job.status = "skipped"
            return {"result": "failure", "outputs": {}}
        began = time.monotonic()
        with self._lock:
            self._steps(definition, context, job)
        job.seconds = time.monotonic() - began
        told = fill(definition.get("outputs", {}), {**context, "steps": job.steps}, {})
        job.outputs = {key: text(value) for key, value in told.items()}
        return {"result": job.status, "outputs": job.outputs}

    @staticmethod
    def _inputs(called: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
        declared = _call(called).get("inputs") or {}
        assert set(given) <= set(declared), f"unknown inputs {set(given) - set(declared)}"
        missing = [n for n, i in declared.items() if i.get("required") and given.get(n) in (None, "")]
        assert not missing, f"required inputs are missing: {missing}"
        return {name: given.get(name, item.get("default", "")) for name, item in declared.items()}

    def _steps(self, definition: dict[str, Any], context: dict[str, Any], job: Job) -> None:
        self.host.exec(
            ["sh", "-c", f"rm -rf {WORKSPACE} {PYTHON} /home/runner/temp; mkdir -p {WORKSPACE} /home/runner/temp"]
        )
        exported: dict[str, str] = {}
        for number, step in enumerate(definition["steps"]):
            known = {**context, "steps": job.steps, "job": {"status": job.status}, "env": exported}
            status = {
                "success": lambda: job.status == "success",
                "failure": lambda: job.status == "failure",
                "always": lambda: True,
                "cancelled": lambda: False,
            }
            name = str(step.get("name") or step.get("uses") or step["run"])
            identity = step.get("id", f"step{number}")
            if not _applies(step.get("if"), known, status):
                job.steps[identity] = {"outcome": "skipped", "conclusion": "skipped", "outputs": {}}
                continue
            self.on_step(name)
            job.ran.append(name)
            if "uses" in step:
                code = self._stand_in(step, fill(step.get("with", {}), known, status), exported, job)
                outputs: dict[str, str] = {}
            else:
                environment = {**exported, **{k: text(v) for k, v in fill(step.get("env", {}), known, status).items()}}
                code, outputs = self._execute(step["run"], environment, job)
            outcome = "success" if code == 0 else "failure"
            job.steps[identity] = {"outcome": outcome, "conclusion": outcome, "outputs": outputs}
            if code != 0:
                job.status = "failure"

    def _stand_in(self, step: dict[str, Any], given: dict[str, Any], exported: dict[str, str], job: Job) -> int:
        action, _, commit = step["uses"].partition("@")
        assert len(commit) == 40, f"{action} is not pinned by its commit"
        assert action in STAND_INS, f"nothing stands in for {action}"
        script = "true"
        if action == "actions/checkout":
            assert given.get("persist-credentials") is False
            name = str(given.get("repository", self.github["repository"])).rpartition("/")[2]
            target = f"{WORKSPACE}/{given.get('path', '.')}"
            script = f"mkdir -p {target} && cp -a {SOURCES}/{shlex.quote(name)}/. {target}/"
            if "path" not in given:
                script += f"; cd {target} && if command -v git > /dev/null; then git init --quiet && git add -A; fi"
        elif action == "actions/setup-python":
            script = f"python3 -m venv {PYTHON}"
            exported["PATH"] = f"{PYTHON}/bin:{_PATH}"
        elif action == "docker/setup-buildx-action":
            exported["CACHE"] = "off"
        elif action == "aquasecurity/setup-trivy":
            script = "printf '#!/bin/sh\\nexit 0\\n' > /usr/local/bin/trivy && chmod 0755 /usr/local/bin/trivy"
        return self._execute(script, {}, job)[0]

    def _execute(self, script: str, environment: Mapping[str, str], job: Job) -> tuple[int, dict[str, str]]:
        files = {name: f"/home/runner/temp/{name.lower()}" for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
        self.host.exec(["sh", "-c", f"rm -f {' '.join(files.values())}; touch {' '.join(files.values())}"])
        self.host.put("/home/runner/temp/step.sh", script)
        known = {
            "HOME": "/root", "PATH": _PATH, "LANG": "C.UTF-8",
            "CI": "true", "GITHUB_ACTIONS": "true", "RUNNER_TEMP": "/home/runner/temp", "GITHUB_WORKSPACE": WORKSPACE,
            **{f"GITHUB_{key.upper()}": str(value) for key, value in self.github.items() if isinstance(value, str)},
        }  # fmt: skip
        del known["GITHUB_TOKEN"]
        env = {**known, **files, **self.environment, **environment}
        order = json.dumps({"cwd": WORKSPACE, "script": "/home/runner/temp/step.sh", "env": env})
        argv = [engine.client(), "exec", "-i", self.host.container, "python3", "-I", "-c", _LAUNCHER]
        done = subprocess.run(
            argv, input=order, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600
        )
        job.log += done.stdout
        answer = self.host.exec(["cat", files["GITHUB_OUTPUT"]], check=False).stdout
        job.summary += self.host.exec(["cat", files["GITHUB_STEP_SUMMARY"]], check=False).stdout
        return done.returncode, _outputs(answer)


def _load(path: Path) -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load(path.read_text())
    return data


def _call(workflow: dict[str, Any]) -> dict[str, Any]:
    # YAML 1.1 reads the key `on` as a truth.
    trigger: dict[Any, Any] = workflow.get(True) or workflow.get("on") or {}  # type: ignore[call-overload]
    return dict(trigger.get("workflow_call") or {})


def _needs(job: dict[str, Any]) -> list[str]:
    needs = job.get("needs", [])
    return [needs] if isinstance(needs, str) else list(needs)


def _combinations(matrix: dict[str, list[Any]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [{}]
    for key, values in matrix.items():
        found = [{**item, key: value} for item in found for value in values]
    return found


def _applies(condition: Any, context: dict[str, Any], status: dict[str, Callable[[], bool]]) -> bool:
    if condition is None:
        return status["success"]()
    expression = str(condition).strip().removeprefix("${{").removesuffix("}}")
    value = bool(evaluate(expression, context, status))
    names_a_status = any(f"{name}()" in expression for name in ("success", "failure", "always", "cancelled"))
    return value and (names_a_status or status["success"]())


def _outputs(answer: str) -> dict[str, str]:
    found, lines = {}, iter(answer.splitlines())
    for line in lines:
        name, mark, end = line.partition("<<")
        if mark and "=" not in name:
            value = []
            for inner in lines:
                if inner == end:
                    break
                value.append(inner)
            found[name] = "\n".join(value)
        elif "=" in line:
            found[line.partition("=")[0]] = line.partition("=")[2]
    return found
