"""How often a study was changed, and when each of its trials was last."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Counted from now on."""
    for table in ("studies", "trials"):
        op.add_column(table, sa.Column("revision", sa.Integer, nullable=False, server_default="0"))
    op.create_index("ix_trials_revision", "trials", ["study_id", "revision"])
