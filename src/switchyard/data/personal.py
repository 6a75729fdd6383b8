"""Which columns hold personal data, and whether a sanitising statement is declared for each. Pure.

A column is personal when its comment in the database contains the word `personal`, or when the inventory lists it.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from switchyard.errors import Exit, SwitchyardError

_NAME = re.compile(r"([^.]+\.)?[^.]+\.[^.]+")

# Every column of the application's tables, and whether its comment says that it is personal.
COLUMNS = """
SELECT n.nspname || '.' || c.relname || '.' || a.attname,
  coalesce(col_description(c.oid, a.attnum) ~* '\\mpersonal\\M', false)
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
  AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
ORDER BY 1
"""


@dataclass(frozen=True)
class Statement:
    """SQL that makes personal data harmless, and the columns that it does that for."""

    sql: str
    covers: list[str] = field(default_factory=list)


def full(column: str) -> str:
    """A column as SCHEMA.TABLE.COLUMN; what has no schema is in `public`."""
    return column if column.count(".") == 2 else f"public.{column}"


def require_names(columns: Iterable[str], where: str) -> None:
    """Refuse what names no column."""
    for column in columns:
        if not _NAME.fullmatch(column):
            raise SwitchyardError(
                f"{where}: '{column}' is no column: write TABLE.COLUMN or SCHEMA.TABLE.COLUMN.", Exit.USAGE
            )


def require_covered(
    tagged: Iterable[str],
    listed: Sequence[str],
    statements: Sequence[Statement],
    known: Iterable[str] | None,
    *,
    nothing_personal: bool,
) -> list[str]:
    """Return every personal column, or raise `SwitchyardError` naming those that nothing sanitises.

    `tagged` are the columns whose comments say so, `listed` those of the inventory. `known` is every column that there
    is; None before anything was restored, and then only the inventory is judged by itself.
    """
    personal = sorted({*tagged, *map(full, listed)})
    covered = {full(column) for statement in statements for column in statement.covers}
    if known is not None:
        everything = set(known)
        unknown = sorted(({*map(full, listed)} | covered) - everything)
        if unknown:
            raise SwitchyardError(
                f"The inventory names columns that the restored database does not have: {', '.join(unknown)}. Correct "
                "backup_refresh_personal or backup_refresh_sanitise.",
                Exit.PREFLIGHT,
            )
        if not personal and not nothing_personal:
            raise SwitchyardError(
                "No column is tagged personal, so nothing proves that this data may leave production: tag columns "
                "(COMMENT ON COLUMN TABLE.COLUMN IS 'personal', or backup_refresh_personal), or set "
                "backup_refresh_nothing_personal to true.",
                Exit.PREFLIGHT,
            )
    missing = [column for column in personal if column not in covered]
    if missing:
        raise SwitchyardError(
            f"Nothing sanitises these personal columns: {', '.join(missing)}. Add statements that cover them to "
            "backup_refresh_sanitise.",
            Exit.PREFLIGHT,
        )
    return personal
