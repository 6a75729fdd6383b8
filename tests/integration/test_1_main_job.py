"""The main job, in the order in which a user meets it; each test stands on the ones before it."""

import re
import time
import urllib.error
from email.message import Message

import pytest

from tests.faults.disturb import registry_gone
from tests.integration.conftest import APP, BROKEN, DRAIN, NEW, OLD, Environment
from tests.load import LoadConfig, LoadProcess, Switch, mix
from tests.web import opened


def fetch(url: str) -> tuple[int, dict[str, str], str]:
    """One GET; returns status, headers and body."""
    try:
        with opened(url) as answer:
            return answer.status, named(answer.headers), answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, named(error.headers), error.read().decode()


def named(headers: Message) -> dict[str, str]:
    """Headers by their usual spelling, however a server wrote them."""
    return {name.title(): value for name, value in headers.items()}


def recap(output: str) -> dict[str, int]:
    """Ansible's last lines, summed over hosts."""
    totals: dict[str, int] = {}
    for key, value in re.findall(r"(ok|changed|unreachable|failed)=(\d+)", output.rpartition("PLAY RECAP")[2]):
        totals[key] = totals.get(key, 0) + int(value)
    return totals


def test_check_mode_works_on_a_bare_host(bare: Environment) -> None:
    before = bare.host.exec(["sh", "-c", "ls /etc /usr/local/sbin /var/lib; dpkg -l | sha256sum"]).stdout
    done = bare.project.play("provision", "--check")
    assert done.returncode == 0, done.stdout + done.stderr
    assert bare.host.exec(["sh", "-c", "ls /etc /usr/local/sbin /var/lib; dpkg -l | sha256sum"]).stdout == before


def test_a_second_provision_changes_nothing(provisioned: Environment) -> None:
    done = provisioned.project.play("provision")
    assert done.returncode == 0, done.stdout + done.stderr
    assert recap(done.stdout)["changed"] == 0, done.stdout


def test_nothing_answers_before_the_first_release(provisioned: Environment) -> None:
    with pytest.raises((OSError, urllib.error.URLError)):
        opened(provisioned.url, timeout=5)


def test_the_first_release_goes_live(released: Environment) -> None:
    for path, service in (("", "web"), ("health", "api"), ("health/db", "api"), ("api/v1/parcels", "api")):
        status, headers, body = fetch(released.url + path)
        assert (status, headers["X-Release"], headers["X-Service"]) == (200, OLD, service), body
    assert released.live() == OLD


