"""Containers that are started without a compose file are held as tightly as those that have one."""

import ast
import re
from pathlib import Path

import pytest

from switchyard.data.applied import Trial
from switchyard.data.copy import Copy
from switchyard.data.settings import Backup
from switchyard.engine import docker, edge, records
from tests.render.policy import breaches, started_by
from tests.unit.engine_world import World

ROOT = Path(__file__).resolve().parents[2]
BACKUP = Backup("shop", "staging", "img", "shop", 999, "/data", "/data", [], "/backups")


def test_every_place_that_starts_one_is_judged_here() -> None:
    paths = [*(ROOT / "src").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")]
    found = {path.name for path in paths if re.search(r"\"docker\", \"run\"|docker\.\w+\(\"run\"", path.read_text())}
    assert found == {"applied.py", "copy.py", "edge.py", "edge_image.py"}


def test_a_copy_of_the_database_breaks_no_rule_and_has_the_memory_it_is_given() -> None:
    for memory, broken in ((512, set()), (0, {"memory"})):
        copy = Copy(BACKUP, "copy", Path("/var/lib/switchyard/copy"), memory)
        assert breaches(started_by([*copy._container("copy", "bridge"), "--rm", "image", "postgres"])) == broken


def test_the_pooler_of_a_drill_breaks_no_rule(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.release(1, "blue")
    world.docker.answers["docker run"] = (0, "", "")
    monkeypatch.setattr(docker, "inspect", lambda _: {"Image": "sha256:pooler"})
    copy = Copy(BACKUP, "copy", Path("/var/lib/switchyard/copy"))
    Trial(world.paths, world.host, records.load(world.paths, "0001-1.0.0"), copy, [])._start_pooler()
    (argv,) = world.ran("docker", "run")
    assert breaches(started_by(argv)) == set()


def test_the_test_of_a_configuration_may_what_the_edge_needs_for_it_and_no_more(world: World) -> None:
    world.docker.answers["docker run"] = (0, "", "")
    edge._test_shadow(None, world.host, {})
    (argv,) = world.ran("docker", "run")
    allowed = {"root", "host_network", "cap:NET_BIND_SERVICE", "cap:CHOWN", "cap:DAC_OVERRIDE"}
    assert breaches(started_by(argv)) == allowed


def test_asking_an_image_for_its_version_breaks_no_rule() -> None:
    # Read, not imported: outside of Ansible there is no collection for its imports to be in.
    tree = ast.parse((ROOT / "plugins" / "modules" / "edge_image.py").read_text())
    assigned = [node for node in tree.body if isinstance(node, ast.Assign)]
    (given,) = [node.value for node in assigned if ast.unparse(node.targets[0]) == "_CONFINED"]
    words = ["docker", "run", "--rm", *ast.literal_eval(given), "--entrypoint", "nginx", "image", "-v"]
    assert breaches(started_by(words)) == set()
