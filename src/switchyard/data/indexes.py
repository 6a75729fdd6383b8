"""Finds indexes that a migration began and never finished: they cost every write and serve no query."""

from switchyard.data import database
from switchyard.engine import docker
from switchyard.errors import SwitchyardError
from switchyard.names import AppName

# An index that is being built right now is not valid yet, and is nobody's leftover.
_INVALID = """
SELECT i.indexrelid::regclass FROM pg_index i
WHERE NOT i.indisvalid AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index p WHERE p.index_relid = i.indexrelid)
ORDER BY 1
"""


def invalid(name: AppName) -> list[str]:
    """Names of such indexes in the application's database on this host; none when it cannot be asked."""
    labels = {"switchyard.role": "postgres", "switchyard.app": name.app, "switchyard.environment": name.environment}
    try:
        running = [container.name for container in docker.containers(labels) if container.running]
        if not running:
            return []
        given = (docker.inspect(running[0]) or {}).get("Config", {}).get("Env") or []
        databases = [entry.partition("=")[2] for entry in given if entry.startswith("POSTGRES_DB=")]
        rows = database.sql(running[0], _INVALID, step="migrate.indexes", database=(databases or ["postgres"])[0])
    except SwitchyardError:
        return []
    return [row[0] for row in rows]
