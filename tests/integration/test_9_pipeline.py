"""A push, a tag, a hand on a button: the workflow files run on a runner of their own, against hosts they may not enter.

`SWITCHYARD_PIPELINE=whole` (`make bench-ci ONLY=gate,jobs`) plays every line, every phase and production, too.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from switchyard.control.secrets import Vault
from switchyard.errors import SwitchyardError
from tests.bed import Bed, Host, images, pipconf
from tests.bed.keys import public
from tests.lab import SECRET
from tests.pipeline.estate import APP, FIRST, USER, Estate, make_key
from tests.pipeline.hold import Hold
from tests.pipeline.lines import ALLOWED, lines
from tests.pipeline.osv import Osv
from tests.pipeline.runner import CALLERS, Job, Runner
from tests.project import ROOT, Project

WHOLE = os.environ.get("SWITCHYARD_PIPELINE") == "whole"
LATER = ("production",) if WHOLE else ()
"""Made when its test comes; what is parametrized with it is played in a whole run alone."""
FUZZED = 200 if WHOLE else 15
PHASES = ("preflight", "pull", "migrate", "start", "verify", "switch", "watch", "finish") if WHOLE else ("start",)
NAME = f"{APP}-staging"


@dataclass
class World:
    """The estate, and the machine that stands for a runner."""

    estate: Estate
    runner: Runner

    @property
    def host(self) -> Host:
        """Staging's host."""
        return self.estate.hosts["staging"]

    def caller(self, name: str, tmp: Path, environment: str = "staging") -> Path:
        """A caller as an application's repository has it: copied, and its lines marked EDIT edited."""
        text = (CALLERS / name).read_text()
        registry, address = self.estate.registry.address, self.estate.hosts[environment].address
        for old, new in {
            "docker.io/your-org/your-app-api .": f"{registry}/{APP} .",
            "ghcr.io/your-org/your-app-api .": f"{registry}/{APP} .",
            "docker.io/your-org/your-app-api:latest": f"{registry}/{APP}:{FIRST}",
            "https://staging.example.com/health": f"http://{address}/ 200 release",
            "https://www.example.com/health": f"http://{address}/ 200 release",
        }.items():
            text = text.replace(old, new)
        path = tmp / name
        path.write_text(text)
        return path

    def deploy(self, version: str, **inputs: str) -> Job:
        """The deploy job alone, for a version that is in the registry."""
        run = self.runner.call("app-deploy.yml", environment="staging", version=version, **inputs)
        return run.jobs["deploy"]

    def ended(self, operation: str) -> dict[str, object]:
        """How an operation ended; waits for it."""
        deadline = time.monotonic() + 120
        while True:
            rows = [row for row in self.estate.history("staging") if row["op"] == operation]
            if rows and rows[-1]["end"]:
                return dict(rows[-1]["end"])
            assert time.monotonic() < deadline, f"{operation} has no end after 120 s"
            time.sleep(0.2)


def job_secrets(estate: Estate) -> dict[str, str]:
    """What an application's repository keeps, under the names of requirement P6."""
    found = {"SLACK_WEBHOOK": estate.receiver.url, "DOCKER_USERNAME": "", "DOCKER_PASSWORD": ""}
    return found | {"DEPLOY_HOST_STAGING": estate.hosts["staging"].address} | estate.secrets("staging")


def _dockerfile(estate: Estate) -> str:
    """How the application's image is built: the one that the bed made, with another version and the sources."""
    base = f"{estate.registry.address}/{APP}:{FIRST}"
    return f"FROM {base}\nARG VERSION\nENV RELEASE=$VERSION\nCOPY . /srv/source\n"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with Bed.for_tests("pipeline") as bed:
        project = Project(tmp_path_factory.mktemp("project"))
        # It boots while the environments are made.
        machine = bed.host("runner-1", image="docker-host", engine_config=bed.engine_config(), wait=False)
        estate = Estate.build(project, bed, "staging")
        machine.wait()
        runner = Runner(machine, job_secrets(estate), {"SMOKE_SECONDS": "3"})
        application = tmp_path_factory.mktemp("parcels")
        (application / "Dockerfile").write_text(_dockerfile(estate))
        runner.offer("parcels", application)
        runner.offer("switchyard", ROOT)
        if WHOLE:
            # What a hosted runner has; the short run does without Python packages.
            machine.exec(["sh", "-c", "apt-get -q update && apt-get -q install -y python3-venv git"], timeout=300)
            pipconf.give(machine)
        yield World(estate, runner)
        estate.receiver.stop()


