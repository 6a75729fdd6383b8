"""What happens to control machines, connections, hosts, disks and files while releases change, on a real host.

Every test ends with the invariants and with the same command once more. `SWITCHYARD_FAULTS=smoke` (what `make test`
runs) takes a few representative parameters of each; `make test-faults` takes all.
"""

import contextlib
import itertools
import json
import re
import signal
import time
from collections.abc import Iterator

import pytest
import yaml

from tests.bed import Bed
from tests.bed import engine as outer
from tests.faults import disturb
from tests.faults.disturb import (
    POINTER,
    STATE,
    Phase,
    after,
    begin,
    block_ssh,
    both_warm,
    chosen,
    idle,
    lease_free,
    live,
    other,
    ready,
    result_of,
    sh,
    users,
)
from tests.faults.invariants import check, pointer_release
from tests.lab import APP, PLAN, SECRET, VERSIONS, Lab
from tests.project import Project
from tests.web import opened

DEPLOY_PHASES = ["preflight", "pull", "migrate", "start", "verify", "switch", "watch", "finish"]
ROLLBACK_PHASES = ["preflight", "verify", "switch", "finish"]
BACK_AFTER_BOOT = 60.0
"""A power cut takes the users' service with it; from the end of the boot on it must answer within this."""


@pytest.fixture(autouse=True)
def warm(lab: Lab) -> None:
    """Begin from one version live and the other one warm."""
    ready(lab)


def command(tool: str, version: str) -> list[str]:
    """What a person types on the control machine."""
    if tool == "deploy":
        return ["ansible-playbook", "deploy.yml", "-e", "env=local", "-e", f"version={version}"]
    return ["scripts/rollback.sh", "local", version]


def again(lab: Lab, tool: str, version: str, why: str) -> None:
    """The same command once more: it converges, or it says that the version already is live."""
    done = lab.project.run(*command(tool, version))
    assert done.returncode in ((0,) if tool == "deploy" else (0, 11)), f"after {why}: {done.stdout}{done.stderr}"
    assert live(lab) == version, f"after {why}: {done.stdout}{done.stderr}"
    check(lab, f"{why}, the same command again")


@contextlib.contextmanager
def migrating(lab: Lab) -> Iterator[None]:
    """Let the inventory name a migration, so that a deploy through Ansible has that phase, too."""
    folder = lab.project.folder / "inventories" / "group_vars" / "env_local"
    migration = {"app_migration": {"service": "api", "command": ["true"]}}
    (folder / "zzz_migration.yml").write_text(yaml.safe_dump(migration))
    try:
        yield
    finally:
        (folder / "zzz_migration.yml").unlink()


def answering(lab: Lab) -> str:
    """The version that answers users, or ''."""
    try:
        with opened(lab.url, timeout=2) as answer:
            return str(answer.headers["X-Release"])
    except OSError:
        return ""


# 1. The control process dies


@pytest.mark.parametrize(
    ("tool", "phase"),
    chosen(
        [("rollback", "switch")],
        [
            *itertools.product(["deploy"], DEPLOY_PHASES),
            ("rollback", "preflight"),
            ("rollback", "verify"),
            ("rollback", "finish"),
        ],
    ),
)
def test_the_control_process_is_killed(lab: Lab, tool: str, phase: str) -> None:
    """The host goes on alone: the operation ends as it would have, and nobody is left holding anything."""
    wanted, why = other(live(lab)), f"SIGKILL of {tool} in {phase}"
    with migrating(lab) if phase == "migrate" else contextlib.nullcontext(), users(lab), Phase(lab, phase) as met:
        process = lab.project.start(*command(tool, wanted))
        met.reached()
        disturb.kill_group(process)
        met.go()
        lease_free(lab)
        check(lab, why)
        assert live(lab) == wanted, f"after {why}, the operation did not go on to its end"
        again(lab, tool, wanted, why)


