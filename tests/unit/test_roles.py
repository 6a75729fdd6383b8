"""Every role keeps the house's rules: specified, documented, generated where it follows from something else."""

import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from switchyard.control import application, inventory
from switchyard.notify.config import Config
from switchyard.request import Health, Service
from switchyard.watch.limits import Limits
from tests import molecule
from tests.bench.hardening import lint_skips

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir())
MODULES = sorted((ROOT / "plugins" / "modules").glob("*.py"))


def specs(role: str) -> dict[str, Any]:
    text = (ROOT / "roles" / role / "meta" / "argument_specs.yml").read_text()
    return dict(yaml.safe_load(text)["argument_specs"])


def tasks(role: str) -> list[tuple[Path, dict[str, Any]]]:
    found = []
    for path in sorted((ROOT / "roles" / role / "tasks").glob("*.yml")):
        for task in yaml.safe_load(path.read_text()):
            found += [(path, inner) for inner in task.get("block", [task])]
    return found


def test_every_role_is_known_to_the_checks() -> None:
    assert sorted(inventory.ROLES) == ROLES


def test_what_is_generated_is_current() -> None:
    argv = [sys.executable, str(ROOT / "scripts" / "generate_variables.py"), "--check"]
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("role", ROLES)
def test_every_variable_has_the_roles_prefix_and_a_meaning(role: str) -> None:
    for name, option in specs(role)["main"]["options"].items():
        assert name.startswith(f"{role}_")
        assert option["description"]
        assert option.get("required") or "default" in option or name == "app_migration"


@pytest.mark.parametrize("role", ROLES)
def test_every_role_says_what_it_does_and_how_to_undo_it(role: str) -> None:
    text = (ROOT / "roles" / role / "README.md").read_text()
    for part in ("**Outcome:**", "| Inputs |", "| Needs |", "| Leaves |", "| Idempotent |", "| Roll-back |"):
        assert part in text


@pytest.mark.parametrize("role", ROLES)
def test_tasks_use_what_every_ansible_has(role: str) -> None:
    words = {
        "name",
        "when",
        "loop",
        "register",
        "notify",
        "no_log",
        "run_once",
        "changed_when",
        "delegate_to",
        "ignore_errors",
        "block",
    }
    for path, task in tasks(role):
        for module in set(task) - words:
            assert module.startswith(("ansible.builtin.", "switchyard.stack.")), path


@pytest.mark.parametrize("role", ROLES)
def test_the_selector_is_not_used_inside_roles(role: str) -> None:
    for path in (ROOT / "roles" / role).rglob("*.yml"):
        assert not re.search(r"\{\{[^}]*\benv\b(?!_)", path.read_text()), path


@pytest.mark.parametrize("role", ROLES)
def test_tasks_that_handle_secrets_are_silent(role: str) -> None:
    secrets = re.compile(r"(\w_password\b|_tls_files \}\}|registry_logins)")
    for path, task in tasks(role):
        for module, arguments in task.items():
            if "." in module and secrets.search(str(arguments)):
                assert task.get("no_log") is True, (path, task["name"])


def test_ansible_lint_passes_nothing_over(tmp_path: Path) -> None:
    assert lint_skips(ROOT) == []
    (tmp_path / "roles").mkdir()
    (tmp_path / ".ansible-lint").write_text("skip_list: [risky-shell-pipe]\nexclude_paths: [roles/odd/, .venv/]\n")
    (tmp_path / ".ansible-lint-ignore").write_text("# why\nroles/odd.yml name[missing]\n")
    # Not a pass of our own: a made-up role that has one, which has to be found.
    marker = "noqa"
    (tmp_path / "roles" / "odd.yml").write_text(f"---\n- command: x # {marker}: no-changed-when\n")
    assert lint_skips(tmp_path) == ["risky-shell-pipe", "roles/odd/", "roles/odd.yml name[missing]", "roles/odd.yml:2"]


@pytest.mark.parametrize("name", ["deploy", "require_environment"])
def test_what_is_done_once_for_all_hosts_says_so_itself(name: str) -> None:
    # With it, Ansible refuses a strategy that would do it on every host.
    assert "\n    BYPASS_HOST_LOOP = True\n" in (ROOT / "plugins" / "action" / f"{name}.py").read_text()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_modules_document_every_option(path: Path) -> None:
    text = path.read_text()
    block = re.search(r'DOCUMENTATION = r"""\n(.*?)"""', text, re.DOTALL)
    assert block
    document = yaml.safe_load(block[1])
    assert document["module"] == path.stem
    assert document["short_description"]
    assert {"check_mode", "diff_mode"} <= set(document["attributes"])
    assert "supports_check_mode=True" in text or (ROOT / "plugins" / "action" / path.name).is_file()