@pytest.fixture
def served(world: World) -> Iterator[list[str]]:
    """Asks staging all the time; whatever is no good answer is in the list."""
    bad: list[str] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.wait(0.02):
            try:
                with urllib.request.urlopen(f"http://{world.host.address}/", timeout=60) as answer:
                    answer.read()
            except (OSError, urllib.error.URLError) as error:
                bad.append(str(error))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    yield bad
    stop.set()
    thread.join(90)


# The gate


def test_nothing_outside_the_grammar_runs_through_sshd(world: World) -> None:
    before = world.estate.history("staging")
    refused = 0
    # What a shell of the sender's or the wire cannot carry was tried in process.
    for line in (line for line in lines(10 * FUZZED, seed=9) if not ALLOWED.fullmatch(line) and "\0" not in line):
        done = world.estate.gate("staging", line)
        # An empty line asks for a shell; sshd itself then runs the gate without a line.
        assert done.returncode == 2, (line, done)
        assert done.stdout == "" and "Refused: " in done.stderr, (line, done)
        refused += 1
        if refused == FUZZED:
            break
    assert refused == FUZZED
    assert world.estate.history("staging") == before
    assert world.estate.gate("staging", "status").returncode == 0


def test_no_other_way_is_open_to_the_key(world: World, tmp_path: Path) -> None:
    estate = world.estate

    def attempt(*argv: str, give: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            argv, check=False, capture_output=True, text=True, timeout=120, input=give, errors="replace"
        )

    ssh = estate.ssh_argv("staging")
    options, target = ssh[1:-1], ssh[-1]
    sftp = attempt("sftp", *options[2:], target, give="ls /\n")
    assert sftp.returncode != 0 and "etc" not in sftp.stdout
    stolen = tmp_path / "stolen"
    for flags in ([], ["-O"]):
        copied = attempt("scp", *flags, *options[2:], f"{target}:/etc/passwd", str(stolen))
        assert copied.returncode != 0 and not stolen.exists()
        sent = attempt("scp", *flags, *options[2:], __file__, f"{target}:/tmp/sent")
        assert sent.returncode != 0
    assert world.host.exec(["test", "-e", "/tmp/sent"], check=False).returncode != 0
    # A terminal, an agent and X11 are asked for and not given; the gate still reads its one line.
    terminal = attempt(*ssh[:-1], "-tt", target, "id")
    assert "uid=" not in terminal.stdout and "PTY allocation request failed" in terminal.stderr + terminal.stdout
    agent = attempt(*ssh[:-1], "-A", target, "status")
    assert agent.returncode == 0
    assert world.host.exec(["sh", "-c", "ls -d /tmp/ssh-* 2>/dev/null"], check=False).stdout == ""
    # Forwarding: a port of the host's loopback is out of reach, and none of ours is opened there.
    forwarded = attempt(*ssh[:-1], "-W", "127.0.0.1:22", target)
    assert forwarded.returncode != 0 and "SSH-2.0" not in forwarded.stdout
    remote = attempt(*ssh[:-1], "-o", "ExitOnForwardFailure=yes", "-R", "18222:127.0.0.1:22", target, "status")
    assert remote.returncode != 0
    # Variables: none reaches the gate but the line, and no line but the one that was sent.
    for name in ("SSH_ORIGINAL_COMMAND", "LD_PRELOAD", "PYTHONPATH", "LC_ALL"):
        told = attempt(*ssh[:-1], "-o", f"SetEnv={name}=/tmp/evil", target, "status")
        assert told.returncode == 0 and "live" in told.stdout
    listed = world.host.exec(["sudo", "-l", "-U", "switchyard-ci"]).stdout
    rights = [line.strip() for line in listed.splitlines() if "NOPASSWD" in line]
    keys = ("hub", "expired", "elsewhere")
    assert rights == [f"(root) NOPASSWD: /usr/local/sbin/switchyard gate {NAME} {key}" for key in keys]


