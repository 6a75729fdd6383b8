"""Scripts of the jobs that need no host: what they decide, what they refuse, what they hand on."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from switchyard.errors import Exit, SwitchyardError
from switchyard.gate.grammar import parse as parse_line
from tests.pipeline.expressions import evaluate, fill
from tests.pipeline.receiver import Receiver
from tests.pipeline.runner import CALLERS, STAND_INS, WORKFLOWS

ROOT = Path(__file__).resolve().parents[2]
CI = ROOT / "scripts" / "ci"
FILES = sorted([*WORKFLOWS.glob("*.yml"), *CALLERS.glob("*.yml")])


def script(name: str, *, cwd: Path | str = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script with these inputs and no others."""
    known = {"PATH": os.environ["PATH"], **environment}
    argv = [sys.executable, str(CI / name)] if name.endswith(".py") else [str(CI / name)]
    return subprocess.run(argv, cwd=cwd, env=known, check=False, capture_output=True, text=True, timeout=60)


# What a build is called


@pytest.mark.parametrize(
    ("given", "version"),
    [
        ({"VERSION": "1.4.0"}, "1.4.0"),
        ({"GITHUB_REF_TYPE": "tag", "GITHUB_REF_NAME": "v1.4.0"}, "1.4.0"),
        ({"GITHUB_REF_TYPE": "tag", "GITHUB_REF_NAME": "vintage"}, "vintage"),
        ({"GITHUB_REF_NAME": "feat/x y", "GITHUB_SHA": "ab" * 20}, "feat-x-y-abababababab"),
        ({"CI_COMMIT_TAG": "v2.0.0", "CI_COMMIT_REF_NAME": "v2.0.0"}, "2.0.0"),
    ],
)
def test_a_version_follows_from_tag_or_branch_and_commit(given: dict[str, str], version: str) -> None:
    done = script("version.py", **given)
    assert done.returncode == 0 and done.stdout == f"version={version}\n"


@pytest.mark.parametrize("given", [{}, {"VERSION": "1.0; id"}, {"GITHUB_REF_TYPE": "tag", "GITHUB_REF_NAME": "a/b"}])
def test_what_cannot_be_a_version_is_one_sentence(given: dict[str, str]) -> None:
    done = script("version.py", **given)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1


def test_an_output_cannot_smuggle_in_another(tmp_path: Path) -> None:
    path = tmp_path / "output"
    code = "from common import output; output({'message': 'a\\nadmin=true\\nEOF', 'x': 1})"
    subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=CI, env={"GITHUB_OUTPUT": str(path), "PATH": os.environ["PATH"]}
    )
    lines = path.read_text().splitlines()
    marks = [line.partition("<<")[2] for line in lines if "<<" in line]
    assert len(set(marks)) == 2 and all(len(mark) == 32 for mark in marks)
    assert lines[1:4] == ["a", "admin=true", "EOF"] and lines[4] == marks[0]


# Gates


@pytest.mark.parametrize(("rate", "minimum", "code"), [("0.85", "80", 0), ("0.79", "80", 1), ("0.95", "90", 0)])
def test_coverage_is_held_against_its_minimum(tmp_path: Path, rate: str, minimum: str, code: int) -> None:
    (tmp_path / "coverage.xml").write_text(f'<?xml version="1.0"?>\n<coverage version="7" line-rate="{rate}">\n')
    assert script("coverage.py", cwd=tmp_path, COVERAGE_MINIMUM=minimum).returncode == code


def test_coverage_that_is_not_known_is_not_enough(tmp_path: Path) -> None:
    assert "is missing" in script("coverage.py", cwd=tmp_path).stderr
    (tmp_path / "coverage.xml").write_text("<html>")
    assert "no Cobertura report" in script("coverage.py", cwd=tmp_path).stderr


