"""Asks a Postgres that runs in a container, through psql on its socket."""

from switchyard.engine.effects import CommandFailed, Completed, run
from switchyard.errors import SwitchyardError

# The heartbeat does this each minute, and whoever begins archiving does it, too: one after the other.
_PREPARE = """
SELECT pg_advisory_lock(5432017);
SELECT 'CREATE DATABASE switchyard_ops' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'switchyard_ops')
\\gexec
\\connect switchyard_ops
SELECT pg_advisory_lock(5432017);
REVOKE ALL ON DATABASE switchyard_ops FROM PUBLIC;
CREATE TABLE IF NOT EXISTS heartbeat (
  one boolean PRIMARY KEY DEFAULT true CHECK (one), at timestamptz NOT NULL, lsn pg_lsn NOT NULL, release text NOT NULL
);
CREATE TABLE IF NOT EXISTS inventory (
  relation text PRIMARY KEY, rows bigint NOT NULL, exact boolean NOT NULL, taken_at timestamptz NOT NULL
);
"""

# One statement, so that all counts are of one moment. Tables that would take long are estimated.
COUNT = """
SELECT format('%I.%I', n.nspname, c.relname), small,
  CASE WHEN small THEN
    (xpath('/row/n/text()', query_to_xml(
      format('SELECT count(*) AS n FROM ONLY %I.%I', n.nspname, c.relname), false, true, '')))[1]::text::bigint
  ELSE greatest(c.reltuples, 0)::bigint END
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace,
  LATERAL (SELECT pg_relation_size(c.oid) < 1073741824 AS small) s
WHERE c.relkind = 'r' AND c.relpersistence = 'p'
  AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_'
ORDER BY 1
"""

TABLES = """
SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r';
"""


def quoted(text: str) -> str:
    """A text as an SQL literal."""
    escaped = text.replace("'", "''").replace("\\", "\\\\")
    return f"E'{escaped}'" if "\\" in text else f"'{escaped}'"


def identifier(name: str) -> str:
    """A name as an SQL identifier."""
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def sql(
    container: str, statement: str, *, step: str, database: str = "postgres", timeout: float = 60.0
) -> list[list[str]]:
    """Run SQL as the superuser and return its rows as texts. Raises `SwitchyardError` with the server's first error."""
    done = _psql(container, statement, database, step, timeout)
    if done.code != 0:
        raise SwitchyardError(f"Postgres in {container} refuses ({step}): {_reason(done)}")
    return [line.split("\t") for line in done.out.splitlines() if line]


def one(container: str, statement: str, *, step: str, database: str = "postgres", timeout: float = 60.0) -> str:
    """Return the first value of the first row, or '' when there is none."""
    rows = sql(container, statement, step=step, database=database, timeout=timeout)
    return rows[0][0] if rows else ""


def answers(container: str, *, step: str = "database.answers") -> bool:
    """Tell whether the server takes connections; over TCP, since one that is being made answers on its socket."""
    return inside(container, "pg_isready", "--quiet", "--host=127.0.0.1", step=step, timeout=20, check=False).code == 0


def prepare(container: str) -> None:
    """Have our own database with its two tables. Safe to repeat."""
    sql(container, _PREPARE, step="data.ops_database")


def close(container: str, name: str) -> None:
    """Let nobody into a database any more, from whichever host, and send away who is in it.

    It is written in the database's own catalogue, so whatever is restored from that time is closed, too.
    """
    # quoted() doubles every quote in the name, so that no name can end the literal.
    send_away = f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = {quoted(name)};"  # noqa: S608
    sql(container, f"{_allow(name, connections=False)}\n{send_away}", step="database.close")


def reopen(container: str, name: str) -> None:
    """Let everybody in again. Safe to repeat, and where there is no such database."""
    sql(container, _allow(name, connections=True), step="database.reopen")


def _allow(name: str, *, connections: bool) -> str:
    now = str(connections).lower()
    # `now` is made from a boolean here and can be nothing else; Postgres quotes the name by %I.
    alter = f"SELECT format('ALTER DATABASE %I ALLOW_CONNECTIONS {now}', datname) FROM pg_database"  # noqa: S608
    return f"{alter} WHERE datname = {quoted(name)} AND datallowconn <> {now}\n\\gexec"


def _psql(container: str, statement: str, database: str, step: str, timeout: float) -> Completed:
    argv = ["docker", "exec", "--interactive", container, "psql", "--no-psqlrc", "--quiet", "--no-align"]
    argv += ["--tuples-only", "--field-separator=\t", "--set=ON_ERROR_STOP=1", "--username=postgres"]
    return run([*argv, f"--dbname={database}"], step=step, stdin=statement + "\n", timeout=timeout, check=False)


def _reason(done: Completed) -> str:
    lines = [line for line in done.err.splitlines() if any(w in line for w in ("ERROR", "FATAL", "error:", "Error"))]
    return (lines or [done.reason])[0].strip()


def inside(container: str, *argv: str, step: str, timeout: float = 60.0, check: bool = True) -> Completed:
    """Run a command in a container; raises `CommandFailed` named after the command itself."""
    done = run(["docker", "exec", container, *argv], step=step, timeout=timeout, check=False)
    if check and done.code != 0:
        raise CommandFailed(step, argv, done)
    return done