def test_expired_keys_keys_from_elsewhere_and_wrong_host_keys_are_told_apart(world: World) -> None:
    runner, kept = world.runner, dict(world.runner.secrets)
    try:
        for key, sentence in (("expired", "has expired"), ("elsewhere", "may not come from this address")):
            runner.secrets["DEPLOY_SSH_KEY"] = (world.estate.keys / f"staging-{key}").read_text()
            job = world.deploy(FIRST)
            assert job.status == "failure" and sentence in job.log, job.log
        runner.secrets = dict(kept)
        kind = kept["DEPLOY_KNOWN_HOSTS"].split()
        other = (world.estate.keys / "staging.pub").read_text().split()[1]
        runner.secrets["DEPLOY_KNOWN_HOSTS"] = f"{kind[0]} ssh-ed25519 {other}\n"
        job = world.deploy(FIRST)
        assert job.status == "failure" and "shows another host key" in job.log, job.log
        assert job.steps["deploy"]["outputs"]["result"] == "unreachable"
    finally:
        runner.secrets = kept


# The jobs


def test_a_push_to_develop_is_live_on_staging_and_told(world: World, tmp_path: Path) -> None:
    run = world.runner.run(world.caller("cd-staging.yml", tmp_path))
    assert run.status == "success", run.log
    version = run.jobs["build / build"].outputs["version"]
    assert version == f"develop-{world.runner.github['sha'][:12]}"
    assert world.estate.live("staging") == version
    _note("P2: push to develop until live, asked and told", sum(job.seconds for job in run.jobs.values()))
    # Switchyard's scripts lay in the checkout, and are not in the image.
    listed = 'docker exec "$(docker ps -qf label=switchyard.app=trivial | head -n 1)" ls -A /srv/source'
    source = world.host.exec(["sh", "-c", listed]).stdout.split()
    assert "Dockerfile" in source and ".switchyard-ci" not in source
    assert "| phase switch |" in run.jobs["deploy / deploy"].summary
    assert world.estate.receiver.heard("deploy (staging): success")
    (shown,) = world.estate.receiver.heard("is live on", version)["attachments"]
    live = {field["title"]: field["value"] for field in shown["fields"]}
    assert live["by"] == "ci:hub" and live["commit"] == world.runner.github["sha"]
    assert live["run"] == "<https://github.example.com/acme/parcels/actions/runs/77>"


def test_a_release_that_fails_outside_is_taken_back_red_and_told(world: World) -> None:
    world.estate.push("2.0.0")
    before = world.estate.live("staging")
    told = len(world.estate.receiver.got)
    job = world.deploy("2.0.0", smoke_urls=f"http://{world.host.address}/ 200 what-it-never-says")
    assert (job.status, job.ran[-2:]) == ("failure", ["Go back", "Tell the team"]), job.log
    assert world.estate.live("staging") == before
    assert world.estate.receiver.heard("is live again", since=told)
    assert world.estate.receiver.heard("deploy (staging): failure", since=told)


def test_a_release_whose_smoke_test_fails_on_the_host_never_goes_live(world: World) -> None:
    # It answers its health check, and names no release on its pages.
    from tests.bed import engine

    image = f"{world.estate.registry.local}/{APP}:2.0.1"
    text = f"FROM {world.estate.registry.local}/{APP}:{FIRST}\nENV ERROR_PERCENT=100 RELEASE=2.0.1\n"
    engine.cli("build", "--quiet", "--tag", image, "-", stdin=text)
    world.estate.push("2.0.1", image)
    before = world.estate.live("staging")
    told = len(world.estate.receiver.got)
    job = world.deploy("2.0.1")
    assert job.status == "failure" and "failed in phase verify, exit code 5" in job.log, job.log
    assert "| failed in phase | verify |" in job.summary
    assert world.estate.live("staging") == before
    assert world.estate.receiver.heard("A smoke test failed", since=told)
    assert world.estate.receiver.heard("deploy (staging): failure", since=told)


def test_a_rollback_by_hand(world: World, tmp_path: Path) -> None:
    run = world.runner.run(world.caller("rollback.yml", tmp_path), environment="staging", version=FIRST)
    assert run.status == "success", run.log
    assert world.estate.live("staging") == FIRST
    again = world.runner.run(world.caller("rollback.yml", tmp_path), environment="staging", version="9.9.9")
    assert again.status == "failure" and "is not known on this host" in again.log
    odd = world.runner.run(world.caller("rollback.yml", tmp_path), environment="staging", version="1.0; id")
    assert odd.status == "failure" and "is no version" in odd.log and "uid=" not in odd.log


