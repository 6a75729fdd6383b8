"""`make bench-data`: the bars of backups and restores, each on real Postgres in real hosts.

`make bench-data ONLY=word,word` runs the parts whose names contain one of the words: found, dropped, outage, power,
drill, rebuild, speed, latency, secrets. SCALE is pgbench's (100: a database of 1.5 GB).
"""

import json
import os
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from switchyard.data.drill import PLANS
from tests.bed import Bed, Registry, images
from tests.bench.bars import Bench, chosen, median
from tests.database import PASSPHRASE, Database
from tests.keeper import Keeper
from tests.project import ROOT, Project
from tests.web import opened

SCALE = int(os.environ.get("SCALE", "100"))
OUTAGE_SECONDS = int(os.environ.get("OUTAGE", "300"))
RUNS, RUN_SECONDS = 5, 30
APP = "sample-local"
SAMPLE = ROOT / "examples" / "sample"
VERSIONS = ("1.0.0", "1.1.0")


@dataclass
class World:
    """A host with the sample application live and backed up, here and on another host."""

    bed: Bed
    project: Project
    data: Database
    keeper: Keeper
    url: str
    filled: bool = False

    def pgbench(self, *words: str, seconds: int = 0) -> str:
        """Run pgbench in the database's container."""
        argv = ["docker", "exec", self.data.container, "pgbench", "-U", "postgres", *words]
        argv += ["-T", str(seconds), "-n"] if seconds else []
        return self.data.host.exec([*argv, self.data.name], timeout=seconds + 900).stdout

    def fill(self) -> None:
        """Have pgbench's tables of the wanted size, and a backup with them."""
        if self.filled:
            return
        self.pgbench("-i", "-q", "-s", str(SCALE))
        self.data.sql("CHECKPOINT")
        assert self.data.operation("backup", "--type", "full")["code"] == 0
        self.filled = True


@dataclass
class Writer:
    """Hands in parcels through the edge and remembers each that was acknowledged."""

    url: str
    keys: list[str] = field(default_factory=list)
    failed: int = 0

    def __enter__(self) -> "Writer":
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(0.01):
            key = str(uuid.uuid4())
            headers = {"Idempotency-Key": key, "Content-Type": "application/json"}
            try:
                with opened(
                    f"{self.url}api/v1/parcels", timeout=5, data=b'{"recipient": "bench"}', headers=headers
                ) as answer:
                    if answer.status in (200, 201):
                        self.keys.append(key)
            except OSError:
                self.failed += 1

    def lost(self, data: Database) -> int:
        """Acknowledged parcels that the database does not have."""
        have = set(data.sql("SELECT idempotency_key FROM parcels").splitlines())
        return len([key for key in self.keys if key not in have])