@pytest.mark.parametrize("seconds", chosen([], [0.1, 0.6, 1.0, 1.4]))
def test_the_control_process_is_killed_early(lab: Lab, seconds: float) -> None:
    """Killed at any time around the start of the operation: it never began, or it ends by itself."""
    wanted, why = other(live(lab)), f"SIGKILL {seconds} s after the start"
    with users(lab):
        process = lab.project.start(*command("deploy", wanted))
        time.sleep(seconds)
        disturb.kill_group(process)
        time.sleep(0.5)
        after(lab, wanted, why)


# 2. SSH fails


@pytest.mark.parametrize(
    ("tool", "phase", "how", "seconds"),
    chosen(
        [("rollback", "verify", "reset", 3)],
        [
            ("deploy", "start", "silent", 60),
            ("deploy", "start", "reset", 5),
            ("deploy", "preflight", "silent", 25),
            ("rollback", "verify", "silent", 60),
            ("rollback", "preflight", "silent", 25),
            ("rollback", "preflight", "reset", 5),
        ],
    ),
)
def test_ssh_is_lost(lab: Lab, tool: str, phase: str, how: str, seconds: int) -> None:
    """The operation goes on, the control process comes back to it and tells its real end.

    `silent` drops every packet (a connection that is half open: nothing tells either side), `reset` breaks them.
    """
    wanted, why = other(live(lab)), f"SSH {how} for {seconds} s in {phase} of {tool}"
    with users(lab):
        with Phase(lab, phase) as met:
            process = lab.project.start(*command(tool, wanted))
            met.reached()
            block_ssh(lab, seconds, reset=how == "reset")
            began = time.monotonic()
            met.go()
            said = process.communicate(timeout=seconds + 120)[0]
        assert process.returncode == 0, f"{why}: {said}"
        assert pointer_release(lab) in said, f"{why}: the real result is not told: {said}"
        assert time.monotonic() - began < seconds + 60, f"{why}: took {time.monotonic() - began:.0f} s"
        check(lab, why)
        assert live(lab) == wanted
        disturb.ssh_returns(lab)
        again(lab, tool, wanted, why)


@pytest.mark.parametrize("tool", chosen([], ["rollback", "deploy"]))
def test_ssh_is_gone_from_the_start(lab: Lab, tool: str) -> None:
    """Nothing was begun, so it is said at once and not waited for."""
    wanted = other(live(lab))
    block_ssh(lab, 20, reset=True)
    began = time.monotonic()
    done = lab.project.run(*command(tool, wanted))
    assert done.returncode == (14 if tool == "rollback" else 2), done.stdout + done.stderr
    assert time.monotonic() - began < 20
    assert "reach" in done.stdout + done.stderr
    assert live(lab) != wanted
    disturb.ssh_returns(lab)
    after(lab, wanted, "SSH gone from the start")


# 3. The host loses power


def hang_at(lab: Lab, step: str, when: str) -> None:
    """Have the engine stand still for a minute at one of its effects."""
    plan = {"step": step, "nth": 1, "when": when, "how": "hang", "hang_seconds": 60.0}
    lab.host.exec(["sh", "-c", f"umask 077; cat > {PLAN}"], stdin=json.dumps(plan))


def wait_until_hanging(lab: Lab) -> None:
    """The plan disappears when its point is reached."""
    sh(lab, f"for i in $(seq 600); do test -e {PLAN} || exit 0; sleep 0.05; done; exit 1")


def boot(lab: Lab, why: str) -> float:
    """Cut the power, boot, and wait until users are answered again; returns the seconds from the cut."""
    cut = time.monotonic()
    lab.host.power_cycle()
    booted = time.monotonic()
    while not answering(lab):
        assert time.monotonic() - booted < BACK_AFTER_BOOT, f"after {why}: nobody answers after the boot"
        time.sleep(0.1)
    return time.monotonic() - cut