@pytest.mark.parametrize("phase", PHASES)
def test_a_job_killed_in_a_phase_harms_nobody_and_the_next_one_works(
    world: World, served: list[str], phase: str
) -> None:
    version = f"3.0.{PHASES.index(phase)}"
    world.estate.push(version)
    jobs: list[Job] = []
    with Hold(world.host, NAME, phase) as hold:
        thread = threading.Thread(target=lambda: jobs.append(world.deploy(version)), daemon=True)
        thread.start()
        hold.reached()
        world.runner.kill()
        thread.join(240)
    killed = time.monotonic()
    assert jobs[0].status == "failure"
    operation = next(row["op"] for row in reversed(world.estate.history("staging")) if row["version"] == version)
    world.ended(operation)
    _note(f"killed: {phase}", time.monotonic() - killed)
    job = world.deploy(version)
    assert job.status == "success", job.log
    assert world.estate.live("staging") == version
    assert served == []


def _note(what: str, seconds: float) -> None:
    """For the benchmark: how long something took."""
    if name := os.environ.get("SWITCHYARD_PIPELINE_REPORT"):
        path = Path(name)
        known = json.loads(path.read_text()) if path.is_file() else {}
        path.write_text(json.dumps(known | {what: seconds}))


def test_the_next_job_attaches_to_what_the_killed_one_began(world: World) -> None:
    world.estate.push("4.0.0")
    jobs: list[Job] = []
    with Hold(world.host, NAME, "start") as hold:
        thread = threading.Thread(target=lambda: jobs.append(world.deploy("4.0.0")), daemon=True)
        thread.start()
        hold.reached()
        # Another version waits for nobody who is not asked to, and is told who is at work.
        other = world.estate.gate("staging", f"deploy {FIRST}")
        assert other.returncode == 3 and "ci:hub" in other.stderr and "in phase start" in other.stderr
        # The job's connection breaks; it comes back by itself and meets what it began.
        world.host.exec(["pkill", "-KILL", "-f", "^sshd.*switchyard-ci"])
        second = subprocess.Popen(
            [*world.estate.ssh_argv("staging"), "deploy 4.0.0"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        # What is said comes while the host works, which stands still just now.
        assert second.stderr
        first = second.stderr.readline()
    out, err = second.communicate(timeout=240)
    thread.join(240)
    assert second.returncode == 0 and "is under way already" in first, first + err
    assert jobs[0].status == "success" and "was lost; what was begun goes on there" in jobs[0].log, jobs[0].log
    assert json.loads(out)["release"] == jobs[0].outputs["release"]
    # And the version stays what it is: another image under its name is refused.
    world.estate.push("4.0.0", images.trivial("4.0.0-other"))
    moved = world.estate.gate("staging", "deploy 4.0.0")
    assert moved.returncode == 4 and "has moved" in moved.stderr, moved


# News


def test_a_deploy_opens_no_connection_to_a_webhook_and_the_news_come_later(world: World) -> None:
    host, receiver = world.host, world.estate.receiver
    world.estate.push("5.0.0")
    # What came before is delivered.
    idle = 'test -z "$(ls /var/spool/switchyard/news)"'
    deadline = time.monotonic() + 120
    while host.exec(["sh", "-c", idle], check=False).returncode != 0:
        assert time.monotonic() < deadline, "what came before was not delivered within 120 s"
        time.sleep(0.2)
    host.exec(["systemctl", "stop", "switchyard-notify.path", "switchyard-notify.service"])
    connections = receiver.connections
    assert world.estate.gate("staging", "deploy 5.0.0").returncode == 0
    assert receiver.connections == connections
    told = len(receiver.got)
    receiver.stop()
    host.exec(["systemctl", "start", "switchyard-notify.path"])
    time.sleep(1.5)
    assert world.estate.gate("staging", "rollback").returncode == 0
    host.exec(["systemctl", "kill", "-s", "KILL", "switchyard-notify.service"])
    receiver.start()
    # Other news may be among them, such as that of a probation that was passed.
    said: list[str] = []
    deadline = time.monotonic() + 180
    while len(said) < 4 and time.monotonic() < deadline:
        time.sleep(0.1)
        said = [word for title in receiver.titles()[told:] for word in ("started", "live") if word in title]
    assert said == ["started", "live", "started", "live"], receiver.titles()[told:]


# Secrets


def test_no_secret_is_seen_anywhere(world: World) -> None:
    job = world.deploy(FIRST)
    seen = job.log + job.summary
    key = world.runner.secrets["DEPLOY_SSH_KEY"].splitlines()[2]
    canaries = (SECRET, key, "canary-hook-9c1e")
    script = (
        # The last two may not be there: all news delivered, no syslog.
        "set -e; journalctl --no-pager -o cat; cat /var/log/switchyard/ops/*; cat /var/lib/switchyard/*/ledger.jsonl; "
        "ps axww; cat /var/spool/switchyard/news/* /var/log/auth.log 2>/dev/null || true"
    )
    kept = world.host.exec(["sh", "-c", script]).stdout
    assert f"gate {NAME} hub" in kept and '"event":"live"' in kept
    seen += kept
    # A runner without keys has nothing to show there.
    script = "set -e; ps axww; ls -R /home/runner/temp; cat /root/.ssh/* 2>/dev/null || true"
    seen += world.runner.host.exec(["sh", "-c", script]).stdout
    assert [canary for canary in canaries if canary in seen] == []


# What only a whole run plays: production, its approval, two jobs at once, the playbook's way, revocation


@pytest.mark.parametrize("environment", LATER)
def test_a_tag_is_released_after_approval_alone(world: World, tmp_path: Path, environment: str) -> None:
    runner, estate = world.runner, world.estate
    estate.add(environment)
    asked: list[str] = []
    kept, github = dict(runner.secrets), dict(runner.github)
    try:
        runner.github |= {"ref": "refs/tags/v6.0.0", "ref_name": "v6.0.0", "ref_type": "tag"}
        # GitHub gives the job of an environment that environment's own secrets.
        runner.secrets |= {k: v for k, v in estate.secrets(environment).items() if k != "DEPLOY_HOST"}
        runner.secrets["DEPLOY_HOST_PROD"] = estate.hosts[environment].address
        caller = world.caller("cd-production.yml", tmp_path, environment)

        def refuse(name: str) -> bool:
            asked.append(name)
            return False

        runner.approve = refuse
        run = runner.run(caller)
        assert asked == [environment] and run.jobs["deploy / deploy"].ran == []
        assert estate.live(environment) == FIRST
        assert run.jobs["release"].status == "skipped"
        runner.approve = lambda _: True
        runner.host.put("/usr/local/bin/gh", '#!/bin/sh\necho "gh $*" >> /root/gh.log\n[ "$2" != view ]\n', 0o755)
        run = runner.run(caller)
        assert run.status == "success", run.log
        assert estate.live(environment) == "6.0.0"
        _note("P3: approved tag until live, asked and told", sum(job.seconds for job in run.jobs.values()))
        assert "release create v6.0.0 --verify-tag" in runner.host.exec(["cat", "/root/gh.log"]).stdout
    finally:
        runner.secrets, runner.github = kept, github
        runner.approve = lambda _: True


@pytest.mark.parametrize("_", LATER)
def test_two_jobs_at_once_end_one_after_the_other(world: World, _: str) -> None:
    bed = world.estate.bed
    second = Runner(bed.host("runner-2"), job_secrets(world.estate))
    second.offer("switchyard", ROOT)
    jobs: list[Job] = []
    for version in ("7.0.0", "7.0.1"):
        world.estate.push(version)
    other = World(world.estate, second)
    threads = [
        threading.Thread(target=lambda w=w, v=v: jobs.append(w.deploy(v)), daemon=True)
        for w, v in ((world, "7.0.0"), (other, "7.0.1"))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert [job.status for job in jobs] == ["success", "success"], [job.log for job in jobs]
    assert "is busy; trying again for another" in jobs[-1].log
    assert world.estate.live("staging") == jobs[-1].outputs["version"]


_SOURCES = {
    "src/parcels.py": "def total(weights: list[int]) -> int:\n    return sum(weights)\n",
    "tests/test_parcels.py": (
        "from parcels import total\n\n\ndef test_total() -> None:\n    assert total([1, 2]) == 3\n"
    ),
    "locustfile.py": (
        "from locust import HttpUser, task\n\n\nclass Customer(HttpUser):\n"
        '    @task\n    def look(self) -> None:\n        self.client.get("/")\n'
    ),
    "pyproject.toml": '[tool.pytest.ini_options]\npythonpath = ["src"]\n\n[tool.coverage.run]\nsource = ["src"]\n',
    "requirements.txt": "idna==3.11\n",
    "requirements-dev.txt": "ruff\npytest\npytest-cov\nlocust\n",
}


@pytest.mark.parametrize("_", LATER)
def test_a_pull_request_is_checked_and_sources_are_scanned_every_day(world: World, tmp_path: Path, _: str) -> None:
    """With the real linter, coverage, Locust and scanners.

    Out of reach are Semgrep's rules and Trivy's database; what is known of Python packages is asked of a local server.
    """
    runner, folder = world.runner, tmp_path / "parcels"
    for name, text in _SOURCES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "Dockerfile").write_text(_dockerfile(world.estate))
    runner.offer("parcels", folder)
    caller = world.caller("ci.yml", tmp_path)
    serve = "timeout 60 python3 -m http.server 8000 > /tmp/app.log 2>&1 &"
    text = caller.read_text().replace('performance: ""', f"performance: {json.dumps(serve)}")
    caller.write_text(text)
    runner.github |= {"ref_name": "12/merge", "event_name": "pull_request"}
    try:
        run = runner.run(caller)
        assert run.status == "success", run.log
        tests = [job for name, job in run.jobs.items() if name.startswith("check / test (")]
        assert len(tests) == 3 and all("| 100.0 % | 80 % |" in job.summary for job in tests)
        assert "| requests | p95 | failed |" in run.jobs["check / performance"].summary
        # Nothing is pushed for a pull request, and what was built is what is scanned.
        image = f"{world.estate.registry.address}/{APP}:12-merge-{runner.github['sha'][:12]}"
        assert run.jobs["build / build"].outputs["images"] == image
        _note("P1: a pull request, its jobs one after the other", sum(job.seconds for job in run.jobs.values()))
        # Half of the lines are not tested any more.
        untested = "\n\ndef heaviest(weights: list[int]) -> int:\n    top = max(weights)\n    return top\n"
        (folder / "src" / "parcels.py").write_text(_SOURCES["src/parcels.py"] + untested)
        runner.offer("parcels", folder)
        run = runner.run(caller)
        assert run.status == "failure" and "are covered, and 80 % are asked for" in run.log

        scan = world.caller("security-scan.yml", tmp_path)
        tools = '["pip-audit", "bandit", "secrets", "licences"]'
        scan.write_text(scan.read_text().replace("sources: src", f"tools: '{tools}'\n      sources: src"))
        with Osv(world.estate.receiver.address) as osv:
            runner.environment["OSV_URL"] = osv.url
            run = runner.run(scan, severity="high")
            assert run.status == "success", run.log
            assert osv.asked == ["idna==3.11"] and run.jobs["scan / tell"].status == "skipped"
            told = len(world.estate.receiver.got)
            osv.bad["idna==3.11"] = "PYSEC-2026-1"
            (folder / "src" / "leak.py").write_text('KEY = "AKIA' + 'QWERTYUIOPASDFGH"\n')
            runner.offer("parcels", folder)
            run = runner.run(scan, severity="high")
        red = {name for name, job in run.jobs.items() if job.status == "failure"}
        assert red == {"scan / source (secrets)", "scan / source (pip-audit)"}, run.log
        assert "AWS Access Key" in run.log and "PYSEC-2026-1" in run.log
        assert world.estate.receiver.heard("Security scan: failure", since=told)
    finally:
        runner.environment.pop("OSV_URL", None)
        runner.github |= {"ref_name": "develop", "event_name": "push"}


@pytest.mark.parametrize("_", LATER)
def test_the_playbooks_way_from_a_runner(world: World, _: str) -> None:
    """Everything that the runner needs for it is installed by the job itself, as locked."""
    kept = dict(world.runner.secrets)
    world.estate.push("8.0.0")
    try:
        world.runner.offer("switchyard", world.estate.project.folder)
        world.runner.secrets["DEPLOY_SSH_KEY"] = world.host.place.private_key.read_text()
        job = world.deploy("8.0.0", way="ansible")
        assert job.status == "success", job.log
        assert job.outputs["release"].endswith("-8.0.0") and world.estate.live("staging") == "8.0.0"
        back = world.deploy(FIRST, way="ansible", order="rollback")
        assert back.status == "success" and world.estate.live("staging") == FIRST, back.log
    finally:
        world.runner.secrets = kept
        world.runner.offer("switchyard", ROOT)


@pytest.mark.parametrize("_", LATER)
def test_a_leaked_key_is_revoked_and_replaced_as_the_runbook_says(world: World, served: list[str], _: str) -> None:
    """The page 'A key leaked': SSH keys, an application's secret, the vault's password; nobody is served worse by it.

    Database passwords are walked through in test_7_rotation.py, registry logins and cosign's keys in test_10_trust.py,
    commits in test_secret_scan.py.
    """
    estate, place = world.estate, world.host.place

    def play(name: str, *words: str) -> None:
        done = estate.project.play(name, *words, env="staging")
        assert done.returncode == 0, done.stdout + done.stderr

    # The application's own secret: what still has it is named, and has it no longer after the next release.
    old, new = json.dumps([SECRET]), "replaced-4d1c-value"
    holders = ["sudo", "switchyard", "secret-holders", NAME]
    assert "live" in world.host.ssh(holders, stdin=old).stdout
    estate.describe("staging", app_secrets={"TOKEN": new})
    play("deploy", "-e", f"version={FIRST}")
    left = world.host.ssh(holders, stdin=old).stdout
    assert "idle" in left and "live" not in left and "current generation" not in left
    world.host.ssh(["sudo", "switchyard", "refresh", NAME])
    assert world.host.ssh(holders, stdin=old).stdout == "nothing holds it\n"

    # SSH keys of the CI system and of a person: another line instead, and the old one opens nothing.
    fresh = make_key(estate.keys / "staging-fresh")
    person = make_key(estate.keys / "person-fresh")
    estate.access["staging"] = [{"name": "hub2", "key": public(fresh)}]
    estate.describe("staging", app_secrets={"TOKEN": new}, host_deploy_authorized_keys=[public(person)])
    look = "sudo switchyard status"
    assert _ssh(world, "deploy", place.private_key, look).returncode == 0
    play("provision", "--tags", "host,deploy_access")
    for user, key, line in ((USER, estate.keys / "staging", "status"), ("deploy", place.private_key, look)):
        refused = _ssh(world, user, key, line)
        assert refused.returncode == 255 and "Permission denied" in refused.stderr, refused
    lines = world.host.exec(["cat", f"/var/lib/switchyard/{NAME}/ledger.jsonl"]).stdout.splitlines()
    noted = [row for row in map(json.loads, lines) if row["event"] == "key" and row["subject"].startswith("ci:")]
    assert {(row["subject"], row["outcome"]) for row in noted[-2:]} == {("ci:hub2", "added"), ("ci:hub", "removed")}
    for user, key, line in ((USER, fresh, "status"), ("deploy", person, look)):
        opened = _ssh(world, user, key, line)
        assert opened.returncode == 0 and "live" in opened.stdout, opened

    # The vault's password: the same vault under another one.
    folder = estate.project.folder
    vault = Vault("staging", [f"staging@{folder / 'old-password'}"], folder)
    for name in ("old", "new"):
        (folder / f"{name}-password").write_text(f"the {name} password\n")
    vault.write("---\nvault_mail_token: something\n")
    identities = [f"staging@{folder / name}" for name in ("old-password", "new-password")]
    argv = ["ansible-vault", "rekey", "--vault-id", identities[0], "--new-vault-id", identities[1], str(vault.path)]
    done = estate.project.run(*argv)
    assert done.returncode == 0, done.stderr
    assert "vault_mail_token" in Vault("staging", identities[1:], folder).read()
    with pytest.raises(SwitchyardError, match="cannot be decrypted with this password"):
        vault.read()
    vault.path.unlink()
    assert served == []


def _ssh(world: World, user: str, key: Path, line: str) -> subprocess.CompletedProcess[str]:
    argv = [*world.estate.ssh_argv("staging", key=key, user=user), line]
    return subprocess.run(argv, check=False, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