def test_deploying_the_same_again_changes_nothing(released: Environment) -> None:
    done = released.project.play("deploy", "-e", f"version={OLD}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert recap(done.stdout)["changed"] == 0, done.stdout
    assert "No change" in done.stdout


def test_the_deploy_path_is_three_remote_tasks_at_most(released: Environment) -> None:
    done = released.project.play("deploy", "-e", f"version={OLD}")
    remote = re.findall(r"^(?:ok|changed): \[local-1\]$", done.stdout, re.MULTILINE)
    assert 1 <= len(remote) <= 3, done.stdout
    # And the engine is called once for the whole release; further calls only follow it.
    count = "journalctl --sync; journalctl _COMM=sudo -o cat | grep -c 'switchyard deploy'"
    before = int(released.host.exec(["sh", "-c", count]).stdout)
    released.project.play("deploy", "-e", f"version={OLD}")
    assert int(released.host.exec(["sh", "-c", count]).stdout) == before + 1


def test_the_plan_tells_the_truth_and_changes_nothing(released: Environment) -> None:
    before = released.fingerprint()
    done = released.project.play("deploy", "-e", f"version={NEW}", "--check", "--diff")
    assert done.returncode == 0, done.stdout + done.stderr
    for expected in (
        f"{OLD} -> {NEW}",
        "sha256:",
        "switch     blue -> green",
        "unknown until the image is on the host",
    ):
        assert expected in done.stdout, f"{expected!r} is missing in {done.stdout}"
    assert released.fingerprint() == before
    same = released.project.play("deploy", "-e", f"version={OLD}", "--check", "--diff")
    assert "No change" in same.stdout
    assert recap(same.stdout)["changed"] == 0


@pytest.mark.parametrize(
    ("version", "sentence"),
    [("7.7.7", "the registry has no such tag: push it first"), ("1.0;id", "'1.0;id' is not a valid version")],
)
def test_bad_input_is_refused_before_anything_changes(released: Environment, version: str, sentence: str) -> None:
    before = released.fingerprint()
    done = released.project.play("deploy", "-e", f"version={version}")
    assert done.returncode == 2, done.stdout
    assert sentence in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    # The attempt itself is in the ledger, and nothing else is different.
    changed = set(released.fingerprint().splitlines()) ^ set(before.splitlines())
    assert all(f"/var/lib/switchyard/{APP}/" in line for line in changed), changed


def test_bad_input_an_unreachable_host_is_named(released: Environment) -> None:
    facts = released.project.facts
    text = facts.read_text()
    try:
        facts.write_text(text.replace(released.host.address, f"{released.host.address.rpartition('.')[0]}.250"))
        done = released.project.play("deploy", "-e", f"version={NEW}", ANSIBLE_TIMEOUT="3")
    finally:
        facts.write_text(text)
    assert done.returncode in (2, 4), done.stdout
    assert "local-1 cannot be reached" in done.stdout + done.stderr, done.stdout + done.stderr


def test_release_rollback_and_refusal_under_load(released: Environment) -> None:
    old_page = re.findall(r'(/assets/[^"]+)"', fetch(released.url)[2])
    assert old_page, "the page names no hashed assets"
    load = LoadProcess(LoadConfig(url=released.url, app="parcels", workers=mix("full"), drain=DRAIN)).start()
    switches = []
    try:
        time.sleep(1)
        switches.append(Switch(time.monotonic(), OLD, NEW))
        done = released.project.play("deploy", "-e", f"version={NEW}")
        assert done.returncode == 0, done.stdout + done.stderr
        assert released.live() == NEW
        # A page that was loaded before the switch still gets its assets, from the other warm colour.
        assert [fetch(released.url.rstrip("/") + path)[0] for path in old_page] == [200] * len(old_page)
        assert fetch(released.url + "assets/never-was-there.js")[0] == 404

        switches.append(Switch(time.monotonic(), NEW, OLD))
        back = released.project.run("scripts/rollback.sh", "local")
        assert back.returncode == 0, back.stdout + back.stderr
        assert released.live() == OLD

        refused = released.project.play("deploy", "-e", f"version={BROKEN}")
        assert refused.returncode == 2, refused.stdout
        assert "/health answers 503" in refused.stdout
        assert released.live() == OLD
    finally:
        report = load.stop(switches)
    assert report.lossless, report.summary()
    assert report.by_release.get(BROKEN, 0) == 0
    assert report.by_release[OLD] > 0
    assert report.by_release[NEW] > 0


def test_rollback_refuses_with_its_own_exit_codes(released: Environment) -> None:
    expected = {"9.9.9": (10, "not known"), OLD: (11, "already is live"), BROKEN: (12, "must not go live")}
    for version, (code, words) in expected.items():
        done = released.project.run("scripts/rollback.sh", "local", version)
        assert (done.returncode, done.stdout) == (code, ""), done
        assert words in done.stderr
    unknown = released.project.run("scripts/rollback.sh", "stagng")
    assert unknown.returncode == 2
    assert "Unknown environment 'stagng'" in unknown.stderr
    assert released.live() == OLD


def test_a_refused_secret_is_not_what_the_live_release_starts_with(released: Environment) -> None:
    """Docker looks a secret's path up whenever a container starts: after a crash, a restart or a reboot, too."""
    wrong = "postgres_app_password=nobodys-password-of-32-letters-xx"
    refused = released.project.play("deploy", "-e", f"version={OLD}", "-e", wrong)
    assert refused.returncode == 2, refused.stdout
    assert "The old release serves on." in refused.stdout, refused.stdout
    colour = released.project.status()["live"]["colour"]
    chosen = f"--filter label=switchyard.app=sample --filter label=switchyard.colour={colour}"
    released.host.exec(["sh", "-c", f"docker restart $(docker ps -q {chosen})"])
    deadline = time.monotonic() + 180
    while (answer := fetch(released.url + "health/db"))[0] != 200:
        assert time.monotonic() < deadline, answer
        time.sleep(0.5)
    assert answer[1]["X-Release"] == OLD
    assert released.project.status()["disagreements"] == []


def test_an_older_release_is_started_from_its_record_without_a_registry(released: Environment) -> None:
    """Cold: its colour was taken by another release since; the image on the host is enough."""
    for version in (NEW, OLD):
        done = released.project.play("deploy", "-e", f"version={version}", "-e", '{"app_retain": 4}')
        assert done.returncode == 0, done.stdout + done.stderr
    history = released.project.control("history", "local", "--limit", "50")["rows"]
    first = next(row["end"]["release"] for row in history if row["end"]["outcome"] == "live")
    with registry_gone(released.bed.registry(), "stopped"):
        back = released.project.run("scripts/rollback.sh", "local", first)
    assert back.returncode == 0, back.stdout + back.stderr
    assert released.project.status()["live"]["release"] == first


def test_status_history_and_logs_answer(released: Environment) -> None:
    report = released.project.status()
    assert report["disagreements"] == []
    assert report["operation"] == ""
    rows = released.project.control("history", "local", "--limit", "100")["rows"]
    assert all(row["end"] for row in rows)
    logs = released.project.run("scripts/switchyard", "logs", "local", "--tail", "5")
    assert logs.returncode == 0
    assert "api-1 |" in logs.stdout
    text = released.project.run("scripts/switchyard", "status", "local")
    assert OLD in text.stdout


def test_nothing_is_published_beyond_the_edge(released: Environment) -> None:
    """The application's ports answer on loopback alone, the database's not at all."""
    ports = released.host.exec(["cat", "/var/lib/switchyard/ports.json"]).stdout
    for port in [*map(int, re.findall(r": (\d+)", ports)), 5432, 8901]:
        url = f"http://{released.host.address}:{port}/"
        with pytest.raises(OSError):
            opened(url, timeout=2)
