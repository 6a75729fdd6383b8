#!/usr/bin/python
"""Keeps a Compose project running that must never be restarted by surprise."""

from __future__ import annotations

DOCUMENTATION = r"""
module: compose_service
short_description: Keep a Compose project running without ever restarting it by surprise
version_added: 0.1.0
author: The Switchyard contributors (@switchyard)
description:
  - Places the compose file, checked by Compose itself, and starts what does not run.
  - A container that runs with other settings than the file's is replaced only when O(restart) is set; otherwise the
    module warns that the change waits for a restart. So is one whose service the file no longer has, which then goes.
options:
  project:
    description: Name of the Compose project.
    type: str
    required: true
  path:
    description: Where the compose file lies on the host.
    type: str
    required: true
  content:
    description: Text of the compose file.
    type: str
    required: true
  title:
    description: What the service is called in messages.
    type: str
    required: true
  restart_with:
    description: The word after C(-e restart=) that allows a restart, for the warning.
    type: str
    required: true
  restart:
    description: Whether running containers may be replaced.
    type: bool
    default: false
  wait_seconds:
    description: How long containers with a health check may take to become healthy; 0 does not wait.
    type: int
    default: 0
  reload:
    description:
      - The signal on which the containers read again what is mounted into them; sent to those that ran already, on
        every run, since it costs nothing and an earlier run may have died before it. It counts as no change.
    type: str
    default: ""
attributes:
  check_mode:
    description: Tells what would change.
    support: full
  diff_mode:
    description: Shows the compose file's change.
    support: full
"""

EXAMPLES = r"""
- name: Keep the edge running
  switchyard.stack.compose_service:
    project: switchyard-edge
    path: /var/lib/switchyard/edge/compose.yml
    content: "{{ lookup('ansible.builtin.template', 'edge.yml.j2') }}"
    title: The edge
    restart_with: edge
"""

RETURN = r"""
started:
  description: Services that were started or replaced.
  returned: always
  type: list
  elements: str
removed:
  description: Services that the file no longer has, and whose containers were removed.
  returned: always
  type: list
  elements: str
restart_needed:
  description: Whether a change waits for a restart.
  returned: always
  type: bool
"""

import contextlib
import os
import signal
import tempfile

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.switchyard.stack.plugins.module_utils.engine import Docker
from ansible_collections.switchyard.stack.plugins.module_utils.placing import Placing


def _wanted(docker: Docker, project: str, content: str) -> dict[str, str]:
    """Each service of the text, with the hash that Compose labels its container with."""
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
        file.write(content)
        file.flush()
        words = ("compose", "--project-name", project, "--file", file.name, "config", "--hash", "*")
        out = docker.do(f"read the compose file of {project}", *words)
    return dict(line.split() for line in out.splitlines() if line.strip())


def _running(docker: Docker, project: str) -> dict[str, str]:
    """Each running service of the project with the hash it was made from."""
    template = '{{.Label "com.docker.compose.service"}} {{.Label "com.docker.compose.config-hash"}}'
    label = f"label=com.docker.compose.project={project}"
    out = docker.do("list containers", "ps", "--filter", label, "--filter", "status=running", "--format", template)
    return dict(line.split() for line in out.splitlines() if line.strip())


def _containers(docker: Docker, project: str, service: str, purpose: str) -> list[str]:
    """The ids of a service's running containers."""
    ours = (f"label=com.docker.compose.{key}={value}" for key, value in (("project", project), ("service", service)))
    return docker.do(purpose, "ps", "--quiet", *(word for label in ours for word in ("--filter", label))).split()


def _signal(docker: Docker, project: str, services: list[str], name: str) -> None:
    """Send a signal to the services' processes, by the host's own hand.

    After `docker kill`, whatever the signal, Docker takes the container for stopped by a person and leaves it down at
    the next boot (moby's `killWithSignal`).
    """
    purpose = f"have {project} read its settings again"
    for service in services:
        for container in _containers(docker, project, service, purpose):
            pid = int(docker.do(purpose, "inspect", "--format", "{{.State.Pid}}", container))
            # Whoever ends just now reads them when it starts again.
            with contextlib.suppress(ProcessLookupError):
                if pid > 0:
                    os.kill(pid, getattr(signal, name))


def main() -> None:
    """Place the file, start what does not run, and replace or announce what runs with other settings."""
    module = AnsibleModule(
        argument_spec={
            "project": {"type": "str", "required": True},
            "path": {"type": "str", "required": True},
            "content": {"type": "str", "required": True},
            "title": {"type": "str", "required": True},
            "restart_with": {"type": "str", "required": True},
            "restart": {"type": "bool", "default": False},
            "wait_seconds": {"type": "int", "default": 0},
            "reload": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    project, path, content = (module.params[key] for key in ("project", "path", "content"))
    docker, placing = Docker(module), Placing(module)
    if docker.missing:
        placing.file(path, content, mode=0o640)
        module.exit_json(**placing.report() | {"changed": True, "started": [], "removed": [], "restart_needed": False})
    wanted, running = _wanted(docker, project, content), _running(docker, project)
    placing.file(path, content, mode=0o640)
    missing = sorted(set(wanted) - set(running))
    stale = sorted(name for name in set(wanted) & set(running) if wanted[name] != running[name])
    starting = [*missing, *(stale if module.params["restart"] else [])]
    surplus = sorted(set(running) - set(wanted))
    removing = surplus if module.params["restart"] else []
    if starting and not module.check_mode:
        wait = ["--wait", "--wait-timeout", str(module.params["wait_seconds"])] if module.params["wait_seconds"] else []
        words = ("compose", "--project-name", project, "--file", path, "up", "--detach", "--no-deps", *wait, *starting)
        docker.do(f"start {project}", *words)
    if not module.check_mode:
        for service in removing:
            purpose = f"remove {service} of {project}"
            docker.do(purpose, "rm", "--force", *_containers(docker, project, service, purpose))
    told = sorted(set(running) & set(wanted) - set(starting))
    if module.params["reload"] and told and not module.check_mode:
        _signal(docker, project, told, module.params["reload"])
    waiting = bool(stale or surplus) and not module.params["restart"]
    if waiting:
        module.warn(
            f"{module.params['title']} runs with older settings. The new ones wait for a restart, which happens when "
            f"you ask for it: -e restart={module.params['restart_with']}"
        )
    result = placing.report() | {"started": starting, "removed": removing, "restart_needed": waiting}
    module.exit_json(**result | {"changed": placing.changed or bool(starting or removing)})


if __name__ == "__main__":
    main()