def test_a_load_is_held_against_its_limits_and_none_is_no_success() -> None:
    # Rows as Locust's --csv writes them; that they are was seen with Locust itself (test_9_pipeline.py, whole).
    code = (
        "import csv, performance\n"
        "text = 'Type,Name,Request Count,Failure Count,95%\\nGET,/,200,4,70\\n,Aggregated,{},4,70\\n'\n"
        "print(performance.judge(list(csv.DictReader(text.format(200).splitlines()))))\n"
        "try:\n    performance.judge(list(csv.DictReader(text.format(0).splitlines())))\n"
        "except performance.JobError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, cwd=CI, capture_output=True, text=True)
    assert done.stdout == "(70.0, 2.0, 200)\nLocust sent no request: see above.\n"
    nobody = script("performance.py", TARGET_URL="http://127.0.0.1:9/", LOCUST_FILE="locustfile.py", START_SECONDS="0")
    assert nobody.returncode == 2 and "http://127.0.0.1:9/ does not answer" in nobody.stderr
    assert "is no http(s) address" in script("performance.py", TARGET_URL="file:///etc/passwd").stderr


def test_a_scan_fails_on_findings_and_without_a_scanner(tmp_path: Path) -> None:
    scanner = tmp_path / "scanner"
    scanner.write_text('#!/bin/sh\necho "$@" >> "$0.log"\ncase "$*" in *bad*) exit 1;; esac\n')
    scanner.chmod(0o755)
    images = "registry.test/good:1\nregistry.test/bad:1\nregistry.test/fine:1"
    done = script("scan.sh", IMAGES=images, SCANNER=str(scanner), SEVERITY="high")
    calls = (tmp_path / "scanner.log").read_text().splitlines()
    assert done.returncode == 1 and len(calls) == 3 and all("--severity HIGH,CRITICAL" in call for call in calls)
    assert script("scan.sh", IMAGES="registry.test/good:1", SCANNER=str(scanner)).returncode == 0
    missing = script("scan.sh", IMAGES="registry.test/good:1", SCANNER="no-such-scanner")
    assert missing.returncode == 1 and "nothing was scanned" in missing.stderr
    assert script("scan.sh", IMAGES="x", SEVERITY="low", SCANNER=str(scanner)).returncode == 2


def test_smoke_tests_from_outside_tell_what_is_wrong() -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(404 if self.path == "/gone" else 200)
            self.send_header("X-Release", "1.0.0")
            if self.path == "/short":
                self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"well")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    base = f"http://127.0.0.1:{server.server_port}"

    def smoke(urls: str, **more: str) -> subprocess.CompletedProcess[str]:
        return script("smoke.py", SMOKE_URLS=urls, SMOKE_SECONDS="0", **more)

    try:
        assert smoke(f"{base}/ 200 well\n{base}/gone 404").returncode == 0
        assert smoke("").returncode == 0
        header = {"SMOKE_RELEASE_HEADER": "X-Release"}
        assert smoke(f"{base}/", VERSION="1.0.0", **header).returncode == 0
        assert "is answered by 1.0.0, not 1.1.0" in smoke(f"{base}/", VERSION="1.1.0", **header).stderr
        assert f"{base}/ does not contain 'ill'" in smoke(f"{base}/ ill").stderr
        assert f"{base}/gone answers 404, not 200" in smoke(f"{base}/gone").stderr
        assert "is no http(s) address" in smoke("file:///etc/passwd").stderr
        assert f"{base}/short does not answer (IncompleteRead" in smoke(f"{base}/short").stderr
    finally:
        server.shutdown()
        server.server_close()
    assert "does not answer" in smoke(f"{base}/").stderr


def test_a_job_tells_how_it_ended_and_never_fails_for_it() -> None:
    with Receiver() as receiver:
        told = script("notify.py", SLACK_WEBHOOK=receiver.url, JOB_STATUS="failure", JOB_NAME="deploy", VERSION="1.0.0")
        assert told.returncode == 0 and receiver.titles() == ["deploy: failure"]
        assert receiver.got[0][2]["attachments"][0]["color"] == "danger"
        receiver.status = 500
        failed = script("notify.py", SLACK_WEBHOOK=receiver.url)
        assert failed.returncode == 0 and "it answered 500" in failed.stderr and "canary-hook" not in failed.stderr
    assert "nobody to tell" in script("notify.py").stderr


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({}, "VERSION is empty"),
        ({"VERSION": "1.0.0"}, "SWITCHYARD_ENVIRONMENT is empty"),
        ({"VERSION": "1.0.0", "SWITCHYARD_ENVIRONMENT": "../x"}, "is no name of an environment"),
        ({"VERSION": "1.0.0", "SWITCHYARD_ENVIRONMENT": "staging"}, "DEPLOY_HOST is empty"),
        ({"VERSION": "1.0.0", "SWITCHYARD_ENVIRONMENT": "staging", "DEPLOY_HOST": "-oProxyCommand=id"}, "are names"),
        ({"ORDER": "destroy"}, "ORDER is deploy or rollback"),
    ],
)
def test_a_deploy_without_its_inputs_is_one_sentence(given: dict[str, str], sentence: str) -> None:
    done = script("deploy.py", **given)
    assert done.returncode == 2 and sentence in done.stderr and "Traceback" not in done.stderr