@pytest.mark.parametrize(
    ("kind", "step", "when"),
    chosen(
        [("deploy", "switch.rename", "after")],
        [
            ("deploy", "switch.rename", "before"),
            ("deploy", "switch.reload", "after"),
            ("deploy", "ledger.live", "after"),
            ("rollback", "switch.rename", "before"),
            ("rollback", "switch.rename", "after"),
            ("rollback", "switch.reload", "after"),
        ],
    ),
)
def test_power_cut_around_the_switch(lab: Lab, kind: str, step: str, when: str) -> None:
    """After the boot the last proven release answers, without a person."""
    old, why = live(lab), f"a power cut {when} {step} of a {kind}"
    wanted = other(old)
    hang_at(lab, step, when)
    operation = begin(lab, kind, wanted)
    wait_until_hanging(lab)
    seconds = boot(lab, why)
    expected = wanted if step == "ledger.live" else old
    deadline = time.monotonic() + BACK_AFTER_BOOT
    while live(lab) != expected or answering(lab) != expected:
        assert time.monotonic() < deadline, f"after {why}: {answering(lab)} answers, the pointer says {live(lab)}"
        time.sleep(0.2)
    lease_free(lab)
    check(lab, why)
    assert result_of(lab, operation)["code"] == 8, f"after {why}: the follower is not told"
    print(f"{why}: users unserved for {seconds:.1f} s, boot included")
    after(lab, wanted, why)


@pytest.mark.parametrize("phase", chosen([], ["start", "watch", "finish"]))
def test_power_cut_in_a_phase(lab: Lab, phase: str) -> None:
    old, why = live(lab), f"a power cut in {phase}"
    with Phase(lab, phase) as met:
        begin(lab, "deploy", other(old), probation_seconds=3.0)
        met.reached()
        boot(lab, why)
    lease_free(lab)
    check(lab, why)
    assert live(lab) == (old if phase == "start" else other(old)), why
    after(lab, other(old), why)


@pytest.mark.parametrize("cuts", chosen([], [1, 2]))
def test_power_cut_while_idle(lab: Lab, cuts: int) -> None:
    """Both colours come back: the live one serves, and the warm one is a rollback that needs only a pointer."""
    old, why = live(lab), f"{cuts} power cuts while idle"
    for _ in range(cuts):
        boot(lab, why)
    check(lab, why)
    assert live(lab) == old
    assert all(colour["running"] for colour in lab.status()["colours"].values())
    after(lab, other(old), why)


# 4. Docker restarts

# systemd refuses to start a unit too often within a minute; that is not what is tested.
START_DOCKER = "systemctl reset-failed docker.socket docker; systemctl start docker.socket docker"
RESTART_DOCKER = "systemctl reset-failed docker.socket docker; systemctl restart docker"
RESTART_MAY_LOSE = 20
"""live-restore keeps containers, but a starting daemon makes its forwarding rules anew: for 0.4 to 0.5 s (measured) a
published port refuses new connections. Kept-alive ones go on, so few of the 60 requests of that time are lost."""


@pytest.mark.parametrize("phase", chosen(["start"], ["pull", "migrate", "verify", "switch", "watch", "finish"]))
def test_docker_restarts_in_a_deploy(lab: Lab, phase: str) -> None:
    """The deploy fails with a sentence or succeeds; what served goes on serving (live-restore)."""
    old, why = live(lab), f"a restart of Docker in {phase}"
    wanted = other(old)
    migration = {"service": "api", "command": ["sleep", "2"], "current": ["echo", "7"], "timeout": 30.0}
    with users(lab, may_lose=RESTART_MAY_LOSE):
        with Phase(lab, phase, stop=False) as met:
            operation = begin(
                lab,
                "deploy",
                wanted,
                compose=disturb.slow_start(lab, wanted, 1),
                migration=migration if phase == "migrate" else None,
            )
            met.reached()
            sh(lab, RESTART_DOCKER)
            result = result_of(lab, operation)
        assert result["code"] in (0, 1, 4, 5, 6, 7, 8), result
        assert result["message"], result
        assert live(lab) == (wanted if result["code"] == 0 else old), result
        more = {"migration_decision": "resume"} if result["code"] == 7 else {}
        after(lab, wanted, f"{why} ({result['message']})", **more)