def test_what_runs_on_hosts_needs_nothing_but_python() -> None:
    allowed = ("ansible.module_utils.basic", "ansible_collections.switchyard.stack.plugins.module_utils")
    for path in [*MODULES, *(ROOT / "plugins" / "module_utils").glob("*.py")]:
        for name in re.findall(r"^(?:from|import) ([\w.]+)", path.read_text(), re.MULTILINE):
            assert name.startswith(allowed) or name.partition(".")[0] in sys.stdlib_module_names, path


def test_the_specs_of_a_service_agree_with_the_request() -> None:
    options = specs("app")["service"]["options"]
    complete = application.complete_services({"api": {"image": "i", "port": 1}}, "1.0.0")["api"]
    assert set(options) == set(complete)
    for name, option in options.items():
        if name not in ("tag", "health") and not option.get("required"):
            assert option["default"] == complete[name], name
    health = Health()
    for name, option in options["health"]["options"].items():
        assert option["default"] == getattr(health, name), name
    assert set(Service.__dataclass_fields__) <= set(options)


def test_the_specs_of_the_standing_watch_agree_with_its_limits() -> None:
    options = specs("engine")["main"]["options"]["engine_watch"]["options"]
    assert {name: option["default"] for name, option in options.items()} == asdict(Limits())
    heartbeat = specs("notify")["main"]["options"]["notify_heartbeat_seconds"]
    assert heartbeat["default"] == Config().heartbeat_seconds


def test_defaults_that_two_roles_share_are_one_value() -> None:
    text = (ROOT / "roles" / "firewall" / "vars" / "main.yml").read_text()
    docker = specs("docker")["main"]["options"]
    assert f"default('{docker['docker_bridge_address']['default']}')" in text
    assert f"'base': '{docker['docker_address_pools']['default'][0]['base']}'" in text
    edge, postgres, host = (specs(role)["main"]["options"] for role in ("edge", "postgres", "host"))
    app, engine = specs("app")["main"]["options"], specs("engine")["main"]["options"]
    assert f"default({edge['edge_drain_seconds']['default']})" in app["app_drain_seconds"]["default"]
    assert f"default({postgres['postgres_max_connections']['default']})" in app["app_max_connections"]["default"]
    for name in ("connections", "clients"):
        default = postgres[f"postgres_pooler_{name}"]["default"]
        assert f"postgres_pooler_{name} | default({default})" in app[f"app_pool_{name}"]["default"]
    assert f"default('{edge['edge_image']['default']}')" in engine["engine_edge_image"]["default"]
    assert f"default('{app['app_publish_address']['default']}')" in engine["engine_publish_address"]["default"]
    assert f"default('{host['host_deploy_user']['default']}')" in engine["engine_deploy_user"]["default"]
    playbook = (ROOT / "playbooks" / "deploy.yml").read_text()
    assert f"default('{host['host_deploy_user']['default']}')" in playbook


@pytest.mark.parametrize("role", ROLES)
def test_every_role_has_a_scenario_with_a_damage_to_repair(role: str) -> None:
    scenario = ROOT / "extensions" / "molecule" / role
    converge = yaml.safe_load((scenario / "converge.yml").read_text())
    assert converge[0]["roles"] == [{"role": f"switchyard.stack.{role}"}]
    assert (scenario / "molecule.yml").is_file()
    damage = yaml.safe_load((scenario / "side_effect.yml").read_text())
    assert damage[0]["tasks"]
    tests = "".join(path.read_text() for path in (scenario / "tests").glob("test_*.py"))
    assert "\ndef test_" in tests


def test_scenarios_run_whole_and_no_more_than_there_are_roles() -> None:
    folder = ROOT / "extensions" / "molecule"
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ROLES
    sequence = yaml.safe_load((folder / "config.yml").read_text())["scenario"]["test_sequence"]
    assert sequence.index("check") < sequence.index("prepare") < sequence.index("converge")
    assert sequence[-5:] == ["side_effect", "converge", "side_effect ../reboot.yml", "verify", "destroy"]
    assert (folder / "reboot.yml").is_file()


@pytest.mark.parametrize("role", ROLES)
def test_every_role_says_where_it_runs_and_is_tried_on_what_it_needs(role: str) -> None:
    meta = yaml.safe_load((ROOT / "roles" / role / "meta" / "main.yml").read_text())
    assert meta["dependencies"] == []
    (debian,) = [one["versions"] for one in meta["galaxy_info"]["platforms"] if one["name"] == "Debian"]
    assert "trixie" in debian
    assert "bookworm" in debian or role not in molecule.ON_DEBIAN_12


@pytest.mark.parametrize("role", ROLES)
def test_defaults_and_specs_agree(role: str) -> None:
    options = specs(role)["main"]["options"]
    defaults = yaml.safe_load((ROOT / "roles" / role / "defaults" / "main.yml").read_text())
    assert defaults == {
        name: option.get("default")
        for name, option in options.items()
        if "default" in option or not option.get("required")
    }


def test_the_readme_names_the_roles_that_are_tested_on_debian_12() -> None:
    (row,) = (line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("| Debian 12 |"))
    assert tuple(re.findall(r"`(\w+)`", row)) == molecule.ON_DEBIAN_12