def test_a_host_that_stays_away_is_named_and_what_was_begun_there_is_not_called_failed() -> None:
    given = {"VERSION": "1.0.0", "SWITCHYARD_ENVIRONMENT": "staging", "DEPLOY_HOST": "127.0.0.1", "DEPLOY_PORT": "9"}
    given |= {"DEPLOY_SSH_KEY": "none", "DEPLOY_KNOWN_HOSTS": "none", "DEPLOY_RECONNECT_SECONDS": "-1"}
    done = script("deploy.py", **given)
    assert done.returncode == 14, done
    assert "127.0.0.1 cannot be reached. What was begun there finishes or reverts by itself" in done.stderr
    assert "result=unreachable" in done.stdout


LIVE = '{"release": "0002-1.1.0", "changed": true}'
OLD = "Refused: after the version there may be '--commit' with a hash and '--run' with an https:// address. It may say:"


def said_at_a_gate(tmp_path: Path, *answers: tuple[int, str, str]) -> tuple[str, str, list[tuple[str, str]]]:
    """What an order came to and what was told, and each line that was said with its key; ssh answers in this order."""
    for number, (code, out, err) in enumerate(answers, start=1):
        (tmp_path / f"answer{number}").write_text(f"cat <<'E'\n{out}\nE\ncat >&2 <<'E'\n{err}\nE\nexit {code}\n")
    ssh = tmp_path / "ssh"
    ssh.write_text(f'#!/bin/sh\ncd {tmp_path}\nfor line; do :; done\necho "$line" >> said\n. ./answer$(wc -l < said)\n')
    ssh.chmod(0o755)
    program = (
        "import gate\ngate._PAUSE = 0\n"
        "try:\n    print(gate.Gate(['ssh'], 'vm1').order('rollback'))\n"
        "except gate.JobError as error:\n    print(error.code, error)\n"
    )
    known = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, cwd=CI, env=known, capture_output=True, text=True
    )
    halves = [line.partition(" --idempotency-key ") for line in (tmp_path / "said").read_text().splitlines()]
    assert all(re.fullmatch(r"\d{8}T\d{6}-[0-9a-f]{32}", key) for _, _, key in halves), halves
    return done.stdout, done.stderr, [(line, key) for line, _, key in halves]


def test_an_order_is_one_however_often_it_is_said_and_a_new_one_has_another_key(tmp_path: Path) -> None:
    told, err, said = said_at_a_gate(tmp_path, (255, "", "broken pipe"), (3, "", "busy"), (0, LIVE, ""))
    assert told == "(0, {'release': '0002-1.1.0', 'changed': True})\n" and "was lost" in err and "is busy" in err
    assert len(said) == 3 and set(said) == {("rollback", said[0][1])}
    (tmp_path / "said").unlink()
    assert said_at_a_gate(tmp_path, (0, LIVE, ""))[2] != said[:1]


def test_what_ended_as_busy_is_tried_anew_unless_it_had_switched(tmp_path: Path) -> None:
    # The same key would only be told again how the first try ended.
    told, _, said = said_at_a_gate(tmp_path, (3, '{"changed": false}', ""), (255, "", ""), (0, LIVE, ""))
    assert told.startswith("(0, ") and said[0] != said[1] == said[2]
    (tmp_path / "said").unlink()
    told, _, said = said_at_a_gate(tmp_path, (3, '{"changed": true}', ""))
    assert told == "(3, {'changed': True})\n" and len(said) == 1