@pytest.mark.parametrize("how", chosen([], ["restart", "kill"]))
def test_docker_restarts_while_idle(lab: Lab, how: str) -> None:
    """Containers outlive their daemon, also when it is killed."""
    before = sh(lab, "docker ps -q | sort")
    with users(lab, may_lose=RESTART_MAY_LOSE):
        if how == "restart":
            sh(lab, RESTART_DOCKER)
        else:
            sh(lab, f"systemctl kill --kill-whom=main --signal=KILL docker; sleep 1; {START_DOCKER}")
        time.sleep(1)
        assert sh(lab, "docker ps -q | sort") == before
        check(lab, f"a {how} of Docker while idle")
    after(lab, other(live(lab)), f"a {how} of Docker while idle")


@pytest.mark.parametrize("way", chosen([], ["deploy", "rollback"]))
def test_docker_is_down(lab: Lab, way: str) -> None:
    """Refused with the command that says why; users notice nothing."""
    old = live(lab)
    with users(lab, may_lose=RESTART_MAY_LOSE):
        sh(lab, "systemctl stop docker.socket docker")
        try:
            result = lab.deploy(other(old), migration=None) if way == "deploy" else lab.rollback()
            lab.settle()
        finally:
            sh(lab, START_DOCKER)
        assert result["code"] == 4, result
        assert "systemctl status docker" in result["message"], result
        after(lab, other(old), f"a {way} while Docker was down")