def serves(url: str) -> bool:
    """Tell whether the application answers with its data."""
    try:
        with opened(f"{url}api/v1/parcels", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for something, not for ever."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} took longer than {seconds:.0f} s"
        time.sleep(0.5)


def push(bed: Bed) -> Registry:
    """The registry with everything that is released."""
    registry = bed.registry()
    registry.push(images.ensure("edge"), "nginx", "1.30")
    registry.push(images.ensure("postgres"), "postgres", "17-trixie")
    for version in VERSIONS:
        for part in ("api", "web"):
            built = images.build(SAMPLE, f"sample-{part}", {"RELEASE": version}, dockerfile=f"{part}/Dockerfile")
            registry.push(built, f"sample-{part}", version)
    return registry


def build(bed: Bed, folder: Path) -> World:
    """Make the world."""
    push(bed)
    keeper = Keeper.build(bed)
    project = Project(folder)
    host = bed.host("local-1", image="docker-host")
    project.adopt(bed, host)
    data = Database(project, host, APP)
    data.configure(backup_repositories=[keeper.repository()])
    for done in (project.play("provision"), project.play("deploy", "-e", f"version={VERSIONS[0]}")):
        assert done.returncode == 0, done.stdout + done.stderr
    return World(bed, project, data, keeper, f"http://{host.address}/")


def outage(bench: Bench, world: World) -> None:
    """The repository on the host away for five minutes, under write load."""
    data = world.data
    world.pgbench("-i", "-q", "-s", "5")
    before = data.started()
    failed: list[str] = []

    def load() -> None:
        said = world.pgbench("-c", "4", "-j", "2", "--rate=100", seconds=OUTAGE_SECONDS)
        failed.append(said)

    thread = threading.Thread(target=load)
    # The alert stays in the spool, to be read.
    data.shell("systemctl stop switchyard-notify.path switchyard-notify.service")
    data.shell(f"chmod 000 {data.repository}")
    thread.start()
    time.sleep(OUTAGE_SECONDS / 2)
    data.job("archive")
    alerts = [news for news in data.news() if news["kind"] == "backup.archive" and news["severity"] != "info"]
    thread.join()
    data.shell(f"docker exec {data.container} sh -c '(sleep 1; exit 103) & exit 0'")
    waiting = data.sql("SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name ~ 'ready$'")
    data.shell(f"chmod 700 {data.repository}; systemctl start switchyard-notify.path")
    began = time.monotonic()
    data.archived(300)
    caught_up = time.monotonic() - began
    note = f"{OUTAGE_SECONDS} s; {waiting} segments waited"
    bench.add("repository down: restarts of Postgres", int(data.started() != before), 0, "restarts", note=note)
    bad = sum("number of failed transactions: 0 " not in text for text in failed) + (not failed)
    bench.add("repository down: runs of pgbench with a failed write", bad, 0, "runs")
    bench.add("repository down: alert raised", len(alerts), 1, "alerts", want=">=")
    bench.add("repository down: archive caught up after", caught_up, 300, "s")


def found(bench: Bench, world: World) -> None:
    """What is spoilt, found by the scheduled jobs alone, and named."""
    data = world.data
    cases: dict[str, tuple[Callable[[], str], str]] = {
        "one byte of a backup flipped": (lambda: data.spoil("byte"), "checksum invalid"),
        "one WAL segment deleted": (lambda: data.spoil("segment"), "is missing, so nothing after it can be restored"),
        "wrong passphrase": (data.change_passphrase, "the passphrase is another one"),
    }
    for name, (spoil, words) in cases.items():
        mend = spoil()
        good, said = data.job("daily")
        data.shell(mend)
        bench.add(f"{name}: found and named by the daily job", int(not good and words in said), 1, "found", want=">=")
    world.keeper.lock_out()
    good, said = data.job("daily")
    world.keeper.admit()
    named = not good and "offsite" in said
    bench.add("stale off-site credentials: found and named by the daily job", int(named), 1, "found", want=">=")
    good, said = data.job("daily")
    if not good:
        bench.say(said[-600:])
    bench.add("after all of these the daily job is good again", int(good), 1, "good", want=">=")


def dropped(bench: Bench, world: World) -> None:
    """A table dropped by hand after release N migrated, brought back by going to the moment before N."""
    data = world.data
    data.sql("CREATE TABLE keepsake AS SELECT generate_series(1, 10000) AS n")
    with Writer(world.url) as writer:
        time.sleep(3)
    done = world.project.play("deploy", "-e", f"version={VERSIONS[1]}")
    assert done.returncode == 0, done.stdout
    points = data.shell(f"grep restore-point /var/lib/switchyard/{APP}/ledger.jsonl").strip().splitlines()
    number = int(json.loads(points[-1])["release"].partition("-")[0])
    data.sql("DROP TABLE keepsake")
    wish = ("--to", f"before-deploy={number}", "--into", "live", "--confirm", "local-1")
    result = data.operation("restore", *wish)
    bench.say(result["message"])
    bench.add("dropped table: restored", result["code"], 0, "code")
    rows = int(data.sql("SELECT count(*) FROM keepsake"))
    bench.add("dropped table: rows that did not come back", 10000 - rows, 0, "rows")
    bench.add("dropped table: acknowledged rows of others that are gone", writer.lost(data), 0, "rows")
    bench.add("dropped table: users are served", int(serves(world.url)), 1, "served", want=">=")
    again = world.project.play("deploy", "-e", f"version={VERSIONS[1]}")
    bench.add("dropped table: the release can be deployed again", again.returncode, 0, "code")
    data.engine("restore-forget", APP)


def under_way(data: Database, name: str) -> bool:
    """Tell whether a restore in place (by its marker) or a backup (by its lock) is at work right now."""
    marker, lock = f"/var/lib/switchyard/postgres/{APP}/restore.json", f"/run/switchyard/{APP}.backup.lock"
    script = f"test -e {marker}" if name == "restore" else f"! flock --nonblock {lock} true"
    return data.host.exec(["sh", "-c", script], check=False).returncode == 0


def power(bench: Bench, world: World) -> None:
    """Power cut during a backup, during archiving and during a restore in place."""
    data = world.data
    for name, verb in (
        ("backup", ("backup", APP, "--type", "full")),
        ("archiving", ()),
        ("restore", ("restore", APP, "--to", "latest", "--into", "live", "--confirm", "local-1")),
    ):
        with Writer(world.url) as writer:
            time.sleep(3)
            if verb:
                data.engine(*verb)
                wait_until(partial(under_way, data, name), 60, f"the beginning of the {name}")
                time.sleep(2)
            else:
                data.sql("SELECT pg_switch_wal()")
        at_work = not verb or under_way(data, name)
        data.host.power_cycle()
        bench.add(f"power cut during {name}: it was under way", int(at_work), 1, "under way", want=">=")
        wait_until(lambda: serves(world.url), 180, "users are served after a power cut")
        bench.add(f"power cut during {name}: acknowledged writes lost", writer.lost(data), 0, "writes",
                  note=f"of {len(writer.keys)}")  # fmt: skip
        time.sleep(2)
        result = data.operation("backup")
        bench.say(result["message"])
        bench.add(f"power cut during {name}: next backup", result["code"], 0, "code")
    drill = data.operation("drill", "--plan", "latest")
    bench.say(drill["message"])
    bench.add("after the power cuts: drill", drill["code"], 0, "code")


def drill(bench: Bench, world: World) -> None:
    """A drill on a database of full size, by each plan."""
    world.fill()
    data = world.data
    worst = {"rpo_seconds": 0.0, "restore_seconds": 0.0, "rto_seconds": 0.0}
    for plan in PLANS:
        result = data.operation("drill", "--plan", plan)
        bench.say(result["message"])
        if result["code"] != 0:
            bench.say(result["details"])
        bench.add(f"drill ({plan}): verdict", result["code"], 0, "code")
        last = json.loads(data.shell(f"grep '\"drill\"' /var/lib/switchyard/{APP}/ledger.jsonl | tail -n 1"))
        # A moment of the past has no loss to measure.
        worst = {key: max(value, float(last[key] or 0.0)) for key, value in worst.items()}
    bench.add("drill: RPO", worst["rpo_seconds"], 120, "s")
    bench.add("drill: restore to ready", worst["restore_seconds"], 600, "s", note=f"pgbench scale {SCALE}")
    bench.add("drill: RTO with allowances", worst["rto_seconds"], 3600, "s")


def rebuild(bench: Bench, world: World) -> None:
    """The host destroyed; database and uploaded files back from the off-site place and the escrowed secrets only."""
    data = world.data
    uploads = f"/var/lib/switchyard/{APP}/volumes/uploads"
    data.shell(f"echo an uploaded file > {uploads}/letter")
    assert data.operation("backup")["code"] == 0
    with Writer(world.url) as writer:
        time.sleep(5)
    data.archived()
    live = str(world.project.status()["live"]["version"])
    # What is on the host and nowhere else goes with it; the project stands for the checkout and the vault.
    began = time.monotonic()
    data.host.destroy()
    host = world.bed.host("local-2", image="docker-host")
    world.project.adopt(world.bed, host)
    world.data = data = Database(world.project, host, APP)
    world.url = f"http://{host.address}/"
    said = world.project.play("provision")
    assert said.returncode == 0, said.stdout + said.stderr
    named = "holds the backups of another database" in said.stdout + said.stderr
    bench.add("rebuild: the new host names the repository that is not its own", int(named), 1, "named", want=">=")
    wish = {"to": "latest", "into": "live", "repository": "offsite", "confirm": "local-1"}
    done = world.project.play("restore", "-e", json.dumps(wish))
    bench.say(done.stdout[-1500:] if done.returncode else "restored")
    deployed = world.project.play("deploy", "-e", f"version={live}")
    if deployed.returncode:
        bench.say(deployed.stdout[-1500:])
    minutes = (time.monotonic() - began) / 60
    bench.add("rebuild: restore and deploy", done.returncode + deployed.returncode, 0, "code")
    bench.add("rebuild: from nothing to served", minutes if serves(world.url) else 1e9, 60, "min")
    bench.add("rebuild: archived writes lost", writer.lost(data), 0, "writes", note=f"of {len(writer.keys)}")
    place = json.loads(data.engine("restore-files", APP, "--repository", "offsite", "--json").stdout)["path"]
    letter = data.shell(f"cat {place}{uploads}/letter", check=False)
    bench.add("rebuild: uploaded file is back", int(letter == "an uploaded file\n"), 1, "file", want=">=")
    bench.add("rebuild: next backup", data.operation("backup")["code"], 0, "code")


def speed(bench: Bench, world: World) -> None:
    """A restore against pg_restore, a full backup against pg_basebackup."""
    world.fill()
    data = world.data
    inside = ["docker", "exec", data.container]

    def timed(*argv: str) -> float:
        began = time.monotonic()
        data.host.exec([*inside, *argv], timeout=1200)
        return time.monotonic() - began

    ours, theirs = [], []
    for _ in range(3):
        ours.append(timed("pgbackrest", "--stanza=main", "--repo=1", "--type=full", "backup"))
        data.shell(f"docker exec {data.container} rm -rf /var/lib/dumps/base")
        theirs.append(
            timed(
                *("pg_basebackup", "-U", "postgres", "-D", "/var/lib/dumps/base", "-Ft", "-X", "fetch"),
                *("--compress=client-zstd", "--checkpoint=fast"),
            )
        )
    data.shell(f"docker exec {data.container} rm -rf /var/lib/dumps/base")
    note = f"{median(ours):.1f} s against {median(theirs):.1f} s, pgbench scale {SCALE}"
    bench.add("full backup against pg_basebackup", median(ours) / median(theirs), 1.5, "x", note=note)
    # Each brings back what its own last backup has; so ours goes first, or it would replay what the other one writes.
    began = time.monotonic()
    result = data.operation("restore", "--to", "latest", "--into", "scratch")
    physical = time.monotonic() - began
    assert result["code"] == 0, result
    data.engine("scratch-remove", APP)
    timed("pg_dump", "-U", "postgres", "-Fd", "-j2", "-f", "/var/lib/dumps/dir", data.name)
    data.sql("CREATE DATABASE again", database="postgres")
    logical = timed("pg_restore", "-U", "postgres", "-j2", "-d", "again", "/var/lib/dumps/dir")
    data.shell(f"docker exec {data.container} rm -rf /var/lib/dumps/dir")
    data.sql("DROP DATABASE again", database="postgres")
    note = f"{physical:.1f} s to a database that takes writes, against {logical:.1f} s"
    bench.add("restore against pg_restore -j2", logical / physical, 2, "x", want=">=", note=note)


def latency(bench: Bench, world: World) -> None:
    """Write latency with archiving on against off, at 30 % of the maximum rate."""
    world.fill()
    data = world.data
    home = f"/var/lib/switchyard/postgres/{APP}"
    data.shell(f"sed s/archive_mode=on/archive_mode=off/ {home}/compose.yml > {home}/off.yml")

    def run(mode: str) -> float:
        file = "compose.yml" if mode == "on" else "off.yml"
        data.shell(
            f"docker compose -p {data.container} -f {home}/{file} up -d --force-recreate --wait --wait-timeout 120",
            timeout=400,
        )
        world.pgbench("-c", "4", "-j", "2", seconds=5)
        words = ("-c", "4", "-j", "2", f"--rate={rate:.0f}", "-l", "--log-prefix=/tmp/lat")
        world.pgbench(*words, seconds=RUN_SECONDS)
        script = (
            "cat /tmp/lat* | awk '{print $3}' | sort -n | awk '{v[NR]=$1} END {print v[int(NR*0.99)]}'; rm /tmp/lat*"
        )
        return float(data.shell(f'docker exec {data.container} sh -c "{script.replace("$", chr(92) + "$")}"')) / 1000

    said = world.pgbench("-c", "4", "-j", "2", seconds=15)
    rate = 0.3 * float(said.partition("tps = ")[2].split()[0])
    pairs = [(run("on"), run("off")) for _ in range(RUNS)]
    data.shell(f"rm {home}/off.yml")
    on, off = median([a for a, _ in pairs]), median([b for _, b in pairs])
    ratio = median([a / b for a, b in pairs])
    note = f"{on:.1f} ms against {off:.1f} ms at {rate:.0f} transactions/s, {RUNS} runs each"
    bench.add("write latency p99 with archiving on against off", ratio, 1.5, "x", note=note)
    data.shell(f"docker compose -p {data.container} -f {home}/compose.yml up -d --force-recreate --wait", timeout=400)
    assert data.operation("backup", "--type", "full")["code"] == 0


def secrets(bench: Bench, world: World) -> None:
    """No secret in a process list, a log or a compose file, sampled while all of it works."""
    data = world.data
    private = str(world.keeper.repository()["private_key"]).splitlines()[1]
    seen: list[int] = []
    done = threading.Event()

    def sample() -> None:
        while not done.is_set():
            seen.append(data.count_secrets(PASSPHRASE, private))

    thread = threading.Thread(target=sample)
    thread.start()
    results = [
        data.operation("backup"),
        data.operation("drill", "--plan", "off-site"),
        data.operation("restore", "--to", "latest", "--into", "scratch"),
    ]
    data.engine("scratch-remove", APP)
    done.set()
    thread.join()
    bench.add("secrets in process lists, logs or compose files", sum(seen), 0, "secrets", note=f"{len(seen)} samples")
    for result in results:
        bench.say(f"{result['message']} {result['details']}")
    bench.add("operations that were sampled and failed", sum(result["code"] != 0 for result in results), 0, "failures")


PARTS: dict[str, Callable[[Bench, World], None]] = {
    "found": found,
    "dropped": dropped,
    "secrets": secrets,
    "outage": outage,
    "power": power,
    "drill": drill,
    "speed": speed,
    "latency": latency,
    # Last: it takes the host away.
    "rebuild": rebuild,
}


def main() -> int:
    """Run the parts that ONLY names, or all."""
    names, bench = chosen(PARTS), Bench("data")
    with tempfile.TemporaryDirectory() as folder, Bed.for_tests("bench-data") as bed:
        bench.say("provisioning a host, its application, and a host that keeps backups")
        world = build(bed, Path(folder))
        for name in names:
            with bench.part(name):
                PARTS[name](bench, world)
    return bench.finish()


if __name__ == "__main__":
    sys.exit(main())
