"""Maintenance: the edge answers with a page of the user's, and the application is left alone.

What switches it on is one file in the edge's tree, included by the site of the application. It goes the same tested
way as everything of the edge, and outlasts deploys, rollbacks and reboots.
"""

import re

from switchyard.engine import edge, phases, records
from switchyard.engine.layout import EDGE_LIVE, AppPaths, HostConfig
from switchyard.errors import Exit, SwitchyardError
from switchyard.names import AppName
from switchyard.request import Request, route_owner

RETRY_AFTER = 300
"""Seconds after which clients are told to ask again."""

_OWN_PATHS = r"/\.switchyard/.*|/\.well-known/acme-challenge/.*"


def _name(name: AppName) -> str:
    return f"maintenance/{name}.conf"


def is_on(paths: AppPaths) -> bool:
    """Tell whether this edge answers with the maintenance page."""
    return (EDGE_LIVE / _name(paths.name)).is_file()


def open_paths(request: Request) -> list[str]:
    """The health paths that users' routes reach: balancers in front ask them, and they are never closed."""
    found = {service.health.path for service in request.services.values()}
    return sorted(path for path in found if route_owner(request, path))


def render(paths: list[str], retry_after: int) -> str:
    """The file that closes an application, but for `paths`."""
    allowed = "|".join([*(re.escape(path) for path in paths), _OWN_PATHS])
    return (
        "# Placed by 'switchyard maintenance'; 'switchyard maintenance ... off' removes it.\n"
        f'if ($uri !~ "^(?:{allowed})$") {{\n    return 503;\n}}\n'
        "error_page 503 /.switchyard/pages/maintenance.html;\n"
        f"add_header Retry-After {retry_after} always;\n"
    )


def turn_on(paths: AppPaths, host: HostConfig, retry_after: int = RETRY_AFTER) -> bool:
    """Answer users with the maintenance page from now on; tells whether that is new.

    Requests under way go on to their end. Raises `SwitchyardError` when nothing is live, or the edge's site is from
    before there was maintenance.
    """
    pointer = phases.live_pointer(paths)
    if pointer is None:
        raise SwitchyardError(f"Nothing of {paths.name} is live, so there is nothing to close.", Exit.UNKNOWN_RELEASE)
    site = EDGE_LIVE / "sites" / f"{paths.name}.conf"
    if not site.is_file() or "include maintenance/" not in site.read_text():
        raise SwitchyardError(f"{site} knows no maintenance page: run provision.yml first.", Exit.PREFLIGHT)
    text = render(open_paths(records.load(paths, pointer.release).request), retry_after)
    return edge.apply_files({_name(paths.name): text}, host).changed


def turn_off(paths: AppPaths, host: HostConfig) -> bool:
    """Let users reach the application again; tells whether they could not before."""
    return edge.apply_files({_name(paths.name): None}, host).changed