# 5. File systems are full, or read-only


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A host whose written partitions are small: they are tmpfs, so that filling them costs little memory."""
    with Bed.for_tests("small") as bed:
        tmpfs = {
            f"{STATE}": "size=256m,nr_inodes=8000,mode=0755",
            "/var/log/switchyard": "size=48m,nr_inodes=4000,mode=0755",
            # Ample for what preflight wants of an image that it has never seen, and small enough to be filled.
            "/var/lib/docker-small": "size=2200m,mode=0710",
        }
        host = bed.host("local-1", image="docker-host", tmpfs=tmpfs)
        script = "systemctl stop docker.socket docker; mount --bind /var/lib/docker-small /var/lib/docker"
        host.exec(["sh", "-c", f"{script}; mount -o remount,size=32m,nr_inodes=8000 /run; systemctl start docker"])
        made = Lab.build(Project(tmp_path_factory.mktemp("small")), bed)
        both_warm(made)
        yield made


PARTITIONS = [STATE, "/var/log/switchyard", "/run", "/var/lib/docker"]


def forget_idle_image(lab: Lab) -> None:
    """Have the next deploy pull: an image that is on the host needs no room."""
    remove_containers(lab, idle(lab))
    sh(lab, "docker image prune -af")


def unchanged(lab: Lab) -> str:
    """What serves and what is recorded."""
    return sh(
        lab, f"head -n 1 {POINTER}; ls {STATE}/{APP}/releases; docker ps --format '{{{{.ID}}}} {{{{.Names}}}}' | sort"
    )


@pytest.mark.parametrize(
    ("partition", "what"),
    chosen([], [*itertools.product(PARTITIONS, ["space"]), *itertools.product(PARTITIONS[:3], ["inodes"])]),
)
@pytest.mark.parametrize("kind", ["deploy", "rollback"])
def test_a_partition_is_full(small: Lab, partition: str, what: str, kind: str) -> None:
    """Refused before anything was changed; a rollback may still do what it can."""
    if kind == "rollback":
        # The rollback before this one may have succeeded, and then nothing is left to go back to.
        both_warm(small)
    elif partition == "/var/lib/docker":
        forget_idle_image(small)
    old, why = live(small), f"no {what} on {partition} before a {kind}"
    before = unchanged(small)
    with users(small):
        with disturb.full(small, partition, what):
            began = time.monotonic()
            result = small.deploy(other(old), migration=None) if kind == "deploy" else small.rollback()
            assert time.monotonic() - began < 60, f"{why}: {result}"
            assert answering(small) == live(small), f"{why}: {result}"
            if kind == "deploy":
                assert result["code"] in (1, 4, 8), f"{why}: {result}"
            sentence = str(result.get("message") or result.get("error"))
            if result["code"]:
                assert re.search(r"space|inode|MiB free|disk", sentence), f"{why}: {result}"
                assert unchanged(small) == before, why
        small.settle()
        small.engine("recover", "--app", APP)
        after(small, other(old), f"{why} ({sentence})")


@pytest.mark.parametrize(
    ("partition", "phase"),
    chosen(
        [],
        [
            *itertools.product([STATE], ["pull", "start", "switch", "watch", "finish"]),
            ("/var/log/switchyard", "start"),
            ("/run", "start"),
            ("/var/lib/docker", "pull"),
            ("/var/lib/docker", "start"),
        ],
    ),
)
def test_a_partition_fills_up(small: Lab, partition: str, phase: str) -> None:
    """Filled in mid-operation: it fails cleanly or gets through; one whole release serves."""
    old, why = live(small), f"no space on {partition} from {phase} on"
    if partition == "/var/lib/docker":
        forget_idle_image(small)
    with users(small):
        with Phase(small, phase) as met:
            operation = begin(small, "deploy", other(old))
            met.reached()
            with disturb.full(small, partition):
                met.go()
                result = result_of(small, operation)
                if phase != "watch":
                    small.settle()
                assert answering(small) in VERSIONS, f"{why}: {result}"
        # A watch that has begun goes on trying to write, and has its verdict as soon as there is room.
        small.settle()
        assert result["message"], result
        small.engine("recover", "--app", APP)
        after(small, other(old), f"{why} ({result['message']})")


@pytest.mark.parametrize("phase", chosen([], ["before", "start", "switch", "finish"]))
def test_the_state_turns_read_only(small: Lab, phase: str) -> None:
    """As a file system does that has found an error (its mount here, since Postgres has files open on it)."""
    old, why = live(small), f"{STATE} read-only from {phase} on"
    with users(small):
        try:
            if phase == "before":
                sh(small, f"mount -o remount,bind,ro {STATE}")
                result = small.deploy(other(old), migration=None)
                assert result["code"] in (1, 4, 8), result
                assert "remount that file system read-write" in str(result.get("message") or result.get("error")), (
                    result
                )
            else:
                with Phase(small, phase) as met:
                    operation = begin(small, "deploy", other(old))
                    met.reached()
                    sh(small, f"mount -o remount,bind,ro {STATE}")
                    met.go()
                    result = result_of(small, operation)
            small.settle()
            assert answering(small) in VERSIONS, f"{why}: {result}"
        finally:
            sh(small, f"mount -o remount,bind,rw {STATE}")
        small.engine("recover", "--app", APP)
        after(small, other(old), why)


@pytest.mark.parametrize("what", chosen([], ["space", "inodes"]))
def test_the_run_directory_is_full(lab: Lab, what: str) -> None:
    """`/run` carries requests and locks: an operation that cannot be started says so, and was not started."""
    old = live(lab)
    size = sh(lab, "df --output=size,itotal -k /run | tail -n 1").split()
    sh(lab, "mount -o remount,size=48m,nr_inodes=8000 /run")
    try:
        with users(lab), disturb.full(lab, "/run", what):
            result = lab.deploy(other(old), migration=None)
            assert result["code"] in (1, 4), result
            assert "free space or inodes" in str(result.get("message") or result.get("error")), result
            assert live(lab) == old
    finally:
        sh(lab, f"mount -o remount,size={size[0]}k,nr_inodes={size[1]} /run")
    after(lab, other(old), f"no {what} on /run")


# 6. Two at once


def engine_deploy(lab: Lab) -> list[str]:
    """The engine's deploy on the host, without SSH's time in between."""
    return [outer.client(), "exec", "-i", lab.host.container, "switchyard", "deploy", "--follow", "--json"]


@pytest.mark.parametrize("rounds", chosen([1], [20]))
def test_two_deploys_at_once(lab: Lab, rounds: int) -> None:
    """One wins and the other is told who, or one follows the other: never a mix."""
    told = 0
    with users(lab):
        for number in range(rounds):
            requests = [json.dumps(lab.request(version, migration=None)) for version in VERSIONS]
            ended = disturb.run_both(engine_deploy(lab), engine_deploy(lab), requests)
            results = [json.loads(said.splitlines()[-1]) for _, said in ended]
            codes = [code for code, _ in ended]
            assert 0 in codes, f"round {number}: {results}"
            assert set(codes) <= {0, 3}, f"round {number}: {results}"
            for result in results:
                if result["code"] == 3:
                    told += 1
                    sentence = str(result.get("message") or result.get("error"))
                    assert re.search(r"deploy \d{8}T\d{6}-[0-9a-f]{6} by lab", sentence), f"round {number}: {sentence}"
            check(lab, f"two deploys at once, round {number}")
    print(f"{rounds} rounds, {told} refused with the holder's name")
    after(lab, other(live(lab)), "two deploys at once")


@pytest.mark.parametrize("tools", chosen([], [("deploy", "deploy"), ("deploy", "rollback")]))
def test_two_people_at_once(lab: Lab, tools: tuple[str, str]) -> None:
    """The same through the entry points: the loser exits with an error that names the winner."""
    old, why = live(lab), f"{' and '.join(tools)} at once"
    with users(lab), Phase(lab, "verify") as met:
        first = lab.project.start(*command(tools[0], other(old)))
        operation = met.reached()["op"]
        second = lab.project.run(*command(tools[1], other(old)))
        met.go()
        said = first.communicate(timeout=120)[0]
        assert first.returncode == 0, said
        assert second.returncode == (3 if tools[1] == "rollback" else 2), second.stdout + second.stderr
        assert operation in second.stdout + second.stderr, second.stdout + second.stderr
        assert live(lab) == other(old)
        check(lab, why)
    again(lab, "deploy", other(old), why)


# 7. Ctrl-C


@pytest.mark.parametrize(
    ("tool", "phase"),
    chosen([("rollback", "verify")], [("deploy", "start"), ("deploy", "watch"), ("rollback", "switch")]),
)
def test_ctrl_c(lab: Lab, tool: str, phase: str) -> None:
    """Whoever stops following is told that the operation goes on, and how to see it; it does go on."""
    wanted, why = other(live(lab)), f"Ctrl-C to {tool} in {phase}"
    # What a shell starts in the background ignores it, and so would all that is started from here.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with users(lab):
        with Phase(lab, phase) as met:
            process = lab.project.start(*command(tool, wanted))
            met.reached()
            time.sleep(1)  # until the command follows
            said = disturb.kill_group(process, signal.SIGINT)
            met.go()
        assert process.returncode not in (0, None), said
        assert "goes on on the host" in said, f"{why}: {said}"
        assert "switchyard status" in said, f"{why}: {said}"
        assert "Traceback" not in said, f"{why}: {said}"
        lease_free(lab)
        check(lab, why)
        assert live(lab) == wanted, why
        again(lab, tool, wanted, why)


# 10. State is damaged


def remove_containers(lab: Lab, colour: str) -> None:
    sh(lab, f"docker ps -aq --filter label=switchyard.colour={colour} | xargs -r docker rm -f")


@pytest.mark.parametrize("colour", chosen(["blue"], ["green"]))
@pytest.mark.parametrize("damage", chosen(["removed"], ["garbage", "no mark", "empty"]))
def test_the_pointer_is_damaged(lab: Lab, damage: str, colour: str) -> None:
    """Nginx goes on with what it has read; the next command must not take the live colour for a free one."""
    if lab.status()["live"]["colour"] != colour:
        assert lab.rollback()["code"] == 0
        lab.settle()
    old, why = live(lab), f"the pointer {damage} ({colour} live)"
    how = {
        "removed": f"rm {POINTER}",
        "garbage": f"echo '}}garbage' > {POINTER}",
        "no mark": f"sed -i 1d {POINTER}",
        "empty": f": > {POINTER}",
    }
    with users(lab):
        sh(lab, how[damage])
        assert lab.status()["disagreements"], f"{why}: status says nothing"
        result = lab.deploy(other(old), migration=None)
        assert result["code"] == 0 or "switchyard recover" in result["message"], f"{why}: {result}"
        if result["code"]:
            assert lab.engine("recover", "--app", APP).returncode == 0
        after(lab, other(old), why)


@pytest.mark.parametrize("line", chosen([], ["end", "live", "start", "newline"]))
def test_the_ledger_is_cut(lab: Lab, line: str) -> None:
    """Cut within its last lines: nothing that is written afterwards is lost, nothing that serves is touched."""
    assert lab.deploy(other(live(lab)), migration=None)["code"] == 0
    lab.settle()
    old, why = live(lab), f"the ledger cut in its {line}"
    ledger = f"{STATE}/{APP}/ledger.jsonl"
    if line == "newline":
        sh(lab, f"truncate -s -1 {ledger}")
    else:
        where = f'text.rindex(\'"event":"{line}"\') + 30'
        cut = f"path = {ledger!r}; text = open(path).read(); open(path, 'w').write(text[:{where}])"
        lab.host.exec(["python3", "-c", cut])
        lab.ledger_was_cut = True
    with users(lab):
        report = lab.status()
        assert report["live"]["version"] == old
        if line == "end":
            assert report["disagreements"], why
        begun = len(lab.history())
        result = lab.deploy(other(old), migration=None)
        assert result["code"] == 0, f"{why}: {result}"
        lab.settle()
        rows = lab.history()
        assert rows[-1]["op"] == result["op"], f"{why}: the ledger lost the start of {result['op']}"
        assert len(rows) == begun + 1, f"{why}: {rows[-3:]}"
        after(lab, other(old), why)


@pytest.mark.parametrize("content", chosen([], ["garbage", "", "{}", "[1]", '{"op": 5}', "removed"]))
def test_the_lease_is_damaged(lab: Lab, content: str) -> None:
    old, path = live(lab), f"{STATE}/{APP}/lease.json"
    sh(lab, f"rm {path}" if content == "removed" else f"printf '%s' '{content}' > {path}")
    assert lab.status()["live"]["version"] == old
    with users(lab):
        assert lab.rollback(other(old))["code"] == 0
        lab.settle()
        after(lab, old, f"a lease that says {content!r}")


@pytest.mark.parametrize("damage", chosen([], ["removed", "garbage"]))
def test_the_port_plan_is_damaged(lab: Lab, damage: str) -> None:
    """Ports of what runs never move: the plan is made again from what runs, or the one command is named."""
    old, path, why = live(lab), f"{STATE}/ports.json", f"ports.json {damage}"
    before = json.loads(sh(lab, f"cat {path}"))
    with users(lab):
        sh(lab, f"rm {path}" if damage == "removed" else f"echo garbage > {path}")
        done = lab.engine("status", APP, "--json")
        assert "Traceback" not in done.stderr, f"{why}: {done.stderr}"
        report = json.loads(done.stdout)
        assert report.get("disagreements") or report.get("error") or report.get("live"), report
        result = lab.deploy(other(old), migration=None)
        sentence = str(result.get("message") or result.get("error"))
        lab.settle()
        if result["code"]:
            assert "switchyard recover" in sentence, f"{why}: {result}"
            if "move it away" in sentence:
                sh(lab, f"mv {path} {path}.damaged")
            assert lab.engine("recover", "--app", APP).returncode == 0
        after(lab, other(old), f"{why} ({sentence})")
    assert json.loads(sh(lab, f"cat {path}")) == before, f"{why}: ports moved"


@pytest.mark.parametrize(
    ("which", "damage"), chosen([], list(itertools.product(["live", "previous", "old"], ["removed", "garbage"])))
)
def test_a_record_is_damaged(lab: Lab, which: str, damage: str) -> None:
    """What is live is not touched, `status` names what a rollback lacks, and the next deploy makes its own record."""
    for _ in range(2):
        assert lab.deploy(other(live(lab)), migration=None)["code"] == 0
        lab.settle()
    report, why = lab.status(), f"the {which} release's record {damage}"
    named = {report["live"]["release"], report["previous"]}
    kept = [name for name in sh(lab, f"ls {STATE}/{APP}/releases").split() if name not in named]
    release = {"live": report["live"]["release"], "previous": report["previous"], "old": kept[-1]}[which]
    path, old = f"{STATE}/{APP}/releases/{release}/release.json", live(lab)
    with users(lab):
        sh(lab, f"rm {path}" if damage == "removed" else f"echo garbage > {path}")
        done = lab.engine("status", APP, "--json")
        assert (done.returncode, json.loads(done.stdout)["live"]["version"]) == (0, old), f"{why}: {done}"
        told = [item for item in json.loads(done.stdout)["disagreements"] if release in item]
        assert bool(told) == (which != "old"), f"{why}: {done.stdout}"
        # The same version twice: the first replaces a live record that is damaged, the second takes the other colour.
        for version in (old, other(old)):
            result = lab.deploy(version, migration=None)
            assert result["code"] == 0, f"{why}: {result}"
            lab.settle()
        sh(lab, f"rm -rf {STATE}/{APP}/releases/{release}")
        assert lab.deploy(old, migration=None)["code"] == 0, why
        lab.settle()
        after(lab, old, why)


@pytest.mark.parametrize("by", chosen([], ["deploy", "recover", "rollback"]))
def test_the_live_containers_are_removed(lab: Lab, by: str) -> None:
    """The fault takes the service; `status` says so, and one command brings it back."""
    report = lab.status()
    old, why = live(lab), f"the live containers removed, then {by}"
    remove_containers(lab, report["live"]["colour"])
    assert any(report["live"]["release"] in item for item in lab.status()["disagreements"]), lab.status()
    began = time.monotonic()
    if by == "deploy":
        assert lab.deploy(old, migration=None)["code"] == 0
    elif by == "rollback":
        assert lab.rollback()["code"] == 0
    else:
        assert lab.engine("recover", "--app", APP).returncode == 0
    lab.settle()
    assert answering(lab) == live(lab) != "", f"{why}: nobody answers"
    assert time.monotonic() - began < 30
    if by == "rollback":
        lab.engine("recover", "--app", APP)
    after(lab, old, why)


@pytest.mark.parametrize("by", chosen([], ["rollback", "deploy", "recover"]))
def test_the_idle_containers_are_removed(lab: Lab, by: str) -> None:
    """A rollback then starts from the record and the local image; users notice nothing."""
    old, why = live(lab), f"the idle containers removed, then {by}"
    with users(lab):
        remove_containers(lab, idle(lab))
        check(lab, why)
        if by == "rollback":
            result = lab.rollback()
            assert (result["code"], live(lab)) == (0, other(old)), result
        elif by == "deploy":
            assert lab.deploy(other(old), migration=None)["code"] == 0
        else:
            assert lab.engine("recover", "--app", APP).returncode == 0
            assert all(colour["running"] for colour in lab.status()["colours"].values()), lab.status()
        lab.settle()
        after(lab, other(old), why)


def test_no_secret_is_left(lab: Lab) -> None:
    """Whatever was disturbed above: the secret is in its own files alone, and in no log, record or journal."""
    paths = f"{STATE} /var/log /run/switchyard /etc/switchyard"
    found = sh(lab, f"grep -rlF -- '{SECRET}' {paths} 2>/dev/null || true").split()
    assert [path for path in found if not re.fullmatch(f"{STATE}/{APP}/secrets/[^/]+/TOKEN", path)] == []
    assert SECRET not in sh(lab, "journalctl --no-pager -q 2>/dev/null || true")
    assert SECRET not in sh(lab, "docker inspect $(docker ps -aq)")