def test_a_host_with_an_older_engine_is_told_from_an_order_that_is_refused(tmp_path: Path) -> None:
    told, _, said = said_at_a_gate(tmp_path, (2, "", OLD))
    assert told.startswith("15 vm1 ") and "run provision.yml" in told and len(said) == 1
    (tmp_path / "said").unlink()
    assert said_at_a_gate(tmp_path, (2, "", "Refused: this is no version."))[0] == "(2, {})\n"


def test_both_ends_of_the_gate_have_the_same_form_of_a_key() -> None:
    code = "import gate; print('rollback', gate.KEY_OPTION, gate.new_key())"
    done = subprocess.run([sys.executable, "-c", code], check=True, cwd=CI, capture_output=True, text=True)
    assert parse_line(done.stdout.strip()).idempotency_key == done.stdout.split()[-1]
    with pytest.raises(SwitchyardError, match=r"^Refused: after the version .*--idempotency-key"):
        parse_line("rollback --commit HEAD")


def test_a_job_knows_every_exit_code_and_what_could_not_be_judged_did_not_fail() -> None:
    code = (
        "import deploy\n"
        "print(sorted({1, *deploy._MEANINGS}))\n"
        "result = {'release': '0002-1.1.0', 'message': 'Release 0002-1.1.0 is live', 'phases': {'watch': 1.0}}\n"
        "deploy.report('deploy', '1.1.0', 9, result, 2.0)\n"
    )
    known = {"PATH": os.environ["PATH"], "SWITCHYARD_ENVIRONMENT": "staging"}
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=CI, env=known, capture_output=True, text=True
    ).stdout
    assert done.startswith(f"{sorted(map(int, Exit))}\n### Deploy could not be judged\n")
    assert "| message | Release 0002-1.1.0 is live |" in done and "result=could not be judged\n" in done
    assert "failed" not in done


# The workflow files


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_workflows_ask_for_little_and_run_nothing_that_others_name(path: Path) -> None:
    text = path.read_text()
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {}
    for job in workflow["jobs"].values():
        assert "permissions" in job and job.get("secrets") != "inherit"
        for step in job.get("steps", []):
            assert "${{" not in step.get("run", "")
            if "uses" in step:
                assert re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}", step["uses"])
        assert "uses" in job or job["timeout-minutes"] <= 60
    # The commit's release is said beside it.
    assert not re.search(r"uses: (?!your-org/)\S+@[0-9a-f]{40}\n", text)


def test_every_action_of_a_release_has_a_stand_in() -> None:
    for name in ("app-build.yml", "app-deploy.yml"):
        for job in yaml.safe_load((WORKFLOWS / name).read_text())["jobs"].values():
            for step in job["steps"]:
                assert "uses" not in step or step["uses"].partition("@")[0] in STAND_INS


def test_callers_hand_on_what_is_declared_and_required() -> None:
    for path in CALLERS.glob("*.yml"):
        for job in yaml.safe_load(path.read_text())["jobs"].values():
            if "uses" not in job:
                continue
            called = yaml.safe_load((WORKFLOWS / job["uses"].partition("@")[0].rpartition("/")[2]).read_text())
            declared = called[True]["workflow_call"]
            for kind, given in (("inputs", job["with"]), ("secrets", job.get("secrets", {}))):
                known = declared[kind]
                assert set(given) <= set(known), path
                assert {name for name, item in known.items() if item.get("required")} <= set(given), path


def test_the_runners_expressions_are_githubs() -> None:
    context = {"a": {"b": "X", "c": ""}, "n": None, "list": ["p", "q"]}
    for text, value in {
        "a.b == 'x'": True,
        "a.c || 'other'": "other",
        "a.b && a.c || 'last'": "last",
        "!a.c && (n == '' || false)": True,
        "fromJSON('[1,2]')[1] > 1": True,
        "a.missing.deeper == ''": True,
        "contains(list, 'q')": True,
    }.items():
        assert evaluate(text, context, {}) == value, text
    assert fill({"k": ["${{ a.b }}-${{ n }}", "${{ list }}"]}, context, {}) == {"k": ["X-", ["p", "q"]]}
    with pytest.raises(ValueError, match="cannot read"):
        evaluate("a ? b", context, {})
