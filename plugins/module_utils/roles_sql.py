"""The SQL that makes a database's roles, and the query that tells whether anything is different. Pure text."""

# ruff: noqa: S608 - every name and value passes through identifier() or literal()
from __future__ import annotations

from dataclasses import dataclass, field


def identifier(name: str) -> str:
    """Quote a name for SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: str) -> str:
    """Quote a text for SQL, whatever `standard_conforming_strings` says."""
    escaped = value.replace("\\", "\\\\").replace("'", "''")
    return f"E'{escaped}'"


@dataclass(frozen=True)
class Roles:
    """One database with its owner and the application's rights (neither can log in), and the logins that have them."""

    database: str
    owner: str
    app: str
    migrate: str
    logins: dict[str, bool] = field(default_factory=dict)
    """The application's logins, each with whether it is open. Two of them may be: that is how a password is rotated."""
    verifiers: dict[str, str] = field(default_factory=dict)
    """Password verifiers to set, by role; a role that is not named keeps its own."""
    app_settings: dict[str, str] = field(default_factory=dict)
    migrate_settings: dict[str, str] = field(default_factory=dict)
    """What is set for every session of the login."""
    monitor: str = ""
    """A login that may read statistics of every database, and no data; '' for none."""
    pooler: str = ""
    """A login that may ask for the verifiers of the application's logins, and nothing else; '' for none."""
    replica: str = ""
    """A login that may stream everything that is written, and read nothing by SQL; '' for none."""

    def statements(self) -> list[str]:
        """Everything, to be run in one transaction by a superuser connected to the database; safe to repeat."""
        owner, app, migrate = identifier(self.owner), identifier(self.app), identifier(self.migrate)
        database = identifier(self.database)
        result = [
            *self._role(self.owner, "NOLOGIN"),
            *self._role(self.app, "NOLOGIN"),
            *self._role(self.migrate, "LOGIN"),
            f"GRANT {owner} TO {migrate}",
            f"ALTER DATABASE {database} OWNER TO {owner}",
            f"REVOKE ALL ON DATABASE {database} FROM PUBLIC",
            f"GRANT CONNECT, TEMPORARY ON DATABASE {database} TO {app}, {migrate}",
            f"ALTER SCHEMA public OWNER TO {owner}",
            "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
            f"GRANT USAGE ON SCHEMA public TO {app}",
            # What is there already, and what the owner makes from now on.
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {app}",
            f"GRANT USAGE, SELECT, UPDATE ON ALL SEQUENCES IN SCHEMA public TO {app}",
            f"ALTER DEFAULT PRIVILEGES FOR ROLE {owner} GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {app}",
            f"ALTER DEFAULT PRIVILEGES FOR ROLE {owner} GRANT USAGE, SELECT, UPDATE ON SEQUENCES TO {app}",
        ]
        for login, is_open in self.logins.items():
            result += [*self._role(login, "LOGIN" if is_open else "NOLOGIN"), f"GRANT {app} TO {identifier(login)}"]
        if self.monitor:
            name = identifier(self.monitor)
            result += [*self._role(self.monitor, "LOGIN"), f"GRANT pg_monitor TO {name}"]
            result.append(f"GRANT CONNECT ON DATABASE {database} TO {name}")
        if self.pooler:
            result += self._pooler()
        if self.replica:
            result += [*self._role(self.replica, "LOGIN"), f"ALTER ROLE {identifier(self.replica)} REPLICATION"]
        # What a migration makes belongs to the owner, whichever login ran it. Settings are not inherited by members.
        settings = {self.migrate: {**self.migrate_settings, "role": self.owner}}
        settings |= dict.fromkeys((self.app, *self.logins), self.app_settings)
        for role, values in settings.items():
            result.append(f"ALTER ROLE {identifier(role)} RESET ALL")
            result += [
                f"ALTER ROLE {identifier(role)} SET {name} = {literal(value)}" for name, value in sorted(values.items())
            ]
        return result

    def _pooler(self) -> list[str]:
        pooler = identifier(self.pooler)
        logins = ", ".join(literal(login) for login in self.logins)
        # What is given is no password, and could be searched for one: nobody else may ask, and for nobody else's.
        query = (
            "SELECT r.rolname::text, r.rolpassword FROM pg_catalog.pg_authid r "
            f"WHERE r.rolname = asked AND r.rolcanlogin AND r.rolname IN ({logins})"
        )
        return [
            *self._role(self.pooler, "LOGIN"),
            f"GRANT CONNECT ON DATABASE {identifier(self.database)} TO {pooler}",
            "CREATE SCHEMA IF NOT EXISTS switchyard",
            f"GRANT USAGE ON SCHEMA switchyard TO {pooler}",
            "CREATE OR REPLACE FUNCTION switchyard.login(asked text) RETURNS TABLE (name text, verifier text) "
            f"LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog AS {literal(query)}",
            "REVOKE ALL ON FUNCTION switchyard.login(text) FROM PUBLIC",
            f"GRANT EXECUTE ON FUNCTION switchyard.login(text) TO {pooler}",
        ]

    def _role(self, name: str, login: str) -> list[str]:
        attributes = f"{login} NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS INHERIT"
        attributes += f" PASSWORD {literal(self.verifiers[name])}" if name in self.verifiers else ""
        attributes += " PASSWORD NULL" if login == "NOLOGIN" else ""
        missing = f"SELECT 1 FROM pg_roles WHERE rolname = {literal(name)}"
        return [
            f"DO $switchyard$ BEGIN IF NOT EXISTS ({missing}) THEN CREATE ROLE {identifier(name)}; END IF; "
            "END $switchyard$",
            f"ALTER ROLE {identifier(name)} {attributes}",
        ]

    def farewell(self) -> list[str]:
        """End the sessions of closed logins; to be run once these can log in no more. Empty when none is closed."""
        closed = ", ".join(literal(login) for login, is_open in self.logins.items() if not is_open)
        if not closed:
            return []
        return [f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename IN ({closed})"]

    def state(self) -> str:
        """A query for one line of text that is the same as long as nothing above would change anything."""
        names = ", ".join(
            literal(name)
            for name in (self.owner, self.app, self.migrate, *self.logins, self.monitor, self.pooler, self.replica)
        )
        parts = [
            "(SELECT string_agg(row(rolname, rolsuper, rolcreatedb, rolcreaterole, rolcanlogin, rolreplication, "
            "rolbypassrls, rolinherit, rolpassword)::text, ' ' ORDER BY rolname) "
            f"FROM pg_authid WHERE rolname IN ({names}))",
            "(SELECT string_agg(r.rolname || array_to_string(ARRAY(SELECT unnest(s.setconfig) ORDER BY 1), ','), ' ' "
            "ORDER BY r.rolname) FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = s.setrole "
            f"WHERE r.rolname IN ({names}))",
            "(SELECT string_agg(row(m.rolname, o.rolname)::text, ' ' ORDER BY m.rolname, o.rolname) "
            "FROM pg_auth_members a JOIN pg_roles m ON m.oid = a.member JOIN pg_roles o ON o.oid = a.roleid "
            f"WHERE m.rolname IN ({names}))",
            f"(SELECT row(datdba::regrole, {_sorted('datacl')})::text FROM pg_database "
            "WHERE datname = current_database())",
            f"(SELECT row(nspowner::regrole, {_sorted('nspacl')})::text FROM pg_namespace WHERE nspname = 'public')",
            f"(SELECT row(nspowner::regrole, {_sorted('nspacl')})::text FROM pg_namespace "
            "WHERE nspname = 'switchyard')",
            f"(SELECT row(proowner::regrole, prosecdef, proconfig, prosrc, {_sorted('proacl')})::text FROM pg_proc "
            "WHERE oid = to_regprocedure('switchyard.login(text)'))",
            f"(SELECT string_agg(row(relname, {_sorted('relacl')})::text, ' ' ORDER BY relname) FROM pg_class "
            "WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S'))",
            "(SELECT string_agg(row(defaclrole::regrole, defaclnamespace, defaclobjtype, "
            f"{_sorted('defaclacl')})::text, ' ' ORDER BY defaclrole, defaclnamespace, defaclobjtype) "
            "FROM pg_default_acl)",
        ]
        # The state holds password verifiers, so only its hash leaves the server.
        text = " || '|' || ".join(f"coalesce({part}, '')" for part in parts)
        return f"SELECT encode(sha256(convert_to({text}, 'UTF8')), 'hex')"


def _sorted(acl: str) -> str:
    """An access list as text, in an order of its own: a repeated GRANT may move entries."""
    return f"array_to_string(ARRAY(SELECT unnest({acl})::text ORDER BY 1), ',')"
