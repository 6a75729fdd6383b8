"""Add a priority to parcels.

Expands only: the release before this one neither reads nor writes the column and works unchanged. Every step
can be repeated: building an index concurrently leaves the transaction, and what was done before it stays.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

INDEX = "ix_parcels_priority"


def upgrade() -> None:
    """Add the column, then build the index while parcels are still being written."""
    op.add_column("parcels", sa.Column("priority", sa.Text, nullable=True), if_not_exists=True)
    with op.get_context().autocommit_block():
        # An interrupted concurrent build leaves an invalid index behind, which IF NOT EXISTS would accept.
        op.drop_index(INDEX, table_name="parcels", if_exists=True, postgresql_concurrently=True)
        op.create_index(INDEX, "parcels", ["priority"], postgresql_concurrently=True)


def downgrade() -> None:
    """Take index and column away; only for development, as releases never move the schema back."""
    with op.get_context().autocommit_block():
        op.drop_index(INDEX, table_name="parcels", if_exists=True, postgresql_concurrently=True)
    op.drop_column("parcels", "priority", if_exists=True)
